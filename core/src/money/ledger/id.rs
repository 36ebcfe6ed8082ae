//! Names of what the ledger keeps.
//!
//! Invariant: epochs, and with them leases and records, carry the generation of the store, so nothing from before a restore can be
//! taken for something after it. Rows sort by their key: an account's beside each other, the leases of an epoch in their order.

use std::sync::Arc;

/// Id of an account.
pub type AccountId = Arc<str>;
/// Id of a virtual key.
pub type KeyId = Arc<str>;
/// A model, as a limit on it names it.
pub type ModelName = Arc<str>;
/// Id of a node.
pub type NodeId = Arc<str>;

/// Identifies the journal of a node: random, made together with its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalId(pub [u8; 16]);

/// One start of a node, numbered by the leader; a later start has a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Generation of the store that gave it.
    pub generation: u64,
    /// Counts the starts of the node in this generation, from 1.
    pub number: u64,
}

/// One lease; its number is given by the node, from 1, and never twice in an epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId {
    /// Who may spend it.
    pub node: NodeId,
    /// In which of its epochs.
    pub epoch: Epoch,
    /// Which one.
    pub number: u64,
}

/// One credit grant of an account, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub u32);

/// What a lease may be spent on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// An account and all above it, the root first.
    Path(Arc<[AccountId]>),
    /// A virtual key.
    Key(KeyId),
    /// A model, at an account and all above it, the root first.
    Model(Arc<[AccountId]>, ModelName),
}

impl Scope {
    /// How many levels it has.
    pub fn depth(&self) -> usize {
        match self {
            Self::Path(accounts) | Self::Model(accounts, _) => accounts.len(),
            Self::Key(_) => 1,
        }
    }

    /// The row of each level, from the root down.
    pub fn rows(&self) -> Vec<RowKey> {
        match self {
            Self::Path(accounts) => accounts.iter().cloned().map(RowKey::Account).collect(),
            Self::Key(key) => vec![RowKey::Key(Arc::clone(key))],
            Self::Model(accounts, model) => accounts
                .iter()
                .map(|account| RowKey::Model(Arc::clone(account), Arc::clone(model)))
                .collect(),
        }
    }
}

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// Windows and grants of an account.
    Account(AccountId),
    /// Windows of a virtual key.
    Key(KeyId),
    /// Windows of a model at an account.
    Model(AccountId, ModelName),
    /// What is left of a lease.
    Lease(LeaseId),
    /// Which epoch a node is in.
    Node(NodeId),
    /// How far an epoch of a node is applied.
    Mark(NodeId, Epoch),
    /// Which nodes a restored ledger waits for.
    Recovery,
}
