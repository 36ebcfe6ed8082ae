//! Serves configuration to nodes: one stream each, which begins with a snapshot or with nothing new.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message as _;
use proxyxai_core::{
    account::key::{KeyDigest, Pepper},
    snapshot::{Digest, ResourceKind, Version},
};
use proxyxai_proto::config::v1::{
    Account, Bookmark, Hello, ResolveKeysRequest, ResolveKeysResponse, ResolvedKey, Resource,
    ServerHello, StreamRequest, StreamResponse, config_service_server::ConfigService,
    resource::Kind, stream_request, stream_response::Message,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    config_store::ConfigStore,
    publish::{DELTA_BYTES, Published, View},
    status::Fault,
};

/// What is known of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeView {
    /// The version that it acknowledged last.
    pub(crate) applied: Version,
    /// Its open streams: for a moment two, when it comes back before the old one is known to have ended.
    pub(crate) streams: usize,
}

/// Nodes by id.
pub(crate) type Nodes = Arc<Mutex<BTreeMap<String, NodeView>>>;

pub(crate) struct ConfigServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) deployment_id: String,
    pub(crate) pepper: Pepper,
    pub(crate) view: Arc<View>,
    pub(crate) view_key: [u8; 32],
    pub(crate) bookmark_interval: Duration,
    pub(crate) debounce: Duration,
    pub(crate) nodes: Nodes,
    pub(crate) stopping: CancellationToken,
}

type Responses = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ConfigService for ConfigServer {
    type StreamStream = Responses;

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut requests = request.into_inner();
        let hello = match requests
            .next()
            .await
            .transpose()?
            .and_then(|first| first.message)
        {
            Some(stream_request::Message::Hello(hello)) => hello,
            _ => return Err(Status::invalid_argument("a stream begins with Hello")),
        };
        let (sender, receiver) = mpsc::channel(16);
        let greeting = Message::ServerHello(ServerHello {
            deployment_id: self.deployment_id.clone(),
            head: Some(self.config.state().snapshot.version.into()),
            bookmark_interval_ms: u32::try_from(self.bookmark_interval.as_millis())
                .unwrap_or(u32::MAX),
            view_key: self.view_key.to_vec(),
            pepper: self.pepper.expose().to_vec(),
            ..ServerHello::default()
        });
        let session = Session {
            published: self.config.subscribe(),
            view: Arc::clone(&self.view),
            sender,
            bookmark_interval: self.bookmark_interval,
            debounce: self.debounce,
            nodes: Arc::clone(&self.nodes),
            node_id: hello.node_id.clone(),
        };
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                _ended = session.run(greeting, hello, requests) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resolve_keys(
        &self,
        request: Request<ResolveKeysRequest>,
    ) -> Result<Response<ResolveKeysResponse>, Status> {
        let request = request.into_inner();
        let state = self.config.state();
        let as_of = state.snapshot.version;
        if request
            .at_least
            .is_some_and(|at_least| as_of < at_least.into())
        {
            return Err(Status::unavailable(
                "this control plane is behind; ask again",
            ));
        }
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
        let resolve = |digest: Vec<u8>| {
            let record = digest
                .as_slice()
                .try_into()
                .ok()
                .and_then(|bytes| state.snapshot.key(&KeyDigest(bytes)))
                .map(|key| key.record);
            let key =
                record.and_then(|record| state.get(ResourceKind::VirtualKey, record.id.as_str()));
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
        };
        let keys = request.digests.into_iter().map(resolve).collect();
        Ok(Response::new(ResolveKeysResponse {
            as_of: Some(as_of.into()),
            keys,
        }))
    }
}

/// One node's stream.
struct Session {
    published: tokio::sync::watch::Receiver<Arc<Published>>,
    view: Arc<View>,
    sender: mpsc::Sender<Result<StreamResponse, Status>>,
    bookmark_interval: Duration,
    debounce: Duration,
    nodes: Nodes,
    node_id: String,
}

/// The node left, or cannot be served; either way its stream is over.
struct Ended;

impl Session {
    async fn run(
        mut self,
        greeting: Message,
        hello: Hello,
        mut requests: Streaming<StreamRequest>,
    ) -> Result<(), Ended> {
        self.note(|node| node.streams = node.streams.saturating_add(1));
        let served = self.serve(greeting, hello, &mut requests).await;
        self.note(|node| node.streams = node.streams.saturating_sub(1));
        served
    }

    async fn serve(
        &mut self,
        greeting: Message,
        hello: Hello,
        requests: &mut Streaming<StreamRequest>,
    ) -> Result<(), Ended> {
        self.send(StreamResponse {
            message: Some(greeting),
        })
        .await?;
        let mut sent = Arc::clone(&self.published.borrow_and_update());
        let held = hello.held.map(Version::from) == Some(sent.version)
            && Digest::from_bytes(&hello.held_digest) == Some(sent.digest);
        if !held {
            self.send_snapshot(&sent).await?;
        }
        let mut bookmark = tokio::time::interval(self.bookmark_interval);
        loop {
            tokio::select! {
                biased;
                request = requests.next() => self.heard(request)?,
                changed = self.published.changed() => {
                    changed.map_err(|_| Ended)?;
                    let newest = Arc::clone(&self.published.borrow_and_update());
                    match newest.delta(&sent, &self.view) {
                        Ok(delta) if delta.encoded_len() > DELTA_BYTES => self.send_snapshot(&newest).await?,
                        Ok(delta) => self.send(delta).await?,
                        Err(error) => return self.fail(&Fault::Defect(error.to_string())).await,
                    }
                    sent = newest;
                    // The first change went out at once; those that follow soon are sent together.
                    tokio::time::sleep(self.debounce).await;
                }
                _ = bookmark.tick() => {
                    let head = Some(sent.version.into());
                    self.send(StreamResponse { message: Some(Message::Bookmark(Bookmark { head, ..Bookmark::default() })) }).await?;
                }
            }
        }
    }

    async fn send_snapshot(&self, published: &Published) -> Result<(), Ended> {
        match published.snapshot(&self.view) {
            Ok(messages) => {
                for message in messages.iter() {
                    self.send(message.clone()).await?;
                }
                Ok(())
            }
            Err(error) => self.fail(&Fault::Defect(error.to_string())).await,
        }
    }

    fn heard(&self, request: Option<Result<StreamRequest, Status>>) -> Result<(), Ended> {
        match request.and_then(Result::ok).ok_or(Ended)?.message {
            Some(stream_request::Message::Ack(ack)) => {
                let applied = ack.applied.unwrap_or_default().into();
                self.note(|node| node.applied = applied);
            }
            Some(stream_request::Message::Nack(nack)) => {
                let reasons: Vec<String> = nack
                    .rejected
                    .into_iter()
                    .map(|rejection| rejection.reason)
                    .collect();
                tracing::error!(
                    node = self.node_id,
                    ?reasons,
                    "a node refused the configuration and keeps what it had"
                );
            }
            Some(stream_request::Message::Hello(_)) | None => {}
        }
        Ok(())
    }

    async fn fail(&self, fault: &Fault) -> Result<(), Ended> {
        let _node_may_have_left = self
            .sender
            .send(Err(Status::internal(fault.to_string())))
            .await;
        Err(Ended)
    }

    async fn send(&self, message: StreamResponse) -> Result<(), Ended> {
        self.sender.send(Ok(message)).await.map_err(|_| Ended)
    }

    fn note(&self, change: impl FnOnce(&mut NodeView)) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        change(nodes.entry(self.node_id.clone()).or_default());
    }
}
