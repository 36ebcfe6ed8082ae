//! What an event is charged at each level: its list cost times the level's multiplier, rounded up once.
//!
//! Invariants: a multiplier is the largest one on the way from the root, so charges never fall on the way down; charges are monotone
//! in the list cost (law 8). Multipliers are pinned with the price version of the request.

use super::{amounts::Amounts, nano::NanoUsd};
use crate::account::tree::MAX_DEPTH;

/// List cost before it is rounded, in pico-USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PicoUsd(pub u128);

impl PicoUsd {
    /// Rounded up to whole nano-USD; `None` when an amount cannot hold it.
    pub fn round_up(self) -> Option<NanoUsd> {
        Multiplier::ONE.charge(self)
    }
}

/// A factor on list prices, in millionths; never 0, so that what costs something is charged something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Multiplier(u32);

impl Multiplier {
    /// List price.
    pub const ONE: Self = Self(1_000_000);

    /// This many millionths of the list price; `None` for 0.
    pub fn of_millionths(millionths: u32) -> Option<Self> {
        (millionths > 0).then_some(Self(millionths))
    }

    /// ceil(list cost × multiplier) in nano-USD; `None` when an amount cannot hold it.
    pub fn charge(self, list: PicoUsd) -> Option<NanoUsd> {
        let product = list.0.checked_mul(u128::from(self.0))?;
        let nano = product.div_ceil(1_000_000_000);
        i64::try_from(nano).ok().map(NanoUsd)
    }

    /// The greatest list cost whose charge is not more than this: ceil(list × m / 10⁹) ≤ a exactly when list ≤ ⌊a × 10⁹ / m⌋.
    fn affordable(self, amount: NanoUsd) -> PicoUsd {
        let amount = u128::try_from(amount.0).unwrap_or(0);
        let most = amount
            .saturating_mul(1_000_000_000)
            .checked_div(u128::from(self.0));
        PicoUsd(most.unwrap_or(0))
    }
}

/// The multiplier that counts at each level of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Multipliers {
    depth: u8,
    levels: [Multiplier; MAX_DEPTH],
    /// Which level's charge the wallet pays.
    wallet: Option<u8>,
}

impl Multipliers {
    /// From what the accounts of a path say, the root first, and which of them is the wallet. The root says list price when it says
    /// nothing; what another one says counts only where it is more than what counts above it. `None` for a path that is deeper than
    /// [`MAX_DEPTH`] or has no such wallet.
    pub fn of_path(stated: &[Option<Multiplier>], wallet: Option<usize>) -> Option<Self> {
        if stated.len() > MAX_DEPTH || wallet.is_some_and(|level| level >= stated.len()) {
            return None;
        }
        let mut counts: Option<Multiplier> = None;
        let mut levels = [Multiplier::ONE; MAX_DEPTH];
        for (place, own) in levels.iter_mut().zip(stated) {
            let above = counts.or(own.is_none().then_some(Multiplier::ONE));
            let here = above.max(*own).unwrap_or(Multiplier::ONE);
            *place = here;
            counts = Some(here);
        }
        Some(Self {
            depth: u8::try_from(stated.len()).ok()?,
            levels,
            wallet: wallet.and_then(|level| u8::try_from(level).ok()),
        })
    }

    /// What each level and the wallet are charged for this list cost; `None` when an amount cannot hold it.
    pub fn charges(&self, list: PicoUsd) -> Option<Amounts> {
        let depth = usize::from(self.depth);
        let (mut levels, mut last) = ([NanoUsd(0); MAX_DEPTH], None);
        for (place, multiplier) in levels.iter_mut().zip(&self.levels).take(depth) {
            let charge = match last {
                Some((same, charge)) if same == *multiplier => charge,
                _ => multiplier.charge(list)?,
            };
            *place = charge;
            last = Some((*multiplier, charge));
        }
        let levels = levels.get(..depth)?;
        let credit = self
            .wallet
            .and_then(|level| levels.get(usize::from(level)).copied());
        Amounts::new(levels, credit.unwrap_or_default())
    }

