//! Values of the settings that say where traces go.

use std::{fmt, path::PathBuf, str::FromStr};

use proxyxai_core::trace::Conventions;

use super::value::InvalidValue;

/// Where traces go, as the settings of a program say it.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The collector; without one there are no traces.
    pub endpoint: Option<&'a str>,
    /// File with headers that it wants.
    pub headers_file: Option<PathBuf>,
    /// What spans call what they say.
    pub conventions: Conventions,
}

/// Address of a collector, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(Option<String>);

impl Collector {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The address, if there is one.
    pub fn address(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl FromStr for Collector {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "none" {
            return Ok(Self(None));
        }
        let address = ["http://", "https://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let port = address.and_then(|address| address.trim_end_matches('/').rsplit_once(':'));
        let whole = |host: &str| !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        match port {
            Some((host, port)) if whole(host) && port.parse::<u16>().is_ok() => {
                Ok(Self(Some(text.trim_end_matches('/').to_owned())))
            }
            Some(_) | None => Err(InvalidValue(
                "a collector is http://HOST:PORT or https://HOST:PORT, where it takes OTLP over gRPC (4317, as a rule), or none",
            )),
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("none"))
    }
}

#[cfg(test)]
mod tests {
    use super::Collector;

    #[test]
    fn collectors_are_read_and_shown() {
        let check = |text: &str, shown: Option<&str>| {
            let read = text.parse::<Collector>().ok().map(|it| it.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        };
        check("none", Some("none"));
        check("http://otel:4317", Some("http://otel:4317"));
        check("https://[::1]:4317/", Some("https://[::1]:4317"));
        for wrong in [
            "",
            "otel:4317",
            "http://otel",
            "http://:4317",
            "http://otel:4317/v1/traces",
            "grpc://otel:4317",
            "http://user@otel:4317",
        ] {
            check(wrong, None);
        }
    }
}
