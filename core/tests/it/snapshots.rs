//! Contents, their differences, and what is compiled from them.

use std::sync::Arc;

use proptest::prelude::*;
use proxyxai_core::{
    account::{key::KeyDigest, tree::AccountIndex},
    dialect::Dialect,
    snapshot::{
        Change, Content, Digest, KeyTableBuilder, ResourceKind, Snapshot, Version,
        compile::in_table_alone,
    },
};
use proxyxai_proto::config::v1::{
    Account, Provider, ProviderKind, Resource, Route, UpstreamKey, VirtualKey, resource::Kind,
};

fn resource(kind: Kind) -> Arc<Resource> {
    Arc::new(Resource { kind: Some(kind) })
}

fn base() -> Vec<Arc<Resource>> {
    let provider = |id: &str, kind: ProviderKind| Provider {
        id: id.into(),
        kind: kind.into(),
        base_url: "https://example.com".into(),
        allow_private: false,
        disabled: false,
    };
    vec![
        resource(Kind::Account(Account {
            id: "root".into(),
            name: "root".into(),
            ..Account::default()
        })),
        resource(Kind::Provider(provider("one", ProviderKind::Openai))),
        resource(Kind::Provider(provider("two", ProviderKind::Anthropic))),
    ]
}

fn account(number: u8) -> Arc<Resource> {
    some_account(number, false)
}

fn some_account(number: u8, suspended: bool) -> Arc<Resource> {
    resource(Kind::Account(Account {
        id: format!("acc{number}"),
        parent_id: "root".into(),
        name: format!("n{number}"),
        suspended,
        ..Account::default()
    }))
}

fn key(number: u8, account: u8, disabled: bool, terms: u8) -> Arc<Resource> {
    let plain = VirtualKey {
        id: format!("key{number:09}"),
        account_id: if account == 0 {
            "root".into()
        } else {
            format!("acc{account}")
        },
        name: "k".into(),
        disabled,
        digest: vec![number; 16],
        ..VirtualKey::default()
    };
    resource(Kind::VirtualKey(match terms {
        0 => plain,
        1 => VirtualKey {
            expires_unix_ms: i64::from(number),
            ..plain
        },
        2 => VirtualKey {
            allowed_models: vec!["gpt-*".into()],
            ..plain
        },
        _ => VirtualKey {
            digest: vec![100 + number * 3 + terms % 2; 16],
            previous_digest: vec![102 + number * 3; 16],
            previous_expires_unix_ms: 5,
            ..plain
        },
    }))
}

fn upstream(number: u8, provider: &str, disabled: bool) -> Arc<Resource> {
    resource(Kind::UpstreamKey(UpstreamKey {
        id: format!("up{number}"),
        provider_id: provider.into(),
        disabled,
        secret: format!("sk-{number}").into_bytes(),
        ..UpstreamKey::default()
    }))
}

fn contents() -> impl Strategy<Value = Content> {
    let keys = prop::collection::vec((0_u8..12, 0_u8..4, any::<bool>(), 0_u8..5), 0..12);
    let spare = prop::collection::vec((1_u8..4, any::<bool>()), 0..4);
    let upstreams = prop::collection::vec((0_u8..6, any::<bool>(), any::<bool>()), 0..6);
    (keys, spare, upstreams).prop_map(|(keys, spare, upstreams)| {
        let used = keys.iter().map(|(_, account, ..)| (*account, false));
        let accounts: Vec<_> = used
            .chain(spare)
            .filter(|(number, _)| *number > 0)
            .map(|(number, suspended)| some_account(number, suspended))
            .collect();
        let keys = keys
            .into_iter()
            .map(|(number, account, disabled, terms)| key(number, account, disabled, terms));
        let upstreams = upstreams
            .into_iter()
            .map(|(n, second, disabled)| upstream(n, if second { "two" } else { "one" }, disabled));
        let all = base().into_iter().chain(accounts);
        all.chain(keys).chain(upstreams).collect()
    })
}

/// What a node keeps of a content in full: all but what is in its table of keys alone.
fn rest(content: &Content) -> Content {
    let kept = content
        .iter()
        .filter(|(_, resource)| !in_table_alone(resource));
    kept.map(|(_, resource)| Arc::clone(resource)).collect()
}

/// A content compiled as a node does it.
fn assembled(content: &Content) -> Snapshot {
    let mut keys = KeyTableBuilder::default();
    for resource in content.of_kind(ResourceKind::VirtualKey) {
        if let Some(Kind::VirtualKey(key)) = &resource.kind
            && in_table_alone(resource)
        {
            keys.push_key(key, Digest::of(resource)).unwrap();
        }
    }
    Snapshot::assemble(VERSION, &rest(content), keys).unwrap()
}

