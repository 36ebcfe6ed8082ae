//! The shape of a table of settings, and the groups of rows that several programs share.

/// A table: the name of the environment in defaults, the groups to add, then own rows. Each row: help, name, type, default (it may use the
/// environment), and what its value is called. A group also brings the functions that make something of its rows. Own rows come first.
macro_rules! settings {
    ($environment:ident [node $($more:ident)*] $($rows:tt)*) => {
        impl Settings {
            /// How the node behaves.
            pub fn node(&self) -> proxyxai_data_plane::context::Settings {
                proxyxai_data_plane::context::Settings {
                    cores: self.cores.max(1),
                    trusted_proxies: self.trusted_proxies.list(),
                    body_limit: self.body_limit.0,
                    connect_timeout: self.connect_timeout.0,
                    first_byte_timeout: self.first_byte_timeout.0,
                    idle_timeout: self.idle_timeout.0,
                    request_timeout: self.request_timeout.0,
                    head_timeout: self.head_timeout.0,
                    keep_alive: self.keep_alive.0,
                    max_connections: self.max_connections,
                    max_in_flight: self.max_in_flight,
                    drain_delay: self.drain_delay.0,
                    drain: self.drain.0,
                    max_stale: self.max_stale.0,
                    preload_max: self.preload_max,
                    keys_remembered: self.keys_remembered,
                    trace: self.sampling(),
                    trace_conventions: self.trace_conventions,
                    trace_upstreams: self.trace_upstreams,
                    request_log: self.request_log.text().is_some(),
                }
            }

            fn check_node(&self) -> Result<(), $crate::failure::Failure> {
                if self.cores == 0 || self.max_connections == 0 || self.max_in_flight == 0 {
                    return Err($crate::failure::Failure::usage(
                        "`cores`, `max_connections` and `max_in_flight` must be at least 1",
                    ));
                }
                if self.tls_certificate_file.text().is_some() != self.tls_key_file.text().is_some() {
                    return Err($crate::failure::Failure::usage(
                        "`tls_certificate_file` and `tls_key_file` go together; give both, or neither",
                    ));
                }
                Ok(())
            }
        }

        settings! { $environment [$($more)*] $($rows)*
            /// Threads that serve requests, each with its own connections.
            cores: usize = $crate::settings::available_cores(), "NUMBER";
            /// Networks of load balancers whose `X-Forwarded-For` says where a request comes from, with commas between.
            trusted_proxies: Networks = Networks::default(), "NETWORKS";
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
            /// Certificate (PEM, with its chain) for clients that come over TLS, and read again when it changes; without it they come over plain HTTP.
            tls_certificate_file: Optional = Optional::none(), "FILE";
            /// Key (PEM) of that certificate.
            tls_key_file: Optional = Optional::none(), "FILE";
            /// Time from being told to stop, with `/ready` at 503 already, until no connection is taken any more: load balancers move away in it.
            drain_delay: Delay = Delay::default(), "TIME";
            /// Time that requests in flight get to end when the process stops.
            drain: Span = Span::seconds(30), "TIME";
            /// How old a node's configuration may become before it refuses requests; where the deployment says less (`xai settings show`), that.
            max_stale: Span = Span::days(365), "TIME";
            /// Most virtual keys that a node holds all of; with more, it looks keys and accounts up when they are used.
            preload_max: u64 = 1_000_000, "NUMBER";
            /// How many keys a node remembers of those that it looked up.
            keys_remembered: u64 = proxyxai_data_plane::keys::REMEMBERED, "NUMBER";
            /// Where one line of JSON is written for each request, without its content: a file, `-` for the standard output, or none.
            request_log: Optional = Optional::none(), "FILE";
            /// Which upstreams learn of traces (`traceparent`): none, gateways (those of that kind) or all.
            trace_upstreams: TraceUpstreams = TraceUpstreams::Gateways, "WHICH";
        }
    };
    ($environment:ident [control $($more:ident)*] $($rows:tt)*) => {
        impl Settings {
            /// How the control plane behaves.
            pub fn control(&self) -> proxyxai_control_plane::app::Settings {
                proxyxai_control_plane::app::Settings {
                    names: self.grpc_names.0.clone(),
                    audit_keep: self.audit_keep.0,
                    shared_store: self.store == StoreKind::Etcd,
                    trace: self.sampling(),
                    ..proxyxai_control_plane::app::Settings::default()
                }
            }
        }

        settings! { $environment [$($more)*] $($rows)*
            /// Names and addresses in the certificate of the gRPC port, for clients that check names instead of pinning the authority.
            grpc_names: Names = Names::default(), "NAMES";
            /// How long records of the audit trail are kept, where the deployment says nothing (`xai settings show`); older ones are pruned.
            audit_keep: Span = Span::days(365), "TIME";
        }
    };
    ($environment:ident [log $($more:ident)*] $($rows:tt)*) => {
        settings! { $environment [$($more)*] $($rows)*
            /// Networks whose machines see `/metrics` of the port of operations without a credential, with commas between.
            metrics_from: Networks = Networks::default(), "NETWORKS";
            /// What is logged: error, warn, info, debug, trace, or directives such as `info,proxyxai_data_plane=debug`.
            log: LogFilter = LogFilter::info(), "LEVEL";
            /// How logs are written: text or json.
            log_format: LogFormat = LogFormat::Text, "FORMAT";
        }
    };
    ($environment:ident [trace $($more:ident)*] $($rows:tt)*) => {
        impl Settings {
            /// Where traces go.
            pub fn traces(&self) -> $crate::settings::trace::Place<'_> {
                $crate::settings::trace::Place {
                    endpoint: self.trace_endpoint.address(),
                    headers_file: self.trace_headers_file.file(),
                    conventions: self.trace_conventions,
                }
            }

            /// Which traces are kept; `None` where there are none.
            fn sampling(&self) -> Option<proxyxai_core::trace::Sampling> {
                let sampling = proxyxai_core::trace::Sampling {
                    ratio: self.trace_ratio,
                    follow_parent: self.trace_follow,
                    failures: self.trace_failures,
                };
                self.trace_endpoint.address().map(|_| sampling)
            }
        }

        settings! { $environment [$($more)*] $($rows)*
            /// Collector that traces are sent to, by OTLP over gRPC: http://HOST:PORT, https://HOST:PORT, or none.
            trace_endpoint: Collector = Collector::none(), "URL";
            /// File with headers for the collector, one `name: value` on each line.
            trace_headers_file: Optional = Optional::none(), "FILE";
            /// Share of the traces that are kept where no caller has decided, from 0 to 1.
            trace_ratio: Ratio = Ratio::PERCENT, "SHARE";
            /// Whether a caller that sends `traceparent` decides whether its trace is kept; if not, the share does.
            trace_follow: bool = true, "true|false";
            /// Whether traces of requests that failed are kept in any case.
            trace_failures: bool = true, "true|false";
            /// Version of OpenTelemetry's conventions for generative AI that spans follow: 1.36 or 1.41.
            trace_conventions: Conventions = Conventions::V1_41, "VERSION";
        }
    };
    ($environment:ident [keys $($more:ident)*] $($rows:tt)*) => {
        impl Settings {
            /// Where the keys are that seal secrets in the store.
            pub fn keys(&self) -> $crate::settings::key_place::KeyPlaces<'_> {
                $crate::settings::key_place::KeyPlaces {
                    data: &self.data.0,
                    in_use: &self.key_encryption_key,
                    next: &self.next_key_encryption_key,
                }
            }
        }

        settings! { $environment [$($more)*] $($rows)*
            /// Where the key is that seals secrets in the store: file (in the data directory, made at first start), file:PATH, env:NAME, or command:PROGRAM ARGUMENTS, which prints it.
            key_encryption_key: KeyPlace = KeyPlace::Own, "PLACE";
            /// Where the key is that `xai secret rotate --key-encryption-key` takes next, written in the same way.
            next_key_encryption_key: KeyPlace = KeyPlace::Own, "PLACE";
        }
    };
    ($environment:ident [store $($more:ident)*] $($rows:tt)*) => {
        impl Settings {
            /// Where state is kept.
            pub fn store(&self) -> $crate::settings::store::Place<'_> {
                $crate::settings::store::Place {
                    kind: self.store,
                    endpoints: &self.etcd_endpoints,
                    prefix: &self.etcd_prefix,
                    user: &self.etcd_user,
                    password_file: &self.etcd_password_file,
                    ca_file: &self.etcd_ca_file,
                    certificate_file: &self.etcd_certificate_file,
                    key_file: &self.etcd_key_file,
                    connect_timeout: self.etcd_connect_timeout.0,
                    request_timeout: self.etcd_request_timeout.0,
                    allow_old_version: self.etcd_allow_old_version,
                }
            }

            fn check_store(&self) -> Result<(), $crate::failure::Failure> {
                let pairs = [
                    (
                        ("etcd_user", &self.etcd_user),
                        ("etcd_password_file", &self.etcd_password_file),
                    ),
                    (
                        ("etcd_certificate_file", &self.etcd_certificate_file),
                        ("etcd_key_file", &self.etcd_key_file),
                    ),
                ];
                for ((one, first), (other, second)) in pairs {
                    if first.text().is_some() != second.text().is_some() {
                        return Err($crate::failure::Failure::usage(format!(
                            "`{one}` and `{other}` go together; give both, or neither"
                        )));
                    }
                }
                Ok(())
            }
        }

        settings! { $environment [$($more)*] $($rows)*
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
    };
    ($environment:ident [] $( $(#[doc = $help:literal])+ $name:ident: $kind:ty = $default:expr, $value:literal; )+) => {
        /// Settings as one source gives them.
        #[derive(Debug, Clone, Default, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Given {
            $( $(#[doc = $help])+
            #[arg(long, value_name = $value)]
            #[serde(default, deserialize_with = "crate::settings::value::read")]
            pub $name: Option<$kind>, )+
        }

        /// Settings as the process runs with them.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $( $(#[doc = $help])+ pub $name: $kind, )+
        }

        impl $crate::settings::Table for Given {
            type Settings = Settings;

            fn settle(
                layers: &[($crate::settings::Source, Self)],
                $environment: &Environment,
            ) -> Result<(Settings, Vec<$crate::settings::Line>), $crate::failure::Failure> {
                let mut lines = Vec::new();
                $( let found = layers.iter().find_map(|(source, given)| Some((*source, given.$name.clone()?)));
                let (source, $name) = found.unwrap_or_else(|| ($crate::settings::Source::Default, $default));
                lines.push($crate::settings::Line { name: stringify!($name), value: $name.to_string(), source }); )+
                let settings = Settings { $( $name, )+ };
                check(&settings)?;
                Ok((settings, lines))
            }
        }
    };
}
