//! What a node has: its journals survive a crash, the rest does not.

use std::collections::BTreeMap;

use super::{Epoch, Record};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Node {
    /// The epoch it runs in.
    pub(super) running: Option<Epoch>,
    pub(super) boots: u8,
    /// Identifies its disk.
    pub(super) wal: u8,
    pub(super) journals: BTreeMap<Epoch, Journal>,
    /// Numbers of leases that were asked for in this epoch.
    pub(super) asked: u8,
    /// What of each lease is unheld.
    pub(super) leases: BTreeMap<u8, u8>,
    /// Leases whose grant has arrived.
    pub(super) known: u8,
    pub(super) holds: BTreeMap<u8, Hold>,
    pub(super) next_hold: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Hold {
    pub(super) lease: u8,
    pub(super) amount: u8,
    pub(super) costs: u8,
}

/// One epoch's journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Journal {
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    Granted { lease: u8, amount: u8 },
    Intent { hold: u8, lease: u8, amount: u8 },
    Record(Record),
}

impl Node {
    /// What a crash takes.
    pub(super) fn stop(&mut self) {
        let (boots, wal) = (self.boots, self.wal);
        let journals = std::mem::take(&mut self.journals);
        *self = Self {
            boots,
            wal,
            journals,
            ..Self::default()
        };
    }
}

impl Journal {
    pub(super) fn records(&self) -> Vec<Record> {
        let record = |entry: &Entry| {
            if let Entry::Record(record) = entry {
                Some(*record)
            } else {
                None
            }
        };
        self.entries.iter().filter_map(record).collect()
    }

    pub(super) fn last(&self) -> u8 {
        u8::try_from(self.records().len()).unwrap()
    }

    /// Intents without a settlement.
    pub(super) fn open(&self) -> Vec<Record> {
        let settled = |hold: u8| {
            self.records()
                .iter()
                .any(|record| matches!(record, Record::Settle { hold: done, .. } if *done == hold))
        };
        let open = |entry: &Entry| match *entry {
            Entry::Intent {
                hold,
                lease,
                amount,
            } if !settled(hold) => Some(Record::Settle {
                hold,
                lease,
                amount,
            }),
            Entry::Intent { .. } | Entry::Granted { .. } | Entry::Record(_) => None,
        };
        self.entries.iter().filter_map(open).collect()
    }

    /// What leases had left after this record; those granted later are out as well.
    pub(super) fn leases_after(&self, last: u8) -> BTreeMap<u8, u8> {
        let (mut left, mut number) = (BTreeMap::new(), 0);
        for entry in &self.entries {
            match *entry {
                Entry::Granted { lease, amount } => drop(left.insert(lease, amount)),
                Entry::Intent { .. } => {}
                Entry::Record(
                    Record::Settle { lease, amount, .. } | Record::Return { lease, amount },
                ) => {
                    number += 1;
                    if number <= last
                        && let Some(left) = left.get_mut(&lease)
                    {
                        *left -= amount;
                    }
                }
            }
        }
        left.retain(|_, left| *left > 0);
        left
    }
}
