//! Why a store refuses or fails, and what every store refuses alike.

use super::{Compare, MAX_BYTES, MAX_OPS, Op, Txn};

/// Why a store did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The transaction is larger than a store takes.
    #[error(
        "a transaction has at most {MAX_OPS} operations and {MAX_BYTES} bytes; this one has {ops} and {bytes}"
    )]
    TooLarge {
        /// Its operations.
        ops: usize,
        /// Its bytes.
        bytes: usize,
    },
    /// A key is written twice in one transaction.
    #[error("the transaction writes `{0}` twice")]
    Twice(String),
    /// The revision asked for is not kept any more.
    #[error("the state at this revision is not kept any more; list again")]
    Compacted,
    /// The store cannot write or read.
    #[error("the store at {place} failed: {what}; {next}")]
    Failed {
        /// Which store.
        place: String,
        /// What it said.
        what: String,
        /// What to do.
        next: &'static str,
    },
    /// A transaction was sent, and whether it was done is not known.
    #[error(
        "the store at {place} gave no answer to a change ({what}); look whether it was made, then go on"
    )]
    Ambiguous {
        /// Which store.
        place: String,
        /// What went wrong.
        what: String,
    },
    /// The store is stopping.
    #[error("the store is closed")]
    Closed,
}

/// Refuses transactions that some engine would not take.
pub(super) fn check(txn: &Txn) -> Result<(), StoreError> {
    let ops = txn.then.len().max(txn.compares.len());
    let compared = txn.compares.iter().map(|compare| {
        let (Compare::ModRevision(key, _) | Compare::CreateRevision(key, _)) = compare;
        key.len()
    });
    let written = txn.then.iter().map(Op::bytes);
    let bytes = compared.chain(written).fold(0, usize::saturating_add);
    if ops > MAX_OPS || bytes > MAX_BYTES {
        return Err(StoreError::TooLarge { ops, bytes });
    }
    let mut keys: Vec<&str> = txn.then.iter().map(Op::key).collect();
    keys.sort_unstable();
    let twice = keys.array_windows().find(|[a, b]| a == b);
    twice.map_or(Ok(()), |[key, _]| Err(StoreError::Twice((*key).to_owned())))
}
