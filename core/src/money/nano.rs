//! An amount of money: a whole number of nano-USD (10⁻⁹ USD), checked.

use std::fmt;

/// Nano-USD. An `i64` holds 9.2 billion USD either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// The sum, when it fits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, when it fits; it may be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for NanoUsd {
    /// All digits, without trailing zeros beyond two: `0.00`, `0.0000105`, `-3.50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNIT: u64 = 1_000_000_000;
        let size = self.0.unsigned_abs();
        let digits = format!("{:09}", size % UNIT);
        let (cents, rest) = digits.split_at(2);
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(
            f,
            "{sign}{}.{cents}{}",
            size / UNIT,
            rest.trim_end_matches('0')
        )
    }
}

#[cfg(test)]
mod tests {
    use super::NanoUsd;

    #[test]
    fn amounts_are_written_exactly() {
        let check = |nano: i64, text: &str| assert_eq!(NanoUsd(nano).to_string(), text);
        check(0, "0.00");
        check(10_500, "0.0000105");
        check(-3_500_000_000, "-3.50");
        check(1, "0.000000001");
        check(i64::MIN, "-9223372036.854775808");
    }
}
