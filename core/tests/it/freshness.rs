//! The states of a node, as tables of what is heard when.

use std::time::Duration;

use proptest::prelude::*;
use proxyxai_core::freshness::{Freshness, MAX_STALE, NodeState, age_at_boot};

#[derive(Debug, Clone, Copy)]
enum Heard {
    Restored { hours: u64 },
    Greeted { max_stale_s: u64 },
    Behind,
    AppliedBehind,
    Newest,
    Lost,
    Nothing,
}
use Heard::{AppliedBehind, Behind, Greeted, Lost, Newest, Nothing, Restored};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn hear(freshness: &mut Freshness, now: Duration, heard: Heard) {
    match heard {
        Restored { hours } => freshness.restored(now, s(hours * 3600), None),
        Greeted { max_stale_s } => freshness.greeted(s(2), s(max_stale_s)),
        Behind => freshness.compared(now, false, false),
        AppliedBehind => freshness.compared(now, true, false),
        Newest => freshness.compared(now, true, true),
        Lost => freshness.lost(),
        Nothing => {}
    }
}

/// Seconds, what is heard then, and the state that follows.
fn check(name: &str, story: &[(u64, Heard, &str)]) {
    let mut freshness = Freshness::new(MAX_STALE);
    for (seconds, heard, want) in story {
        hear(&mut freshness, s(*seconds), *heard);
        let state = freshness.state(s(*seconds)).as_str();
        assert_eq!(state, *want, "{name}, at {seconds} s after {heard:?}");
    }
}

#[test]
fn a_node_goes_through_its_states() {
    check(
        "first boot",
        &[
            (0, Nothing, "waiting"),
            (1, Greeted { max_stale_s: 0 }, "syncing"),
            (1, Behind, "syncing"),
            (2, Lost, "waiting"),
            (3, Greeted { max_stale_s: 0 }, "syncing"),
            (4, Newest, "current"),
            (9, Nothing, "current"),
            (10, Nothing, "stale"),
        ],
    );
    check(
        "a bookmark in time",
        &[
            (0, Greeted { max_stale_s: 0 }, "syncing"),
            (0, Newest, "current"),
            (5, Newest, "current"),
            (10, Newest, "current"),
            (11, Lost, "current"),
            (15, Nothing, "current"),
            (16, Nothing, "stale"),
            (17, Greeted { max_stale_s: 0 }, "stale"),
            (17, Behind, "stale"),
            (18, Newest, "current"),
        ],
    );
    check(
        "a newer one is on its way, or refused",
        &[
            (0, Greeted { max_stale_s: 0 }, "syncing"),
            (0, Newest, "current"),
            (1, AppliedBehind, "syncing"),
            (5, AppliedBehind, "syncing"),
            (6, AppliedBehind, "stale"),
            (7, Newest, "current"),
        ],
    );
    check(
        "received, and never the newest",
        &[
            (0, Greeted { max_stale_s: 0 }, "syncing"),
            (1, AppliedBehind, "syncing"),
            (7, AppliedBehind, "stale"),
        ],
    );
    check(
        "from the disk copy",
        &[
            (0, Restored { hours: 1 }, "cached"),
            (100, Nothing, "cached"),
            (101, Greeted { max_stale_s: 0 }, "syncing"),
            (102, Lost, "cached"),
            (103, Greeted { max_stale_s: 0 }, "syncing"),
            (103, Newest, "current"),
            (109, Nothing, "stale"),
        ],
    );
    check(
        "too old",
        &[
            (0, Restored { hours: 71 }, "cached"),
            (3_599, Nothing, "cached"),
            (3_600, Nothing, "expired"),
            (3_700, Greeted { max_stale_s: 0 }, "expired"),
            (3_700, AppliedBehind, "expired"),
            (3_701, Newest, "current"),
        ],
    );
    check(
        "the control plane's limit",
        &[
            (0, Restored { hours: 71 }, "cached"),
            (1, Greeted { max_stale_s: 600 }, "expired"),
            (2, Newest, "current"),
            (3, Lost, "current"),
            (601, Nothing, "stale"),
            (602, Nothing, "expired"),
        ],
    );
}

#[test]
fn a_nodes_own_limit_only_shortens_what_its_deployment_says() {
    let check = |own_s: u64, named_s: &[u64], want_s: u64| {
        let mut freshness = Freshness::new(s(own_s));
        for named in named_s {
            freshness.limited(s(*named));
        }
        assert_eq!(
            freshness.max_stale(),
            s(want_s),
            "own {own_s}, named {named_s:?}"
        );
        freshness.greeted(s(2), Duration::ZERO);
        assert_eq!(freshness.max_stale(), s(want_s), "nothing new was said");
    };
    let (year, default) = (365 * 86_400, 259_200);
    check(year, &[], default);
    check(100, &[], 100);
    check(year, &[60], 60);
    check(100, &[60], 60);
    check(100, &[600], 100);
    check(year, &[60, 600_000], 600_000);
    check(year, &[60, 0], 60);
}

#[test]
fn the_age_at_boot_is_the_larger_one() {
    let check = |stored_s, proved_ms, now_ms, want_ms| {
        let age = age_at_boot(s(stored_s), proved_ms, now_ms);
        assert_eq!(age.as_millis(), want_ms, "{stored_s} {proved_ms} {now_ms}");
    };
    check(60, 1_000_000, 1_060_000, 60_000);
    check(60, 1_000_000, 9_000_000, 8_000_000);
    check(60, 1_000_000, 500_000, 60_000);
    check(0, i64::MAX, i64::MIN, 0);
    check(0, i64::MIN, i64::MAX, u128::from(i64::MAX.unsigned_abs()));
}

fn heard() -> impl Strategy<Value = Heard> {
    prop_oneof![
        (0_u64..100).prop_map(|hours| Restored { hours }),
        (0_u64..100).prop_map(|max_stale_s| Greeted { max_stale_s }),
        Just(Behind),
        Just(AppliedBehind),
        Just(Newest),
        Just(Lost),
        Just(Nothing),
    ]
}

proptest! {
    #[test]
    fn only_proof_zeroes_the_age_and_nothing_expired_serves(story in prop::collection::vec((0_u64..50, heard()), 1..40)) {
        let mut freshness = Freshness::new(s(40));
        let mut now = 0;
        for (passed, heard) in story {
            let before = freshness.age(s(now));
            let due = freshness.next_change(s(now));
            let state = freshness.state(s(now));
            now += passed;
            if due.is_none_or(|due| due > s(now)) {
                prop_assert_eq!(freshness.state(s(now)), state, "time alone changed the state early");
            }
            hear(&mut freshness, s(now), heard);
            let age = freshness.age(s(now));
            match heard {
                Newest => prop_assert_eq!(age, Some(Duration::ZERO)),
                Restored { hours } => prop_assert_eq!(age, Some(s(hours * 3600))),
                AppliedBehind => prop_assert_eq!(age, Some(before.map_or(Duration::ZERO, |age| age + s(passed)))),
                Greeted { .. } | Behind | Lost | Nothing => prop_assert_eq!(age, before.map(|age| age + s(passed))),
            }
            let state = freshness.state(s(now));
            prop_assert!(state == NodeState::Current || !freshness.in_touch(s(now)));
            prop_assert!(!matches!(heard, Lost) || !freshness.in_touch(s(now)));
            let too_old = age.is_some_and(|age| age >= freshness.max_stale());
            prop_assert_eq!(state == NodeState::Expired, too_old);
            prop_assert_eq!(state.serves(), age.is_some() && !too_old || (age.is_none() && state == NodeState::Syncing));
        }
    }
}
