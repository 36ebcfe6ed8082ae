//! Values of the settings that say where state is kept.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use super::value::InvalidValue;

/// Where state is kept, as the settings of a program say it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Which engine.
    pub kind: StoreKind,
    /// Members of etcd.
    pub endpoints: &'a Endpoints,
    /// What all keys in etcd begin with.
    pub prefix: &'a KeyPrefix,
    /// Name that etcd knows the gateway by.
    pub user: &'a Optional,
    /// File with the password of that name.
    pub password_file: &'a Optional,
    /// Certificates of who signed those of etcd.
    pub ca_file: &'a Optional,
    /// Certificate that is shown to etcd.
    pub certificate_file: &'a Optional,
    /// Key of that certificate.
    pub key_file: &'a Optional,
    /// Longest time to connect to a member.
    pub connect_timeout: Duration,
    /// Longest time for an answer.
    pub request_timeout: Duration,
    /// Whether an etcd with known faults is used all the same.
    pub allow_old_version: bool,
}

/// Which engine keeps state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A file in the data directory, of this process alone.
    Embedded,
    /// A cluster of etcd.
    Etcd,
}

impl FromStr for StoreKind {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "etcd" => Ok(Self::Etcd),
            _ => Err(InvalidValue("a store is embedded or etcd")),
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        })
    }
}

/// Addresses of the members of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints(Vec<String>);

impl Endpoints {
    pub(super) fn local() -> Self {
        Self(vec!["http://127.0.0.1:2379".to_owned()])
    }

    /// Each of them, as it was written.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for Endpoints {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const WANTED: InvalidValue = InvalidValue(
            "endpoints are http://HOST:PORT or https://HOST:PORT, all of one kind, with commas between",
        );
        let all: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
        let of = |scheme: &str| {
            all.iter().all(|one| {
                let address = one.strip_prefix(scheme);
                let port = address.and_then(|a| a.rsplit_once(':'));
                port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            })
        };
        if of("http://") || of("https://") {
            Ok(Self(all))
        } else {
            Err(WANTED)
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// What all keys begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    pub(super) fn ours() -> Self {
        Self("proxyxai/".to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyPrefix {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.trim_end_matches('/').is_empty() || text.contains(char::is_whitespace) {
            return Err(InvalidValue(
                "a prefix is a name, perhaps with slashes, as in proxyxai/",
            ));
        }
        Ok(Self(format!("{}/", text.trim_end_matches('/'))))
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that may be missing, which is written `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Optional(Option<String>);

impl Optional {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The text, if there is one.
    pub fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The file that it names, if it names one.
    pub fn file(&self) -> Option<PathBuf> {
        self.0.as_ref().map(PathBuf::from)
    }
}

impl FromStr for Optional {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "" => Err(InvalidValue("write `none` for nothing")),
            "none" => Ok(Self(None)),
            text => Ok(Self(Some(text.to_owned()))),
        }
    }
}

impl fmt::Display for Optional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("none"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoints, FromStr, KeyPrefix, Optional, StoreKind, fmt};

    fn check<T: FromStr + fmt::Display>(text: &str, shown: Option<&str>) {
        let read = text.parse::<T>().ok().map(|value| value.to_string());
        assert_eq!(read.as_deref(), shown, "{text}");
        assert!(shown.is_none_or(|shown| shown.parse::<T>().is_ok()));
    }

    #[test]
    fn values_are_read_and_shown() {
        check::<StoreKind>("etcd", Some("etcd"));
        check::<StoreKind>("embedded", Some("embedded"));
        check::<StoreKind>("redis", None);
        check::<Endpoints>(
            "http://a:1, http://[::1]:2",
            Some("http://a:1,http://[::1]:2"),
        );
        check::<Endpoints>(
            "https://etcd.example.com:2379",
            Some("https://etcd.example.com:2379"),
        );
        for wrong in [
            "",
            "a:1",
            "http://a",
            "http://:1",
            "http://a:1,https://b:1",
            "http://a:1,",
            "ftp://a:1",
        ] {
            check::<Endpoints>(wrong, None);
        }
        check::<KeyPrefix>("gateways/eu", Some("gateways/eu/"));
        check::<KeyPrefix>("a//", Some("a/"));
        check::<KeyPrefix>("/", None);
        check::<KeyPrefix>("a b", None);
        check::<Optional>("none", Some("none"));
        check::<Optional>("ca.pem", Some("ca.pem"));
        check::<Optional>("", None);
    }
}
