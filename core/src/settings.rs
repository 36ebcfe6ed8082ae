//! Settings of a whole deployment that administrators change while it runs: what may be said, and what holds where nothing is said.

use std::{fmt, ops::RangeInclusive};

use proxyxai_proto::admin::v1::Settings;

use crate::freshness::{LONGEST_STALE, MAX_STALE};

/// Seconds that a node may serve without proof. Shorter than a minute, bookmarks that are late by a few would stop a node; longer than a
/// year, nothing is bounded.
const MAX_STALE_SECONDS: RangeInclusive<u64> = 60..=LONGEST_STALE.as_secs();
/// Seconds that records of the audit trail are kept: a day to a hundred years.
const AUDIT_KEEP_SECONDS: RangeInclusive<u64> = 86_400..=100 * 365 * 86_400;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct InvalidSetting {
    /// Its field.
    pub field: &'static str,
    /// What it may be.
    pub what: String,
}

/// Whether settings can be used.
///
/// # Errors
/// Names the first one that cannot.
pub fn check(settings: &Settings) -> Result<(), InvalidSetting> {
    let Settings {
        max_stale_seconds,
        audit_keep_seconds,
    } = settings;
    check_max_stale(*max_stale_seconds, "is the default")?;
    within(
        "audit_keep_seconds",
        *audit_keep_seconds,
        &AUDIT_KEEP_SECONDS,
        "is the default",
    )
}

/// Whether a node may serve so many seconds without proof, as a deployment or one of its accounts says it. `zero` is what 0 does.
///
/// # Errors
/// Says how many it may be.
pub fn check_max_stale(seconds: u64, zero: &str) -> Result<(), InvalidSetting> {
    within("max_stale_seconds", seconds, &MAX_STALE_SECONDS, zero)
}

/// The settings with defaults for what was not set. `audit_keep_seconds` is the default of that one, which a control plane's own settings
/// say.
pub fn in_force(settings: &Settings, audit_keep_seconds: u64) -> Settings {
    let or = |set: u64, default: u64| if set == 0 { default } else { set };
    Settings {
        max_stale_seconds: or(settings.max_stale_seconds, MAX_STALE.as_secs()),
        audit_keep_seconds: or(settings.audit_keep_seconds, audit_keep_seconds),
    }
}

fn within(
    field: &'static str,
    seconds: u64,
    allowed: &RangeInclusive<u64>,
    zero: &str,
) -> Result<(), InvalidSetting> {
    if seconds == 0 || allowed.contains(&seconds) {
        return Ok(());
    }
    let (least, most) = (Words(*allowed.start()), Words(*allowed.end()));
    let what = format!(
        "it is {least} to {most}, and {} is not; 0 {zero}",
        Words(seconds)
    );
    Err(InvalidSetting { field, what })
}

/// Seconds in the largest unit that says them exactly.
struct Words(u64);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, "days"), (3600, "hours"), (1, "seconds")];
        let exact = |unit: &&(u64, &str)| self.0 >= unit.0 && self.0.is_multiple_of(unit.0);
        let (unit, word) = units.iter().find(exact).unwrap_or(&(1, "seconds"));
        write!(
            f,
            "{} {word}",
            self.0.checked_div(*unit).unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_bounds_and_zero_is_the_default() {
        let settings = |max_stale_seconds, audit_keep_seconds| Settings {
            max_stale_seconds,
            audit_keep_seconds,
        };
        let refused = |given: Settings, words: &str| {
            let refusal = check(&given).unwrap_err().to_string();
            assert_eq!(refusal, words);
        };
        for good in [
            settings(0, 0),
            settings(60, 86_400),
            settings(31_536_000, 3_153_600_000),
        ] {
            assert_eq!(check(&good), Ok(()), "{good:?}");
        }
        refused(
            settings(59, 0),
            "max_stale_seconds: it is 60 seconds to 365 days, and 59 seconds is not; 0 is the default",
        );
        refused(
            settings(31_536_001, 0),
            "max_stale_seconds: it is 60 seconds to 365 days, and 31536001 seconds is not; 0 is the default",
        );
        refused(
            settings(60, 7200),
            "audit_keep_seconds: it is 1 days to 36500 days, and 2 hours is not; 0 is the default",
        );
        refused(
            settings(60, u64::MAX),
            "audit_keep_seconds: it is 1 days to 36500 days, and 18446744073709551615 seconds is not; 0 is the default",
        );
        assert_eq!(in_force(&settings(0, 0), 7), settings(259_200, 7));
        assert_eq!(in_force(&settings(60, 0), 7), settings(60, 7));
        assert_eq!(in_force(&settings(0, 90_000), 7), settings(259_200, 90_000));
    }
}
