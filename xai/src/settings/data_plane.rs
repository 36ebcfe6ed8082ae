//! The settings of `xai-data-plane`.

use std::{fmt, net::SocketAddr, str::FromStr};

use proxyxai_core::trace::{Conventions, Ratio};
use proxyxai_data_plane::trace::TraceUpstreams;

use super::{
    apart,
    delay::Delay,
    loopback,
    networks::Networks,
    store::Optional,
    trace::Collector,
    value::{Bytes, Folder, InvalidValue, LogFilter, LogFormat, Span},
};
use crate::{environment::Environment, failure::Failure};

settings! { environment [node log trace]
    /// Directory of this node alone: its identity, the copy of its configuration, usage that is not booked yet.
    data: Folder = Folder::default_data(environment), "DIR";
    /// Control planes of the gateway, with commas between.
    control_planes: ControlPlanes = ControlPlanes::local(), "URLS";
    /// File with the join token that lets this node in; read once, until it has joined.
    join_token_file: Optional = Optional::none(), "FILE";
    /// Address that clients call.
    listen: SocketAddr = loopback(3443), "ADDRESS";
    /// Address of operations: live, ready, metrics, config.
    ops: SocketAddr = loopback(3445), "ADDRESS";
}

fn check(settings: &Settings) -> Result<(), Failure> {
    settings.check_node()?;
    apart(&[("listen", settings.listen), ("ops", settings.ops)])
}

/// Addresses of the control planes of one gateway, each `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlanes(Vec<String>);

impl ControlPlanes {
    fn local() -> Self {
        Self(vec!["127.0.0.1:3444".to_owned()])
    }

    /// Each of them.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for ControlPlanes {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const WANTED: InvalidValue =
            InvalidValue("control planes are https://HOST:PORT, with commas between");
        let address = |one: &str| {
            let address = one.trim().strip_prefix("https://")?.trim_end_matches('/');
            let (host, port) = address.rsplit_once(':')?;
            let whole = !host.is_empty() && !address.contains(['/', '@', '?', '#', ' ']);
            (whole && port.parse::<u16>().is_ok()).then(|| address.to_owned())
        };
        let all: Option<Vec<String>> = text.split(',').map(address).collect();
        all.map(Self).ok_or(WANTED)
    }
}

impl fmt::Display for ControlPlanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|one| format!("https://{one}")).collect();
        f.write_str(&all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::ControlPlanes;

    #[test]
    fn control_planes_are_read_and_shown() {
        let check = |text: &str, shown: Option<&str>| {
            let read = text.parse::<ControlPlanes>().ok();
            let read = read.map(|value| value.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        };
        check(
            "https://a:3444/, https://[::1]:2",
            Some("https://a:3444,https://[::1]:2"),
        );
        for wrong in [
            "",
            "a:1",
            "http://a:1",
            "https://a",
            "https://a:1,",
            "https://a/b:1",
        ] {
            check(wrong, None);
        }
    }
}
