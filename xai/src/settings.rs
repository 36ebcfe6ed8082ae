//! Settings: one table for each program, from which flags, environment variables, the YAML file and the documentation follow.
//!
//! Two stages: as given ([`Given`], where everything may be missing), and as run ([`Settings`], where nothing is). A flag wins over the
//! environment, that over the file, that over the default. A variable that is set to nothing counts as not set. The table here is that
//! of `xai up`; the planes that run alone have a part of it each.

#[macro_use]
mod table;
pub mod control_plane;
pub mod data_plane;
pub mod delay;
pub mod key_place;
pub mod load;
pub mod networks;
pub mod store;
pub mod trace;
pub mod value;

use std::net::SocketAddr;

use delay::Delay;
use key_place::KeyPlace;
pub use load::{Source, Table, load};
use networks::Networks;
use proxyxai_core::trace::{Conventions, Ratio};
use proxyxai_data_plane::trace::TraceUpstreams;
use store::{Endpoints, KeyPrefix, Optional, StoreKind};
use trace::Collector;
use value::{Bytes, Folder, LogFilter, LogFormat, Names, Span};

use crate::{environment::Environment, failure::Failure};

settings! { environment [node control log trace keys store]
    /// Directory that holds everything: store, keys, usage.
    data: Folder = Folder::default_data(environment), "DIR";
    /// Address that clients call.
    listen: SocketAddr = loopback(3443), "ADDRESS";
    /// Address of the gRPC API for administration.
    grpc: SocketAddr = loopback(3444), "ADDRESS";
    /// Address of operations: live, ready, metrics, config.
    ops: SocketAddr = loopback(3445), "ADDRESS";
}

fn check(settings: &Settings) -> Result<(), Failure> {
    settings.check_node()?;
    settings.check_store()?;
    apart(&[
        ("listen", settings.listen),
        ("grpc", settings.grpc),
        ("ops", settings.ops),
    ])
}

/// Refuses two settings that name the same port.
fn apart(ports: &[(&str, SocketAddr)]) -> Result<(), Failure> {
    for (at, (name, address)) in ports.iter().enumerate() {
        let twin = ports
            .iter()
            .skip(at.saturating_add(1))
            .find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = twin {
            return Err(Failure::usage(format!(
                "`{name}` and `{other}` are both {address}; give each its own port"
            )));
        }
    }
    Ok(())
}

/// One setting of a running process, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name in the YAML file.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
}

/// Environment variables that are no settings, and what they are for.
pub const OTHER_VARIABLES: [(&str, &str); 8] = [
    ("XAI_CONFIG", "YAML file with settings, as `--config`"),
    (
        "XAI_BASE",
        "base address of the keys in XAI_KEYS that do not say theirs (default `https://api.openai.com`)",
    ),
    ("XAI_KEYS", "upstream keys, see below"),
    (
        "XAI_JOIN_TOKEN",
        "join token of `xai-data-plane`, when it is not in a file",
    ),
    (
        "XAI_SERVER",
        "control plane that admin commands call, as `--server`",
    ),
    (
        "XAI_AUTHORITY",
        "fingerprint of the control plane's authority, as `--authority`",
    ),
    (
        "XAI_CREDENTIAL",
        "admin credential, when it is not in a file",
    ),
    ("XAI_BINARY", "binary that the SDK tests start"),
];

/// The environment variable of a setting.
pub fn variable(name: &str) -> String {
    format!("XAI_{}", name.to_ascii_uppercase())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<24} {:<28} {}", self.name, self.value, self.source)
    }
}
