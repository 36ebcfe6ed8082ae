//! What is kept of a content when some of it does not fit.

use std::sync::Arc;

use proptest::prelude::*;
use proxyxai_core::snapshot::{Content, Newcomers, ResourceName, Snapshot, Version, fit};
use proxyxai_proto::config::v1::{
    Account, Provider, Resource, Route, UpstreamKey, VirtualKey, resource::Kind,
};

const VERSION: Version = Version {
    generation: 1,
    revision: 1,
};

fn resource(kind: Kind) -> Arc<Resource> {
    Arc::new(Resource { kind: Some(kind) })
}

fn account(id: &str, parent: &str, name: &str) -> Arc<Resource> {
    resource(Kind::Account(Account {
        id: id.into(),
        parent_id: parent.into(),
        name: name.into(),
        ..Account::default()
    }))
}

fn key(id: u8, account: &str, digest: u8) -> Arc<Resource> {
    resource(Kind::VirtualKey(VirtualKey {
        id: format!("key{id:09}"),
        account_id: account.into(),
        digest: vec![digest; 16],
        ..VirtualKey::default()
    }))
}

/// A key that was rotated: its former digest still leads to it.
fn rotated(id: u8, digest: u8, previous: u8) -> Arc<Resource> {
    resource(Kind::VirtualKey(VirtualKey {
        id: format!("key{id:09}"),
        account_id: "root".into(),
        digest: vec![digest; 16],
        previous_digest: vec![previous; 16],
        previous_expires_unix_ms: i64::MAX,
        ..VirtualKey::default()
    }))
}

fn provider(id: &str, kind: i32) -> Arc<Resource> {
    resource(Kind::Provider(Provider {
        id: id.into(),
        kind,
        base_url: "https://example.com".into(),
        ..Provider::default()
    }))
}

fn upstream(id: &str, provider: &str) -> Arc<Resource> {
    resource(Kind::UpstreamKey(UpstreamKey {
        id: id.into(),
        provider_id: provider.into(),
        secret: b"sk".to_vec(),
        ..UpstreamKey::default()
    }))
}

fn route(id: &str, providers: &[&str]) -> Arc<Resource> {
    let mut route = Route {
        id: id.into(),
        ..Route::default()
    };
    route.model = "gpt-*".into();
    route.provider_ids = providers.iter().map(ToString::to_string).collect();
    resource(Kind::Route(route))
}

/// Anything, fitting or not, over few names that depend on one another.
fn any_resource() -> impl Strategy<Value = Arc<Resource>> {
    let few = 0_u8..5;
    prop_oneof![
        (few.clone(), 0_u8..7, few.clone()).prop_map(|(id, parent, name)| {
            let parent = if parent >= 5 {
                "root".into()
            } else {
                format!("a{parent}")
            };
            account(&format!("a{id}"), &parent, &format!("n{name}"))
        }),
        (few.clone(), 0_u8..7, few.clone()).prop_map(|(id, at, digest)| {
            let at = if at >= 5 {
                "root".into()
            } else {
                format!("a{at}")
            };
            key(id, &at, digest)
        }),
        (few.clone(), 0_i32..6).prop_map(|(id, kind)| provider(&format!("p{id}"), kind)),
        (few.clone(), few.clone())
            .prop_map(|(id, at)| upstream(&format!("u{id}"), &format!("p{at}"))),
        (few.clone(), few.clone(), few).prop_map(|(id, a, b)| {
            route(&format!("r{id}"), &[&format!("p{a}"), &format!("p{b}")])
        }),
    ]
}

fn contents() -> impl Strategy<Value = Content> {
    let root = account("root", "", "root");
    prop::collection::vec(any_resource(), 0..24)
        .prop_map(move |resources| resources.into_iter().chain([Arc::clone(&root)]).collect())
}

/// What a content is without all that never was in force.
fn in_force(content: &Content) -> Content {
    fit(VERSION, content, &all_new(content)).content
}

fn all_new(content: &Content) -> Newcomers {
    let names = content.iter().filter(|(name, _)| name.id != "root");
    names.map(|(name, _)| (name.clone(), None)).collect()
}

/// What `offered` changes in `before`.
fn newcomers(before: &Content, offered: &Content) -> Newcomers {
    let new = offered
        .iter()
        .filter(|(name, resource)| before.get(name) != Some(resource));
    new.map(|(name, _)| (name.clone(), before.get(name).cloned()))
        .collect()
}

