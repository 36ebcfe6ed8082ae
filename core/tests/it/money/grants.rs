//! What the leader answers to asks for leases, and what limits do to them.

use std::sync::Arc;

use proxyxai_core::money::{
    lease::{
        grant::{Denied, Short, acquire},
        recall,
    },
    ledger::{
        draft::{Draft, Ledger},
        fault::Fault,
        id::{Epoch, RowKey},
        now::Now,
    },
    nano::NanoUsd,
    window::{Period, Stamp},
};

use super::desk::{Desk, key};

const PATH: [&str; 2] = ["root", "team"];

#[test]
fn a_lease_is_what_is_wanted_until_money_is_nearly_out() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.limit("root", &[], Period::Month, 100).unwrap();
    let granted = desk.ask(epoch, 1, &PATH, (5, 40), false).unwrap();
    assert_eq!(
        (granted.terms.granted.largest(), granted.terms.single),
        (NanoUsd(40), false)
    );
    // 60 are left, and 40 is more than half of it.
    let granted = desk.ask(epoch, 2, &PATH, (5, 40), false).unwrap();
    assert_eq!(
        (granted.terms.granted.largest(), granted.terms.single),
        (NanoUsd(5), true)
    );
    assert_eq!(
        desk.ask(epoch, 3, &PATH, (0, 40), false),
        Err(Denied::Nearly)
    );
    let denied = desk.ask(epoch, 3, &PATH, (56, 56), false).unwrap_err();
    let Denied::Short(Short {
        row,
        window,
        free,
        refills,
    }) = denied
    else {
        panic!("{denied:?}")
    };
    assert_eq!(
        (row, window.unwrap().period, free),
        (key("root"), Period::Month, NanoUsd(55))
    );
    assert_eq!(refills, window.unwrap().to);
    // Only what is not for one request is asked back.
    let numbers: Vec<u64> = recall::candidates(&desk.ledger, &key("root"))
        .iter()
        .map(|id| id.number)
        .collect();
    assert_eq!(numbers, [1]);
    assert_eq!(desk.total("team").leased, NanoUsd(45));
}

#[test]
fn law_6_only_the_current_epoch_gets_leases_and_a_number_once() {
    let mut desk = Desk::new();
    let first = desk.register("n", 1);
    assert_eq!(desk.register("n", 1), first);
    let granted = desk.ask(first, 3, &PATH, (5, 5), false).unwrap();
    assert_eq!(
        desk.ask(first, 3, &PATH, (9, 9), false),
        Ok(granted),
        "a repeated ask is answered as before"
    );
    assert_eq!(desk.total("root").leased, NanoUsd(5));
    assert_eq!(
        desk.ask(first, 2, &PATH, (5, 5), false),
        Err(Denied::Number(2))
    );
    super::applied::give_back(&mut desk, first, 1, 3, 5);
    assert_eq!(
        desk.ask(first, 3, &PATH, (5, 5), false),
        Err(Denied::Number(3)),
        "it is over"
    );
    let second = desk.register("n", 2);
    assert!(second > first);
    assert_eq!(desk.ask(first, 4, &PATH, (5, 5), false), Err(Denied::Epoch));
    let other = Epoch {
        generation: 2,
        number: 1,
    };
    assert_eq!(desk.ask(other, 4, &PATH, (5, 5), false), Err(Denied::Epoch));
    desk.ask(second, 1, &PATH, (5, 5), false).unwrap();
}

#[test]
fn the_wallet_that_pays_is_the_nearest_one() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.fund(None, "root", 100, 9_000_000).unwrap();
    assert_eq!(
        desk.ask(epoch, 1, &PATH, (5, 5), false),
        Err(Denied::Wallet(Some(0))),
        "the node has an old snapshot"
    );
    assert_eq!(
        desk.ask(epoch, 1, &PATH, (5, 5), true)
            .unwrap()
            .terms
            .wallet,
        Some(0)
    );
    desk.fund(Some("root"), "team", 10, 9_000_000).unwrap();
    assert_eq!(
        desk.ask(epoch, 2, &PATH, (10, 10), true)
            .unwrap()
            .terms
            .wallet,
        Some(1)
    );
    // An empty wallet refuses; it does not spend from above.
    let short = Short {
        row: key("team"),
        window: None,
        free: NanoUsd(0),
        refills: Stamp::NEVER,
    };
    assert_eq!(
        desk.ask(epoch, 3, &PATH, (1, 1), true),
        Err(Denied::Short(short))
    );
    assert_eq!(desk.ask(epoch, 3, &PATH, (0, 0), true), Err(Denied::Shape));
}

#[test]
fn law_15_a_limit_is_never_written_wider_than_one_above() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.limit("root", &[], Period::Day, 100).unwrap();
    let widening = desk.limit("team", &["root"], Period::Day, 101).unwrap_err();
    assert_eq!(
        (widening.above, widening.period),
        (NanoUsd(100), Period::Day)
    );
    assert_eq!(
        desk.limit("team", &["root"], Period::Week, 500)
            .unwrap()
            .free,
        Some(NanoUsd(500))
    );
    desk.ask(epoch, 1, &PATH, (30, 30), false).unwrap();
    // Narrowing is always allowed: free is negative then, and nothing is leased until it is not.
    let standing = desk.limit("root", &[], Period::Day, 10).unwrap();
    assert_eq!(
        (standing.free, standing.out),
        (Some(NanoUsd(-20)), NanoUsd(30))
    );
    assert!(matches!(
        desk.ask(epoch, 2, &PATH, (1, 1), false),
        Err(Denied::Short(Short {
            free: NanoUsd(-20),
            ..
        }))
    ));
    // The next day has a window of its own.
    desk.at += 86_400_000;
    desk.ask(epoch, 2, &PATH, (5, 5), false).unwrap();
    // A leader whose clock is behind does not go back into the window that is over.
    desk.at -= 86_400_000;
    assert!(matches!(
        desk.ask(epoch, 3, &PATH, (6, 6), false),
        Err(Denied::Short(Short {
            free: NanoUsd(5),
            ..
        }))
    ));
}

#[test]
fn a_row_that_is_not_loaded_is_asked_for() {
    let desk = Desk::new();
    let mut ledger = Ledger::unloaded();
    let node = Arc::from("n");
    let mut missing = Vec::new();
    loop {
        let mut draft = Draft::new(&ledger);
        let now = Now {
            calendar: &desk.calendar,
            at: Stamp(desk.at),
            generation: 1,
        };
        match acquire(
            &mut draft,
            &node,
            Epoch {
                generation: 1,
                number: 1,
            },
            &[],
            now,
        ) {
            Err(Fault::NotLoaded(key)) => {
                missing.push(key.clone());
                ledger.load(key, None);
            }
            answer => {
                assert_eq!(answer, Ok(Err(Denied::Epoch)));
                break;
            }
        }
    }
    let epoch = Epoch {
        generation: 1,
        number: 1,
    };
    assert_eq!(
        missing,
        [RowKey::Node(Arc::clone(&node)), RowKey::Mark(node, epoch)]
    );
}
