//! A scripted node: applies what it is sent the way a real one must, and checks every digest.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    secret::seal::{SealKey, open},
    snapshot::{Change, Content, Digest, ResourceName, Snapshot, Version},
};
use proxyxai_proto::config::v1::{
    self as proto, Ack, Hello, Nack, Rejection, StreamRequest, StreamResponse, resource::Kind,
    stream_request, stream_response::Message,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::harness::{PATIENCE, Plane};

/// What a node holds, with or without a stream.
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) content: Content,
    /// Counts what came.
    pub(crate) snapshots: usize,
    pub(crate) deltas: usize,
    /// Most virtual keys that it preloads; `None` for a node of a program that knew no views.
    pub(crate) preload_max: Option<u64>,
    /// Up to where it processed invalidations, and what it was told to forget.
    pub(crate) forgotten: Version,
    pub(crate) forgot: Vec<(ResourceName, bool)>,
    /// How often it had to revalidate everything.
    pub(crate) revalidated: usize,
    /// Why it was sent away.
    pub(crate) drained: Option<proto::Drain>,
    /// Seconds that it may serve without proof, as it was told last.
    pub(crate) max_stale: u64,
    /// What was wanted of it last, and what it says of itself.
    pub(crate) order: Option<proto::Order>,
    pub(crate) vitals: Option<proto::Vitals>,
}

/// An open stream of a node.
pub(crate) struct Open {
    pub(crate) to_plane: mpsc::Sender<StreamRequest>,
    pub(crate) messages: Streaming<StreamResponse>,
    staged: Option<Content>,
    pub(crate) greeting: proto::ServerHello,
}

impl Node {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            version: Version::default(),
            content: Content::default(),
            snapshots: 0,
            deltas: 0,
            preload_max: None,
            forgotten: Version::default(),
            forgot: Vec::new(),
            revalidated: 0,
            drained: None,
            max_stale: 0,
            order: None,
            vitals: None,
        }
    }

    /// One that preloads at most so many virtual keys.
    pub(crate) fn with_limit(id: &str, preload_max: u64) -> Self {
        Self {
            preload_max: Some(preload_max),
            ..Self::new(id)
        }
    }

    fn hello(&self) -> Hello {
        let schema = u32::from(self.preload_max.is_some());
        Hello {
            node_id: self.id.clone(),
            boot_id: "boot".into(),
            held: Some(self.version.into()),
            held_digest: self.content.digest().0.to_vec(),
            invalidated_through: Some(self.forgotten.into()),
            schema_min: schema,
            schema_max: schema,
            preload_max: self.preload_max.unwrap_or_default(),
            program_version: "test".into(),
        }
    }

    /// Says hello with what it holds.
    pub(crate) async fn connect(&self, plane: &Plane) -> Open {
        let (to_plane, requests) = mpsc::channel(64);
        let hello = self.hello();
        let mut open = Open {
            messages: stream(plane, requests, &to_plane, hello).await.unwrap(),
            to_plane,
            staged: None,
            greeting: proto::ServerHello::default(),
        };
        match open.next().await {
            Some(Message::ServerHello(greeting)) => open.greeting = greeting,
            other => panic!("a stream begins with a greeting, not {other:?}"),
        }
        open
    }

    /// Applies messages until a bookmark names a version at or past `until`.
    pub(crate) async fn follow(&mut self, open: &mut Open, until: u64) {
        loop {
            let message = open.next().await.unwrap();
            let bookmark = match &message {
                Message::Bookmark(bookmark) => bookmark.head,
                _ => None,
            };
            self.apply(open, message);
            if let Some(head) = bookmark.map(Version::from) {
                assert_eq!(head, self.version, "a bookmark names what was sent");
                if head.revision >= until {
                    return;
                }
            }
        }
    }

    /// Applies one message.
    pub(crate) fn apply(&mut self, open: &mut Open, message: Message) {
        match message {
            Message::SnapshotBegin(_) => open.staged = Some(Content::default()),
            Message::SnapshotChunk(chunk) => {
                assert!(chunk.encoded_len() <= 1 << 20, "as the proto promises");
                let staged = open.staged.as_mut().unwrap();
                let resources = chunk
                    .resources
                    .into_iter()
                    .map(|r| opened(&open.greeting, r));
                resources.for_each(|resource| staged.upsert(Arc::new(resource)));
            }
            Message::SnapshotEnd(end) => {
                self.snapshots += 1;
                self.hold(end.version, open.staged.take().unwrap(), &end.digest);
            }
            Message::Delta(delta) => {
                self.deltas += 1;
                assert_eq!(delta.from.map(Version::from), Some(self.version));
                let mut next = self.content.clone();
                for resource in delta.upserts {
                    next.apply(Change::Upsert(Arc::new(opened(&open.greeting, resource))));
                }
                for name in &delta.removed {
                    next.apply(Change::Remove(ResourceName::from_proto(name).unwrap()));
                }
                self.hold(delta.to, next, &delta.digest);
            }
            Message::Bookmark(bookmark) => {
                self.order = bookmark.order.or(self.order);
                let through = Version::from(bookmark.invalidated_through.unwrap());
                if open.greeting.keyed {
                    assert_eq!(through, self.forgotten, "every invalidation came before");
                } else {
                    self.forgotten = through;
                }
            }
            Message::Invalidate(invalidate) => self.forget(open, invalidate),
            Message::NodeSettings(settings) => self.max_stale = settings.max_stale_seconds,
            Message::Drain(drain) => self.drained = Some(drain),
            Message::ServerHello(hello) => panic!("a second greeting: {hello:?}"),
        }
    }

    fn forget(&mut self, open: &Open, told: proto::Invalidate) {
        assert!(open.greeting.keyed, "only in the keyed view");
        let (from, to) = (
            Version::from(told.from.unwrap()),
            Version::from(told.to.unwrap()),
        );
        assert!(from <= to && to >= self.forgotten, "law 9: {from} to {to}");
        if self.forgotten < from {
            self.revalidated += 1;
        }
        self.forgotten = to;
        for entry in told.entries {
            let name = ResourceName::from_proto(&entry.name.unwrap()).unwrap();
            self.forgot.push((name, entry.revoked));
        }
    }

    fn hold(&mut self, version: Option<proto::Version>, content: Content, digest: &[u8]) {
        let version = Version::from(version.unwrap());
        assert!(
            version > self.version,
            "law 9: {version} after {}",
            self.version
        );
        assert_eq!(
            Digest::from_bytes(digest),
            Some(content.digest()),
            "digest of {version}"
        );
        Snapshot::compile(version, &content).unwrap();
        (self.version, self.content) = (version, content);
    }

    /// The configuration as this node would serve from it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::compile(self.version, &self.content).unwrap()
    }

    /// Says that it serves from what it holds.
    pub(crate) async fn ack(&self, open: &Open) {
        let ack = Ack {
            applied: Some(self.version.into()),
            digest: self.content.digest().0.to_vec(),
            invalidated_through: Some(self.forgotten.into()),
            vitals: self.vitals,
        };
        open.say(stream_request::Message::Ack(ack)).await;
    }
}

