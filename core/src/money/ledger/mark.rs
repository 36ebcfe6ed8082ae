//! What the ledger knows of a node: which epoch it is in, and how far each of its epochs is applied.

use std::collections::BTreeSet;

use super::{
    super::nano::NanoUsd,
    id::{Epoch, NodeId, WalId},
};

/// Row of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeRow {
    /// The epoch that may get leases.
    pub epoch: Epoch,
    /// The start of the node that registered it: a repeated registration gets the same epoch.
    pub boot: [u8; 16],
}

/// What became of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The node runs in it.
    Live,
    /// The node registered a later one; what it had leased is in suspense.
    Superseded,
    /// Forgotten: what it had is charged as spent, until a replay tells better.
    Charged,
    /// Forgotten: what it had was given back; what a replay tells is the operator's loss.
    Released,
    /// All of its journal is applied and what was left is free.
    Sealed,
}

/// Row of one epoch of a node. It is written together with the balances that a record changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The journal that its records are in.
    pub wal_id: WalId,
    /// The watermark: the number of the last record that was applied.
    pub applied_through: u64,
    /// The greatest number that a lease was given.
    pub leases_through: u64,
    /// What became of it.
    pub fate: Fate,
    /// Charges that fitted no lease: nobody pays them but the operator.
    pub operator_loss: NanoUsd,
    /// How many records had something that did not fit.
    pub misfits: u64,
}

impl Mark {
    /// The mark of an epoch that begins.
    pub fn new(wal_id: WalId) -> Self {
        Self {
            wal_id,
            applied_through: 0,
            leases_through: 0,
            fate: Fate::Live,
            operator_loss: NanoUsd(0),
            misfits: 0,
        }
    }
}

/// A ledger restored from a backup waits until each of these nodes has reported or was forgotten. No row, or an empty one: it does not
/// wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Recovery {
    /// Nodes that did not report yet.
    pub waiting: BTreeSet<NodeId>,
}
