//! The simulated deployment: a leader with its ledger, nodes, and messages on their way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proxyxai_core::money::{
    amounts::Amounts,
    charge::{Multiplier, Multipliers, PicoUsd},
    lease::grant::{Ask, Granted, acquire},
    ledger::{
        account::AccountRow,
        apply::{Applied, apply},
        draft::{Draft, Kind as _, Ledger},
        fund::{Funded, Refunded},
        id::{AccountId, Epoch, NodeId, RowKey, Scope, WalId},
        mark::Mark,
        now::Now,
    },
    nano::NanoUsd,
    record::Record,
    window::{Calendar, Stamp},
};

use super::node::Node;

pub(crate) const NODES: u8 = 3;
/// Leaf and path of each account: its parent is the index given.
const ACCOUNTS: [(&str, Option<usize>, Option<u32>); 6] = [
    ("root", None, None),
    ("team-a", Some(0), Some(1_500_000)),
    ("team-b", Some(0), None),
    ("a-dev", Some(1), None),
    ("a-ops", Some(1), Some(2_500_000)),
    ("dev-bot", Some(3), None),
];
pub(crate) const ACCOUNT_COUNT: usize = ACCOUNTS.len();

/// On its way; it may get lost, come twice, or come late.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Ask {
        node: usize,
        epoch: Epoch,
        sent: Duration,
        asks: Vec<Ask>,
    },
    Answer {
        node: usize,
        epoch: Epoch,
        asked: Vec<(u64, Scope)>,
        sent: Duration,
        granted: Vec<Granted>,
    },
    Batch {
        node: usize,
        epoch: Epoch,
        first: u64,
        records: Vec<Record>,
    },
    Ack {
        node: usize,
        epoch: Epoch,
        through: u64,
    },
}

/// What a restore replays from outside the store.
#[derive(Debug, Clone)]
pub(crate) enum Outside {
    Registered {
        node: NodeId,
        wal_id: WalId,
        boot: [u8; 16],
        generation: u64,
    },
    Funded {
        to: AccountId,
        funded: Funded,
    },
    Refunded {
        account: AccountId,
        refunded: Refunded,
    },
}

