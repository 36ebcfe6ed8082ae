//! Applies what nodes report: each record exactly once, and always (laws 4 and 5).
//!
//! Invariants: the watermark is written with the balances that a record changes. A record at or below it changes nothing; one beyond the
//! next is not applied but asked for. What fits no lease is the operator's loss: it stops nobody, and the watermark moves on.

use std::collections::BTreeSet;

use super::{
    super::{
        amounts::Amounts,
        lease::row::Lease,
        nano::NanoUsd,
        record::{Charge, Record, Target},
    },
    budget::Place,
    draft::{Draft, MAX_CHANGES},
    fault::Fault,
    id::{Epoch, LeaseId, NodeId, RowKey, Scope},
    mark::Mark,
    now::Now,
    restore,
    shift::{Correction, Move, shift},
};

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// All through this number is applied; acknowledge it once it is committed. It may be less than what was sent: a transaction has its
    /// limits.
    Through {
        /// The watermark.
        through: u64,
        /// What this batch added to the operator's loss: an alarm.
        lost: NanoUsd,
        /// Final statements that get a correction.
        corrections: Vec<Correction>,
    },
    /// Records are missing before the first of these; send from this number on.
    Gap {
        /// The first one that is missing.
        expected: u64,
    },
    /// The ledger has no such epoch: it may have been restored from a backup.
    UnknownEpoch,
    /// The ledger was restored, and first the node has to report: the leases that these records name may not be in it yet.
    Recovering,
}

/// Applies records that begin with the number `first`.
///
/// # Errors
/// When a row is not loaded; nothing of a record is ever a reason.
pub fn apply(
    draft: &mut Draft<'_>,
    node: &NodeId,
    epoch: Epoch,
    first: u64,
    records: &[Record],
    now: Now<'_>,
) -> Result<Applied, Fault> {
    let key = RowKey::Mark(node.clone(), epoch);
    let Some(mut mark) = draft.get::<Mark>(&key)?.cloned() else {
        return Ok(Applied::UnknownEpoch);
    };
    if restore::waits_for(draft, node)? {
        return Ok(Applied::Recovering);
    }
    let expected = mark.applied_through.saturating_add(1);
    if first > expected {
        return Ok(Applied::Gap { expected });
    }
    let mut booking = Booking {
        node,
        epoch,
        now,
        lost: NanoUsd(0),
        misfits: 0,
        corrections: Vec::new(),
    };
    for (number, record) in (first..=u64::MAX)
        .zip(records)
        .filter(|(number, _)| *number >= expected)
    {
        let touched = booking.touches(draft, record)?;
        if draft.len_with(&touched) >= MAX_CHANGES {
            break;
        }
        booking.record(draft, record)?;
        mark.applied_through = number;
    }
    mark.operator_loss = NanoUsd(mark.operator_loss.0.saturating_add(booking.lost.0));
    mark.misfits = mark.misfits.saturating_add(booking.misfits);
    let through = mark.applied_through;
    if through >= expected {
        draft.put(key, mark);
    }
    Ok(Applied::Through {
        through,
        lost: booking.lost,
        corrections: booking.corrections,
    })
}

struct Booking<'a> {
    node: &'a NodeId,
    epoch: Epoch,
    now: Now<'a>,
    lost: NanoUsd,
    misfits: u64,
    corrections: Vec<Correction>,
}