proptest! {
    #[test]
    fn law_10_what_is_left_compiles_and_what_is_not_is_named(content in contents()) {
        let fitted = fit(VERSION, &content, &all_new(&content));
        let compiled = Snapshot::compile(VERSION, &fitted.content);
        prop_assert!(compiled.is_ok(), "{:?}", compiled.err());
        prop_assert_eq!(fitted.snapshot.digest, fitted.content.digest());
        for (name, _) in content.iter() {
            let left = fitted.content.get(name).is_some();
            prop_assert!(left != fitted.withheld.contains_key(name), "{}", name);
        }
        // The same again, whatever the order in which it came.
        let mut resources: Vec<_> = content.iter().map(|(_, r)| Arc::clone(r)).collect();
        resources.reverse();
        let again: Content = resources.into_iter().collect();
        let other = fit(VERSION, &again, &all_new(&again));
        prop_assert!(other.content == fitted.content && other.withheld == fitted.withheld);
        // A content of which all fits is left alone.
        let whole = fit(VERSION, &fitted.content, &all_new(&fitted.content));
        prop_assert!(whole.withheld.is_empty() && whole.content == fitted.content);
    }

    #[test]
    fn law_10_newcomers_never_take_the_place_of_what_was_in_force(first in contents(), second in contents()) {
        let before = in_force(&first);
        let mut offered = before.clone();
        second.iter().for_each(|(_, resource)| offered.upsert(Arc::clone(resource)));
        let fitted = fit(VERSION, &offered, &newcomers(&before, &offered));
        prop_assert!(Snapshot::compile(VERSION, &fitted.content).is_ok());
        for (name, was) in before.iter() {
            let now = fitted.content.get(name);
            let wanted = offered.get(name);
            prop_assert!(now == Some(was) || now == wanted, "{} is gone: {:?}", name, fitted.withheld);
        }
        for (name, resource) in offered.iter() {
            let in_force = fitted.content.get(name) == Some(resource);
            prop_assert!(in_force || fitted.withheld.contains_key(name), "{} is not named", name);
        }
    }
}

fn name(resource: &Resource) -> ResourceName {
    ResourceName::of(resource).unwrap()
}

/// Offers resources beside or in place of good ones; checks what is withheld.
fn check(good: &[Arc<Resource>], bad: &[Arc<Resource>], withheld: &[&str]) {
    let root = [account("root", "", "root"), provider("p", 1)];
    let before: Content = root.into_iter().chain(good.iter().cloned()).collect();
    Snapshot::compile(VERSION, &before).unwrap();
    let mut offered = before.clone();
    bad.iter()
        .cloned()
        .for_each(|resource| offered.upsert(resource));
    let fitted = fit(VERSION, &offered, &newcomers(&before, &offered));
    let names: Vec<String> = fitted.withheld.keys().map(ToString::to_string).collect();
    assert_eq!(names, withheld, "{:?}", fitted.withheld);
    for resource in good {
        let bad = bad.iter().any(|bad| name(bad) == name(resource));
        assert!(bad || fitted.content.get(&name(resource)) == Some(resource));
    }
}

#[test]
fn law_10_both_digests_of_a_rotated_key_are_its_own() {
    let others = [
        ("the former one as a current one", key(2, "root", 9)),
        ("the former one as a former one", rotated(2, 5, 9)),
        ("the current one as a former one", rotated(2, 5, 1)),
        ("the current one", rotated(2, 1, 5)),
    ];
    for (what, other) in others {
        println!("{what}");
        check(
            &[rotated(1, 1, 9)],
            &[other],
            &["virtual_key `key000000002`"],
        );
    }
    // Also among newcomers, of which the first has it.
    check(
        &[],
        &[rotated(1, 1, 9), rotated(2, 9, 1)],
        &["virtual_key `key000000002`"],
    );
    check(&[rotated(1, 1, 9)], &[rotated(2, 2, 8)], &[]);
}

#[test]
fn law_10_what_depends_on_something_withheld_is_withheld_too() {
    check(
        &[],
        &[
            account("a", "nobody", "a"),
            account("b", "a", "b"),
            key(1, "b", 1),
        ],
        &["account `a`", "account `b`", "virtual_key `key000000001`"],
    );
    check(
        &[],
        &[
            provider("q", 99),
            upstream("u", "q"),
            route("r", &["p", "q"]),
        ],
        &["provider `q`", "upstream_key `u`", "route `r`"],
    );
    // But for what stands in.
    check(
        &[account("a", "root", "a")],
        &[
            account("a", "nobody", "a"),
            account("b", "a", "b"),
            key(1, "b", 1),
        ],
        &["account `a`"],
    );
    check(
        &[provider("q", 1)],
        &[
            provider("q", 99),
            upstream("u", "q"),
            route("r", &["p", "q"]),
        ],
        &["provider `q`"],
    );
    // Rings, names and digests that others have.
    check(
        &[account("b", "root", "b"), account("c", "b", "c")],
        &[account("b", "c", "b")],
        &["account `b`"],
    );
    check(
        &[account("b", "root", "b"), key(5, "b", 5)],
        &[
            account("a", "root", "b"),
            key(1, "a", 1),
            key(2, "root", 5),
            key(3, "root", 6),
            key(4, "root", 6),
        ],
        &[
            "account `a`",
            "virtual_key `key000000001`",
            "virtual_key `key000000002`",
            "virtual_key `key000000004`",
        ],
    );
}

/// `a1` moves below an account that does not exist, so that it stays where it was: below `a2`, which may then not move below it.
#[test]
fn law_10_what_stands_in_for_a_newcomer_is_none() {
    let before: Content = [
        account("root", "", "root"),
        account("a1", "a2", "n1"),
        account("a2", "root", "n2"),
    ]
    .into_iter()
    .collect();
    let mut offered = before.clone();
    offered.upsert(account("a1", "a3", "n1"));
    offered.upsert(account("a2", "a1", "n2"));
    let fitted = fit(VERSION, &offered, &newcomers(&before, &offered));
    assert!(fitted.content == before, "{:?}", fitted.withheld);
}
