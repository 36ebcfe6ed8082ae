//! The value of settings that may be no time at all.

use std::{fmt, str::FromStr, time::Duration};

use super::value::{InvalidValue, Span};

/// A duration as [`Span`] has it, or `0s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delay(pub Duration);

impl FromStr for Delay {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "0s" {
            return Ok(Self::default());
        }
        text.parse().map(|Span(time)| Self(time))
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Delay;

    #[test]
    fn no_time_is_a_delay_too() {
        let check = |text: &str, shown: Option<&str>| {
            let read = text.parse::<Delay>().ok().map(|delay| delay.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        };
        check("0s", Some("0s"));
        check("4s", Some("4s"));
        check("0m", None);
        check("soon", None);
    }
}
