//! One part of the keys, sorted by digest, and one part of the index from ids to those parts.
//!
//! Invariant: vectors have no room to spare, so that what a table takes does not depend on how it came about.

use super::{Digest, KeyDigest, KeyId, KeyRecord};

/// Parts that the keys are spread over.
pub(super) const SHARDS: usize = 1 << SHARD_BITS;
pub(super) const SHARD_BITS: u32 = 12;
/// Steps from a guessed place before halving begins; even keys need a few.
const NEAR: usize = 24;

/// What is kept of a key; its account is a slot here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Of the resource that the key came from.
    pub(super) hash: Digest,
    pub(super) record: KeyRecord,
}

/// The keys whose digests begin with the same bits.
#[derive(Default)]
pub(super) struct Shard {
    digests: Vec<KeyDigest>,
    rows: Vec<Row>,
}

impl Shard {
    /// The shard that a digest belongs to.
    pub(super) fn number(digest: &KeyDigest) -> usize {
        let [first, second, ..] = digest.0;
        usize::from(u16::from_be_bytes([first, second]) >> (u16::BITS - SHARD_BITS))
    }

    /// Takes rows in the order of their digests.
    pub(super) fn of(sorted: &[(KeyDigest, Row)]) -> Self {
        Self {
            digests: sorted.iter().map(|(digest, _)| *digest).collect(),
            rows: sorted.iter().map(|(_, row)| *row).collect(),
        }
    }

    /// Where a digest is, or belongs.
    pub(super) fn find(&self, digest: &KeyDigest) -> Result<usize, usize> {
        let guess = self.guess(digest);
        let (before, after) = self.digests.split_at_checked(guess).unwrap_or_default();
        // The place is in `before` when its last one is not smaller.
        if before.last().is_some_and(|last| last >= digest) {
            let near = before.len().saturating_sub(NEAR);
            match before.get(near).is_some_and(|first| first <= digest) {
                true => offset(
                    near,
                    before.get(near..).unwrap_or_default().binary_search(digest),
                ),
                false => before.binary_search(digest),
            }
        } else {
            let near = after.get(..NEAR.min(after.len())).unwrap_or_default();
            match near.last().is_some_and(|last| last >= digest) {
                true => offset(guess, near.binary_search(digest)),
                false => offset(guess, after.binary_search(digest)),
            }
        }
    }

    /// Where a digest would be if they were spread evenly.
    fn guess(&self, digest: &KeyDigest) -> usize {
        let [_, a, b, c, d, ..] = digest.0;
        let bits = u64::from(u32::from_be_bytes([a, b, c, d]) << (SHARD_BITS - u8::BITS));
        let len = u64::try_from(self.digests.len()).unwrap_or(0);
        usize::try_from(bits.saturating_mul(len) >> u32::BITS).unwrap_or(0)
    }

    pub(super) fn get(&self, at: usize) -> Option<&Row> {
        self.rows.get(at)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&KeyDigest, &Row)> {
        self.digests.iter().zip(&self.rows)
    }

    pub(super) fn by_id(&self, id: &KeyId) -> Option<(&KeyDigest, &Row)> {
        self.rows().find(|(_, row)| row.record.id == *id)
    }

    #[must_use]
    pub(super) fn with(&self, at: usize, digest: KeyDigest, row: Row) -> Self {
        Self {
            digests: inserted(&self.digests, at, digest),
            rows: inserted(&self.rows, at, row),
        }
    }

    #[must_use]
    pub(super) fn without(&self, digest: &KeyDigest) -> Self {
        let at = self.find(digest).unwrap_or(usize::MAX);
        Self {
            digests: removed(&self.digests, at),
            rows: removed(&self.rows, at),
        }
    }
}

fn offset(by: usize, place: Result<usize, usize>) -> Result<usize, usize> {
    match place {
        Ok(at) => Ok(at.saturating_add(by)),
        Err(at) => Err(at.saturating_add(by)),
    }
}

/// Where the keys are whose ids have the same hash in its first bits: 20 further bits of it, and the number of the key's shard.
#[derive(Default)]
pub(super) struct IdShard {
    sorted: Vec<u32>,
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
        entries.shrink_to_fit();
        Self { sorted: entries }
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

fn inserted<T: Copy>(items: &[T], at: usize, item: T) -> Vec<T> {
    let (before, after) = items.split_at_checked(at).unwrap_or((items, &[]));
    let mut out = Vec::with_capacity(items.len().saturating_add(1));
    out.extend_from_slice(before);
    out.push(item);
    out.extend_from_slice(after);
    out
}

fn removed<T: Copy>(items: &[T], at: usize) -> Vec<T> {
    let (before, rest) = items.split_at_checked(at).unwrap_or((items, &[]));
    let after = rest.split_first().map_or(rest, |(_, after)| after);
    let mut out = Vec::with_capacity(before.len().saturating_add(after.len()));
    out.extend_from_slice(before);
    out.extend_from_slice(after);
    out
}
