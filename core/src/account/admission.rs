//! May this caller do this, now, from here: the key first, then its account and every one above.
//!
//! Invariant: nothing is permitted that the key, its account or any ancestor forbids (law 15). Where nothing is refused, nothing is
//! allocated.

use super::{
    limits::{Asked, Dimension},
    terms::{Key, KeyRefusal},
    tree::{AccountRefusal, AccountTree},
};

/// Whether the key and the whole path of its account permit what is asked for.
///
/// # Errors
/// Who refuses it, and why.
pub fn admit(
    key: &Key,
    accounts: &AccountTree,
    now_unix_ms: i64,
    asked: &Asked<'_>,
) -> Result<(), Refusal> {
    key.active(now_unix_ms).map_err(Refusal::Key)?;
    accounts
        .active(key.record.account)
        .map_err(Refusal::Account)?;
    permits(key, accounts, asked)
}

/// The same for a caller who was let in already, and now says more of what it wants.
///
/// # Errors
/// Who refuses it, and on which dimension.
pub fn permits(key: &Key, accounts: &AccountTree, asked: &Asked<'_>) -> Result<(), Refusal> {
    if let Some(dimension) = key.terms.limits.as_ref().and_then(|own| own.refuses(asked)) {
        return Err(Refusal::KeyLimit(dimension));
    }
    accounts
        .permits(key.record.account, asked)
        .map_err(Refusal::Account)
}

/// Why a caller may not do what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The key does not work.
    Key(KeyRefusal),
    /// The key works, and does not allow this.
    KeyLimit(Dimension),
    /// The account of the key, or one above it.
    Account(AccountRefusal),
}
