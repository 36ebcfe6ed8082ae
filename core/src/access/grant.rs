//! What a caller may hand on to others.

use super::{
    permission::{Caller, Permission, Refusal, may},
    role::Role,
};
use crate::account::tree::{AccountIndex, AccountTree, ROOT};

/// What a credential is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// What its holder is.
    pub role: Role,
    /// The account whose subtree it acts in.
    pub account: AccountIndex,
    /// Unix milliseconds from which on it is refused; `None` means never.
    pub expires_unix_ms: Option<i64>,
}

/// Whether a caller may make a credential of this worth: create it, give it a new secret, or let it be used again.
///
/// # Errors
/// Says what the caller lacks.
pub fn may_grant(caller: &Caller, grant: &Grant, accounts: &AccountTree) -> Result<(), Refusal> {
    may_manage(caller, grant.role, grant.account, accounts)?;
    if grant.role == Role::Root && accounts.get(ROOT) != Some(grant.account) {
        return Err(Refusal::Exceeds(
            "the role `root` is for the root account alone",
        ));
    }
    let outlives = match (caller.expires_unix_ms, grant.expires_unix_ms) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(own), Some(wanted)) => wanted > own,
    };
    if outlives {
        return Err(Refusal::Exceeds(
            "it would live longer than the credential that gives it",
        ));
    }
    Ok(())
}

/// Whether a caller may take something from a credential: rename it, shorten its life, disable or delete it.
///
/// # Errors
/// Says what the caller lacks.
pub fn may_manage(
    caller: &Caller,
    role: Role,
    account: AccountIndex,
    accounts: &AccountTree,
) -> Result<(), Refusal> {
    may(caller, Permission::Write, accounts, account)?;
    match role {
        Role::Admin | Role::Viewer => Ok(()),
        Role::Root if caller.role == Role::Root => Ok(()),
        Role::Root => Err(Refusal::Exceeds("only root makes or changes root")),
        Role::Node => Err(Refusal::Exceeds(
            "nodes join the gateway by themselves and are given no credential by hand",
        )),
    }
}

/// When a credential ends for which nothing was said: with its maker's.
pub fn default_expiry(caller: &Caller, wanted_unix_ms: i64) -> Option<i64> {
    if wanted_unix_ms == 0 {
        caller.expires_unix_ms
    } else {
        Some(wanted_unix_ms)
    }
}
