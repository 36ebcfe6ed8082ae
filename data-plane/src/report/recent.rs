//! The batches that became durable last: they are sent from here, so that in ordinary times nothing is read back from the disk.
//!
//! Invariant: holds durable batches of the current epoch alone, with the bytes that the files have, and at most 1 MiB of them.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::files::Numbered;

/// Bytes of batches that are kept.
const BYTES: usize = 1 << 20;

/// Batches that follow each other, the oldest first.
#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<Numbered>>);

impl Recent {
    /// These are durable now; those of long ago are left to the files.
    pub(super) fn add(&self, batches: &[Numbered]) {
        let mut kept = self.kept();
        kept.extend(batches.iter().cloned());
        let mut bytes = 0_usize;
        let fits = kept.iter().rev().take_while(|batch| {
            bytes = bytes.saturating_add(batch.payload.len());
            bytes <= BYTES
        });
        let old = kept.len().saturating_sub(fits.count());
        kept.drain(..old);
    }

    /// The bytes of a batch, if it is still here.
    pub(super) fn get(&self, sequence: u64) -> Option<Bytes> {
        let kept = self.kept();
        let ahead = sequence.checked_sub(kept.front()?.sequence)?;
        let batch = kept.get(usize::try_from(ahead).ok()?)?;
        Some(batch.payload.clone())
    }

    /// Everything up to this batch is acknowledged.
    pub(super) fn forget(&self, through: u64) {
        let mut kept = self.kept();
        while kept.front().is_some_and(|first| first.sequence <= through) {
            kept.pop_front();
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Numbered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_until_they_are_acknowledged() {
        let recent = Recent::default();
        let batch = |sequence| Numbered {
            sequence,
            payload: vec![u8::try_from(sequence).unwrap(); BYTES / 4].into(),
        };
        let here = |recent: &Recent| {
            let found = |sequence: &u64| match recent.get(*sequence) {
                Some(bytes) => {
                    assert_eq!(bytes, batch(*sequence).payload);
                    true
                }
                None => false,
            };
            (0..10).filter(found).collect::<Vec<_>>()
        };
        assert!(here(&recent).is_empty());
        recent.add(&[batch(1), batch(2)]);
        assert_eq!(here(&recent), [1, 2]);
        recent.add(&[batch(3), batch(4), batch(5), batch(6)]);
        assert_eq!(here(&recent), [3, 4, 5, 6]);
        recent.forget(4);
        assert_eq!(here(&recent), [5, 6]);
        recent.forget(9);
        recent.add(&[batch(7)]);
        assert_eq!(here(&recent), [7]);
    }
}
