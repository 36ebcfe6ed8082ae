//! Values of settings: how people write them, and how they are shown. What is shown can be read again.

use std::{fmt, marker::PhantomData, path::PathBuf, str::FromStr, time::Duration};

use serde::de::{Deserializer, Error, Visitor};
use tracing_subscriber::EnvFilter;

use crate::environment::Environment;

/// Reads a value from YAML: text or a number, by the same rules as from a flag.
pub(crate) fn read<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    deserializer.deserialize_any(Text(PhantomData)).map(Some)
}

struct Text<T>(PhantomData<T>);

impl<T> Visitor<'_> for Text<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one text or number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|error| E::custom(format!("`{text}`: {error}")))
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<T, E> {
        self.visit_str(&yes.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Why a value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub(super) &'static str);

/// A duration: `250ms`, `30s`, `5m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many days.
    pub const fn days(days: u64) -> Self {
        Self::seconds(days.saturating_mul(86_400))
    }
}

impl FromStr for Span {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const WANTED: InvalidValue =
            InvalidValue("a time is a number and a unit, as in 250ms, 30s, 5m, 1h or 7d");
        let (number, unit) = split_unit(text);
        let number: u64 = number.parse().map_err(|_| WANTED)?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(WANTED),
        };
        let total = number
            .checked_mul(milliseconds)
            .ok_or(InvalidValue("that time is too long"))?;
        if total == 0 {
            return Err(InvalidValue("a time is more than zero"));
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        const DAY: u128 = 86_400_000;
        if milliseconds >= DAY && milliseconds.is_multiple_of(DAY) {
            write!(f, "{}d", milliseconds / DAY)
        } else if milliseconds.is_multiple_of(1000) {
            write!(f, "{}s", milliseconds / 1000)
        } else {
            write!(f, "{milliseconds}ms")
        }
    }
}

/// A size: a number of bytes, or with the unit KiB, MiB or GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl Bytes {
    /// So many MiB.
    pub const fn mebi(mebi: usize) -> Self {
        Self(mebi.saturating_mul(1 << 20))
    }
}

impl FromStr for Bytes {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const WANTED: InvalidValue =
            InvalidValue("a size is a number of bytes, or has a unit, as in 512KiB, 32MiB or 1GiB");
        let (number, unit) = split_unit(text);
        let number: usize = number.parse().map_err(|_| WANTED)?;
        let unit = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(WANTED),
        };
        let total = number
            .checked_mul(unit)
            .ok_or(InvalidValue("that size is too large"))?;
        Ok(Self(total))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1_usize << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if let Some(whole) = self.0.checked_div(unit)
                && whole > 0
                && self.0.is_multiple_of(unit)
            {
                return write!(f, "{whole}{name}");
            }
        }
        write!(f, "{}", self.0)
    }
}

/// The digits at the start, and the rest.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    (number, unit.trim_start())
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// The data directory of somebody who names none.
    pub(super) fn default_data(environment: &Environment) -> Self {
        let home = || Some(PathBuf::from(environment.get("HOME")?).join(".local/share"));
        let share = environment.get("XDG_DATA_HOME").map(PathBuf::from);
        let share = share.filter(|path| path.is_absolute()).or_else(home);
        Self(match share {
            Some(share) => share.join("proxyxai"),
            None => PathBuf::from("proxyxai-data"),
        })
    }
}

impl FromStr for Folder {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() {
            return Err(InvalidValue("a directory has a name"));
        }
        Ok(Self(PathBuf::from(text)))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Which log lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    pub(super) fn info() -> Self {
        Self("info".to_owned())
    }

    /// As the log subscriber takes it.
    pub fn directives(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogFilter {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let text = text.trim();
        match text.parse::<EnvFilter>() {
            Ok(_) if !text.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(InvalidValue(
                "a log level is error, warn, info, debug or trace, or a list of target=level",
            )),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Host names and addresses, with commas between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(pub Vec<String>);

impl FromStr for Names {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let names: Vec<String> = text
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        let is_name = |name: &String| {
            name.parse::<std::net::IpAddr>().is_ok()
                || name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'*'))
        };
        if names.iter().all(is_name) {
            Ok(Self(names))
        } else {
            Err(InvalidValue(
                "host names and IP addresses with commas between, such as `control.example.com,10.0.0.7`",
            ))
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(InvalidValue("a log format is text or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::{Bytes, Folder, FromStr, LogFilter, LogFormat, Span};
    use crate::environment::Environment;

    fn check<T: FromStr<Err: fmt::Display> + fmt::Display>(text: &str, shown: Option<&str>) {
        let read = text.parse::<T>().map(|value| value.to_string());
        match shown {
            Some(shown) => {
                assert_eq!(
                    read.unwrap_or_else(|error| panic!("{text}: {error}")),
                    shown
                );
                assert!(shown.parse::<T>().is_ok(), "{shown} can be read again");
            }
            None => assert!(read.is_err(), "{text} was read"),
        }
    }

    #[test]
    fn values_are_read_and_shown() {
        check::<Span>("30s", Some("30s"));
        check::<Span>("5m", Some("300s"));
        check::<Span>("1 h", Some("3600s"));
        check::<Span>("250ms", Some("250ms"));
        check::<Span>("48h", Some("2d"));
        check::<Span>("25h", Some("90000s"));
        for wrong in ["", "5", "s", "-1s", "1y", "0s", "18446744073709551615h"] {
            check::<Span>(wrong, None);
        }
        check::<Bytes>("33554432", Some("32MiB"));
        check::<Bytes>("1000", Some("1000"));
        check::<Bytes>("4 KiB", Some("4KiB"));
        for wrong in ["", "x", "1MB", "99999999999999999999"] {
            check::<Bytes>(wrong, None);
        }
        check::<LogFilter>("info,proxyxai_core=debug", Some("info,proxyxai_core=debug"));
        check::<LogFilter>("a=b=c", None);
        check::<LogFormat>("json", Some("json"));
        check::<LogFormat>("xml", None);
    }

    #[test]
    fn the_data_directory_has_a_place_also_without_a_home() {
        let check = |environment: Environment, place: &str| {
            assert_eq!(Folder::default_data(&environment).to_string(), place);
        };
        check(
            Environment::from([("XDG_DATA_HOME", "/x"), ("HOME", "/h")]),
            "/x/proxyxai",
        );
        check(
            Environment::from([("XDG_DATA_HOME", "x"), ("HOME", "/h")]),
            "/h/.local/share/proxyxai",
        );
        check(
            Environment::from([("HOME", "/h")]),
            "/h/.local/share/proxyxai",
        );
        check(Environment::from([]), "proxyxai-data");
    }
}
