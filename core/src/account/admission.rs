//! May this caller do this, now, from here: the key first, then its account and every one above.
//!
//! Invariants: nothing is permitted that the key, its account or any ancestor forbids (law 15); what is too old for the account is not
//! judged by at all. Where nothing is refused, nothing is allocated.

use std::time::Duration;

use super::{
    limits::{Asked, Dimension},
    staleness::{Held, TooOld},
    terms::{Key, KeyRefusal},
    tree::{AccountRefusal, AccountTree},
};

/// Whether the key and the whole path of its account permit what is asked for, and what the node holds is young enough to tell.
///
/// # Errors
/// Who refuses it, and why.
pub fn admit(
    key: &Key,
    accounts: &AccountTree,
    now_unix_ms: i64,
    asked: &Asked<'_>,
    held: Held<impl FnOnce() -> Duration>,
) -> Result<(), Refusal> {
    let account = key.record.account;
    let path = accounts.along(account);
    if held.expired || path.dated {
        accounts
            .fresh_enough(account, held)
            .map_err(Refusal::TooOld)?;
    }
    key.active(now_unix_ms).map_err(Refusal::Key)?;
    if !path.known || path.suspended.is_some() {
        accounts.active(account).map_err(Refusal::Account)?;
    }
    if let Some(dimension) = key.terms.limits.as_ref().and_then(|own| own.refuses(asked)) {
        return Err(Refusal::KeyLimit(dimension));
    }
    match path.limited {
        true => accounts.permits(account, asked).map_err(Refusal::Account),
        false => Ok(()),
    }
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
    /// What the node holds is too old to tell.
    TooOld(TooOld),
}