const VERSION: Version = Version {
    generation: 1,
    revision: 1,
};

/// What a snapshot answers, for all questions of these tests.
fn answers(snapshot: &Snapshot) -> String {
    let keys: Vec<String> = (0_u8..150)
        .map(|n| {
            let Some(mut found) = snapshot.key(&KeyDigest([n; 16])) else {
                return String::new();
            };
            // Where an account stands depends on how the tree came about.
            let at = std::mem::replace(&mut found.record.account, AccountIndex(0));
            let (path, active) = (snapshot.accounts.path(at), snapshot.accounts.active(at));
            format!("{found:?} {path} {active:?}")
        })
        .collect();
    let pools: Vec<String> = Dialect::ALL
        .iter()
        .map(|d| {
            format!(
                "{:?}",
                snapshot
                    .pool(*d, Some("gpt-4o"))
                    .map(|(_, pool)| pool.levels.clone())
            )
        })
        .collect();
    let accounts: Vec<String> = snapshot
        .accounts
        .all()
        .map(|at| snapshot.accounts.path(at))
        .collect();
    format!("{keys:?} {pools:?} {accounts:?} {:?}", snapshot.digest)
}

proptest! {
    #[test]
    fn law_9_same_content_same_digest_whatever_the_order(content in contents(), seed in any::<u64>()) {
        let mut resources: Vec<_> = content.iter().map(|(_, resource)| Arc::clone(resource)).collect();
        let turn = usize::try_from(seed).unwrap_or(7) % resources.len().max(1);
        resources.rotate_left(turn);
        resources.reverse();
        let again: Content = resources.into_iter().collect();
        prop_assert_eq!(again.digest(), content.digest());
    }

    #[test]
    fn applying_a_difference_gives_the_other_content(a in contents(), b in contents()) {
        let changes = a.diff(&b);
        let mut stepped = a.clone();
        changes.iter().cloned().for_each(|change| stepped.apply(change));
        prop_assert!(stepped == b && stepped.digest() == b.digest());
        let before = Snapshot::compile(VERSION, &a).unwrap();
        let next = before.advance(VERSION, &b, &changes).unwrap();
        prop_assert_eq!(answers(&next), answers(&Snapshot::compile(VERSION, &b).unwrap()));
        // A second delivery changes nothing.
        changes.into_iter().for_each(|change| stepped.apply(change));
        prop_assert!(stepped == b && stepped.digest() == b.digest());
    }

    #[test]
    fn a_table_of_keys_follows_differences_under_any_redelivery(
        steps in prop::collection::vec(contents(), 1..5),
        repeats in prop::collection::vec(any::<bool>(), 5),
        seed in any::<u64>(),
    ) {
        let mut held = Content::default();
        let mut snapshot = Snapshot::empty();
        for (next, again) in steps.into_iter().zip(repeats) {
            let mut changes: Vec<Change> = held.diff(&next);
            let turn = usize::try_from(seed).unwrap_or(7) % changes.len().max(1);
            changes.rotate_left(turn);
            if again {
                changes = [changes.clone(), changes].concat();
            }
            snapshot = snapshot.advance_table(VERSION, &rest(&next), &changes).unwrap();
            let whole = answers(&Snapshot::compile(VERSION, &next).unwrap());
            prop_assert_eq!(snapshot.digest, next.digest());
            prop_assert_eq!(&answers(&snapshot), &whole);
            prop_assert_eq!(&answers(&assembled(&next)), &whole);
            // Delivered again, when all is in force already.
            let twice = snapshot.advance_table(VERSION, &rest(&next), &changes).unwrap();
            prop_assert_eq!(&answers(&twice), &whole);
            held = next;
        }
    }

    #[test]
    fn law_10_an_account_with_keys_does_not_go(content in contents(), number in 1_u8..4) {
        let gone = account(number);
        let Some(Kind::Account(Account { id, .. })) = &gone.kind else { return Ok(()) };
        let snapshot = assembled(&content);
        let users = content.of_kind(ResourceKind::VirtualKey).filter(|key| {
            matches!(&key.kind, Some(Kind::VirtualKey(key)) if key.account_id == *id)
        });
        let users = users.count();
        let name = proxyxai_core::snapshot::ResourceName { kind: ResourceKind::Account, id: id.clone() };
        let mut without = rest(&content);
        without.remove(&name);
        let next = snapshot.advance_table(VERSION, &without, &[Change::Remove(name)]);
        prop_assert_eq!(next.map(|_| 0).unwrap_or_else(|rejected| rejected.len()), users);
    }
}

