//! How records are applied: once, in their turn, and always.

use std::sync::Arc;

use proxyxai_core::money::{
    amounts::Amounts,
    ledger::{
        apply::{Applied, apply},
        id::{Epoch, Scope},
        node::{self, Forget, NotSealed, Step},
    },
    nano::NanoUsd,
    record::{Charge, Outcome, Record, Return, Settle, Target},
    window::Period,
};

use super::desk::{Desk, WAL};

fn amounts(desk: &Desk, epoch: Epoch, lease: u64, amount: i64) -> Amounts {
    let found = desk
        .ledger
        .leases()
        .find(|(id, _)| id.number == lease && id.epoch == epoch);
    let (depth, pays) = found.map_or((2, false), |(_, lease)| {
        (lease.terms.granted.depth(), lease.terms.wallet.is_some())
    });
    Amounts::even(
        depth,
        NanoUsd(amount),
        NanoUsd(if pays { amount } else { 0 }),
    )
    .unwrap()
}

fn settle(desk: &Desk, epoch: Epoch, lease: u64, amount: i64) -> Record {
    let charge = Charge {
        target: Target::Lease(lease),
        amounts: amounts(desk, epoch, lease, amount),
        listed: NanoUsd(amount),
    };
    Record::Settle(Settle {
        hold: 1,
        outcome: Outcome::Known,
        charges: vec![charge],
    })
}

fn send(desk: &mut Desk, epoch: Epoch, first: u64, records: &[Record]) -> Applied {
    desk.transact(|draft, now| {
        apply(draft, &Arc::from("n"), epoch, first, records, now).map(Ok::<_, ()>)
    })
    .unwrap()
}

/// The next record, which gives an amount back at each level.
pub(crate) fn give_back(desk: &mut Desk, epoch: Epoch, number: u64, lease: u64, amount: i64) {
    let amounts = amounts(desk, epoch, lease, amount);
    let applied = send(
        desk,
        epoch,
        number,
        &[Record::Return(Box::new(Return { lease, amounts }))],
    );
    assert!(
        matches!(applied, Applied::Through { through, .. } if through == number),
        "{applied:?}"
    );
}

fn through(applied: Applied) -> (u64, i64) {
    let Applied::Through { through, lost, .. } = applied else {
        panic!("{applied:?}")
    };
    (through, lost.0)
}

const PATH: [&str; 2] = ["root", "team"];

#[test]
fn law_4_duplicates_are_ignored_and_gaps_asked_again() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.ask(epoch, 1, &PATH, (50, 50), false).unwrap();
    let records = [
        settle(&desk, epoch, 1, 5),
        settle(&desk, epoch, 1, 7),
        settle(&desk, epoch, 1, 9),
    ];
    assert_eq!(
        send(&mut desk, epoch, 2, &records[1..]),
        Applied::Gap { expected: 1 }
    );
    assert_eq!(through(send(&mut desk, epoch, 1, &records[..2])), (2, 0));
    assert_eq!(through(send(&mut desk, epoch, 1, &records)), (3, 0));
    assert_eq!(through(send(&mut desk, epoch, 1, &records)), (3, 0));
    let line = desk.total("team");
    assert_eq!(
        (line.settled, line.leased, line.listed),
        (NanoUsd(21), NanoUsd(29), NanoUsd(21))
    );
    assert_eq!(
        send(
            &mut desk,
            Epoch {
                generation: 9,
                number: 1
            },
            1,
            &records
        ),
        Applied::UnknownEpoch
    );
}

#[test]
fn law_5_what_fits_no_lease_is_the_operators_loss_and_stops_nobody() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.ask(epoch, 1, &PATH, (10, 10), false).unwrap();
    let records = [
        settle(&desk, epoch, 1, 14),
        settle(&desk, epoch, 99, 3),
        settle(&desk, epoch, 1, 2),
    ];
    assert_eq!(through(send(&mut desk, epoch, 1, &records)), (3, 4 + 3 + 2));
    assert_eq!(desk.total("root").settled, NanoUsd(10));
}

#[test]
fn a_long_batch_is_cut_where_a_transaction_ends() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    let mut records = Vec::new();
    for number in 1..=60 {
        let account = format!("team-{number}");
        desk.ask(epoch, number, &["root", &account], (10, 10), false)
            .unwrap();
        records.push(settle(&desk, epoch, number, 1));
    }
    let (mut applied, mut transactions) = (0, 0);
    while applied < 60 {
        let first = applied + 1;
        applied = through(send(
            &mut desk,
            epoch,
            first,
            &records[usize::try_from(applied).unwrap()..],
        ))
        .0;
        assert!(applied >= first, "law 5: stuck at {first}");
        transactions += 1;
    }
    assert_eq!((desk.total("root").settled, transactions), (NanoUsd(60), 2));
}

