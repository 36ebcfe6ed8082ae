//! Settings: one table, from which flags, environment variables, the YAML file and the documentation follow.
//!
//! Two stages: as given ([`Given`], where everything may be missing), and as run ([`Settings`], where nothing is). A flag wins over the
//! environment, that over the file, that over the default. A variable that is set to nothing counts as not set.

pub mod key_place;
pub mod load;
pub mod store;
pub mod value;

use std::net::SocketAddr;

use key_place::KeyPlace;
pub use load::{Source, load};
use store::{Endpoints, KeyPrefix, Optional, StoreKind};
use value::{Bytes, Folder, LogFormat, Names, Span};

use crate::environment::Environment;

/// The whole table. Each line: help, name, type, default (it may use the environment), and what its value is called.
macro_rules! settings {
    ($environment:ident => $( $(#[doc = $help:literal])+ $name:ident: $kind:ty = $default:expr, $value:literal; )+) => {
        /// Settings as one source gives them.
        #[derive(Debug, Clone, Default, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Given {
            $( $(#[doc = $help])+
            #[arg(long, value_name = $value)]
            #[serde(default, deserialize_with = "value::read")]
            pub $name: Option<$kind>, )+
        }

        /// Settings as the process runs with them.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $( $(#[doc = $help])+ pub $name: $kind, )+
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

        impl Settings {
            /// Takes each value from the first layer that has one.
            fn of(layers: &[(Source, Given)], $environment: &Environment) -> (Self, Vec<Line>) {
                let mut lines = Vec::new();
                $( let found = layers.iter().find_map(|(source, given)| Some((*source, given.$name.clone()?)));
                let (source, $name) = found.unwrap_or_else(|| (Source::Default, $default));
                lines.push(Line { name: stringify!($name), value: $name.to_string(), source }); )+
                (Self { $( $name, )+ }, lines)
            }
        }
    };
}

settings! { environment =>
    /// Directory that holds everything: store, keys, usage.
    data: Folder = Folder::default_data(environment), "DIR";
    /// Address that clients call.
    listen: SocketAddr = loopback(3443), "ADDRESS";
    /// Address of the gRPC API for administration.
    grpc: SocketAddr = loopback(3444), "ADDRESS";
    /// Address of operations: live, ready, metrics, config.
    ops: SocketAddr = loopback(3445), "ADDRESS";
    /// Names and addresses in the certificate of the gRPC port, for clients that check names instead of pinning the authority.
    grpc_names: Names = Names::default(), "NAMES";
    /// Threads that serve requests, each with its own connections.
    cores: usize = available_cores(), "NUMBER";
    /// Largest body of a request.
    body_limit: Bytes = Bytes::mebi(32), "SIZE";
    /// Longest time to connect to a provider, TLS included.
    connect_timeout: Span = Span::seconds(5), "TIME";
    /// Longest time from sending a request to the first byte of its answer, or to the first event of a stream.
    first_byte_timeout: Span = Span::seconds(300), "TIME";
    /// Longest silence within an answer.
    idle_timeout: Span = Span::seconds(300), "TIME";
    /// Longest time from a request to the first byte of its answer, all attempts included.
    request_timeout: Span = Span::seconds(600), "TIME";
    /// Longest time that a client may take for the head of a request.
    head_timeout: Span = Span::seconds(10), "TIME";
    /// Longest time that a client connection stays open between two requests.
    keep_alive: Span = Span::seconds(75), "TIME";
    /// Most client connections of one core.
    max_connections: usize = 20_000, "NUMBER";
    /// Most requests in flight on one core; more are refused at once.
    max_in_flight: usize = 10_000, "NUMBER";
    /// Time that requests in flight get to end when the process stops.
    drain: Span = Span::seconds(30), "TIME";
    /// How long records of the audit trail are kept; older ones are pruned.
    audit_keep: Span = Span::days(365), "TIME";
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,proxyxai_data_plane=debug`.
    log: value::LogFilter = value::LogFilter::info(), "LEVEL";
    /// How logs are written: text or json.
    log_format: LogFormat = LogFormat::Text, "FORMAT";
    /// Where the key is that seals secrets in the store: file (in the data directory, made at first start), file:PATH, env:NAME, or command:PROGRAM ARGUMENTS, which prints it.
    key_encryption_key: KeyPlace = KeyPlace::Own, "PLACE";
    /// Where the key is that `xai secret rotate --key-encryption-key` takes next, written in the same way.
    next_key_encryption_key: KeyPlace = KeyPlace::Own, "PLACE";
    /// Where state is kept: embedded (a file in the data directory) or etcd.
    store: StoreKind = StoreKind::Embedded, "STORE";
    /// Members of etcd, with commas between.
    etcd_endpoints: Endpoints = Endpoints::local(), "URLS";
    /// What all keys in etcd begin with; each gateway that shares an etcd has its own.
    etcd_prefix: KeyPrefix = KeyPrefix::ours(), "PREFIX";
    /// Name that etcd knows the gateway by, where etcd asks for one.
    etcd_user: Optional = Optional::none(), "NAME";
    /// File with the password of that name.
    etcd_password_file: Optional = Optional::none(), "FILE";
    /// Certificates (PEM) of who signed those of etcd; without it, those that the system trusts.
    etcd_ca_file: Optional = Optional::none(), "FILE";
    /// Certificate (PEM) that the gateway shows to etcd.
    etcd_certificate_file: Optional = Optional::none(), "FILE";
    /// Key (PEM) of that certificate.
    etcd_key_file: Optional = Optional::none(), "FILE";
    /// Longest time to connect to a member of etcd.
    etcd_connect_timeout: Span = Span::seconds(3), "TIME";
    /// Longest time that a member of etcd may take for an answer.
    etcd_request_timeout: Span = Span::seconds(5), "TIME";
    /// Run also on an etcd below 3.5.33, 3.6.14 or 3.7.1, which has known faults.
    etcd_allow_old_version: bool = false, "true|false";
}

/// Environment variables that are no settings, and what they are for.
pub const OTHER_VARIABLES: [(&str, &str); 7] = [
    ("XAI_CONFIG", "YAML file with settings, as `--config`"),
    (
        "XAI_BASE",
        "base address of the keys in XAI_KEYS that do not say theirs (default `https://api.openai.com`)",
    ),
    ("XAI_KEYS", "upstream keys, see below"),
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
