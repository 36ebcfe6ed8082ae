//! Which traces are kept: by whoever began them, by a share of all, and always when something failed.

use std::{fmt, str::FromStr};

use super::{TraceContext, TraceId};

/// How many traces are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// The share of those that nobody decided about.
    pub ratio: Ratio,
    /// Whether the decision of a parent is followed.
    pub follow_parent: bool,
    /// Whether what failed is kept in any case.
    pub failures: bool,
}

impl Sampling {
    /// Whether a trace is kept, told at its start.
    pub fn at_start(&self, trace: TraceId, parent: Option<&TraceContext>) -> bool {
        match parent {
            Some(parent) if self.follow_parent => parent.sampled,
            Some(_) | None => self.ratio.has(trace),
        }
    }

    /// Whether it is kept, told at its end.
    pub fn at_end(&self, sampled: bool, failed: bool) -> bool {
        sampled || (failed && self.failures)
    }
}

/// A share from 0 to 1, in steps of a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u32);

const WHOLE: u32 = 1_000_000;
/// Of the lower half of a trace id, 63 bits decide, as in OpenTelemetry's `TraceIdRatioBased`.
const RANGE: u128 = 1 << 63;

impl Ratio {
    /// One of a hundred.
    pub const PERCENT: Self = Self(WHOLE / 100);
    /// All.
    pub const ALL: Self = Self(WHOLE);
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether a trace belongs to the share.
    pub fn has(self, trace: TraceId) -> bool {
        let place = (trace.0 & u128::from(u64::MAX)) >> 1;
        place < u128::from(self.0).saturating_mul(RANGE) / 1_000_000
    }
}

/// Why a text is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share is a number from 0 to 1 with at most six digits behind the point, as in 0.01")]
pub struct InvalidRatio;

impl FromStr for Ratio {
    type Err = InvalidRatio;

    fn from_str(text: &str) -> Result<Self, InvalidRatio> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return Err(InvalidRatio);
        }
        let millionths: u32 = format!("{part:0<6}").parse().map_err(|_| InvalidRatio)?;
        let whole: u32 = whole.parse().map_err(|_| InvalidRatio)?;
        whole
            .checked_mul(WHOLE)
            .and_then(|whole| whole.checked_add(millionths))
            .filter(|sum| *sum <= WHOLE)
            .map(Self)
            .ok_or(InvalidRatio)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / WHOLE, self.0 % WHOLE);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}
