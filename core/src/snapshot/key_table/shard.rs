//! One part of the keys, sorted by digest, with an index to where each begins.
//!
//! Invariants: nothing has room to spare, so that what a table takes does not depend on how it came about. The rows are in two pieces,
//! the first as long as a block that allocators have a size for: they have four sizes to each power of two, so that one piece would
//! leave a tenth of its block unused.

use super::{KeyDigest, KeyId, Row};

/// Parts that the keys are spread over.
pub(super) const SHARDS: usize = 1 << SHARD_BITS;
pub(super) const SHARD_BITS: u32 = 12;
/// Keys to an entry of the index.
const EACH: usize = 2;

/// The keys whose digests begin with the same bits.
#[derive(Default)]
pub(super) struct Shard {
    head: Box<[Row]>,
    tail: Box<[Row]>,
    /// Where the rows of each range of digests begin; of ranges as even as digests are, so that each has two rows or so. A place too
    /// large for its number is as if it were the largest number.
    starts: Box<[u16]>,
}

impl Shard {
    /// The shard that a digest belongs to.
    pub(super) fn number(digest: &KeyDigest) -> usize {
        let [first, second, ..] = digest.0;
        usize::from(u16::from_be_bytes([first, second]) >> (u16::BITS - SHARD_BITS))
    }

    /// Takes rows in the order of their digests.
    pub(super) fn of(sorted: &[Row]) -> Self {
        let (head, tail) = sorted
            .split_at_checked(block(sorted.len()))
            .unwrap_or((sorted, &[]));
        let ranges = sorted.len() / EACH;
        let (mut starts, mut at) = (Vec::with_capacity(ranges), 0_usize);
        for range in 0..ranges {
            let rows = sorted.get(at..).unwrap_or_default().iter();
            at = at.saturating_add(
                rows.take_while(|row| range_of(row.digest(), ranges) < range)
                    .count(),
            );
            starts.push(u16::try_from(at).unwrap_or(u16::MAX));
        }
        Self {
            head: Box::from(head),
            tail: Box::from(tail),
            starts: starts.into_boxed_slice(),
        }
    }

    /// Where a digest is, or belongs.
    pub(super) fn find(&self, digest: &KeyDigest) -> Result<usize, usize> {
        let range = range_of(digest, self.starts.len());
        let start = |range: usize| self.starts.get(range).copied().map(usize::from);
        let mut from = start(range).unwrap_or(0);
        let mut to = start(range.saturating_add(1))
            .filter(|to| *to < usize::from(u16::MAX))
            .unwrap_or(self.len());
        while let Some(middle) = from.checked_add(to.saturating_sub(from) / 2)
            && from < to
            && let Some(row) = self.get(middle)
        {
            match row.digest().cmp(digest) {
                std::cmp::Ordering::Less => from = middle.saturating_add(1),
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    fn len(&self) -> usize {
        self.head.len().saturating_add(self.tail.len())
    }

    pub(super) fn get(&self, at: usize) -> Option<&Row> {
        match at.checked_sub(self.head.len()) {
            None => self.head.get(at),
            Some(at) => self.tail.get(at),
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.head.iter().chain(&self.tail)
    }

    pub(super) fn by_id(&self, id: &KeyId) -> Option<&Row> {
        self.rows().find(|row| row.id() == id)
    }

    #[must_use]
    pub(super) fn with(&self, at: usize, row: Row) -> Self {
        Self::of(&inserted(&self.sorted(), at, row))
    }

    #[must_use]
    pub(super) fn without(&self, digest: &KeyDigest) -> Self {
        let at = self.find(digest).unwrap_or(usize::MAX);
        Self::of(&removed(&self.sorted(), at))
    }

    fn sorted(&self) -> Vec<Row> {
        [&*self.head, &*self.tail].concat()
    }
}

/// The range that a digest falls into, of so many.
fn range_of(digest: &KeyDigest, ranges: usize) -> usize {
    let [_, a, b, c, d, ..] = digest.0;
    let bits = u64::from(u32::from_be_bytes([a, b, c, d]) << (SHARD_BITS - u8::BITS));
    let ranges = u64::try_from(ranges).unwrap_or(0);
    usize::try_from(bits.saturating_mul(ranges) >> u32::BITS).unwrap_or(0)
}

/// The most rows, of so many, that fill a block of an allocator: 4, 5, 6 or 7 times a power of two.
fn block(rows: usize) -> usize {
    let steps = rows.checked_ilog2().unwrap_or(0).saturating_sub(2);
    (rows >> steps) << steps
}

pub(super) fn inserted<T: Copy>(items: &[T], at: usize, item: T) -> Box<[T]> {
    let (before, after) = items.split_at_checked(at).unwrap_or((items, &[]));
    let mut out = Vec::with_capacity(items.len().saturating_add(1));
    out.extend_from_slice(before);
    out.push(item);
    out.extend_from_slice(after);
    out.into_boxed_slice()
}

pub(super) fn removed<T: Copy>(items: &[T], at: usize) -> Box<[T]> {
    let (before, rest) = items.split_at_checked(at).unwrap_or((items, &[]));
    let after = rest.split_first().map_or(rest, |(_, after)| after);
    let mut out = Vec::with_capacity(before.len().saturating_add(after.len()));
    out.extend_from_slice(before);
    out.extend_from_slice(after);
    out.into_boxed_slice()
}
