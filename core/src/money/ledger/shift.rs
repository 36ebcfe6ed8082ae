//! Moves the money of a lease between places, at every row that it is of: the one function that does so, so that rows and leases agree.

use super::{
    super::{
        amounts::Amounts,
        lease::row::{Lease, Terms},
        nano::NanoUsd,
        window::{Stamp, Window},
    },
    budget::Place,
    draft::Draft,
    fault::Fault,
    id::{LeaseId, RowKey},
    parts::Parts,
};

/// What changes in a window whose line was retired already: a final statement gets it as a dated correction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Whose statement.
    pub row: RowKey,
    /// Of which window.
    pub window: Window,
    /// How much less was spent than it says.
    pub less: NanoUsd,
}

/// An amount on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move<'a> {
    pub(crate) amounts: &'a Amounts,
    pub(crate) parts: &'a Parts,
    pub(crate) from: Place,
    pub(crate) to: Place,
    /// List cost that is booked with it.
    pub(crate) listed: NanoUsd,
}

/// Moves money of a lease at all its rows; `at` decides whether what comes back to a grant expires.
pub(crate) fn shift(
    draft: &mut Draft<'_>,
    terms: &Terms,
    step: Move<'_>,
    at: Stamp,
) -> Result<Vec<Correction>, Fault> {
    let mut corrections = Vec::new();
    for (key, amount) in terms.scope.rows().iter().zip(step.amounts.levels()) {
        if amount.0 == 0 && step.listed.0 == 0 {
            continue;
        }
        draft.budget(key, |row| {
            for window in terms.windows.iter() {
                if let Some(line) = row.line_mut(window) {
                    line.shift(amount, step.from, step.to)?;
                    line.listed = line
                        .listed
                        .checked_add(step.listed)
                        .ok_or(Fault::Overflow)?;
                } else if step.from != Place::Charged {
                    return Err(Fault::Broken("a window that a lease names was retired"));
                } else if step.to != Place::Settled && amount.0 > 0 {
                    corrections.push(Correction {
                        row: key.clone(),
                        window,
                        less: amount,
                    });
                }
            }
            Ok(())
        })?;
    }
    if let Some(key) = terms.wallet_row().filter(|_| step.amounts.credit().0 > 0) {
        draft.account(&key, |row| {
            let wallet = row.wallet.as_mut();
            let wallet = wallet.ok_or(Fault::Broken("the wallet of a lease is none"))?;
            wallet.shift(step.parts, step.from, step.to, at)
        })?;
    }
    Ok(corrections)
}

/// Moves all that is left of a lease to another place and keeps the lease.
pub(crate) fn place(
    draft: &mut Draft<'_>,
    id: &LeaseId,
    mut lease: Lease,
    to: Place,
    at: Stamp,
) -> Result<(), Fault> {
    let parts = lease.parts.clone();
    let step = Move {
        amounts: &lease.left,
        parts: &parts,
        from: lease.place,
        to,
        listed: NanoUsd(0),
    };
    shift(draft, &lease.terms, step, at)?;
    lease.place = to;
    draft.put(RowKey::Lease(id.clone()), lease);
    Ok(())
}

/// Gives all that is left of a lease back and ends it.
pub(crate) fn end(
    draft: &mut Draft<'_>,
    id: &LeaseId,
    lease: &Lease,
    at: Stamp,
) -> Result<Vec<Correction>, Fault> {
    let step = Move {
        amounts: &lease.left,
        parts: &lease.parts,
        from: lease.place,
        to: Place::Free,
        listed: NanoUsd(0),
    };
    let corrections = shift(draft, &lease.terms, step, at)?;
    draft.delete(RowKey::Lease(id.clone()));
    Ok(corrections)
}
