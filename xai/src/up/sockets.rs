//! All ports of a gateway, bound before anything else begins.

use std::net::SocketAddr;

use proxyxai_core::secret::fingerprint::Fingerprint;
use proxyxai_data_plane::app::{Bound, bind};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use crate::{failure::Failure, settings::Settings};

pub(super) struct Sockets {
    pub(super) clients: Bound,
    pub(super) grpc: TcpListenerStream,
    pub(super) ops: TcpListener,
    grpc_address: SocketAddr,
    ops_address: SocketAddr,
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
        let clients = bind(settings.listen, settings.cores)
            .map_err(|error| taken("listen", settings.listen, &error))?;
        let grpc = TcpListener::bind(settings.grpc)
            .await
            .map_err(|error| taken("grpc", settings.grpc, &error))?;
        let ops = TcpListener::bind(settings.ops)
            .await
            .map_err(|error| taken("ops", settings.ops, &error))?;
        let grpc_address = grpc.local_addr().unwrap_or(settings.grpc);
        let ops_address = ops.local_addr().unwrap_or(settings.ops);
        Ok(Self {
            clients,
            grpc: TcpListenerStream::new(grpc),
            ops,
            grpc_address,
            ops_address,
        })
    }

    pub(super) fn addresses(&self, authority: Fingerprint) -> Addresses {
        Addresses {
            client: self.clients.address(),
            grpc: self.grpc_address,
            ops: self.ops_address,
            authority,
        }
    }
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
