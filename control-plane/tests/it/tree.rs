//! What the tree permits, against a naive model; and what an edit that is refused leaves behind.

use std::collections::BTreeMap;

use proxyxai_core::{
    account::{limits::Asked, tree::AccountIndex},
    snapshot::Snapshot,
};
use proxyxai_proto::{
    admin::v1::{
        CreateAccountRequest, StringList, UpdateAccountRequest, UpdateProviderRequest,
        UpdateRouteRequest,
    },
    config::v1::Account,
};
use tonic::Code;

use crate::{
    editor::{Dice, all_accounts, provider, random_edit, route_request, upstream_key},
    harness::{World, ok, refused},
    node::fresh,
};

const MODELS: [&str; 6] = ["gpt-4o", "gpt-4o-mini", "claude-x", "m/a", "", "*"];
const PATTERNS: [&str; 6] = ["*", "gpt-*", "*-mini", "claude-x", "m/*", "gpt-4o*"];

/// `*` matches any run: tried in every way, the slow and obvious one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name) || name.split_first().is_some_and(|(_, n)| matches(pattern, n))
        }
        (Some((p, rest)), Some((n, name))) => p == n && matches(rest, name),
        _ => false,
    }
}

/// Whether a list below this account would permit what it or one above it does not: `*` in a pattern counts as a name of its own.
fn widens(model: &BTreeMap<String, Account>, parent: &str, allowed: &[String]) -> bool {
    let line = std::iter::successors(model.get(parent), |a| model.get(&a.parent_id));
    let mut lists = line.map(|account| &account.allowed_models);
    lists.any(|list| {
        let covered = |inner: &String| {
            let mut outer = list.iter();
            outer.any(|outer| matches(outer.as_bytes(), inner.as_bytes()))
        };
        !list.is_empty() && !allowed.iter().all(covered)
    })
}

/// Whether the account alone permits a model.
fn permits(account: &Account, model: &str) -> bool {
    let any = |pattern: &String| matches(pattern.as_bytes(), model.as_bytes());
    !account.suspended
        && (account.allowed_models.is_empty() || account.allowed_models.iter().any(any))
}

