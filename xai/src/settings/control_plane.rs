//! The settings of `xai-control-plane`.

use std::net::SocketAddr;

use proxyxai_core::trace::{Conventions, Ratio};

use super::{
    apart,
    key_place::KeyPlace,
    loopback,
    networks::Networks,
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
    /// File with the admin credential, where something else makes it; without one it is made at the first start, in the data directory.
    admin_credential_file: Optional = Optional::none(), "FILE";
    /// Certificate (PEM) of the authority that a new deployment takes up; without one it makes its own. A store that has one keeps it.
    authority_certificate_file: Optional = Optional::none(), "FILE";
    /// Key (PEM, PKCS #8) of that authority.
    authority_key_file: Optional = Optional::none(), "FILE";
    /// File with a join token that lets any number of nodes in: the one that stands there is taken up, else a new one is written.
    join_token_file: Optional = Optional::none(), "FILE";
    /// Whether the deployment gets a first virtual key, once; `xai welcome` shows it.
    first_key: bool = false, "true|false";
}

fn check(settings: &Settings) -> Result<(), Failure> {
    settings.check_store()?;
    if settings.authority_certificate_file.text().is_some()
        != settings.authority_key_file.text().is_some()
    {
        return Err(Failure::usage(
            "`authority_certificate_file` and `authority_key_file` go together; give both, or neither",
        ));
    }
    apart(&[("grpc", settings.grpc), ("ops", settings.ops)])
}
