//! A control plane that holds one configuration, knows no further keys, and keeps every usage event that it is sent.

use std::{
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use prost::Message as _;
use proxyxai_core::{
    secret::seal::{self, SealKey},
    snapshot::Content,
};
use proxyxai_proto::{
    config::v1::{
        self as proto, ResolveKeysRequest, ResolveKeysResponse, StreamRequest, StreamResponse,
        config_service_server::{ConfigService, ConfigServiceServer},
        resource::Kind,
        stream_request,
        stream_response::Message,
    },
    usage::v1::{
        Registered, ReportRequest, ReportResponse, UsageAck, UsageBatch, UsageEvent,
        report_request, report_response,
        usage_service_server::{UsageService, UsageServiceServer},
    },
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

const VIEW_KEY: [u8; 32] = [3; 32];
/// Keys the digests of virtual keys.
pub(crate) const PEPPER: [u8; 32] = [9; 32];
const VERSION: proto::Version = proto::Version {
    generation: 1,
    revision: 1,
};

/// Events that arrived.
pub(crate) type Events = Arc<Mutex<Vec<UsageEvent>>>;
/// What is wanted of the node, and what it said of itself last.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) schedule: watch::Sender<proto::Schedule>,
    pub(crate) vitals: Arc<Mutex<proto::Vitals>>,
}

#[derive(Clone)]
struct Plane {
    content: Content,
    knows_keys: bool,
    events: Events,
    wanted: Wanted,
}

/// Starts one; look-ups of keys fail unless `knows_keys`.
pub(crate) fn start(resources: Vec<Kind>, knows_keys: bool, wanted: Wanted) -> (Channel, Events) {
    let content = resources
        .into_iter()
        .map(|kind| Arc::new(proto::Resource { kind: Some(kind) }))
        .collect();
    let events = Events::default();
    let plane = Plane {
        content,
        knows_keys,
        events: Arc::clone(&events),
        wanted,
    };
    let (line, incoming) = mpsc::unbounded_channel();
    let server = Server::builder()
        .add_service(ConfigServiceServer::new(plane.clone()))
        .add_service(UsageServiceServer::new(plane))
        .serve_with_incoming(UnboundedReceiverStream::new(incoming));
    tokio::spawn(server);
    let channel = Endpoint::from_static("http://control").connect_with_connector_lazy(Line(line));
    (channel, events)
}

/// A channel that never connects.
pub(crate) fn nowhere() -> Channel {
    let (line, _) = mpsc::unbounded_channel();
    Endpoint::from_static("http://control").connect_with_connector_lazy(Line(line))
}

#[derive(Clone)]
struct Line(mpsc::UnboundedSender<io::Result<DuplexStream>>);

impl tower::Service<http::Uri> for Line {
    type Response = hyper_util::rt::TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (near, far) = duplex(64 * 1024);
        let sent = self.0.send(Ok(far));
        std::future::ready(
            sent.map(|()| hyper_util::rt::TokioIo::new(near))
                .map_err(io::Error::other),
        )
    }
}

fn sealed(resource: &proto::Resource) -> proto::Resource {
    let mut resource = resource.clone();
    if let Some(Kind::UpstreamKey(key)) = &mut resource.kind {
        let place = format!("view/{}", key.id);
        key.secret = seal::seal(
            &SealKey::new(VIEW_KEY),
            [1; 32],
            place.as_bytes(),
            &key.secret,
        )
        .unwrap();
    }
    resource
}

#[tonic::async_trait]
impl ConfigService for Plane {
    type StreamStream = ReceiverStream<Result<StreamResponse, Status>>;

    async fn stream(
        &self,
        mut request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (to_node, messages) = mpsc::channel(16);
        let resources: Vec<_> = self.content.iter().map(|(_, r)| sealed(r)).collect();
        let script = [
            Message::ServerHello(proto::ServerHello {
                deployment_id: "test".into(),
                head: Some(VERSION),
                bookmark_interval_ms: 60_000,
                view_key: VIEW_KEY.to_vec(),
                pepper: PEPPER.to_vec(),
                ..proto::ServerHello::default()
            }),
            Message::SnapshotBegin(proto::SnapshotBegin {
                version: Some(VERSION),
                resources: u64::try_from(resources.len()).unwrap(),
            }),
            Message::SnapshotChunk(proto::SnapshotChunk { resources }),
            Message::SnapshotEnd(proto::SnapshotEnd {
                version: Some(VERSION),
                digest: self.content.digest().0.to_vec(),
            }),
        ];
        for message in script {
            let message = Some(message);
            to_node.try_send(Ok(StreamResponse { message })).unwrap();
        }
        let (wanted, mut schedules) = (self.wanted.clone(), self.wanted.schedule.subscribe());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    Ok(()) = schedules.changed() => {
                        let schedule = (*schedules.borrow_and_update()).into();
                        let order = Some(proto::Order { schedule, ..proto::Order::default() });
                        let head = Some(VERSION);
                        let bookmark = proto::Bookmark { head, order, ..proto::Bookmark::default() };
                        let message = Some(Message::Bookmark(bookmark));
                        to_node.send(Ok(StreamResponse { message })).await.unwrap();
                    }
                    heard = request.get_mut().message() => match heard {
                        Ok(Some(StreamRequest { message: Some(stream_request::Message::Ack(ack)) })) => {
                            *wanted.vitals.lock().unwrap() = ack.vitals.unwrap();
                        }
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return,
                    },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn resolve_keys(
        &self,
        request: Request<ResolveKeysRequest>,
    ) -> Result<Response<ResolveKeysResponse>, Status> {
        if !self.knows_keys {
            return Err(Status::unavailable("not now"));
        }
        let absent = |digest| proto::ResolvedKey {
            digest,
            ..proto::ResolvedKey::default()
        };
        Ok(Response::new(ResolveKeysResponse {
            as_of: Some(VERSION),
            keys: request
                .into_inner()
                .digests
                .into_iter()
                .map(absent)
                .collect(),
        }))
    }
}

#[tonic::async_trait]
impl UsageService for Plane {
    type ReportStream = ReceiverStream<Result<ReportResponse, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (to_node, messages) = mpsc::channel(16);
        let (mut from_node, events) = (request.into_inner(), Arc::clone(&self.events));
        tokio::spawn(async move {
            while let Ok(Some(ReportRequest { message })) = from_node.message().await {
                let message = match message {
                    Some(report_request::Message::Batch(batch)) => {
                        let batch = UsageBatch::decode(batch).unwrap();
                        events.lock().unwrap().extend(batch.events);
                        report_response::Message::Ack(UsageAck {
                            epoch: batch.epoch,
                            applied_through: batch.sequence,
                        })
                    }
                    _ => report_response::Message::Registered(Registered { applied_through: 0 }),
                };
                let message = Some(message);
                if to_node.send(Ok(ReportResponse { message })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}
