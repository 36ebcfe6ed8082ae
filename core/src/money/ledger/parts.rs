//! What a lease has from each grant: soonest expiry first, consumed in that order, given back last part first.

use super::{super::nano::NanoUsd, fault::Fault, id::GrantId};

/// Amounts by grant, in the order in which they are consumed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Parts(Vec<(GrantId, NanoUsd)>);

impl Parts {
    /// Parts in the order in which they shall be consumed; those of nothing are left out.
    pub fn new(parts: impl IntoIterator<Item = (GrantId, NanoUsd)>) -> Self {
        Self(
            parts
                .into_iter()
                .filter(|(_, amount)| amount.0 > 0)
                .collect(),
        )
    }

    /// Their sum.
    ///
    /// # Errors
    /// When an amount cannot hold it.
    pub fn sum(&self) -> Result<NanoUsd, Fault> {
        self.0
            .iter()
            .try_fold(NanoUsd(0), |sum, (_, amount)| sum.checked_add(*amount))
            .ok_or(Fault::Overflow)
    }

    /// Each grant and its amount.
    pub fn iter(&self) -> impl Iterator<Item = (GrantId, NanoUsd)> + '_ {
        self.0.iter().copied()
    }

    /// Takes an amount from the first ones.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn consume(&mut self, amount: NanoUsd) -> Result<Self, Fault> {
        let (taken, rest) = take(self.0.iter().copied(), amount)?;
        self.0 = rest;
        Ok(Self(taken))
    }

    /// Takes an amount from the last ones.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn give_back(&mut self, amount: NanoUsd) -> Result<Self, Fault> {
        let (taken, mut rest) = take(self.0.iter().rev().copied(), amount)?;
        rest.reverse();
        self.0 = rest;
        Ok(Self(taken))
    }
}

type Taken = (Vec<(GrantId, NanoUsd)>, Vec<(GrantId, NanoUsd)>);

fn take(parts: impl Iterator<Item = (GrantId, NanoUsd)>, amount: NanoUsd) -> Result<Taken, Fault> {
    let (mut missing, mut taken, mut rest) = (amount, Vec::new(), Vec::new());
    for (grant, has) in parts {
        let from = has.min(missing);
        missing = missing.checked_sub(from).ok_or(Fault::Overflow)?;
        let left = has.checked_sub(from).ok_or(Fault::Overflow)?;
        taken.extend((from.0 > 0).then_some((grant, from)));
        rest.extend((left.0 > 0).then_some((grant, left)));
    }
    if missing.0 == 0 {
        Ok((taken, rest))
    } else {
        Err(Fault::Broken(
            "a lease has less credit than is taken from it",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_consumed_from_the_front_and_given_back_from_the_end() {
        let of = |parts: &[(u32, i64)]| {
            Parts(
                parts
                    .iter()
                    .map(|(id, amount)| (GrantId(*id), NanoUsd(*amount)))
                    .collect(),
            )
        };
        let mut parts = of(&[(1, 5), (2, 5), (3, 5)]);
        assert_eq!(parts.consume(NanoUsd(7)).unwrap(), of(&[(1, 5), (2, 2)]));
        assert_eq!(parts.give_back(NanoUsd(6)).unwrap(), of(&[(3, 5), (2, 1)]));
        assert_eq!(parts, of(&[(2, 2)]));
        assert!(parts.consume(NanoUsd(3)).is_err() && parts.give_back(NanoUsd(3)).is_err());
        assert_eq!(parts, of(&[(2, 2)]));
        assert_eq!(parts.consume(NanoUsd(0)).unwrap(), of(&[]));
    }
}
