//! Points in time and lengths of time, as people name them.

use std::{str::FromStr, time::Duration};

use jiff::{Timestamp, civil};

use crate::settings::value::Span;

/// A point in time: named itself, or by how far it is from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Unix milliseconds.
    At(i64),
    /// Milliseconds from now.
    Apart(i64),
}

impl When {
    /// In Unix milliseconds, a distance counted back from now.
    pub fn past(self, now: i64) -> i64 {
        match self {
            Self::At(at) => at,
            Self::Apart(age) => now.saturating_sub(age),
        }
    }

    /// In Unix milliseconds, a distance counted on from now.
    pub fn to_come(self, now: i64) -> i64 {
        match self {
            Self::At(at) => at,
            Self::Apart(time) => now.saturating_add(time),
        }
    }
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "say when: a date (2026-11-24), a time (2026-11-24T10:00:00Z) or a distance from now (24h, 7d)";
        if let Ok(Length(time)) = text.parse() {
            return i64::try_from(time.as_millis())
                .map(Self::Apart)
                .map_err(|_| WANTED);
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::At(time.as_millisecond()));
        }
        let date: civil::Date = text.parse().map_err(|_| WANTED)?;
        let midnight: Timestamp = format!("{date}T00:00:00Z").parse().map_err(|_| WANTED)?;
        Ok(Self::At(midnight.as_millisecond()))
    }
}

/// A length of time: as settings write it, or in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length(pub Duration);

impl FromStr for Length {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "a length of time is a number and a unit, as in 30s, 5m, 1h or 7d";
        const DAY: Duration = Duration::from_secs(86_400);
        if let Some(days) = text.strip_suffix('d') {
            let days: u32 = days.parse().map_err(|_| WANTED)?;
            return DAY.checked_mul(days).map(Self).ok_or(WANTED);
        }
        text.parse()
            .map(|Span(time)| Self(time))
            .map_err(|_| WANTED)
    }
}

/// When something ends: some time, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Then.
    When(When),
    /// There is no end.
    Never,
}

impl End {
    /// As the API has it: Unix milliseconds, 0 for never.
    pub fn unix_ms(self, now: i64) -> i64 {
        match self {
            Self::When(when) => when.to_come(now),
            Self::Never => 0,
        }
    }
}

impl FromStr for End {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "never" => Ok(Self::Never),
            other => other.parse().map(Self::When),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{End, When};

    #[test]
    fn people_say_when_in_their_ways() {
        let check = |text: &str, when: Option<When>| assert_eq!(text.parse().ok(), when, "{text}");
        check("24h", Some(When::Apart(86_400_000)));
        check("7d", Some(When::Apart(604_800_000)));
        check("2026-11-24", Some(When::At(1_795_478_400_000)));
        check("2026-11-24T10:30:00Z", Some(When::At(1_795_516_200_000)));
        for wrong in ["", "yesterday", "-1d", "24", "2026-13-01"] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_end_is_to_come_or_never() {
        let check = |text: &str, want: i64| {
            assert_eq!(text.parse::<End>().unwrap().unix_ms(1_000), want);
        };
        check("never", 0);
        check("1s", 2_000);
        check("1d", 86_401_000);
        check("2026-11-24", 1_795_478_400_000);
    }
}
