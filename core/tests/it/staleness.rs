//! How old what a node holds may become for an account: what its path says together, and what may be written below what.

use std::time::Duration;

use proptest::prelude::*;
use proxyxai_core::account::{
    staleness::{Held, Looser, Staleness, TooOld},
    tree::{AccountIndex, AccountTree},
};
use proxyxai_proto::config::v1::{Account, ServeExpired};

/// Seconds and what is said of serving past the limit of the deployment.
type Said = (u64, ServeExpired);

const NOTHING: Said = (0, ServeExpired::Unspecified);

fn account(id: &str, parent: &str, (max_stale_seconds, serve_expired): Said) -> Account {
    Account {
        id: id.to_owned(),
        parent_id: parent.to_owned(),
        name: id.to_owned(),
        max_stale_seconds,
        serve_expired: serve_expired.into(),
        ..Account::default()
    }
}

/// An account at the end of a path of those that say this, the root first.
fn path(said: &[Said]) -> (AccountTree, AccountIndex) {
    let ids: Vec<String> = (0..said.len())
        .map(|number| match number {
            0 => "root".to_owned(),
            _ => format!("a{number}"),
        })
        .collect();
    let parents = std::iter::once("").chain(ids.iter().map(String::as_str));
    let accounts: Vec<Account> = ids
        .iter()
        .zip(parents)
        .zip(said)
        .map(|((id, parent), said)| account(id, parent, *said))
        .collect();
    let tree = AccountTree::build(&accounts).unwrap();
    let last = tree.get(ids.last().unwrap()).unwrap();
    (tree, last)
}

fn serves(tree: &AccountTree, at: AccountIndex, age: u64, limit: u64) -> Result<(), TooOld> {
    let held = Held {
        expired: age >= limit,
        age: || Duration::from_secs(age),
    };
    tree.fresh_enough(at, held)
}

fn said() -> impl Strategy<Value = Said> {
    let seconds = prop_oneof![2 => Just(0_u64), 3 => 60..400_u64];
    let grant = prop::sample::select(vec![
        ServeExpired::Unspecified,
        ServeExpired::Allowed,
        ServeExpired::Forbidden,
    ]);
    (seconds, grant)
}

proptest! {
    #[test]
    fn law_15_no_account_outlives_a_limit_or_a_ban_above_it(
        path_said in prop::collection::vec(said(), 1..8), age in 0..500_u64, limit in 60..500_u64,
    ) {
        let (tree, at) = path(&path_said);
        let served = serves(&tree, at, age, limit).is_ok();
        let bound = path_said.iter().map(|said| said.0).filter(|seconds| *seconds != 0).min();
        let forbidden = path_said.iter().any(|said| said.1 == ServeExpired::Forbidden);
        let allowed = path_said.iter().any(|said| said.1 == ServeExpired::Allowed);
        let wanted = bound.is_none_or(|bound| age < bound) && (age < limit || (allowed && !forbidden));
        prop_assert_eq!(served, wanted);
        // Whatever binds an account above binds here too.
        for above in tree.line(at) {
            let said = tree.staleness(above);
            if said.max_stale().is_some_and(|most| age >= most.as_secs()) || (age >= limit && said.forbids_expired()) {
                prop_assert!(!served, "{} of {path_said:?}", tree.path(above));
            }
        }
    }

    #[test]
    fn law_15_what_may_be_written_permits_no_more_than_is_permitted_above(
        above in prop::collection::vec(said(), 1..6), below in said(), age in 0..500_u64, limit in 60..500_u64,
    ) {
        let (tree, parent) = path(&above);
        let wanted = Staleness::of(&account("below", "root", below)).unwrap();
        if tree.looser(parent, wanted, false).is_empty() {
            let mut all = above.clone();
            all.push(below);
            let (with, at) = path(&all);
            let inside = serves(&with, at, age, limit).is_ok();
            prop_assert!(!inside || serves(&tree, parent, age, limit).is_ok(), "{above:?} {below:?}");
            prop_assert!(below.0 == 0 || with.staleness(at).max_stale().unwrap().as_secs() == below.0, "what is written holds");
        }
    }

    #[test]
    fn a_tree_that_grew_counts_as_one_that_was_built(
        rows in prop::collection::vec((said(), any::<bool>()), 1..12),
    ) {
        let mut tree = AccountTree::build(&[account("root", "", NOTHING)]).unwrap();
        let mut left = Vec::new();
        for (number, (said, stays)) in rows.iter().enumerate() {
            let id = format!("a{number}");
            let plain = account(&id, "root", NOTHING);
            let spoken = account(&id, "root", *said);
            for step in [Some(&plain), Some(&spoken), stays.then_some(&spoken)] {
                tree = tree.step([(id.as_str(), step)]).unwrap();
            }
            left.extend(stays.then_some(said.1));
        }
        prop_assert_eq!(tree.any_serves_expired(), left.contains(&ServeExpired::Allowed));
    }
}

