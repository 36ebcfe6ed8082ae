//! Why a transaction of the ledger cannot be decided. Refusals that a caller may meet are answers, not faults.

use super::id::RowKey;

/// Nothing is changed by what ends in one of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Read this row from the store and decide again.
    #[error("the row {0:?} is not loaded")]
    NotLoaded(RowKey),
    /// A sum is more than an amount can hold.
    #[error(
        "an amount of the ledger would be more than 9.2 billion USD; correct the limits or grants of the accounts concerned"
    )]
    Overflow,
    /// The rows contradict each other. It is a defect: the leader must stop changing them.
    #[error(
        "the rows of the ledger contradict each other: {0}; stop the control planes and run `xai audit money`"
    )]
    Broken(&'static str),
}
