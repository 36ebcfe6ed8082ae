//! Runs the checker: the protocol holds in every state within its bounds, and fails without any one of its rules.

use stateright::{Checker, HasDiscoveries, Model as _};

use super::{Bounds, Protocol, Weakening};

/// Checks every state within the bounds.
fn holds(name: &str, bounds: Bounds) {
    let checker = Protocol {
        bounds,
        without: None,
    }
    .checker()
    .threads(2)
    .spawn_bfs()
    .join();
    println!("{name}: {} states", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.unique_state_count() > 100, "{name} went nowhere");
}

/// Looks for what goes wrong without a rule.
fn fails(without: Weakening, bounds: Bounds, property: &str) {
    let protocol = Protocol {
        bounds,
        without: Some(without),
    };
    let checker = protocol
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let names: Vec<&str> = found.keys().copied().collect();
    assert!(
        names.iter().any(|name| name.contains(property)),
        "{without:?}: found {names:?} in {} states",
        checker.unique_state_count()
    );
    for (name, path) in found {
        println!(
            "{without:?} breaks `{name}` in {} steps",
            path.into_actions().len()
        );
    }
}

const CALM: Bounds = Bounds::CALM;
const CRASH: Bounds = Bounds { crashes: 1, ..CALM };
/// Everybody wants the last of it.
const SHORT: Bounds = Bounds {
    nodes: 2,
    amount: 2,
    requests: 3,
    crashes: 1,
    ..CALM
};
const DISK: Bounds = Bounds {
    crashes: 1,
    lost_disks: 1,
    forgets: 1,
    ..CALM
};
const RESTORE: Bounds = Bounds {
    crashes: 1,
    restores: 1,
    ..CALM
};
const REPLICAS: Bounds = Bounds {
    nodes: 2,
    elections: 1,
    ..CALM
};

#[test]
fn law_1_to_6_hold_through_crashes_in_every_state() {
    holds(
        "crash",
        Bounds {
            requests: 3,
            ..CRASH
        },
    );
    holds("short", SHORT);
}

#[test]
fn law_1_to_6_hold_through_lost_disks_in_every_state() {
    holds("lost disk", DISK);
}

#[test]
fn law_1_to_6_hold_through_narrowing_and_expiry_in_every_state() {
    holds(
        "narrowing and expiry",
        Bounds {
            narrowings: 2,
            expiries: 1,
            ..CRASH
        },
    );
}

#[test]
fn law_1_to_6_hold_under_two_replicas_in_every_state() {
    holds("replicas", REPLICAS);
}

#[test]
fn law_1_to_6_hold_through_a_restore_in_every_state() {
    holds("restore", RESTORE);
}

#[test]
#[ignore = "long: two nodes that crash are 650,000 states alone; for changes of the protocol"]
fn law_1_to_6_hold_in_every_state_of_larger_bounds() {
    holds(
        "two nodes crash",
        Bounds {
            nodes: 2,
            requests: 3,
            ..CRASH
        },
    );
    holds(
        "two leases, two crashes",
        Bounds {
            leases_per_epoch: 2,
            requests: 3,
            crashes: 2,
            ..CALM
        },
    );
    holds(
        "a lost disk after two leases",
        Bounds {
            leases_per_epoch: 2,
            ..DISK
        },
    );
    holds("two nodes lose disks", Bounds { nodes: 2, ..DISK });
    holds(
        "two nodes and a restore",
        Bounds {
            nodes: 2,
            ..RESTORE
        },
    );
    holds(
        "replicas crash",
        Bounds {
            crashes: 1,
            narrowings: 1,
            ..REPLICAS
        },
    );
}

#[test]
fn every_rule_is_needed() {
    fails(
        Weakening::TimerReturnsLeases,
        CALM,
        "counted before it is spent",
    );
    fails(
        Weakening::RegistrationReleases,
        CRASH,
        "counted before it is spent",
    );
    fails(
        Weakening::SealByAnyJournal,
        DISK,
        "counted before it is spent",
    );
    fails(Weakening::NoIntent, CRASH, "counted before it is spent");
    fails(Weakening::NumbersWithoutEpoch, CRASH, "law");
    fails(Weakening::RepeatedGrantRefills, CALM, "law");
    fails(Weakening::RecoveryRewrites, CRASH, "law");
    fails(Weakening::NoFence, REPLICAS, "law");
    fails(
        Weakening::RestoreDoesNotWait,
        Bounds {
            nodes: 2,
            amount: 1,
            crashes: 0,
            ..RESTORE
        },
        "law 1",
    );
    fails(
        Weakening::ForgetReleases,
        DISK,
        "counted before it is spent",
    );
    fails(Weakening::RecordsBeforeReport, RESTORE, "operator's loss");
}