#[test]
fn the_limits_of_a_path_and_of_the_deployment_meet() {
    use ServeExpired::{Allowed, Forbidden, Unspecified};
    const LIMIT: u64 = 1_000;
    let deployment = "for too long";
    // What the path says; the oldest age that is served, and what is said of one second more.
    let check = |said: &[Said], oldest: u64, why: &str| {
        let (tree, at) = path(said);
        assert_eq!(serves(&tree, at, oldest, LIMIT), Ok(()), "{said:?}");
        let refusal = serves(&tree, at, oldest + 1, LIMIT)
            .unwrap_err()
            .to_string();
        assert!(refusal.contains(why), "{said:?}: {refusal}");
        assert!(refusal.contains("control plane"), "{refusal}");
    };
    check(&[NOTHING, NOTHING], 999, deployment);
    check(&[NOTHING, (60, Unspecified)], 59, "`root/a1` allows");
    check(&[(60, Unspecified), NOTHING], 59, "`root` allows");
    check(
        &[(90, Unspecified), (60, Unspecified), (80, Unspecified)],
        59,
        "60 seconds that the account `root/a1`",
    );
    check(&[NOTHING, (5_000, Unspecified)], 999, deployment);
    // Past the limit of the deployment only by leave, and never past that of an account.
    check(&[NOTHING, (5_000, Allowed)], 4_999, "`root/a1` allows");
    check(&[(60, Unspecified), (0, Allowed)], 59, "`root` allows");
    check(&[(0, Forbidden), (0, Allowed)], 999, deployment);
    check(
        &[(0, Allowed), (0, Forbidden), (0, Allowed)],
        999,
        deployment,
    );
    for said in [[NOTHING, (0, Allowed)], [(0, Allowed), NOTHING]] {
        let (tree, at) = path(&said);
        assert_eq!(serves(&tree, at, u64::MAX / 2, LIMIT), Ok(()), "{said:?}");
        assert!(tree.any_serves_expired());
    }
}

#[test]
fn who_says_more_than_is_said_above_is_refused_by_name() {
    use ServeExpired::{Allowed, Forbidden, Unspecified};
    let check = |above: &[Said], below: Said, gives: bool, wanted: &[(&str, &str)]| {
        let (tree, parent) = path(above);
        let said = Staleness::of(&account("below", "root", below)).unwrap();
        let found = tree.looser(parent, said, gives);
        let fields: Vec<&str> = found.iter().map(Looser::field).collect();
        let names: Vec<&str> = wanted.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, names, "{above:?} {below:?}");
        for (looser, (_, words)) in found.iter().zip(wanted) {
            assert!(looser.to_string().contains(words), "{looser}");
        }
    };
    let hour = (3_600, Unspecified);
    check(&[hour], hour, false, &[]);
    check(&[hour, NOTHING], (60, Unspecified), false, &[]);
    check(
        &[hour, NOTHING],
        (3_601, Unspecified),
        true,
        &[("max_stale_seconds", "of the account `root`")],
    );
    check(&[NOTHING], (0, Forbidden), false, &[]);
    check(&[(0, Allowed), NOTHING], (0, Allowed), false, &[]);
    check(&[NOTHING], (0, Allowed), true, &[]);
    check(
        &[NOTHING],
        (0, Allowed),
        false,
        &[("serve_expired", "root alone")],
    );
    check(
        &[(0, Allowed), (60, Forbidden), NOTHING],
        (61, Allowed),
        true,
        &[
            ("max_stale_seconds", "`root/a1`"),
            ("serve_expired", "`root/a1` forbids"),
        ],
    );
}

#[test]
fn wrong_values_are_named() {
    let check = |given: Account, words: &str| {
        let refusal = Staleness::of(&given).unwrap_err().to_string();
        assert_eq!(refusal, words);
    };
    let brief = account("a", "root", (59, ServeExpired::Unspecified));
    check(
        brief.clone(),
        "max_stale_seconds: it is 60 seconds to 365 days, and 59 seconds is not; 0 says nothing",
    );
    let unknown = Account {
        serve_expired: 7,
        ..account("a", "root", NOTHING)
    };
    check(
        unknown,
        "serve_expired: it is allowed, forbidden, or not said",
    );
    let root = account("root", "", NOTHING);
    let faults = AccountTree::build(&[root, brief]).unwrap_err();
    assert!(
        faults[0].reason.starts_with("max_stale_seconds"),
        "{faults:?}"
    );
}
