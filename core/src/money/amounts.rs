//! What one request, hold or lease has at each level of a path, and what of it the wallet pays.
//!
//! Invariants: no part is negative; arithmetic is checked and answers `None` rather than a wrong amount. It is a plain value without
//! a heap, so that a hold on the request path allocates nothing.

use super::nano::NanoUsd;
use crate::account::tree::MAX_DEPTH;

/// An amount per level, from the root down, and what the wallet pays.
///
/// Budgets and the wallet may differ: an attempt whose end is unknown settles its hold in the budgets and less in the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amounts {
    depth: u8,
    levels: [i64; MAX_DEPTH],
    credit: i64,
}

impl Amounts {
    /// Nothing, on a path of this depth. A path is never deeper than [`MAX_DEPTH`]; what is beyond is cut.
    pub fn zero(depth: usize) -> Self {
        Self {
            depth: u8::try_from(depth.min(MAX_DEPTH)).unwrap_or(0),
            levels: [0; MAX_DEPTH],
            credit: 0,
        }
    }

    /// These amounts from the root down, and what the wallet pays; `None` when there are more than [`MAX_DEPTH`] or one is negative.
    pub fn new(levels: &[NanoUsd], credit: NanoUsd) -> Option<Self> {
        if levels.len() > MAX_DEPTH || credit.0 < 0 || levels.iter().any(|level| level.0 < 0) {
            return None;
        }
        let mut amounts = Self::zero(levels.len());
        for (place, level) in amounts.levels.iter_mut().zip(levels) {
            *place = level.0;
        }
        amounts.credit = credit.0;
        Some(amounts)
    }

    /// The same amount at every level, and what the wallet pays; `None` when one is negative.
    pub fn even(depth: usize, level: NanoUsd, credit: NanoUsd) -> Option<Self> {
        let mut amounts = Self::zero(depth);
        (level.0 >= 0 && credit.0 >= 0).then(|| {
            amounts.own_levels().fill(level.0);
            amounts.credit = credit.0;
            amounts
        })
    }

    /// How many levels there are.
    pub fn depth(&self) -> usize {
        usize::from(self.depth)
    }

    /// The amounts from the root down.
    pub fn levels(&self) -> impl Iterator<Item = NanoUsd> + '_ {
        self.levels.iter().take(self.depth()).copied().map(NanoUsd)
    }

    /// What the wallet pays.
    pub fn credit(&self) -> NanoUsd {
        NanoUsd(self.credit)
    }

    /// The same with another part for the wallet; `None` when it is negative.
    #[must_use]
    pub fn with_credit(mut self, credit: NanoUsd) -> Option<Self> {
        self.credit = credit.0;
        (credit.0 >= 0).then_some(self)
    }

    /// Whether there is nothing anywhere.
    pub fn is_zero(&self) -> bool {
        self.credit == 0 && self.levels.iter().all(|level| *level == 0)
    }

    /// The largest part.
    pub fn largest(&self) -> NanoUsd {
        NanoUsd(
            self.levels()
                .map(|level| level.0)
                .fold(self.credit, i64::max),
        )
    }

    /// Whether no part is below that of the other one.
    pub fn covers(&self, other: &Self) -> bool {
        self.checked_sub(other).is_some()
    }

    /// The sum, part by part, of two of the same depth.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        self.each(other, i64::checked_add)
    }

    /// The difference, part by part, of two of the same depth; `None` when a part would be negative.
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.each(other, |a, b| a.checked_sub(b).filter(|rest| *rest >= 0))
    }

    /// The smaller one of each part; of those levels that both have.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        let mut least = self.parts(other, i64::min);
        least.depth = self.depth.min(other.depth);
        least
    }

    /// The larger one of each part; of those levels that one of them has.
    #[must_use]
    pub fn most(&self, other: &Self) -> Self {
        let mut most = self.parts(other, i64::max);
        most.depth = self.depth.max(other.depth);
        most
    }

    /// What of each part is beyond that of the other one.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        self.parts(other, |a, b| a.saturating_sub(b).max(0))
    }

    /// Each part times `of` / `whole`, rounded down.
    #[must_use]
    pub fn share(&self, of: u64, whole: u64) -> Self {
        let part = |a: i64, _| {
            let product = i128::from(a).saturating_mul(i128::from(of));
            product
                .checked_div(i128::from(whole))
                .map_or(0, |share| i64::try_from(share).unwrap_or(i64::MAX))
        };
        self.parts(self, part)
    }

    fn own_levels(&mut self) -> &mut [i64] {
        let depth = self.depth();
        self.levels.get_mut(..depth).unwrap_or_default()
    }

    fn parts(&self, other: &Self, of: impl Fn(i64, i64) -> i64) -> Self {
        let mut parts = *self;
        for (place, other) in parts.levels.iter_mut().zip(&other.levels) {
            *place = of(*place, *other);
        }
        parts.credit = of(self.credit, other.credit);
        parts
    }

    fn each(&self, other: &Self, of: impl Fn(i64, i64) -> Option<i64>) -> Option<Self> {
        let mut parts = *self;
        let depth = usize::from((self.depth == other.depth).then_some(self.depth)?);
        for (place, other) in parts.levels.iter_mut().zip(&other.levels).take(depth) {
            *place = of(*place, *other)?;
        }
        parts.credit = of(self.credit, other.credit)?;
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(levels: &[i64], credit: i64) -> Amounts {
        let levels: Vec<NanoUsd> = levels.iter().copied().map(NanoUsd).collect();
        Amounts::new(&levels, NanoUsd(credit)).unwrap()
    }

    #[test]
    fn parts_are_checked_one_by_one() {
        let (a, b) = (of(&[5, 7], 3), of(&[4, 7], 0));
        assert_eq!(a.checked_add(&b), Some(of(&[9, 14], 3)));
        assert_eq!(a.checked_sub(&b), Some(of(&[1, 0], 3)));
        assert_eq!(b.checked_sub(&a), None);
        assert_eq!(a.checked_add(&of(&[i64::MAX, 0], 0)), None);
        assert_eq!(a.checked_add(&of(&[1], 0)), None);
        assert_eq!(a.least(&of(&[9, 1], 2)), of(&[5, 1], 2));
        assert_eq!(a.beyond(&of(&[9, 1], 2)), of(&[0, 6], 1));
        assert_eq!(a.share(1, 2), of(&[2, 3], 1));
        assert!(a.covers(&b) && !b.covers(&a));
        assert_eq!(Amounts::new(&[NanoUsd(-1)], NanoUsd(0)), None);
        assert_eq!(Amounts::new(&[NanoUsd(0); MAX_DEPTH + 1], NanoUsd(0)), None);
    }
}
