//! The lease protocol as a model that is checked in every state that it can reach, with the names of the code beside it.
//!
//! One wallet with one grant, spent by nodes over a network that loses, repeats and reorders every message; crashes, lost disks, a deposed
//! leader whose write arrives late, narrowing, expiry, `node forget`, a restore from a backup. A transaction of the leader is one step, as it
//! is in the store. Each [`Weakening`] leaves one rule of the protocol out, and the checker must find what goes wrong without it: that
//! shows that the rule is needed, and that the model would notice.
//!
//! Trees, windows, several leases for a hold and batches of records are not in the model; the random histories of
//! `core/tests/it/money` have them, on the code itself.

use stateright::{Model, Property};

mod act;
mod checks;
mod node;
mod store;

use node::Node;
use store::Store;

/// A node; an index.
type Id = u8;
/// Carries the generation: an epoch after a restore is greater than all before.
type Epoch = u8;

/// Epochs of one generation.
const EPOCHS: Epoch = 8;

/// How far the search goes.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    nodes: u8,
    /// What the grant has.
    amount: u8,
    /// What a lease has, if there is as much.
    lease: u8,
    /// What a request holds.
    hold: u8,
    leases_per_epoch: u8,
    requests: u8,
    crashes: u8,
    lost_disks: u8,
    forgets: u8,
    narrowings: u8,
    expiries: u8,
    elections: u8,
    restores: u8,
}

impl Bounds {
    /// Nothing goes wrong but the network.
    const CALM: Self = Self {
        nodes: 1,
        amount: 4,
        lease: 2,
        hold: 1,
        leases_per_epoch: 1,
        requests: 2,
        crashes: 0,
        lost_disks: 0,
        forgets: 0,
        narrowings: 0,
        expiries: 0,
        elections: 0,
        restores: 0,
    };
}

/// A rule of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weakening {
    /// Leased money is free again after the lease's lifetime.
    TimerReturnsLeases,
    /// Registering a new epoch frees what the last one had leased.
    RegistrationReleases,
    /// An epoch is sealed by whatever journal the node has now.
    SealByAnyJournal,
    /// A request is sent before its intent is durable.
    NoIntent,
    /// Records and leases are numbered per node, from 1 after each start.
    NumbersWithoutEpoch,
    /// A lease that is granted again is filled again.
    RepeatedGrantRefills,
    /// Recovery writes settlements over what the journal had.
    RecoveryRewrites,
    /// A deposed leader's write is not refused.
    NoFence,
    /// A restored ledger leases before the nodes have reported.
    RestoreDoesNotWait,
    /// A lost node's leases are free again.
    ForgetReleases,
    /// The ledger takes records of a node that has not reported since a restore.
    RecordsBeforeReport,
}

/// The protocol, or one that lacks a rule.
#[derive(Debug, Clone)]
pub(super) struct Protocol {
    bounds: Bounds,
    without: Option<Weakening>,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    store: Store,
    /// A transaction that the leader has sent and the store has not executed yet; `true` once another replica leads.
    late: Option<(Box<Store>, Message, bool)>,
    backup: Option<Box<Store>>,
    generation: u8,
    nodes: Vec<Node>,
    /// What was sent at any time: it may arrive whenever, and as often as it likes.
    network: std::collections::BTreeSet<Message>,
    /// What providers bill for requests that were sent.
    real: u8,
    left: Left,
}

/// What may still happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Left {
    requests: u8,
    crashes: u8,
    lost_disks: u8,
    forgets: u8,
    narrowings: u8,
    expiries: u8,
    elections: u8,
    restores: u8,
}

/// A numbered record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Record {
    Settle { hold: u8, lease: u8, amount: u8 },
    Return { lease: u8, amount: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Ask {
        node: Id,
        epoch: Epoch,
        lease: u8,
    },
    Granted {
        node: Id,
        epoch: Epoch,
        lease: u8,
        amount: u8,
    },
    Record {
        node: Id,
        epoch: Epoch,
        number: u8,
        record: Record,
    },
}

/// What can happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Start(Id),
    Ask(Id),
    Deliver(Message),
    /// The leader decides on an ask and its write is slow.
    DecideLate(Message),
    CommitLate,
    Elect,
    /// Hold, intent and dispatch; the provider will bill this much.
    Request {
        node: Id,
        costs: u8,
    },
    Settle {
        node: Id,
        hold: u8,
    },
    Return {
        node: Id,
        lease: u8,
    },
    Crash(Id),
    LoseDisk(Id),
    Seal {
        node: Id,
        epoch: Epoch,
    },
    Forget(Id),
    Timer,
    Narrow,
    Expire,
    Backup,
    Restore,
    Report(Id),
}

