//! One part of the index from ids to the shards that keys are in.
//!
//! Invariant: an index has no room to spare, so that what a table takes does not depend on how it came about.

use super::{
    KeyId,
    shard::{SHARD_BITS, SHARDS, inserted, removed},
};

/// Where the keys are whose ids have the same hash in its first bits: 20 further bits of it, and the number of the key's shard.
#[derive(Default)]
pub(super) struct IdShard {
    sorted: Box<[u32]>,
}

impl IdShard {
    /// The part of the index that an id belongs to.
    pub(super) fn number(id: &KeyId) -> usize {
        usize::try_from(mixed(id) >> (u64::BITS - SHARD_BITS)).unwrap_or(0)
    }

    /// The entry of a key in its part.
    pub(super) fn entry(id: &KeyId, shard: usize) -> u32 {
        let bits = u32::try_from((mixed(id) << SHARD_BITS) >> u32::BITS).unwrap_or(0);
        let mask = u32::MAX << SHARD_BITS;
        (bits & mask) | (u32::try_from(shard).unwrap_or(0) & !mask)
    }

    pub(super) fn of(mut entries: Vec<u32>) -> Self {
        entries.sort_unstable();
        // A copy, as allocators leave a block as it is that is to shrink a little.
        Self {
            sorted: Box::from(entries.as_slice()),
        }
    }

    /// Shards that a key with this id may be in.
    pub(super) fn candidates(&self, id: &KeyId) -> impl Iterator<Item = usize> + '_ {
        let first = Self::entry(id, 0);
        let last = Self::entry(id, SHARDS.saturating_sub(1));
        let from = self.sorted.partition_point(|entry| *entry < first);
        self.sorted
            .iter()
            .skip(from)
            .take_while(move |entry| **entry <= last)
            .map(|entry| usize::try_from(entry & !(u32::MAX << SHARD_BITS)).unwrap_or(0))
    }

    #[must_use]
    pub(super) fn with(&self, id: &KeyId, shard: usize) -> Self {
        let entry = Self::entry(id, shard);
        let at = self.sorted.partition_point(|other| *other < entry);
        Self {
            sorted: inserted(&self.sorted, at, entry),
        }
    }

    #[must_use]
    pub(super) fn without(&self, id: &KeyId, shard: usize) -> Self {
        let at = self.sorted.binary_search(&Self::entry(id, shard));
        Self {
            sorted: removed(&self.sorted, at.unwrap_or(usize::MAX)),
        }
    }
}

/// Ids are random characters, not random bits.
fn mixed(id: &KeyId) -> u64 {
    let (words, _) = id.as_bytes().as_chunks::<4>();
    words
        .iter()
        .fold(0, |hash: u64, word| {
            (hash ^ u64::from(u32::from_le_bytes(*word)))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29)
        })
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
}
