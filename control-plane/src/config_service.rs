//! Serves configuration to nodes: one stream each, and look-ups of virtual keys that a node does not hold.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use proxyxai_core::{
    access::Caller,
    account::key::{KeyDigest, Pepper},
    ports::Clock,
    snapshot::{Digest, ResourceKind, Version},
};
use proxyxai_proto::config::v1::{
    Account, Hello, ResolveKeysRequest, ResolveKeysResponse, ResolvedKey, Resource, ServerHello,
    StreamRequest, resource::Kind, stream_request, stream_response::Message,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, http},
    metadata::MetadataValue,
    server::{Grpc, NamedService, StreamingService, UnaryService},
};
use tonic_prost::ProstCodec;

use crate::{
    admission::Admission,
    auth,
    config_store::{ConfigStore, State},
    join::{Door, JoinRefusal, NODE_CREDENTIAL},
    nodes::{Arrival, Nodes, same},
    orders::Orders,
    publish::View,
    roster::Roster,
    stream::{
        codec::{Frame, FrameCodec},
        session::{Ended, Session, drain},
    },
};

/// The schemas that this program speaks.
const SCHEMAS: (u32, u32) = (1, 1);
/// How long a look-up waits for this replica to catch up with the node.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Digests of one look-up at most.
const MAX_DIGESTS: usize = 1_000;
/// Messages that wait for a node to read them.
const BACKLOG: usize = 16;
/// Between nodes that come back after a drain.
const SPREAD: Duration = Duration::from_millis(20);

pub(crate) struct ConfigServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) deployment_id: String,
    pub(crate) pepper: Pepper,
    pub(crate) bookmark_interval: Duration,
    pub(crate) debounce: Duration,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) door: Arc<Door>,
    pub(crate) admission: Admission,
    pub(crate) drained: AtomicU32,
    pub(crate) stopping: CancellationToken,
}

type Frames = ReceiverStream<Result<Frame, Status>>;