/// What an attempt really costs, by row, as soon as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) rows: Vec<(RowKey, i64)>,
    /// The number of its settlement.
    pub(crate) record: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) calendar: Calendar,
    /// The wall clock of whoever leads; it may jump.
    pub(crate) clock: i64,
    pub(crate) last_stamp: Stamp,
    pub(crate) mono: Duration,
    pub(crate) generation: u64,
    pub(crate) ledger: Ledger,
    pub(crate) backup: Option<(Ledger, Vec<Outside>)>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Vec<Message>,
    pub(crate) truth: BTreeMap<(NodeId, Epoch, u64), Truth>,
    /// Issued by the operator, less what was refunded to it.
    pub(crate) issued: i64,
    /// Epochs whose records are not all booked: what was released, or lost after a backup.
    pub(crate) unbooked: BTreeMap<(NodeId, Epoch), u64>,
    /// Epochs whose journal is gone.
    pub(crate) lost: BTreeSet<(NodeId, Epoch)>,
    /// Nodes that must report after a restore.
    pub(crate) to_report: BTreeSet<usize>,
    /// Rows that had less than nothing free after a narrowing.
    pub(crate) narrowed: BTreeSet<RowKey>,
    pub(crate) restored: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            calendar: Calendar::of_zone("Europe/Berlin").unwrap(),
            clock: 1_795_600_000_000,
            last_stamp: Stamp(0),
            mono: Duration::ZERO,
            generation: 1,
            ledger: Ledger::complete(),
            backup: None,
            nodes: (0..NODES).map(Node::new).collect(),
            network: Vec::new(),
            truth: BTreeMap::new(),
            issued: 0,
            unbooked: BTreeMap::new(),
            lost: BTreeSet::new(),
            to_report: BTreeSet::new(),
            narrowed: BTreeSet::new(),
            restored: false,
        }
    }

    pub(crate) fn account(index: usize) -> AccountId {
        Arc::from(ACCOUNTS[index % ACCOUNT_COUNT].0)
    }

    /// Indices from the root to the account.
    fn line(index: usize) -> Vec<usize> {
        let mut line: Vec<usize> =
            std::iter::successors(Some(index % ACCOUNT_COUNT), |at| ACCOUNTS[*at].1).collect();
        line.reverse();
        line
    }

    pub(crate) fn path(index: usize) -> Arc<[AccountId]> {
        Self::line(index).into_iter().map(Self::account).collect()
    }

    pub(crate) fn children(index: usize) -> impl Iterator<Item = AccountId> {
        (0..ACCOUNT_COUNT)
            .filter(move |child| ACCOUNTS[*child].1 == Some(index))
            .map(Self::account)
    }

    /// The multipliers of an account's path, with the wallet that is the nearest now.
    pub(crate) fn multipliers(&self, account: usize) -> Multipliers {
        let line = Self::line(account);
        let stated: Vec<Option<Multiplier>> = line
            .iter()
            .map(|at| ACCOUNTS[*at].2.and_then(Multiplier::of_millionths))
            .collect();
        let wallet = line.iter().rposition(|at| {
            self.row(&Self::account(*at))
                .is_some_and(|row| row.wallet.is_some())
        });
        Multipliers::of_path(&stated, wallet).unwrap()
    }

    /// What a request of this list cost takes of each kind of lease: one account is asked by a key with a limit of its own, one for a model.
    pub(crate) fn scopes(
        account: usize,
        multipliers: &Multipliers,
        nano: i64,
    ) -> Vec<(Scope, Amounts)> {
        let account = account % ACCOUNT_COUNT;
        let charges = multipliers
            .charges(PicoUsd(u128::try_from(nano).unwrap() * 1_000))
            .unwrap();
        let path = Self::path(account);
        let mut scopes = vec![(Scope::Path(Arc::clone(&path)), charges)];
        if account == 5 {
            let own = charges.levels().last().unwrap();
            scopes.push((
                Scope::Key(Arc::from("key-1")),
                Amounts::even(1, own, NanoUsd(0)).unwrap(),
            ));
        }
        if account == 3 {
            scopes.push((
                Scope::Model(path, Arc::from("model-1")),
                charges.with_credit(NanoUsd(0)).unwrap(),
            ));
        }
        scopes
    }

    pub(crate) fn row(&self, account: &AccountId) -> Option<&AccountRow> {
        let (_, row) = self
            .ledger
            .rows()
            .find(|(key, _)| **key == RowKey::Account(account.clone()))?;
        AccountRow::of(row)
    }

    pub(crate) fn mark(&self, node: &NodeId, epoch: Epoch) -> Option<Mark> {
        let draft = Draft::new(&self.ledger);
        draft
            .get::<Mark>(&RowKey::Mark(node.clone(), epoch))
            .unwrap()
            .cloned()
    }

    /// Decides and commits one transaction; what says `false` is dropped.
    pub(crate) fn transact<T>(
        &mut self,
        decide: impl FnOnce(&mut Draft<'_>, Now<'_>) -> (T, bool),
    ) -> T {
        self.last_stamp = Stamp::of_leader(self.clock, self.last_stamp);
        let now = Now {
            calendar: &self.calendar,
            at: self.last_stamp,
            generation: self.generation,
        };
        let mut draft = Draft::new(&self.ledger);
        let (answer, commit) = decide(&mut draft, now);
        let changes = draft.into_changes();
        assert!(
            changes.len() <= 100,
            "a transaction of {} rows",
            changes.len()
        );
        if commit {
            self.ledger.commit(changes);
        }
        answer
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask {
                node,
                epoch,
                sent,
                asks,
            } => {
                let id = self.nodes[node].id.clone();
                let answer = self.transact(|draft, now| {
                    let answer = acquire(draft, &id, epoch, &asks, now).unwrap();
                    let commit = answer.is_ok();
                    (answer, commit)
                });
                if let Ok(granted) = &answer {
                    super::audit::leased_within_limits(self, granted);
                }
                let asked = asks
                    .iter()
                    .map(|ask| (ask.number, ask.scope.clone()))
                    .collect();
                self.network.push(Message::Answer {
                    node,
                    epoch,
                    asked,
                    sent,
                    granted: answer.unwrap_or_default(),
                });
            }
            Message::Answer {
                node,
                epoch,
                asked,
                sent,
                granted,
            } => self.answered(node, epoch, &asked, sent, granted),
            Message::Batch {
                node,
                epoch,
                first,
                records,
            } => {
                let id = self.nodes[node].id.clone();
                let applied = self.transact(|draft, now| {
                    (
                        apply(draft, &id, epoch, first, &records, now).unwrap(),
                        true,
                    )
                });
                if let Applied::Through { through, lost, .. } = applied {
                    let excused = self.unbooked.contains_key(&(id, epoch));
                    assert!(lost.0 == 0 || excused, "{lost} lost of {records:?}");
                    self.network.push(Message::Ack {
                        node,
                        epoch,
                        through,
                    });
                }
            }
            Message::Ack {
                node,
                epoch,
                through,
            } => {
                if let Some(journal) = self.nodes[node]
                    .journals
                    .get_mut(&epoch)
                    .filter(|journal| through <= journal.last())
                {
                    journal.acknowledged = journal.acknowledged.max(through);
                }
            }
        }
    }

    fn answered(
        &mut self,
        at: usize,
        epoch: Epoch,
        asked: &[(u64, Scope)],
        sent: Duration,
        granted: Vec<Granted>,
    ) {
        use proxyxai_core::money::{lease::book::Slice, record::Entry};
        let node = &mut self.nodes[at];
        let Some(running) = node
            .running
            .as_mut()
            .filter(|running| running.epoch == epoch)
        else {
            return;
        };
        for (number, scope) in asked {
            let pool = running.pool(scope);
            let found = granted.iter().find(|granted| granted.number == *number);
            let slice = found.map(|granted| Slice {
                lease: *number,
                ends: sent + Duration::from_millis(granted.lifetime_ms),
                unheld: granted.terms.granted,
                single: granted.terms.single,
            });
            if running.book.answered(pool, *number, slice)
                && let Some(granted) = found
            {
                let journal = node.journals.get_mut(&epoch).unwrap();
                journal.entries.push(Entry::Granted {
                    lease: *number,
                    terms: Box::new(granted.terms.clone()),
                    parts: granted.parts.clone(),
                });
            }
        }
    }
}