impl Open {
    /// The next message; `None` when the stream ended well.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let message = timeout(PATIENCE, self.messages.message()).await.unwrap();
        message.unwrap().map(|response| response.message.unwrap())
    }

    pub(crate) async fn nack(&self, version: Version, reason: &str) {
        let nack = Nack {
            refused: Some(version.into()),
            rejected: vec![Rejection {
                name: None,
                reason: reason.into(),
            }],
        };
        self.say(stream_request::Message::Nack(nack)).await;
    }

    pub(crate) async fn say(&self, message: stream_request::Message) {
        let request = StreamRequest {
            message: Some(message),
        };
        self.to_plane.send(request).await.unwrap();
    }
}

/// Opens the secret of an upstream key, which must be sealed on the way.
fn opened(greeting: &proto::ServerHello, mut resource: proto::Resource) -> proto::Resource {
    if let Some(Kind::UpstreamKey(key)) = &mut resource.kind {
        let view_key = SealKey::new(greeting.view_key.as_slice().try_into().unwrap());
        let place = format!("view/{}", key.id);
        key.secret = open(&view_key, place.as_bytes(), &key.secret)
            .unwrap()
            .to_vec();
    }
    resource
}

/// A node that holds nothing reads the configuration once.
pub(crate) async fn fresh(plane: &Plane) -> Node {
    let mut node = Node::new("fresh");
    let mut open = node.connect(plane).await;
    node.follow(&mut open, plane.head()).await;
    assert_eq!(node.snapshots, 1);
    node
}

/// Opens a stream with this greeting.
pub(crate) async fn stream(
    plane: &Plane,
    requests: mpsc::Receiver<StreamRequest>,
    to_plane: &mpsc::Sender<StreamRequest>,
    hello: Hello,
) -> Result<Streaming<StreamResponse>, Status> {
    let message = Some(stream_request::Message::Hello(hello));
    to_plane.send(StreamRequest { message }).await.unwrap();
    let mut client = plane.config();
    let opened = client.stream(ReceiverStream::new(requests)).await?;
    Ok(opened.into_inner())
}