#[test]
fn what_nothing_limits_counts_when_it_arrives() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    let scope = Scope::Path(PATH.iter().map(|id| Arc::from(*id)).collect());
    let charge = |depth, credit| Charge {
        target: Target::Unlimited(scope.clone()),
        amounts: Amounts::even(depth, NanoUsd(8), NanoUsd(credit)).unwrap(),
        listed: NanoUsd(8),
    };
    let record = |charge| {
        Record::Settle(Settle {
            hold: 1,
            outcome: Outcome::Known,
            charges: vec![charge],
        })
    };
    assert_eq!(
        through(send(&mut desk, epoch, 1, &[record(charge(2, 0))])),
        (1, 0)
    );
    assert_eq!(
        through(send(
            &mut desk,
            epoch,
            2,
            &[record(charge(1, 0)), record(charge(2, 8))]
        )),
        (3, 16)
    );
    assert_eq!(desk.total("root").settled, NanoUsd(8));
    // A limit that comes later counts it.
    assert_eq!(
        desk.limit("root", &[], Period::Month, 10).unwrap().free,
        Some(NanoUsd(2))
    );
}

#[test]
fn law_6_an_epoch_is_sealed_only_by_its_whole_journal() {
    let mut desk = Desk::new();
    let first = desk.register("n", 1);
    desk.limit("root", &[], Period::Month, 100).unwrap();
    desk.ask(first, 1, &PATH, (30, 30), false).unwrap();
    let seal = |desk: &mut Desk, epoch, wal, last| {
        desk.transact(|draft, now| node::seal(draft, &Arc::from("n"), epoch, (wal, last), now))
    };
    assert_eq!(seal(&mut desk, first, WAL, 0), Err(NotSealed::Current));
    let second = desk.register("n", 2);
    let suspend = |desk: &mut Desk| {
        desk.transact(|draft, now| {
            node::suspend(draft, &Arc::from("n"), first, now).map(Ok::<_, ()>)
        })
    };
    assert_eq!(suspend(&mut desk), Ok(Step::Done));
    assert_eq!(
        (desk.total("team").suspense, desk.total("team").leased),
        (NanoUsd(30), NanoUsd(0))
    );
    assert_eq!(
        seal(
            &mut desk,
            first,
            proxyxai_core::money::ledger::id::WalId([0; 16]),
            0
        ),
        Err(NotSealed::OtherJournal)
    );
    assert_eq!(
        seal(&mut desk, first, WAL, 1),
        Err(NotSealed::Behind { expected: 1 })
    );
    let record = settle(&desk, first, 1, 12);
    send(&mut desk, first, 1, &[record]);
    assert_eq!(seal(&mut desk, first, WAL, 1).unwrap().0, Step::Done);
    assert_eq!(
        desk.limit("root", &[], Period::Month, 100).unwrap().free,
        Some(NanoUsd(88))
    );
    assert_eq!(seal(&mut desk, second, WAL, 0), Err(NotSealed::Current));
}

#[test]
fn a_forgotten_node_that_comes_back_puts_its_charges_right() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.ask(epoch, 1, &PATH, (30, 30), false).unwrap();
    let forget = |desk: &mut Desk, how| {
        desk.transact(|draft, now| node::forget(draft, &Arc::from("n"), how, now).map(Ok::<_, ()>))
            .unwrap()
    };
    assert_eq!(forget(&mut desk, Forget::Charged).0, Step::Done);
    assert_eq!(desk.total("team").charged, NanoUsd(30));
    assert!(desk.ask(epoch, 2, &PATH, (1, 1), false).is_err());
    // A month later the statement is final, and the line is gone.
    desk.at += 40 * 86_400_000;
    let retired = desk.transact(|draft, now| {
        let at = now.at;
        draft
            .budget(&super::desk::key("team"), |row| Ok(row.retire(at)))
            .map(Ok::<_, ()>)
    });
    assert_eq!(retired.unwrap().len(), 3);
    let record = settle(&desk, epoch, 1, 12);
    assert_eq!(through(send(&mut desk, epoch, 1, &[record])), (1, 0));
    assert_eq!(
        (desk.total("team").charged, desk.total("team").settled),
        (NanoUsd(18), NanoUsd(12))
    );
    desk.register("n", 2);
    let sealed = desk
        .transact(|draft, now| node::seal(draft, &Arc::from("n"), epoch, (WAL, 1), now))
        .unwrap();
    // Day, week and month get a correction each; all of time is still in the row.
    let corrected: Vec<(Period, i64)> = sealed
        .1
        .iter()
        .map(|correction| (correction.window.period, correction.less.0))
        .collect();
    assert_eq!(
        corrected,
        [(Period::Day, 18), (Period::Week, 18), (Period::Month, 18)]
    );
    assert_eq!(desk.total("team").charged, NanoUsd(0));
    // Released money is free, and what the node did spend is nobody's.
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.ask(epoch, 1, &PATH, (30, 30), false).unwrap();
    let record = settle(&desk, epoch, 1, 12);
    forget(&mut desk, Forget::Released);
    assert_eq!(desk.total("team").used().unwrap(), NanoUsd(0));
    assert_eq!(through(send(&mut desk, epoch, 1, &[record])), (1, 12));
}