    /// The greatest list cost of which no charge is more than these amounts: the inverse of [`Multipliers::charges`].
    pub fn affordable(&self, amounts: &Amounts) -> PicoUsd {
        let wallet = self
            .wallet
            .and_then(|level| self.levels.get(usize::from(level)));
        let credit = wallet.map(|multiplier| (*multiplier, amounts.credit()));
        let levels = self
            .levels
            .iter()
            .copied()
            .take(usize::from(self.depth))
            .zip(amounts.levels());
        let most = levels
            .chain(credit)
            .map(|(multiplier, amount)| multiplier.affordable(amount));
        most.min().unwrap_or_default()
    }

    /// The charge of the lowest level: that of the account itself, and of its keys.
    pub fn own(&self) -> Multiplier {
        let last = usize::from(self.depth).checked_sub(1);
        last.and_then(|at| self.levels.get(at))
            .copied()
            .unwrap_or(Multiplier::ONE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any};

    use super::*;

    #[test]
    fn each_level_is_rounded_up_once() {
        let check = |stated: &[u32], pico: u128, levels: &[i64]| {
            let stated: Vec<Option<Multiplier>> = stated
                .iter()
                .map(|millionths| Multiplier::of_millionths(*millionths))
                .collect();
            let multipliers = Multipliers::of_path(&stated, Some(0)).unwrap();
            let charges = multipliers.charges(PicoUsd(pico)).unwrap();
            let found: Vec<i64> = charges.levels().map(|level| level.0).collect();
            assert_eq!(found, levels, "{stated:?} {pico}");
            assert_eq!(charges.credit().0, levels[0]);
        };
        check(&[0, 0, 0], 1_001, &[2, 2, 2]);
        check(&[0, 1_500_000, 0], 1_001, &[2, 2, 2]);
        check(&[0, 2_000_000, 1_200_000], 10_000, &[10, 20, 20]);
        // A discount is the deployment's to give: below the root it would make a child cheaper than its parent.
        check(&[500_000, 0, 700_000], 10_000, &[5, 5, 7]);
        check(&[0, 500_000], 10_000, &[10, 10]);
        check(&[0], 0, &[0]);
    }

    #[test]
    fn what_an_amount_cannot_hold_is_no_amount() {
        assert_eq!(PicoUsd(u128::MAX).round_up(), None);
        assert_eq!(
            PicoUsd(9_223_372_036_854_775_807_000).round_up(),
            Some(NanoUsd(i64::MAX))
        );
        assert_eq!(PicoUsd(9_223_372_036_854_775_807_001).round_up(), None);
        assert_eq!(Multipliers::of_path(&[None], Some(1)), None);
        assert_eq!(Multipliers::of_path(&[None; MAX_DEPTH + 1], None), None);
    }

    proptest::proptest! {
        #[test]
        fn law_8_charges_are_monotone_in_the_list_cost_and_down_the_path(
            stated in proptest::collection::vec(proptest::option::of((1_u32..5_000_000).prop_map(Multiplier)), 1..=MAX_DEPTH),
            less in any::<u64>(),
            more in any::<u64>(),
        ) {
            let multipliers = Multipliers::of_path(&stated, None).unwrap();
            let low = multipliers.charges(PicoUsd(u128::from(less.min(more)))).unwrap();
            let high = multipliers.charges(PicoUsd(u128::from(less.max(more)))).unwrap();
            proptest::prop_assert!(high.covers(&low));
            let most = multipliers.affordable(&high);
            proptest::prop_assert!(most >= PicoUsd(u128::from(less.max(more))));
            proptest::prop_assert!(high.covers(&multipliers.charges(most).unwrap()));
            let beyond = multipliers.charges(PicoUsd(most.0.saturating_add(1)));
            proptest::prop_assert!(beyond.is_none_or(|beyond| !high.covers(&beyond)));
            let levels: Vec<NanoUsd> = high.levels().collect();
            proptest::prop_assert!(levels.is_sorted());
        }
    }
}