impl Booking<'_> {
    fn id(&self, number: u64) -> LeaseId {
        LeaseId {
            node: self.node.clone(),
            epoch: self.epoch,
            number,
        }
    }

    /// The rows that a record changes.
    fn touches(&self, draft: &Draft<'_>, record: &Record) -> Result<BTreeSet<RowKey>, Fault> {
        let mut keys = BTreeSet::new();
        let mut lease = |number: u64| -> Result<(), Fault> {
            let key = RowKey::Lease(self.id(number));
            if let Some(lease) = draft.get::<Lease>(&key)? {
                keys.extend(lease.terms.scope.rows());
                keys.insert(key);
            }
            Ok(())
        };
        match record {
            Record::Return(back) => lease(back.lease)?,
            Record::Settle(settle) => {
                let mut free = Vec::new();
                for charge in &settle.charges {
                    match &charge.target {
                        Target::Lease(number) => lease(*number)?,
                        Target::Unlimited(scope) => free.extend(scope.rows()),
                    }
                }
                keys.extend(free);
            }
        }
        Ok(keys)
    }

    fn record(&mut self, draft: &mut Draft<'_>, record: &Record) -> Result<(), Fault> {
        match record {
            Record::Return(back) => self.give_back(draft, back.lease, &back.amounts),
            Record::Settle(settle) => settle
                .charges
                .iter()
                .try_for_each(|charge| self.charge(draft, charge)),
        }
    }

    fn charge(&mut self, draft: &mut Draft<'_>, charge: &Charge) -> Result<(), Fault> {
        match &charge.target {
            Target::Unlimited(scope) => {
                self.unlimited(draft, scope, &charge.amounts, charge.listed)
            }
            Target::Lease(number) => {
                let id = self.id(*number);
                let Some(mut lease) = draft.get::<Lease>(&RowKey::Lease(id.clone()))?.cloned()
                else {
                    self.misfit(&charge.amounts);
                    return Ok(());
                };
                let (fits, parts) = lease.charge(&charge.amounts)?;
                self.misfit(&charge.amounts.beyond(&fits));
                let listed = charge.listed;
                self.book(
                    draft,
                    id,
                    &lease,
                    Move {
                        amounts: &fits,
                        parts: &parts,
                        from: lease.place,
                        to: Place::Settled,
                        listed,
                    },
                )
            }
        }
    }

    fn give_back(
        &mut self,
        draft: &mut Draft<'_>,
        number: u64,
        amounts: &Amounts,
    ) -> Result<(), Fault> {
        let id = self.id(number);
        let Some(mut lease) = draft.get::<Lease>(&RowKey::Lease(id.clone()))?.cloned() else {
            self.misfits = self.misfits.saturating_add(1);
            return Ok(());
        };
        let (fits, parts) = lease.give_back(amounts)?;
        // What does not fit was not spent: nothing is lost, but the node's journal is not what it should be.
        self.misfits = self.misfits.saturating_add(u64::from(fits != *amounts));
        let step = Move {
            amounts: &fits,
            parts: &parts,
            from: lease.place,
            to: Place::Free,
            listed: NanoUsd(0),
        };
        self.book(draft, id, &lease, step)
    }

    fn book(
        &mut self,
        draft: &mut Draft<'_>,
        id: LeaseId,
        lease: &Lease,
        step: Move<'_>,
    ) -> Result<(), Fault> {
        self.corrections
            .extend(shift(draft, &lease.terms, step, self.now.at)?);
        let key = RowKey::Lease(id);
        if lease.left.is_zero() {
            draft.delete(key);
        } else {
            draft.put(key, lease.clone());
        }
        Ok(())
    }

    /// Books what was spent where nothing limits it: no lease was asked for, so it counts when it arrives.
    fn unlimited(
        &mut self,
        draft: &mut Draft<'_>,
        scope: &Scope,
        amounts: &Amounts,
        listed: NanoUsd,
    ) -> Result<(), Fault> {
        let rows = scope.rows();
        let (at, windows) = self.now.of(draft, &rows)?;
        if amounts.depth() != rows.len() || amounts.credit().0 != 0 {
            self.misfit(amounts);
            return Ok(());
        }
        for (key, amount) in rows.iter().zip(amounts.levels()) {
            draft.roll(key, &windows, at)?;
            draft.budget(key, |row| {
                for window in windows.iter() {
                    let line = row
                        .line_mut(window)
                        .ok_or(Fault::Broken("a row has no line for the window of now"))?;
                    line.shift(amount, Place::Free, Place::Settled)?;
                    line.listed = line.listed.checked_add(listed).ok_or(Fault::Overflow)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn misfit(&mut self, beyond: &Amounts) {
        if !beyond.is_zero() {
            self.lost = NanoUsd(self.lost.0.saturating_add(beyond.largest().0));
            self.misfits = self.misfits.saturating_add(1);
        }
    }
}