impl ConfigServer {
    async fn open(
        self: Arc<Self>,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.admission.enter(self.clock.monotonic()).map_err(busy)?;
        let caller = auth::caller(&request)?;
        let mut requests = request.into_inner();
        let first = requests.next().await.transpose()?;
        let hello = match first.and_then(|first| first.message) {
            Some(stream_request::Message::Hello(hello)) => hello,
            Some(stream_request::Message::Ack(_) | stream_request::Message::Nack(_)) | None => {
                return Err(Status::invalid_argument("a stream begins with Hello"));
            }
        };
        may_be(&caller, &hello.node_id)?;
        let schema = agree(hello.schema_min, hello.schema_max)?;
        let removed = admitted(&self.door, &self.orders, &caller).await?;
        self.roster.register(&hello.node_id).await;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let (mut session, greeting) = self.session(hello, schema, sender.clone());
        let server = Arc::clone(&self);
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = server.stopping.cancelled() => Ended::Drain("this replica of the control plane stops"),
                () = removed.cancelled() => {
                    server.nodes.expel(&session.node_id, session.stream);
                    Ended::Failed(cut_off(&session.node_id))
                }
                ended = session.serve(greeting, &mut requests) => ended,
            };
            server.nodes.leave(&session.node_id, session.stream);
            match ended {
                Ended::Gone => {}
                Ended::Drain(reason) => {
                    tracing::info!(node = session.node_id, reason, "a node is sent away");
                    drain(&sender, reason, server.spread());
                }
                Ended::Failed(status) => {
                    let _node_may_have_left = sender.try_send(Err(status));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    fn session(
        &self,
        hello: Hello,
        schema: u32,
        sender: mpsc::Sender<Result<Frame, Status>>,
    ) -> (Session, Message) {
        let latest = self.config.publisher().latest();
        // A node of a program that knew no views preloads everything.
        let preload_max = (hello.schema_max != 0).then_some(hello.preload_max);
        let view = latest.view(preload_max);
        let held = hello.held.map(Version::from).unwrap_or_default();
        let told = hello
            .invalidated_through
            .map(Version::from)
            .unwrap_or_default();
        let digest = Digest::from_bytes(&hello.held_digest).unwrap_or_default();
        let point = self.config.publisher().point(held);
        let stream = self.nodes.arrive(Arrival {
            id: hello.node_id.clone(),
            boot_id: hello.boot_id,
            program_version: hello.program_version,
            view,
            applied: held,
            digest_equal: same(point.map(|point| point.digest(view)), &hello.held_digest),
            invalidated_through: told,
        });
        let greeting = ServerHello {
            deployment_id: self.deployment_id.clone(),
            head: Some(latest.point.version.into()),
            bookmark_interval_ms: u32::try_from(self.bookmark_interval.as_millis())
                .unwrap_or(u32::MAX),
            view_key: self.config.publisher().view_key().to_vec(),
            pepper: self.pepper.expose().to_vec(),
            max_stale_seconds: latest.settings.max_stale_seconds,
            schema,
            keyed: view == View::Keyed,
        };
        let session = Session {
            config: Arc::clone(&self.config),
            nodes: Arc::clone(&self.nodes),
            orders: Arc::clone(&self.orders),
            node_id: hello.node_id,
            stream,
            view,
            preload_max,
            bookmark_interval: self.bookmark_interval,
            debounce: self.debounce,
            sender,
            sent: (held, digest),
            settings: latest.settings,
            told,
            began: self.clock.monotonic(),
        };
        (session, Message::ServerHello(greeting))
    }

    /// When the next one of the nodes that are sent away may come back: not all at once.
    fn spread(&self) -> Duration {
        let turn = self.drained.fetch_add(1, Ordering::Relaxed) % 1024;
        SPREAD.saturating_mul(turn)
    }

    async fn resolve(
        self: Arc<Self>,
        request: Request<ResolveKeysRequest>,
    ) -> Result<Response<ResolveKeysResponse>, Status> {
        let request = request.into_inner();
        if request.digests.len() > MAX_DIGESTS {
            return Err(Status::invalid_argument(format!(
                "one question has at most {MAX_DIGESTS} digests"
            )));
        }
        let at_least = request.at_least.map(Version::from).unwrap_or_default();
        let mut published = self.config.publisher().subscribe();
        let reached = published.wait_for(|latest| latest.point.version >= at_least);
        let behind = || Status::unavailable("this control plane is behind; ask again");
        tokio::time::timeout(CATCH_UP, reached)
            .await
            .map_err(|_| behind())?
            .map_err(|_| behind())?;
        // The state is shown before the version is published, so it is not older.
        let state = self.config.state();
        let keys = request
            .digests
            .into_iter()
            .map(|digest| resolved(&state, digest))
            .collect();
        Ok(Response::new(ResolveKeysResponse {
            as_of: Some(state.snapshot.version.into()),
            keys,
        }))
    }
}

/// A node that shows a certificate is the one that it names; the node of a control plane's process has none.
fn may_be(caller: &Caller, node_id: &str) -> Result<(), Status> {
    match caller.credential.strip_prefix(NODE_CREDENTIAL) {
        Some(named) if named != node_id => Err(Status::permission_denied(format!(
            "the certificate is of the node `{named}`, and the stream says that it is `{node_id}`; start the node with the data directory that it joined with"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// What is cancelled when the node of a certificate is removed; asks once more whether it was, now that it would be told.
pub(crate) async fn admitted(
    door: &Door,
    orders: &Orders,
    caller: &Caller,
) -> Result<CancellationToken, Status> {
    let Some(node) = caller.credential.strip_prefix(NODE_CREDENTIAL) else {
        return Ok(CancellationToken::new());
    };
    let removed = orders.until_removed(node);
    door.caller(node).await?;
    Ok(removed)
}

/// Ends what a node has open that was removed.
pub(crate) fn cut_off(node: &str) -> Status {
    tracing::warn!(node, "a node was removed and is cut off");
    JoinRefusal::UnknownNode(node.to_owned()).into()
}

/// One schema of both ranges; a program that names none speaks the first.
fn agree(min: u32, max: u32) -> Result<u32, Status> {
    let (min, max) = if max == 0 { (1, 1) } else { (min, max) };
    let (ours_min, ours_max) = SCHEMAS;
    let schema = max.min(ours_max);
    if schema < min.max(ours_min) {
        return Err(Status::failed_precondition(format!(
            "the node reads schemas {min} to {max}, this control plane speaks {ours_min} to {ours_max}; update the older one of the two"
        )));
    }
    Ok(schema)
}

/// Refuses a stream for now, and says for how long, in words and in the way that gRPC has for it.
fn busy(wait: Duration) -> Status {
    let wait = wait.as_millis();
    let mut status = Status::unavailable(format!(
        "too many nodes come at once; come back in {wait} ms"
    ));
    if let Ok(value) = MetadataValue::try_from(wait.to_string()) {
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", value);
    }
    status
}

fn resolved(state: &State, digest: Vec<u8>) -> ResolvedKey {
    let accounts = &state.snapshot.accounts;
    let account = |id: &str| match &state
        .get(ResourceKind::Account, id)?
        .resource
        .as_ref()?
        .kind
    {
        Some(Kind::Account(account)) => Some(Account::clone(account)),
        _ => None,
    };
    let record = digest
        .as_slice()
        .try_into()
        .ok()
        .and_then(|bytes| state.snapshot.key(&KeyDigest(bytes)))
        .map(|key| key.record);
    let key = record.and_then(|record| state.get(ResourceKind::VirtualKey, record.id.as_str()));
    let virtual_key = match key.and_then(|stored| stored.resource.as_ref()) {
        Some(Resource {
            kind: Some(Kind::VirtualKey(key)),
        }) => Some(key.clone()),
        _ => None,
    };
    let line = record.map(|record| {
        accounts
            .line(record.account)
            .filter_map(|at| account(accounts.id(at)))
            .collect()
    });
    ResolvedKey {
        digest,
        virtual_key,
        accounts: line.unwrap_or_default(),
    }
}

/// `proxyxai.config.v1.ConfigService`, whose stream sends messages that were encoded once for all nodes; what is generated from the protos
/// would encode them for each.
#[derive(Clone)]
pub(crate) struct ConfigServiceServer(pub(crate) Arc<ConfigServer>);

impl NamedService for ConfigServiceServer {
    const NAME: &'static str = "proxyxai.config.v1.ConfigService";
}

impl tower::Service<http::Request<Body>> for ConfigServiceServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        match request.uri().path() {
            "/proxyxai.config.v1.ConfigService/Stream" => {
                Box::pin(async move { Ok(Grpc::new(FrameCodec).streaming(service, request).await) })
            }
            "/proxyxai.config.v1.ConfigService/ResolveKeys" => Box::pin(async move {
                Ok(Grpc::new(ProstCodec::default())
                    .unary(service, request)
                    .await)
            }),
            _ => Box::pin(async {
                Ok(Status::unimplemented("there is no such call here").into_http())
            }),
        }
    }
}

impl StreamingService<StreamRequest> for ConfigServiceServer {
    type Response = Frame;
    type ResponseStream = Frames;
    type Future = BoxFuture<Response<Frames>, Status>;

    fn call(&mut self, request: Request<Streaming<StreamRequest>>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).open(request))
    }
}

impl UnaryService<ResolveKeysRequest> for ConfigServiceServer {
    type Response = ResolveKeysResponse;
    type Future = BoxFuture<Response<ResolveKeysResponse>, Status>;

    fn call(&mut self, request: Request<ResolveKeysRequest>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).resolve(request))
    }
}
