//! Where a key-encryption key comes from.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::value::InvalidValue;

/// Where a program looks for its two keys.
#[derive(Debug, Clone, Copy)]
pub struct KeyPlaces<'a> {
    /// Its data directory, which a key may be in.
    pub data: &'a Path,
    /// The key in use.
    pub in_use: &'a KeyPlace,
    /// The one to be used next.
    pub next: &'a KeyPlace,
}

/// A place of a key: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// A file in the data directory.
    Own,
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// What this program prints. It is started without a shell.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

impl FromStr for KeyPlace {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const WANTED: InvalidValue =
            InvalidValue("a key is at file, file:PATH, env:NAME or command:PROGRAM ARGUMENTS");
        if text == "file" {
            return Ok(Self::Own);
        }
        let (kind, rest) = text.split_once(':').ok_or(WANTED)?;
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(WANTED);
        }
        match kind {
            "file" => Ok(Self::File(rest.into())),
            "env" if !rest.contains(['=', ' ']) => Ok(Self::Variable(rest.to_owned())),
            "command" => {
                let mut words = rest.split_whitespace().map(str::to_owned);
                Ok(Self::Command {
                    program: words.next().ok_or(WANTED)?,
                    arguments: words.collect(),
                })
            }
            _ => Err(WANTED),
        }
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("file"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Variable(name) => write!(f, "env:{name}"),
            Self::Command { program, arguments } => {
                write!(f, "command:{program}")?;
                arguments.iter().try_for_each(|word| write!(f, " {word}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KeyPlace;

    fn check(text: &str, shown: Option<&str>) {
        let read = text.parse::<KeyPlace>().ok().map(|place| place.to_string());
        assert_eq!(read.as_deref(), shown, "{text}");
        assert!(shown.is_none_or(|shown| shown.parse::<KeyPlace>().is_ok()));
    }

    #[test]
    fn places_are_read_and_shown() {
        check("file", Some("file"));
        check("file:/etc/xai/key", Some("file:/etc/xai/key"));
        check("env:PROXYXAI_KEY", Some("env:PROXYXAI_KEY"));
        check("command:/opt/key  --of  x", Some("command:/opt/key --of x"));
        for wrong in [
            "", "key", "file:", "env: ", "env:A=b", "command:", "http://x",
        ] {
            check(wrong, None);
        }
    }
}
