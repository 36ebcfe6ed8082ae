//! The settings of `xai-control-plane`.

use std::net::SocketAddr;

use proxyxai_core::trace::{Conventions, Ratio};

use super::{
    apart,
    key_place::KeyPlace,
    loopback,
    store::{Endpoints, KeyPrefix, Optional, StoreKind},
    trace::Collector,
    value::{Folder, LogFilter, LogFormat, Names, Span},
};
use crate::{environment::Environment, failure::Failure};

settings! { environment [control log trace keys store]
    /// Directory of this process alone: credentials, the key-encryption key, the embedded store.
    data: Folder = Folder::default_data(environment), "DIR";
    /// Address of the gRPC API, for administration and for nodes.
    grpc: SocketAddr = loopback(3444), "ADDRESS";
    /// Address of operations: live, ready, metrics, config.
    ops: SocketAddr = loopback(3445), "ADDRESS";
}

fn check(settings: &Settings) -> Result<(), Failure> {
    settings.check_store()?;
    apart(&[("grpc", settings.grpc), ("ops", settings.ops)])
}
