//! In what order the keys of a level have their turns: by weight, and evenly mixed.
//!
//! Invariants: the order depends on the weights alone, so that every core and node agrees on turn number `n`; over one round each key
//! has as many turns as its weight says, and equal weights take plain turns.

/// Largest weight.
pub const MAX_WEIGHT: u32 = 100;
/// Longest round. Weights whose sum is above it are made smaller in proportion, so that a round stays short.
const MAX_TURNS: u64 = 4096;

/// One round: for each turn, whose it is, as a place in `weights`.
pub fn round(weights: &[u32]) -> Box<[u32]> {
    let weights = reduced(weights);
    let mut turns = Vec::new();
    for (key, weight) in (0_u32..).zip(&weights) {
        turns.extend((0..*weight).map(|turn| Turn {
            number: turn.saturating_mul(2).saturating_add(1),
            weight: *weight,
            key,
        }));
    }
    turns.sort();
    turns.into_iter().map(|turn| turn.key).collect()
}

/// A turn is due at `number / (2 × weight)` of the round: a key's turns are spread evenly over it.
#[derive(PartialEq, Eq)]
struct Turn {
    number: u64,
    weight: u64,
    key: u32,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (mine, theirs) = (
            self.number.saturating_mul(other.weight),
            other.number.saturating_mul(self.weight),
        );
        mine.cmp(&theirs).then(self.key.cmp(&other.key))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The same proportions in the smallest numbers, none of them zero.
fn reduced(weights: &[u32]) -> Vec<u64> {
    let all = || weights.iter().map(|weight| u64::from((*weight).max(1)));
    let common = all().fold(0, gcd);
    let small = |weight: u64| weight.checked_div(common).unwrap_or(weight);
    let sum = all().map(small).fold(0, u64::saturating_add);
    let shorter = |weight: u64| match weight.saturating_mul(MAX_TURNS).checked_div(sum) {
        Some(less) if sum > MAX_TURNS => less.max(1),
        Some(_) | None => weight,
    };
    all().map(small).map(shorter).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    match a.checked_rem(b) {
        None => a,
        Some(rest) => gcd(b, rest),
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_mixed() {
        let check = |weights: &[u32], want: &[u32]| assert_eq!(&*round(weights), want);
        check(&[], &[]);
        check(&[7], &[0]);
        check(&[1, 1, 1], &[0, 1, 2]);
        check(&[50, 50], &[0, 1]);
        check(&[5, 1, 1], &[0, 0, 0, 1, 2, 0, 0]);
        check(&[2, 1], &[0, 1, 0]);
        check(&[0, 2], &[1, 0, 1]);
    }

    proptest! {
        #[test]
        fn every_key_has_its_share_and_waits_no_longer_than_it_must(weights in prop::collection::vec(1..=MAX_WEIGHT, 1..30)) {
            let turns = round(&weights);
            let sum: u32 = weights.iter().sum();
            for (key, weight) in (0_u32..).zip(&weights) {
                let places: Vec<usize> = (0..turns.len()).filter(|at| turns[*at] == key).collect();
                // So many turns of so many, as the weight is of the sum of weights.
                prop_assert_eq!(places.len() * usize::try_from(sum).unwrap(), turns.len() * usize::try_from(*weight).unwrap());
                let longest = turns.len() / places.len() + weights.len();
                let next = places.iter().skip(1).copied().chain([places[0] + turns.len()]);
                for (at, next) in places.iter().zip(next) {
                    prop_assert!(next - at <= longest, "{weights:?}: {key} waits from {at} to {next}");
                }
            }
        }

        #[test]
        fn a_round_stays_short(weights in prop::collection::vec(1..=MAX_WEIGHT, 1..600)) {
            prop_assert!(round(&weights).len() <= 4096 + weights.len());
        }
    }
}
