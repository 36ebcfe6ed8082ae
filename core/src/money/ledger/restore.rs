//! A ledger that was restored from a backup, until it knows again what the nodes did since (law 6).
//!
//! Invariants: while a node has not reported there is no hard lease, so money that is out already is not given out twice. What a node has
//! acknowledged records of is booked straight to the rows and grants that they name, each once, and free may go negative; the node's
//! report then replaces its lease rows and its watermark; what it has beyond that is applied as ever. Steps may be repeated.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{lease::row::Lease, nano::NanoUsd, record::Booked, window::Stamp},
    budget::Place,
    draft::{Draft, MAX_CHANGES},
    fault::Fault,
    id::{Epoch, LeaseId, NodeId, RowKey},
    mark::{Fate, Mark, Recovery},
    shift::{Move, shift},
};

/// Nothing expires while a book is put right: what moves there and back would look as if it had come back late.
const NOTHING_EXPIRES: Stamp = Stamp(i64::MIN);

/// Begins: waits for these nodes.
///
/// # Errors
/// When the row is not loaded.
pub fn begin(draft: &mut Draft<'_>, nodes: BTreeSet<NodeId>) -> Result<(), Fault> {
    draft.get::<Recovery>(&RowKey::Recovery)?;
    draft.put(RowKey::Recovery, Recovery { waiting: nodes });
    Ok(())
}

/// Whether the ledger still waits for nodes.
///
/// # Errors
/// When the row is not loaded.
pub fn is_recovering(draft: &Draft<'_>) -> Result<bool, Fault> {
    Ok(draft
        .get::<Recovery>(&RowKey::Recovery)?
        .is_some_and(|recovery| !recovery.waiting.is_empty()))
}

/// Whether the ledger waits for this node.
///
/// # Errors
/// When the row is not loaded.
pub(super) fn waits_for(draft: &Draft<'_>, node: &NodeId) -> Result<bool, Fault> {
    Ok(draft
        .get::<Recovery>(&RowKey::Recovery)?
        .is_some_and(|recovery| recovery.waiting.contains(node)))
}

/// Books what the acknowledged records of a node were charged to, from the number `first` on; those that the backup has already are
/// passed over. Tells through which number they are booked now.
///
/// # Errors
/// When a row is not loaded.
pub fn book(
    draft: &mut Draft<'_>,
    node: &NodeId,
    epoch: Epoch,
    first: u64,
    records: &[Vec<Booked>],
) -> Result<u64, Fault> {
    let key = RowKey::Mark(node.clone(), epoch);
    let mark = draft.get::<Mark>(&key)?.cloned();
    let mut mark = mark.ok_or(Fault::Broken(
        "the epoch of an acknowledged record is not registered",
    ))?;
    let expected = mark.applied_through.saturating_add(1);
    if first > expected {
        return Ok(mark.applied_through);
    }
    for (number, charges) in (first..=u64::MAX)
        .zip(records)
        .filter(|(number, _)| *number >= expected)
    {
        let touched = charges
            .iter()
            .flat_map(|charge| charge.lease.terms.scope.rows())
            .collect();
        if draft.len_with(&touched) >= MAX_CHANGES {
            break;
        }
        for charge in charges {
            if !straight(draft, charge)? {
                mark.operator_loss = NanoUsd(
                    mark.operator_loss
                        .0
                        .saturating_add(charge.amounts.largest().0),
                );
                mark.misfits = mark.misfits.saturating_add(1);
            }
        }
        mark.applied_through = number;
    }
    let through = mark.applied_through;
    draft.put(key, mark);
    Ok(through)
}

/// Books one charge, if its wallet still has the grants that paid it.
fn straight(draft: &mut Draft<'_>, charge: &Booked) -> Result<bool, Fault> {
    let terms = &charge.lease.terms;
    open_lines(draft, &charge.lease)?;
    if let Some(key) = terms.wallet_row() {
        let known = draft.account(&key, |row| {
            let wallet = row.wallet.as_ref();
            Ok(charge
                .parts
                .iter()
                .all(|(id, _)| wallet.is_some_and(|wallet| wallet.grant(id).is_some())))
        })?;
        if !known {
            return Ok(false);
        }
    }
    let step = Move {
        amounts: &charge.amounts,
        parts: &charge.parts,
        from: Place::Free,
        to: Place::Settled,
        listed: charge.listed,
    };
    shift(draft, terms, step, NOTHING_EXPIRES)?;
    Ok(true)
}

