//! The ports of a process, bound before anything else begins.

use std::net::SocketAddr;

use proxyxai_core::secret::fingerprint::Fingerprint;
use proxyxai_data_plane::app::{Bound, bind};
use tokio::net::TcpListener;

use crate::{failure::Failure, settings::Settings};

/// All ports of `xai up`.
pub(super) struct Sockets {
    pub(super) clients: Bound,
    pub(super) grpc: Socket,
    pub(super) ops: Socket,
}

/// A port that is bound, and its real address.
pub(crate) struct Socket {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// Where a gateway can be reached.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(super) struct Addresses {
    pub(super) client: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) ops: SocketAddr,
    /// Whom to pin at the gRPC port.
    pub(super) authority: Fingerprint,
}

impl Sockets {
    pub(super) async fn bind(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self {
            clients: clients(settings.listen, settings.cores)?,
            grpc: socket("grpc", settings.grpc).await?,
            ops: socket("ops", settings.ops).await?,
        })
    }

    pub(super) fn addresses(&self, authority: Fingerprint) -> Addresses {
        Addresses {
            client: self.clients.address(),
            grpc: self.grpc.address,
            ops: self.ops.address,
            authority,
        }
    }
}

/// Binds the port that clients call.
pub(crate) fn clients(address: SocketAddr, cores: usize) -> Result<Bound, Failure> {
    bind(address, cores).map_err(|error| taken("listen", address, &error))
}

/// Binds the port that this setting names.
pub(crate) async fn socket(setting: &str, address: SocketAddr) -> Result<Socket, Failure> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| taken(setting, address, &error))?;
    let address = listener.local_addr().unwrap_or(address);
    Ok(Socket { listener, address })
}

fn taken(setting: &str, address: SocketAddr, error: &std::io::Error) -> Failure {
    let variable = setting.to_uppercase();
    let choose = format!("choose another one with --{setting} or XAI_{variable}");
    Failure::failed(if error.kind() == std::io::ErrorKind::AddrInUse {
        format!(
            "port {} is used by another program (perhaps another xai); stop that, or {choose}",
            address.port()
        )
    } else if error.kind() == std::io::ErrorKind::PermissionDenied {
        format!("this user may not listen on {address}, as ports below 1024 are reserved; {choose}")
    } else {
        format!("cannot listen on the address {address}: {error}; {choose}")
    })
}
