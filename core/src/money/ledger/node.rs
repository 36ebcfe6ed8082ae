//! How epochs of a node begin and end: register, suspend, seal, forget.
//!
//! Invariants (law 6): only the epoch that a node registered last gets leases; an epoch is sealed only by the journal that it was
//! registered with, and only when all of that is applied. There is no way from leased to free by a timer. What concerns many leases is done in
//! steps of one transaction each; a step may be repeated, and another leader may go on with the next one.

use super::{
    budget::Place,
    draft::{Draft, MAX_CHANGES},
    fault::Fault,
    id::{Epoch, NodeId, RowKey, WalId},
    mark::{Fate, Mark, NodeRow, Recovery},
    now::Now,
    restore,
    shift::{self, Correction},
};
use crate::money::lease::row::Lease;

/// Whether a step was the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Do the same again in a transaction of its own.
    More,
    /// All is done.
    Done,
}

/// Registers a start of a node: gives it an epoch, and supersedes the ones before. A repeated registration of the same start gets the
/// same epoch.
///
/// # Errors
/// When a row is not loaded.
pub fn register(
    draft: &mut Draft<'_>,
    node: &NodeId,
    wal_id: WalId,
    boot: [u8; 16],
    generation: u64,
) -> Result<Epoch, Fault> {
    let key = RowKey::Node(node.clone());
    let last = draft.get::<NodeRow>(&key)?.cloned();
    if let Some(row) = last
        .as_ref()
        .filter(|row| row.boot == boot && row.epoch.generation == generation)
    {
        return Ok(row.epoch);
    }
    let number = last.map_or(0, |row| {
        if row.epoch.generation == generation {
            row.epoch.number
        } else {
            0
        }
    });
    let number = number.checked_add(1).ok_or(Fault::Overflow)?;
    let epoch = Epoch { generation, number };
    for earlier in draft.epochs_of(node)? {
        let key = RowKey::Mark(node.clone(), earlier);
        if let Some(mut mark) = draft
            .get::<Mark>(&key)?
            .cloned()
            .filter(|mark| mark.fate == Fate::Live)
        {
            mark.fate = Fate::Superseded;
            draft.put(key, mark);
        }
    }
    draft.put(key, NodeRow { epoch, boot });
    draft.put(RowKey::Mark(node.clone(), epoch), Mark::new(wal_id));
    Ok(epoch)
}

/// Moves leases of a superseded epoch to suspense.
///
/// # Errors
/// When a row is not loaded.
pub fn suspend(
    draft: &mut Draft<'_>,
    node: &NodeId,
    epoch: Epoch,
    now: Now<'_>,
) -> Result<Step, Fault> {
    let fate = draft
        .get::<Mark>(&RowKey::Mark(node.clone(), epoch))?
        .map(|mark| mark.fate);
    if fate != Some(Fate::Superseded) {
        return Ok(Step::Done);
    }
    each_lease(
        draft,
        node,
        epoch,
        |lease| lease.place == Place::Leased,
        |draft, id, lease| shift::place(draft, id, lease, Place::Suspense, now.at),
    )
}

/// Why an epoch is not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSealed {
    /// The ledger has no such epoch: it may have been restored from a backup.
    #[error("the ledger does not know this epoch")]
    Unknown,
    /// It is the one that the node runs in.
    #[error("the epoch is the node's current one; it ends when the node registers a later one")]
    Current,
    /// Another journal than the one that it was registered with.
    #[error(
        "the epoch was registered with another journal; if that one is lost, run `xai node forget`"
    )]
    OtherJournal,
    /// The ledger was restored, and first the node has to report.
    #[error("the ledger was restored from a backup and waits for the node's report")]
    Recovering,
    /// Records are missing: send them from this number on.
    #[error("records from {expected} on are not applied yet")]
    Behind {
        /// The first one that is missing.
        expected: u64,
    },
}