fn check_tree(snapshot: &Snapshot, model: &BTreeMap<String, Account>, seed: u64) {
    assert_eq!(snapshot.accounts.all().count(), model.len(), "seed {seed}");
    for account in model.values() {
        let at = snapshot.accounts.get(&account.id).unwrap();
        let line: Vec<&Account> =
            std::iter::successors(Some(account), |a| model.get(&a.parent_id)).collect();
        for name in MODELS {
            let want = line.iter().all(|account| permits(account, name));
            let asked = Asked::model(name);
            let got = |at: AccountIndex| {
                snapshot.accounts.active(at).is_ok()
                    && snapshot.accounts.permits(at, &asked).is_ok()
            };
            assert_eq!(
                got(at),
                want,
                "seed {seed}: {name} at {}",
                snapshot.accounts.path(at)
            );
            if let Some(parent) = snapshot.accounts.get(&account.parent_id) {
                assert!(
                    !got(at) || got(parent),
                    "seed {seed}: {name} below {parent:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn law_15_no_child_permits_what_an_ancestor_forbids() {
    for seed in 1..=6 {
        let plane = World::new().start().await;
        let mut dice = Dice::new(seed);
        let root = all_accounts(&plane).await.remove(0).account.unwrap();
        let mut model = BTreeMap::from([(root.id.clone(), root)]);
        for step in 0..60 {
            let ids: Vec<&String> = model.keys().collect();
            let account = (*dice.pick(&ids)).clone();
            let allowed: Vec<String> = (0..dice.roll(3))
                .map(|_| dice.pick(&PATTERNS).to_string())
                .collect();
            let new = dice.roll(2) == 0;
            let parent = if new {
                Some(&account)
            } else {
                model.get(&account).map(|account| &account.parent_id)
            };
            let widens = widens(&model, parent.unwrap(), &allowed);
            let changed = if new {
                let request = CreateAccountRequest {
                    parent: account,
                    name: format!("n{step}"),
                    allowed_models: allowed,
                    ..CreateAccountRequest::default()
                };
                let made = plane.accounts().create_account(request).await;
                made.map(|made| made.into_inner().account)
            } else {
                let request = UpdateAccountRequest {
                    account,
                    suspended: Some(dice.roll(8) == 0),
                    allowed_models: Some(StringList { values: allowed }),
                    ..UpdateAccountRequest::default()
                };
                let changed = plane.accounts().update_account(request).await;
                changed.map(|changed| changed.into_inner().account)
            };
            if widens {
                let words = ["allows; an account or key below it may only allow less"];
                refused(
                    changed.map(tonic::Response::new),
                    Code::InvalidArgument,
                    &words,
                );
                continue;
            }
            let account = changed.unwrap().unwrap().account.unwrap();
            model.insert(account.id.clone(), account);
        }
        check_tree(&fresh(&plane).await.snapshot(), &model, seed);
        for view in all_accounts(&plane).await {
            let account = view.account.unwrap();
            let mut line = std::iter::successors(Some(&account), |a| model.get(&a.parent_id));
            assert_eq!(
                view.effectively_suspended,
                line.any(|a| a.suspended),
                "seed {seed}"
            );
            assert_eq!(
                model[&account.id], account,
                "seed {seed}: nothing moves by itself"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn law_10_a_refused_change_leaves_what_was_there_also_after_a_restart() {
    let world = World::new();
    let mut plane = world.start().await;
    provider(&plane, "p").await;
    upstream_key(&plane, "u", "p").await;
    ok(plane
        .routes()
        .create_route(route_request("r", "gpt-*", &["p"]))
        .await);
    let (before, head) = (fresh(&plane).await, plane.head());
    for _ in 0..2 {
        let stored = world.entries().await;
        let account = UpdateAccountRequest {
            account: String::new(),
            name: None,
            suspended: Some(true),
            allowed_models: Some(StringList {
                values: vec!["ok".into(), String::new()],
            }),
            ..UpdateAccountRequest::default()
        };
        refused(
            plane.accounts().update_account(account).await,
            Code::InvalidArgument,
            &["allowed_models: a model pattern must not be empty"],
        );
        let provider = UpdateProviderRequest {
            id: "p".into(),
            base_url: Some("http://192.168.0.1".into()),
            disabled: Some(true),
            ..UpdateProviderRequest::default()
        };
        refused(
            plane.providers().update_provider(provider).await,
            Code::InvalidArgument,
            &["base_url: http://192.168.0.1 is a private address"],
        );
        let route = UpdateRouteRequest {
            id: "r".into(),
            model: Some("*".into()),
            provider_ids: Some(StringList {
                values: vec!["q".into()],
            }),
            ..UpdateRouteRequest::default()
        };
        refused(
            plane.routes().update_route(route).await,
            Code::InvalidArgument,
            &["provider_ids: "],
        );
        assert_eq!(plane.head(), head);
        assert_eq!(world.entries().await, stored);
        let now = fresh(&plane).await;
        assert!(now.content == before.content && now.version == before.version);
        drop(plane);
        plane = world.start().await;
    }
}

#[tokio::test(start_paused = true)]
async fn law_10_whatever_was_edited_the_store_compiles_after_a_restart() {
    for seed in 100..103 {
        let world = World::new();
        let (mut plane, mut dice) = (world.start().await, Dice::new(seed));
        for _ in 0..3 {
            for _ in 0..40 {
                let _refusals_are_among_them = random_edit(&plane, &mut dice).await;
            }
            let before = fresh(&plane).await;
            drop(plane);
            plane = world.start().await;
            let after = fresh(&plane).await;
            assert_eq!(before.version, after.version, "seed {seed}");
            assert!(before.content == after.content, "seed {seed}");
        }
    }
}
