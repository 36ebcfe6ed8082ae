//! A control plane for tests: connections in memory that can be cut, and services whose every call is answered by the test.

use std::{
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use proxyxai_core::ports::{Clock, Random};
use proxyxai_proto::{
    config::v1::{
        ResolveKeysRequest, ResolveKeysResponse, StreamRequest, StreamResponse,
        config_service_server::{ConfigService, ConfigServiceServer},
    },
    usage::v1::{
        ReportRequest, ReportResponse,
        usage_service_server::{UsageService, UsageServiceServer},
    },
};
use tokio::{
    io::{DuplexStream, copy_bidirectional, duplex},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server},
};

use crate::config::{ControlChannel, ControlPlanes, NodeCredential};

type Incoming = mpsc::UnboundedSender<io::Result<DuplexStream>>;

/// The line between a node and its control plane.
#[derive(Clone, Default)]
pub(crate) struct Line {
    server: Arc<Mutex<Option<Incoming>>>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Line {
    /// A channel over this line; connects when it is used.
    pub(crate) fn channel(&self) -> ControlChannel {
        let channel =
            Endpoint::from_static("http://control").connect_with_connector_lazy(self.clone());
        NodeCredential::new(&"node-credential".to_owned().into())
            .unwrap()
            .on(channel)
    }

    /// The only control plane is at the end of this line.
    pub(crate) fn planes(&self) -> ControlPlanes {
        ControlPlanes::new(vec![self.channel()], &Still).unwrap()
    }

    /// Lets a server answer from now on.
    fn listen(&self) -> UnboundedReceiverStream<io::Result<DuplexStream>> {
        let (sender, incoming) = mpsc::unbounded_channel();
        *self.server.lock().unwrap() = Some(sender);
        UnboundedReceiverStream::new(incoming)
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Refuses new connections, or takes them again.
    pub(crate) fn set_down(&self, kept: &mut Option<Incoming>, down: bool) {
        let mut server = self.server.lock().unwrap();
        if down && server.is_some() {
            *kept = server.take();
        } else if !down && server.is_none() {
            *server = kept.take();
        }
    }

    fn connect(&self) -> io::Result<DuplexStream> {
        let server = self.server.lock().unwrap();
        let server = server.as_ref().ok_or(io::ErrorKind::ConnectionRefused)?;
        let ((near, mut near_relay), (far, mut far_relay)) = (duplex(64 * 1024), duplex(64 * 1024));
        self.connections.lock().unwrap().spawn(async move {
            let _cut = copy_bidirectional(&mut near_relay, &mut far_relay).await;
        });
        server
            .send(Ok(far))
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}

impl tower::Service<http::Uri> for Line {
    type Response = hyper_util::rt::TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        std::future::ready(self.connect().map(hyper_util::rt::TokioIo::new))
    }
}

/// A configuration stream that a node opened; the test plays the control plane.
pub(crate) struct ConfigStream {
    pub(crate) from_node: Streaming<StreamRequest>,
    pub(crate) to_node: mpsc::Sender<Result<StreamResponse, Status>>,
}

/// A look-up that waits for the test's answer.
pub(crate) type Lookup = (
    ResolveKeysRequest,
    oneshot::Sender<Result<ResolveKeysResponse, Status>>,
);

/// Hands every call to the test.
pub(crate) struct FakeConfig {
    streams: mpsc::UnboundedSender<ConfigStream>,
    lookups: mpsc::UnboundedSender<Lookup>,
}

/// Starts a control plane for configuration; what nodes ask comes out of the receivers.
pub(crate) fn config_plane(
    line: &Line,
) -> (
    mpsc::UnboundedReceiver<ConfigStream>,
    mpsc::UnboundedReceiver<Lookup>,
) {
    let (streams, opened) = mpsc::unbounded_channel();
    let (lookups, asked) = mpsc::unbounded_channel();
    let service = ConfigServiceServer::new(FakeConfig { streams, lookups });
    tokio::spawn(Server::builder().serve_with_incoming(service, line.listen()));
    (opened, asked)
}

#[tonic::async_trait]
impl ConfigService for FakeConfig {
    type StreamStream = ReceiverStream<Result<StreamResponse, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer node-credential"
        );
        let (to_node, messages) = mpsc::channel(64);
        self.streams
            .send(ConfigStream {
                from_node: request.into_inner(),
                to_node,
            })
            .map_err(|_| Status::cancelled("over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn resolve_keys(
        &self,
        request: Request<ResolveKeysRequest>,
    ) -> Result<Response<ResolveKeysResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        self.lookups
            .send((request.into_inner(), answer))
            .map_err(|_| Status::cancelled("over"))?;
        answered
            .await
            .map_err(|_| Status::unavailable("the test does not answer"))?
            .map(Response::new)
    }
}

/// A report stream that a node opened.
pub(crate) struct ReportStream {
    pub(crate) from_node: Streaming<ReportRequest>,
    pub(crate) to_node: mpsc::Sender<Result<ReportResponse, Status>>,
}

/// Hands every report to the test.
pub(crate) struct FakeUsage(mpsc::UnboundedSender<ReportStream>);

/// Starts a control plane for usage; the reports of nodes come out of the receiver.
pub(crate) fn usage_plane(line: &Line) -> mpsc::UnboundedReceiver<ReportStream> {
    let (streams, opened) = mpsc::unbounded_channel();
    let service = UsageServiceServer::new(FakeUsage(streams));
    tokio::spawn(Server::builder().serve_with_incoming(service, line.listen()));
    opened
}

#[tonic::async_trait]
impl UsageService for FakeUsage {
    type ReportStream = ReceiverStream<Result<ReportResponse, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (to_node, messages) = mpsc::channel(64);
        self.0
            .send(ReportStream {
                from_node: request.into_inner(),
                to_node,
            })
            .map_err(|_| Status::cancelled("over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// A clock that stands, and bytes that are all alike.
pub(crate) struct Still;

impl Clock for Still {
    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn unix_ms(&self) -> i64 {
        1_000
    }
}

impl Random for Still {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(128);
    }
}