impl Protocol {
    fn lacks(&self, rule: Weakening) -> bool {
        self.without == Some(rule)
    }

    fn ids(&self) -> std::ops::Range<Id> {
        0..self.bounds.nodes
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let bounds = &self.bounds;
        vec![State {
            store: Store::new(bounds.amount, bounds.nodes),
            late: None,
            backup: None,
            generation: 0,
            nodes: self.ids().map(|_| Node::default()).collect(),
            network: std::collections::BTreeSet::new(),
            real: 0,
            left: Left {
                requests: bounds.requests,
                crashes: bounds.crashes,
                lost_disks: bounds.lost_disks,
                forgets: bounds.forgets,
                narrowings: bounds.narrowings,
                expiries: bounds.expiries,
                elections: bounds.elections,
                restores: bounds.restores,
            },
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for node in self.ids() {
            actions.extend([
                Action::Start(node),
                Action::Ask(node),
                Action::Crash(node),
                Action::LoseDisk(node),
                Action::Forget(node),
                Action::Report(node),
            ]);
            actions.extend([0, self.bounds.hold].map(|costs| Action::Request { node, costs }));
            let at = &state.nodes[usize::from(node)];
            actions.extend(
                at.holds
                    .keys()
                    .map(|hold| Action::Settle { node, hold: *hold }),
            );
            actions.extend(at.leases.keys().map(|lease| Action::Return {
                node,
                lease: *lease,
            }));
            actions.extend(at.journals.keys().map(|epoch| Action::Seal {
                node,
                epoch: *epoch,
            }));
            if self.lacks(Weakening::SealByAnyJournal) {
                actions.extend(
                    state
                        .store
                        .epochs_of(node)
                        .map(|epoch| Action::Seal { node, epoch }),
                );
            }
        }
        for message in &state.network {
            actions.push(Action::Deliver(message.clone()));
            if matches!(message, Message::Ask { .. }) {
                actions.push(Action::DecideLate(message.clone()));
            }
        }
        actions.extend([
            Action::CommitLate,
            Action::Elect,
            Action::Narrow,
            Action::Expire,
            Action::Backup,
            Action::Restore,
        ]);
        if self.lacks(Weakening::TimerReturnsLeases) {
            actions.push(Action::Timer);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.act(&mut next, action)?;
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "law 1: providers never bill more than was given",
                |protocol: &Self, state: &State| state.real <= protocol.bounds.amount,
            ),
            Property::always(
                "law 1: money is counted before it is spent",
                |_, state: &State| {
                    !state.store.waiting.is_empty() || state.store.used() >= state.real
                },
            ),
            Property::always(
                "law 2: what is used is no more than what was given",
                |protocol: &Self, state: &State| state.store.used() <= protocol.bounds.amount,
            ),
            Property::always("law 4: no charge is lost", |_, state: &State| {
                !state.is_quiet() || state.store.settled() >= state.real
            }),
            Property::always(
                "law 5: nothing is the operator's loss",
                |_, state: &State| state.store.operator_loss == 0,
            ),
            Property::sometimes(
                "all that was given can be spent",
                |protocol: &Self, state: &State| {
                    let bounds = &protocol.bounds;
                    let most = bounds
                        .amount
                        .min(bounds.requests.saturating_mul(bounds.hold));
                    state.is_quiet() && state.store.settled == most && state.real == most
                },
            ),
        ]
    }
}

impl State {
    /// Every node brought all it had, and nothing is out.
    fn is_quiet(&self) -> bool {
        let all = |node: &Node| {
            node.holds.is_empty()
                && node
                    .journals
                    .values()
                    .all(|journal| journal.open().is_empty())
        };
        let applied = self.nodes.iter().zip(0..).all(|(node, id)| {
            node.journals
                .iter()
                .all(|(epoch, journal)| self.store.applied(id, *epoch) >= journal.last())
        });
        self.store.waiting.is_empty()
            && self.late.is_none()
            && self.store.leases.is_empty()
            && self.nodes.iter().all(all)
            && applied
    }
}