/// Seals an epoch whose journal ends with the record `last`: what is left of its leases is free again.
///
/// # Errors
/// When a row is not loaded. `Ok(Err(_))` says why it may not be sealed.
pub fn seal(
    draft: &mut Draft<'_>,
    node: &NodeId,
    epoch: Epoch,
    (wal_id, last): (WalId, u64),
    now: Now<'_>,
) -> Result<Result<(Step, Vec<Correction>), NotSealed>, Fault> {
    let current = draft
        .get::<NodeRow>(&RowKey::Node(node.clone()))?
        .map(|row| row.epoch);
    let key = RowKey::Mark(node.clone(), epoch);
    let Some(mut mark) = draft.get::<Mark>(&key)?.cloned() else {
        return Ok(Err(NotSealed::Unknown));
    };
    if current.is_none_or(|current| epoch >= current) {
        return Ok(Err(NotSealed::Current));
    }
    if mark.wal_id != wal_id {
        return Ok(Err(NotSealed::OtherJournal));
    }
    if restore::waits_for(draft, node)? {
        return Ok(Err(NotSealed::Recovering));
    }
    if mark.applied_through != last {
        let expected = mark.applied_through.saturating_add(1);
        return Ok(Err(NotSealed::Behind { expected }));
    }
    let mut corrections = Vec::new();
    let step = each_lease(
        draft,
        node,
        epoch,
        |_| true,
        |draft, id, lease| {
            corrections.extend(shift::end(draft, id, &lease, now.at)?);
            Ok(())
        },
    )?;
    if step == Step::Done && mark.fate != Fate::Sealed {
        mark.fate = Fate::Sealed;
        draft.put(key, mark);
    }
    Ok(Ok((step, corrections)))
}

/// What `xai node forget` says of what a lost node had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// It is spent. A replay of the node's journal may still put it right.
    Charged,
    /// It is free. Whatever the node did spend is the operator's loss.
    Released,
}

/// Gives up a lost node: charges or releases all that its epochs have leased or in suspense. None of them gets a lease again, and a
/// ledger that recovers does not wait for the node any more.
///
/// # Errors
/// When a row is not loaded.
pub fn forget(
    draft: &mut Draft<'_>,
    node: &NodeId,
    how: Forget,
    now: Now<'_>,
) -> Result<(Step, Vec<Correction>), Fault> {
    let mut corrections = Vec::new();
    for epoch in draft.epochs_of(node)? {
        let key = RowKey::Mark(node.clone(), epoch);
        let fate = match how {
            Forget::Charged => Fate::Charged,
            Forget::Released => Fate::Released,
        };
        match draft.get::<Mark>(&key)?.cloned() {
            Some(mark) if mark.fate != Fate::Sealed && mark.fate != fate => {
                draft.put(key, Mark { fate, ..mark })
            }
            _ => {}
        }
        let step = each_lease(
            draft,
            node,
            epoch,
            |lease| how == Forget::Released || lease.place != Place::Charged,
            |draft, id, lease| match how {
                Forget::Charged => shift::place(draft, id, lease, Place::Charged, now.at),
                Forget::Released => {
                    corrections.extend(shift::end(draft, id, &lease, now.at)?);
                    Ok(())
                }
            },
        )?;
        if step == Step::More {
            return Ok((step, corrections));
        }
    }
    if let Some(mut recovery) = draft.get::<Recovery>(&RowKey::Recovery)?.cloned()
        && recovery.waiting.remove(node)
    {
        draft.put(RowKey::Recovery, recovery);
    }
    Ok((Step::Done, corrections))
}

/// Does something with as many leases of an epoch as one transaction may change.
fn each_lease(
    draft: &mut Draft<'_>,
    node: &NodeId,
    epoch: Epoch,
    wanted: impl Fn(&Lease) -> bool,
    mut act: impl FnMut(&mut Draft<'_>, &super::id::LeaseId, Lease) -> Result<(), Fault>,
) -> Result<Step, Fault> {
    for id in draft.leases_of(node, epoch)? {
        let key = RowKey::Lease(id.clone());
        let Some(lease) = draft
            .get::<Lease>(&key)?
            .filter(|lease| wanted(lease))
            .cloned()
        else {
            continue;
        };
        let touched = lease.terms.scope.rows().into_iter().chain([key]).collect();
        if draft.len_with(&touched) >= MAX_CHANGES {
            return Ok(Step::More);
        }
        act(draft, &id, lease)?;
    }
    Ok(Step::Done)
}
