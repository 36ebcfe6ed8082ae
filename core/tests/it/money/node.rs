//! A simulated node: what of it survives a crash is its journals.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proxyxai_core::money::{
    amounts::Amounts,
    charge::Multipliers,
    lease::book::{Book, HoldId, PoolId},
    ledger::id::{Epoch, NodeId, Scope, WalId},
    nano::NanoUsd,
    record::{Booked, Charge, Entry, Outcome, Record, Replay, Settle, Target},
};

/// One epoch's journal, with what it is known to have reached.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) entries: Vec<Entry>,
    /// The last number that was acknowledged.
    pub(crate) acknowledged: u64,
    /// After a crash: its open intents are settled.
    pub(crate) closed: bool,
    pub(crate) sealed: bool,
}

/// An attempt whose hold is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) number: u64,
    pub(crate) id: HoldId,
    pub(crate) account: usize,
    pub(crate) multipliers: Multipliers,
    /// List cost that is held.
    pub(crate) nano: i64,
    /// List cost that it really has; `None` until it is sent.
    pub(crate) cost: Option<i64>,
}

/// What is lost in a crash.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) epoch: Epoch,
    pub(crate) book: Book,
    pub(crate) pools: BTreeMap<Scope, PoolId>,
    pub(crate) open: Vec<Open>,
    pub(crate) next_lease: u64,
    pub(crate) next_hold: u64,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) wal_id: WalId,
    pub(crate) boots: u8,
    pub(crate) running: Option<Running>,
    pub(crate) journals: BTreeMap<Epoch, Journal>,
    /// Those of disks that it lost; only the audit can still read them.
    pub(crate) gone: BTreeMap<Epoch, Journal>,
}

impl Node {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            id: Arc::from(format!("node-{number}")),
            wal_id: WalId([number; 16]),
            boots: 0,
            running: None,
            journals: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    pub(crate) fn start(&mut self, epoch: Epoch) {
        self.journals.entry(epoch).or_default();
        self.running = Some(Running {
            epoch,
            book: Book::default(),
            pools: BTreeMap::new(),
            open: Vec::new(),
            next_lease: 1,
            next_hold: 1,
        });
    }

    pub(crate) fn journal(&mut self, epoch: Epoch) -> &mut Journal {
        self.journals.get_mut(&epoch).unwrap()
    }
}

impl Running {
    pub(crate) fn pool(&mut self, scope: &Scope) -> PoolId {
        let book = &mut self.book;
        *self
            .pools
            .entry(scope.clone())
            .or_insert_with(|| book.add_pool(scope.depth()))
    }

    /// Ends a hold with these costs by pool, and gives the settlement.
    pub(crate) fn settle(
        &mut self,
        open: Open,
        costs: &[(PoolId, Amounts, NanoUsd)],
        now: Duration,
    ) -> Record {
        let mut charges = Vec::new();
        let held: Vec<(u64, Amounts)> = self.book.held(&open.id).collect();
        let over = self.book.settle(open.id, costs, now, &mut charges);
        assert_eq!(over.0, NanoUsd(0), "no cost here is more than its hold");
        for charge in &charges {
            let Target::Lease(lease) = charge.target else {
                panic!("a hold is of leases")
            };
            let (_, held) = held.iter().find(|(number, _)| *number == lease).unwrap();
            assert!(
                held.covers(&charge.amounts),
                "law 3: {charge:?} of {held:?}"
            );
        }
        Record::Settle(Settle {
            hold: open.number,
            outcome: Outcome::Known,
            charges,
        })
    }
}

impl Journal {
    pub(crate) fn replay(&self) -> Replay {
        self.replay_through(u64::MAX).0
    }

    /// What the journal amounts to after this record, and what each record was charged to.
    pub(crate) fn replay_through(&self, last: u64) -> (Replay, Vec<Vec<Booked>>) {
        Replay::after(last, &self.entries).unwrap()
    }

    pub(crate) fn append(&mut self, record: Record) -> u64 {
        let number = self.last() + 1;
        self.entries.push(Entry::Record(number, record));
        number
    }

    pub(crate) fn last(&self) -> u64 {
        self.records().last().map_or(0, |(number, _)| number)
    }

    pub(crate) fn records(&self) -> impl DoubleEndedIterator<Item = (u64, &Record)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Record(number, record) => Some((*number, record)),
            Entry::Granted { .. } | Entry::Intent { .. } | Entry::Dispatch { .. } => None,
        })
    }

    /// Records from a number on, as they are sent.
    pub(crate) fn from(&self, first: u64, most: usize) -> Vec<Record> {
        let records = self.records().filter(|(number, _)| *number >= first);
        records
            .take(most)
            .map(|(_, record)| record.clone())
            .collect()
    }

    /// What recovery does: every open intent settles its whole hold.
    pub(crate) fn close(&mut self) {
        if !self.closed {
            for record in self.replay().close() {
                self.append(record);
            }
            self.closed = true;
        }
    }
}

/// The hold of an intent, as its charges.
pub(crate) fn holds(held: impl Iterator<Item = (u64, Amounts)>) -> Vec<Charge> {
    held.map(|(lease, amounts)| Charge {
        target: Target::Lease(lease),
        amounts,
        listed: NanoUsd(0),
    })
    .collect()
}
