//! What a node writes into its journal about money, and what the ledger applies of it.
//!
//! HOLD → INTENT → DISPATCH → stream → SETTLE. A hold is in memory. An intent tells what it holds, and is durable before a hard request is
//! sent; a dispatch tells that bytes may have left, after which an attempt is never again `not sent`; a settlement ends the hold. A
//! return gives back what a lease has unheld.
//!
//! Invariants (laws 4 and 5): settlements and returns are the *records*: numbered from 1 in each epoch, in the order in which they were
//! appended; a record and its number never change, and a record is sent only when it is durable. Recovery appends, it never rewrites: an
//! intent without a settlement gets one at its whole hold, outcome unknown, in the epoch that it is of.

use std::collections::BTreeMap;

use super::{
    amounts::Amounts,
    lease::row::{Lease, Terms},
    ledger::budget::Place,
    ledger::{fault::Fault, id::Scope, parts::Parts},
    nano::NanoUsd,
};

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A lease was granted: what a later start needs to say where its money is.
    Granted {
        /// Its number.
        lease: u64,
        /// What it was given for.
        terms: Box<Terms>,
        /// From which grants.
        parts: Parts,
    },
    /// An attempt may be sent.
    Intent {
        /// Names the hold; counts up in the epoch.
        hold: u64,
        /// What it holds, and of which leases.
        holds: Vec<Charge>,
    },
    /// Bytes of an attempt may have left.
    Dispatch {
        /// Whose.
        hold: u64,
    },
    /// What the ledger applies.
    Record(u64, Record),
}

/// What the ledger applies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Record {
    /// An attempt ended.
    Settle(Settle),
    /// A lease's unheld rest comes back.
    Return(Box<Return>),
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settle {
    /// The hold that it ends.
    pub hold: u64,
    /// Whether what it cost is known.
    pub outcome: Outcome,
    /// What each lease is charged; nothing when nothing is owed.
    pub charges: Vec<Charge>,
}

/// Whether an attempt's cost is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Never sent, or the provider said what it used, or that it refused.
    Known,
    /// Nobody can tell; it is settled by the rules of who pays.
    Unknown,
}

/// An amount at a lease, or where no lease is needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Charge {
    /// At what.
    pub target: Target,
    /// For each level, and for the wallet.
    pub amounts: Amounts,
    /// List cost of the attempt: with the first charge of each scope, 0 with its others.
    pub listed: NanoUsd,
}

/// What is charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The lease with this number, of the same epoch.
    Lease(u64),
    /// Rows that have neither a limit nor a wallet.
    Unlimited(Scope),
}

/// What a lease gives back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Return {
    /// Its number.
    pub lease: u64,
    /// How much.
    pub amounts: Amounts,
}

/// What the journal of an epoch amounts to: read back after a crash, or kept along while it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replay {
    leases: BTreeMap<u64, Lease>,
    open: BTreeMap<u64, Vec<Charge>>,
    dispatched: std::collections::BTreeSet<u64>,
    last: u64,
}

/// A charge, with the lease that it is of and the grants that paid: what an event names, so that a restored ledger can book it without
/// the lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Booked {
    /// The lease as it is after the charge.
    pub lease: Lease,
    /// What of the charge fitted it.
    pub amounts: Amounts,
    /// Which grants paid.
    pub parts: Parts,
    /// List cost that comes with it.
    pub listed: NanoUsd,
}

impl Replay {
    /// Takes in the next entry, and tells what it was charged to. An entry that is not the next one is a defect of the journal.
    ///
    /// # Errors
    /// When the journal contradicts itself.
    pub fn entry(&mut self, entry: &Entry) -> Result<Vec<Booked>, Fault> {
        match entry {
            Entry::Granted {
                lease,
                terms,
                parts,
            } => {
                let row = Lease {
                    left: terms.granted,
                    terms: (**terms).clone(),
                    parts: parts.clone(),
                    place: Place::Leased,
                };
                self.leases.entry(*lease).or_insert(row);
                Ok(Vec::new())
            }
            Entry::Intent { hold, holds } => {
                self.open.insert(*hold, holds.clone());
                Ok(Vec::new())
            }
            Entry::Dispatch { hold } => {
                self.dispatched.insert(*hold);
                Ok(Vec::new())
            }
            Entry::Record(number, record) => {
                if Some(*number) != self.last.checked_add(1) {
                    return Err(Fault::Broken(
                        "a journal's records are not numbered one after the other",
                    ));
                }
                self.last = *number;
                self.record(record)
            }
        }
    }

    fn record(&mut self, record: &Record) -> Result<Vec<Booked>, Fault> {
        let mut booked = Vec::new();
        match record {
            Record::Return(back) => {
                if let Some(lease) = self.leases.get_mut(&back.lease) {
                    lease.give_back(&back.amounts)?;
                }
            }
            Record::Settle(settle) => {
                self.open.remove(&settle.hold);
                self.dispatched.remove(&settle.hold);
                for charge in &settle.charges {
                    let Target::Lease(number) = &charge.target else {
                        continue;
                    };
                    let Some(lease) = self.leases.get_mut(number) else {
                        continue;
                    };
                    let (amounts, parts) = lease.charge(&charge.amounts)?;
                    booked.push(Booked {
                        lease: lease.clone(),
                        amounts,
                        parts,
                        listed: charge.listed,
                    });
                }
            }
        }
        self.leases.retain(|_, lease| !lease.left.is_zero());
        Ok(booked)
    }

    /// What the leases of a journal had left after the record `last`, and what each record up to it was charged to: what a node reports
    /// to a ledger that was restored. Leases that were granted after that record are out as well, whole.
    ///
    /// # Errors
    /// When the journal contradicts itself.
    pub fn after<'a>(
        last: u64,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<(Self, Vec<Vec<Booked>>), Fault> {
        let (mut replay, mut booked) = (Self::default(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Record(number, _) if *number > last => {}
                Entry::Record(..) => booked.push(replay.entry(entry)?),
                Entry::Granted { .. } | Entry::Intent { .. } | Entry::Dispatch { .. } => {
                    drop(replay.entry(entry)?)
                }
            }
        }
        Ok((replay, booked))
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What the leases of the epoch have left.
    pub fn leases(&self) -> impl Iterator<Item = (u64, &Lease)> {
        self.leases.iter().map(|(number, lease)| (*number, lease))
    }

    /// Whether bytes of an attempt may have left.
    pub fn dispatched(&self, hold: u64) -> bool {
        self.dispatched.contains(&hold)
    }

    /// The records that end an epoch after a crash: every intent that is open settles its whole hold. Whether its bytes left cannot be
    /// told from a dispatch that is missing, for a dispatch need not be durable.
    pub fn close(&self) -> Vec<Record> {
        self.open
            .iter()
            .map(|(hold, holds)| {
                Record::Settle(Settle {
                    hold: *hold,
                    outcome: Outcome::Unknown,
                    charges: holds.clone(),
                })
            })
            .collect()
    }
}