fn check_rejected(extra: Kind, want: &str) {
    let content: Content = base().into_iter().chain([resource(extra)]).collect();
    let rejections = Snapshot::compile(VERSION, &content)
        .err()
        .unwrap_or_default();
    let text: Vec<String> = rejections.iter().map(ToString::to_string).collect();
    assert!(
        text.iter().any(|line| line.contains(want)),
        "{text:?} does not say {want:?}"
    );
}

#[test]
fn law_10_what_does_not_fit_is_refused_by_name() {
    let provider = |id: &str, base_url: &str, kind: i32| {
        Kind::Provider(Provider {
            id: id.into(),
            kind,
            base_url: base_url.into(),
            allow_private: false,
            disabled: false,
        })
    };
    check_rejected(
        provider("Bad", "https://x", 1),
        "provider `Bad`: an id has 1 to 63 lower-case letters",
    );
    check_rejected(
        provider("p", "ftp://x", 1),
        "provider `p`: a base address begins with",
    );
    check_rejected(provider("p", "http://127.0.0.1", 1), "is a private address");
    check_rejected(
        provider("p", "https://x", 99),
        "its kind is not one that this version knows",
    );
    let key = |id: &str, account: &str, digest: usize| {
        Kind::VirtualKey(VirtualKey {
            id: id.into(),
            account_id: account.into(),
            digest: vec![0; digest],
            ..VirtualKey::default()
        })
    };
    check_rejected(
        key("keykeykey000", "nobody", 16),
        "its account `nobody` does not exist",
    );
    check_rejected(key("short", "root", 16), "does not have the right length");
    check_rejected(
        Kind::VirtualKey(VirtualKey {
            id: "keykeykey000".into(),
            account_id: "root".into(),
            digest: vec![0; 16],
            allowed_networks: vec!["10.0.0.1/8".into()],
            ..VirtualKey::default()
        }),
        "virtual_key `keykeykey000`: allowed_networks: `10.0.0.1/8` has bits beyond its prefix",
    );
    check_rejected(
        key("keykeykey000", "root", 5),
        "does not have the right length",
    );
    let upstream = |provider: &str, secret: &str| {
        Kind::UpstreamKey(UpstreamKey {
            id: "u".into(),
            provider_id: provider.into(),
            disabled: false,
            secret: secret.into(),
            ..UpstreamKey::default()
        })
    };
    check_rejected(
        upstream("nobody", "sk"),
        "its provider `nobody` does not exist",
    );
    check_rejected(upstream("one", "s k"), "cannot stand in a header");
    check_rejected(upstream("one", ""), "its secret is empty");
    let route = |model: &str, providers: &[&str]| {
        Kind::Route(Route {
            id: "r".into(),
            model: model.into(),
            provider_ids: providers.iter().map(ToString::to_string).collect(),
            ..Route::default()
        })
    };
    check_rejected(route("", &["one"]), "a model pattern must not be empty");
    check_rejected(route("*", &[]), "it names no provider");
    check_rejected(
        route("*", &["nobody"]),
        "its provider `nobody` does not exist",
    );
}

#[test]
fn the_most_specific_route_serves() {
    let route = |id: &str, model: &str, provider: &str| {
        resource(Kind::Route(Route {
            id: id.into(),
            model: model.into(),
            provider_ids: vec![provider.into()],
            ..Route::default()
        }))
    };
    let extra = [
        upstream(1, "one", false),
        upstream(2, "two", false),
        upstream(3, "one", true),
        route("a", "gpt-*", "one"),
        route("b", "gpt-4o*", "two"),
        route("c", "claude-*", "two"),
    ];
    let content: Content = base().into_iter().chain(extra).collect();
    let snapshot = Snapshot::compile(VERSION, &content).unwrap();
    let check = |dialect: Dialect, model: &str, want: &str| {
        let (_, pool) = snapshot.pool(dialect, Some(model)).unwrap();
        let ids: Vec<&str> = pool
            .keys()
            .map(|at| &*snapshot.upstream(at).unwrap().0.id)
            .collect();
        assert_eq!(format!("{} {ids:?}", pool.name), want, "{model}");
    };
    check(Dialect::OpenaiChat, "gpt-3", "a/openai_chat [\"up1\"]");
    // The provider of the more specific route does not speak this dialect, so nothing serves it: never another provider in secret.
    check(Dialect::OpenaiChat, "gpt-4o-mini", "b/openai_chat []");
    check(
        Dialect::OpenaiChat,
        "other",
        "default/openai_chat [\"up1\"]",
    );
    check(
        Dialect::AnthropicMessages,
        "claude-x",
        "c/anthropic_messages [\"up2\"]",
    );
}
