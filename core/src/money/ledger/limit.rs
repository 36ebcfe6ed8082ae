//! Limits: set, narrowed, taken away.
//!
//! Invariant (law 15): a limit is never written wider than one above it for the same period. Narrowing is always allowed: free may go
//! negative then, what is leased is recalled, and nothing new is leased until it is positive again.

use super::{
    super::{
        nano::NanoUsd,
        window::{Period, Window},
    },
    account::{AccountRow, AccountState},
    budget::{BudgetRow, Limit},
    draft::Draft,
    fault::Fault,
    fund,
    id::{AccountId, RowKey},
    now::Now,
    restore,
};

/// A limit as it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// In which window.
    pub window: Window,
    /// What may still be leased; negative while more is out than the limit allows. `None` without a limit.
    pub free: Option<NanoUsd>,
    /// What nodes may still spend by leases from before: recall them.
    pub out: NanoUsd,
}

/// A limit that is more than one above it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{asked} USD per {period} is more than the {above} USD that the account `{account}` above it allows"
)]
pub struct Widening {
    /// The account above.
    pub account: AccountId,
    /// Of which period.
    pub period: Period,
    /// What was asked for.
    pub asked: NanoUsd,
    /// Its limit.
    pub above: NanoUsd,
}

/// Sets or takes away a limit of an account, a key, or a model at an account. `above` are the accounts above it, whose own limits of the
/// same kind bound it: for an account its ancestors; for a key its account and all above; for a model its account's ancestors.
///
/// # Errors
/// When a row is not loaded. `Ok(Err(_))` names the limit that it would exceed.
pub fn set(
    draft: &mut Draft<'_>,
    key: &RowKey,
    above: &[AccountId],
    (period, limit): (Period, Option<Limit>),
    now: Now<'_>,
) -> Result<Result<Standing, Widening>, Fault> {
    if let Some(asked) = limit {
        for account in above {
            let bound = match key {
                RowKey::Model(_, model) => {
                    let key = RowKey::Model(account.clone(), model.clone());
                    draft
                        .get::<BudgetRow>(&key)?
                        .and_then(|row| row.limit(period))
                }
                RowKey::Account(_)
                | RowKey::Key(_)
                | RowKey::Lease(_)
                | RowKey::Node(_)
                | RowKey::Mark(..)
                | RowKey::Recovery => {
                    let key = RowKey::Account(account.clone());
                    draft
                        .get::<AccountRow>(&key)?
                        .and_then(|row| row.budget.limit(period))
                }
            };
            if let Some(bound) = bound.filter(|bound| bound.amount < asked.amount) {
                return Ok(Err(Widening {
                    account: account.clone(),
                    period,
                    asked: asked.amount,
                    above: bound.amount,
                }));
            }
        }
    }
    let (at, windows) = now.of(draft, std::slice::from_ref(key))?;
    draft.roll(key, &windows, at)?;
    let window = windows.get(period);
    draft.budget(key, |row| {
        row.set_limit(period, limit)?;
        let line = row
            .line(window)
            .ok_or(Fault::Broken("a row has no line for the window of now"))?;
        Ok(Ok(Standing {
            window,
            free: line.free()?,
            out: line.leased,
        }))
    })
}

/// How far a deletion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Money of it is still out, or may be while a restored ledger waits for nodes: recall its leases, and ask again.
    Waits {
        /// With nodes, as far as its own rows say: in budgets and the wallet.
        out: NanoUsd,
    },
    /// Its credit went back to where it came from; the row is a tombstone.
    Closed,
}

/// Goes on with the deletion of an account: no new lease from now on; once nothing is out its credit goes back. Accounts below it are
/// closed before: the tree knows them. It may be repeated, also for a closed account, whose late corrections go back then.
///
/// # Errors
/// When a row is not loaded.
pub fn close(draft: &mut Draft<'_>, account: &AccountId, now: Now<'_>) -> Result<Closing, Fault> {
    let key = RowKey::Account(account.clone());
    let (at, windows) = now.of(draft, std::slice::from_ref(&key))?;
    draft.roll(&key, &windows, at)?;
    let (out, free) = draft.account(&key, |row| {
        if row.state == AccountState::Open {
            row.state = AccountState::Closing;
        }
        let line = row.budget.line(Window::TOTAL).copied();
        let line = line.ok_or(Fault::Broken("a row has no line for all of time"))?;
        let credit = row
            .wallet
            .as_ref()
            .map_or(Ok(NanoUsd(0)), super::wallet::Wallet::out)?;
        let budget = line
            .leased
            .checked_add(line.suspense)
            .ok_or(Fault::Overflow)?;
        let free = row
            .wallet
            .as_ref()
            .map_or(Ok(NanoUsd(0)), |wallet| wallet.free(at))?;
        Ok((budget.max(credit), free))
    })?;
    if out.0 > 0 || restore::is_recovering(draft)? {
        return Ok(Closing::Waits { out });
    }
    if free.0 > 0 {
        fund::give_back(draft, account, free, at)?;
    }
    draft.account(&key, |row| {
        row.state = AccountState::Closed;
        Ok(Closing::Closed)
    })
}
