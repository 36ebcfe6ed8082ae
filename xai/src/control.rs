//! A control plane of this process: built on its store, served on several sources, ended last.

use std::{io, sync::Arc, time::Duration};

use proxyxai_control_plane::{
    app::{self, ControlPlane},
    authority::Kept,
};
use proxyxai_core::secret::{SecretString, seal::SealKey};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::{
    environment::Environment,
    failure::Failure,
    keys,
    logs::{Logs, Part},
    settings::{key_place::KeyPlaces, store::Place},
    system::{SystemClock, SystemRandomness},
    up::{data::DataDir, sockets::Socket, store},
};

/// How long calls in progress may take when it ends.
const LAST: Duration = Duration::from_secs(2);

/// What the key-encryption key is derived for: sealing the node's copy of its configuration.
const COPY_KEY: &str = "proxyxai 2026 disk copy of the configuration of a node";

/// Where a control plane finds its state, and the keys that open it.
pub(crate) struct StateAt<'a> {
    pub(crate) store: Place<'a>,
    pub(crate) keys: KeyPlaces<'a>,
    pub(crate) environment: &'a Environment,
    /// What administrators show, where it is not made in the data directory.
    pub(crate) admin_credential: Option<SecretString>,
    /// What a new deployment takes up.
    pub(crate) authority: Option<Kept>,
}

/// A control plane that runs.
pub(crate) struct Control {
    pub(crate) plane: Arc<ControlPlane>,
    pub(crate) admin_credential: SecretString,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Control {
    /// Opens the store and starts what is no call. The key that it gives seals the copy that a node of the same process keeps.
    pub(crate) async fn start(
        settings: app::Settings,
        state: StateAt<'_>,
        data: &DataDir,
        clock: &Arc<SystemClock>,
        random: &Arc<SystemRandomness>,
        logs: &Logs,
    ) -> Result<(Self, SealKey), Failure> {
        let admin_credential = match state.admin_credential {
            Some(given) => data.keep_admin_credential(given)?,
            None => data.admin_credential(&**random)?,
        };
        let store = store::open(&state.store, data).await?;
        let key = keys::choose(state.keys, state.environment, &store, Some(&**random)).await?;
        let copy_key = key.derive(COPY_KEY);
        let ports = app::Ports {
            clock: Arc::clone(clock) as _,
            random: Arc::clone(random) as _,
            store,
            key_encryption_key: key,
            next_key_encryption_key: Arc::new(keys::Next::new(state.keys, state.environment)),
            admin_credential: admin_credential.clone(),
            authority: state.authority,
        };
        let plane = app::build(settings, ports).await;
        let plane = Arc::new(plane.map_err(|error| Failure::failed(error.to_string()))?);
        data.write_authority(&plane.authority().certificate_pem())?;
        let (house, tick, levels) = (Arc::clone(&plane), Arc::clone(&plane), Arc::clone(&plane));
        let log = logs.control(Part::ControlPlane);
        let tasks = vec![
            tokio::spawn(async move { house.keep_house().await }),
            tokio::spawn(async move { tick.keep_tick().await }),
            tokio::spawn(async move { levels.keep_log(&*log).await }),
        ];
        let control = Self {
            plane,
            admin_credential,
            tasks,
            stop: CancellationToken::new(),
        };
        Ok((control, copy_key))
    }

    /// Serves connections of one kind.
    pub(crate) fn serve<I, C>(&mut self, incoming: I)
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (plane, stop) = (Arc::clone(&self.plane), self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = plane.serve(incoming, stop).await {
                tracing::error!(%error, "the gRPC server ended");
            }
        }));
    }

    /// Serves those that come by TLS.
    pub(crate) fn serve_tls(&mut self, grpc: Socket) {
        let incoming =
            TcpListenerStream::new(grpc.listener).map(|stream: io::Result<TcpStream>| {
                let stream = stream?;
                // A change is a small message, and must not wait until what was sent before it is acknowledged.
                stream.set_nodelay(true)?;
                Ok(stream)
            });
        self.serve(self.plane.tls().accept(incoming));
    }

    /// Sends the nodes away, lets calls in progress end, and ends.
    pub(crate) async fn end(self) {
        self.plane.stop();
        self.stop.cancel();
        for task in self.tasks {
            let _ended_either_way = tokio::time::timeout(LAST, task).await;
        }
    }
}