/// How far a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Send the same again: it takes more than one transaction.
    More,
    /// The leases of the epoch are as the node says.
    Done,
    /// The report is of another record than the one up to which the ledger has booked: report how it was after this one. A backup may be
    /// newer than the last acknowledgement that reached the node, and then what came between would be counted twice.
    Of {
        /// The watermark.
        applied_through: u64,
    },
}

/// Replaces the leases of an epoch by what its node says they had left after the record `after`, which is the last one that is booked.
///
/// # Errors
/// When a row is not loaded.
pub fn report(
    draft: &mut Draft<'_>,
    node: &NodeId,
    epoch: Epoch,
    after: u64,
    leases: &BTreeMap<u64, Lease>,
) -> Result<Reported, Fault> {
    let key = RowKey::Mark(node.clone(), epoch);
    let mark = draft.get::<Mark>(&key)?.cloned();
    let mut mark = mark.ok_or(Fault::Broken(
        "the epoch that a node reports is not registered",
    ))?;
    if mark.applied_through != after {
        return Ok(Reported::Of {
            applied_through: mark.applied_through,
        });
    }
    let place = match mark.fate {
        Fate::Live => Place::Leased,
        Fate::Charged => Place::Charged,
        Fate::Superseded | Fate::Released | Fate::Sealed => Place::Suspense,
    };
    let known: BTreeSet<u64> = draft
        .leases_of(node, epoch)?
        .into_iter()
        .map(|id| id.number)
        .collect();
    for number in known
        .into_iter()
        .chain(leases.keys().copied())
        .collect::<BTreeSet<u64>>()
    {
        let id = LeaseId {
            node: node.clone(),
            epoch,
            number,
        };
        let row = RowKey::Lease(id.clone());
        let old = draft.get::<Lease>(&row)?.cloned();
        let new = leases.get(&number).map(|lease| Lease {
            place,
            ..lease.clone()
        });
        if old == new {
            continue;
        }
        let scope = new
            .as_ref()
            .or(old.as_ref())
            .map(|lease| lease.terms.scope.rows());
        let touched = scope.into_iter().flatten().chain([row.clone()]).collect();
        if draft.len_with(&touched) >= MAX_CHANGES {
            return Ok(Reported::More);
        }
        replace(draft, &row, old, new)?;
    }
    mark.leases_through = mark
        .leases_through
        .max(leases.keys().copied().max().unwrap_or(0));
    draft.put(key, mark);
    Ok(Reported::Done)
}

fn replace(
    draft: &mut Draft<'_>,
    key: &RowKey,
    old: Option<Lease>,
    new: Option<Lease>,
) -> Result<(), Fault> {
    if let Some(old) = old {
        let step = Move {
            amounts: &old.left,
            parts: &old.parts,
            from: old.place,
            to: Place::Free,
            listed: NanoUsd(0),
        };
        shift(draft, &old.terms, step, NOTHING_EXPIRES)?;
        draft.delete(key.clone());
    }
    if let Some(new) = new {
        open_lines(draft, &new)?;
        let step = Move {
            amounts: &new.left,
            parts: &new.parts,
            from: Place::Free,
            to: new.place,
            listed: NanoUsd(0),
        };
        shift(draft, &new.terms, step, NOTHING_EXPIRES)?;
        draft.put(key.clone(), new);
    }
    Ok(())
}

/// A node has reported all its epochs.
///
/// # Errors
/// When the row is not loaded.
pub fn reported(draft: &mut Draft<'_>, node: &NodeId) -> Result<(), Fault> {
    if let Some(mut recovery) = draft.get::<Recovery>(&RowKey::Recovery)?.cloned() {
        recovery.waiting.remove(node);
        draft.put(RowKey::Recovery, recovery);
    }
    Ok(())
}

/// The restored rows may be from before the windows of a lease began.
fn open_lines(draft: &mut Draft<'_>, lease: &Lease) -> Result<(), Fault> {
    for key in lease.terms.scope.rows() {
        draft.budget(&key, |row| {
            lease
                .terms
                .windows
                .iter()
                .for_each(|window| row.open(window));
            Ok(())
        })?;
    }
    Ok(())
}
