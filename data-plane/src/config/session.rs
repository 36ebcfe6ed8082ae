//! One stream from the control plane, message by message: what each does to what is held, and what is answered.
//!
//! Invariants: versions never go back (law 9); a difference applies only to exactly the version that it names; a message out of
//! order ends the stream, and the next one starts over. Nothing here waits.

use std::{sync::Arc, time::Duration};

use proxyxai_core::{
    account::key::Pepper,
    secret::seal::{self, SealKey},
    snapshot::{Change, Content, Digest, Rejection, ResourceKind, ResourceName, Version},
};
use proxyxai_proto::config::v1::{
    self as proto, Ack, Nack, ServerHello, StreamRequest, StreamResponse, resource::Kind,
    stream_request, stream_response,
};

use super::{
    held::{Held, Refusal},
    pinned::NodeState,
};

/// The state of one stream.
pub(super) struct Session<'a> {
    held: &'a mut Held,
    greeting: Option<Greeting>,
    receiving: Option<Receiving>,
}

/// What the control plane said first.
struct Greeting {
    view_key: SealKey,
    pepper: Pepper,
    head: Version,
}

/// A whole content on its way.
struct Receiving {
    version: Version,
    left: u64,
    content: Content,
    rejected: Vec<Rejection>,
}

/// What to do after a message.
#[derive(Default)]
pub(super) struct Taken {
    /// Answer this.
    pub(super) reply: Option<StreamRequest>,
    /// What is held was proved to be the newest just now.
    pub(super) fresh: bool,
    /// The control plane says how often it sends bookmarks.
    pub(super) bookmark_interval: Option<Duration>,
}

impl<'a> Session<'a> {
    pub(super) fn new(held: &'a mut Held) -> Self {
        Self {
            held,
            greeting: None,
            receiving: None,
        }
    }

    /// Takes one message.
    ///
    /// # Errors
    /// [`StreamFault`]: the stream is of no use any more.
    pub(super) fn take(&mut self, message: StreamResponse) -> Result<Taken, StreamFault> {
        use stream_response::Message;
        let taken = match message.message {
            Some(Message::ServerHello(hello)) => self.greet(&hello),
            Some(Message::SnapshotBegin(begin)) => {
                self.begin(required(begin.version)?, begin.resources)
            }
            Some(Message::SnapshotChunk(chunk)) => self.chunk(chunk.resources),
            Some(Message::SnapshotEnd(end)) => {
                self.end(required(end.version)?, digest(&end.digest)?)
            }
            Some(Message::Delta(delta)) => self.delta(delta),
            Some(Message::Bookmark(bookmark)) => self.bookmark(required(bookmark.head)?),
            // Of a newer schema; what it says cannot matter to a node that was not told of it.
            Some(Message::Invalidate(_) | Message::Drain(_)) | None => Ok(Taken::default()),
        }?;
        self.note_state();
        Ok(taken)
    }

    fn greet(&mut self, hello: &ServerHello) -> Result<Taken, StreamFault> {
        if self.greeting.is_some() {
            return Err(StreamFault::OutOfOrder);
        }
        let view_key = hello
            .view_key
            .as_slice()
            .try_into()
            .map(SealKey::new)
            .map_err(|_| StreamFault::Malformed)?;
        let pepper = hello
            .pepper
            .as_slice()
            .try_into()
            .map(Pepper::new)
            .map_err(|_| StreamFault::Malformed)?;
        let head = required(hello.head)?;
        self.held.use_pepper(&pepper);
        self.greeting = Some(Greeting {
            view_key,
            pepper,
            head,
        });
        Ok(Taken {
            reply: None,
            fresh: head == self.held.version(),
            bookmark_interval: Some(Duration::from_millis(u64::from(hello.bookmark_interval_ms))),
        })
    }

    fn begin(&mut self, version: Version, resources: u64) -> Result<Taken, StreamFault> {
        if self.receiving.is_some() || self.greeting.is_none() {
            return Err(StreamFault::OutOfOrder);
        }
        self.receiving = Some(Receiving {
            version,
            left: resources,
            content: Content::default(),
            rejected: Vec::new(),
        });
        Ok(Taken::default())
    }

    fn chunk(&mut self, resources: Vec<proto::Resource>) -> Result<Taken, StreamFault> {
        let (Some(receiving), Some(greeting)) = (&mut self.receiving, &self.greeting) else {
            return Err(StreamFault::OutOfOrder);
        };
        for resource in resources {
            receiving.left = receiving
                .left
                .checked_sub(1)
                .ok_or(StreamFault::Malformed)?;
            match greeting.open(resource) {
                Ok(resource) => receiving.content.upsert(resource),
                Err(rejection) => receiving.rejected.push(rejection),
            }
        }
        Ok(Taken::default())
    }

    fn end(&mut self, version: Version, digest: Digest) -> Result<Taken, StreamFault> {
        let (Some(received), Some(greeting)) = (self.receiving.take(), &mut self.greeting) else {
            return Err(StreamFault::OutOfOrder);
        };
        if received.version != version || received.left != 0 {
            return Err(StreamFault::Malformed);
        }
        if version < self.held.version() {
            tracing::warn!(%version, held = %self.held.version(), "ignored a configuration older than the one held");
            return Ok(self.acknowledge());
        }
        greeting.head = greeting.head.max(version);
        let result = if received.rejected.is_empty() {
            self.held
                .replace(version, digest, received.content, &greeting.pepper)
        } else {
            Err(Refusal::Rejected(received.rejected))
        };
        self.conclude(version, result)
    }

    fn delta(&mut self, delta: proto::Delta) -> Result<Taken, StreamFault> {
        let (None, Some(greeting)) = (&self.receiving, &mut self.greeting) else {
            return Err(StreamFault::OutOfOrder);
        };
        let (from, to, digest) = (
            required(delta.from)?,
            required(delta.to)?,
            digest(&delta.digest)?,
        );
        let held = self.held.version();
        if from != held || to <= held {
            return Err(StreamFault::Gap { from, held });
        }
        greeting.head = greeting.head.max(to);
        let mut changes = Vec::with_capacity(delta.upserts.len());
        let mut rejected = Vec::new();
        for name in &delta.removed {
            changes.push(
                ResourceName::from_proto(name)
                    .map(Change::Remove)
                    .ok_or(StreamFault::Malformed)?,
            );
        }
        for resource in delta.upserts {
            match greeting.open(resource) {
                Ok(resource) => changes.push(Change::Upsert(resource)),
                Err(rejection) => rejected.push(rejection),
            }
        }
        let result = if rejected.is_empty() {
            self.held.advance(to, digest, &changes, &greeting.pepper)
        } else {
            Err(Refusal::Rejected(rejected))
        };
        self.conclude(to, result)
    }

    fn bookmark(&mut self, head: Version) -> Result<Taken, StreamFault> {
        let greeting = self.greeting.as_mut().ok_or(StreamFault::OutOfOrder)?;
        greeting.head = greeting.head.max(head);
        Ok(self.acknowledge())
    }

    /// Says what became of a new version.
    fn conclude(
        &mut self,
        version: Version,
        result: Result<(), Refusal>,
    ) -> Result<Taken, StreamFault> {
        match result {
            Ok(()) => {
                tracing::info!(%version, digest = ?self.held.digest(), "configuration in force");
                Ok(self.acknowledge())
            }
            Err(Refusal::Digest { version }) => Err(StreamFault::Digest { version }),
            Err(Refusal::Rejected(rejected)) => {
                for rejection in &rejected {
                    tracing::error!(%version, held = %self.held.version(), "configuration refused: {rejection}");
                }
                self.held
                    .config()
                    .counters()
                    .refused
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(Taken {
                    reply: Some(nack(version, rejected)),
                    ..Taken::default()
                })
            }
        }
    }

    /// Says what is held; with nothing held there is nothing to say.
    fn acknowledge(&self) -> Taken {
        let version = self.held.version();
        let ack = Ack {
            applied: Some(version.into()),
            digest: self.held.digest().0.to_vec(),
            ..Ack::default()
        };
        Taken {
            reply: (version != Version::default())
                .then(|| message(stream_request::Message::Ack(ack))),
            fresh: self.is_newest(),
            bookmark_interval: None,
        }
    }

    fn is_newest(&self) -> bool {
        self.greeting
            .as_ref()
            .is_some_and(|greeting| greeting.head == self.held.version())
    }

    fn note_state(&self) {
        if self.is_newest() && self.held.config().is_ready() {
            self.held.config().set_state(NodeState::Current);
        } else if self.held.config().state() != NodeState::Stale {
            self.held.config().set_state(NodeState::Syncing);
        }
    }
}

impl Greeting {
    /// Opens the secret of an upstream key; everything else comes in plain.
    fn open(&self, mut resource: proto::Resource) -> Result<Arc<proto::Resource>, Rejection> {
        if let Some(Kind::UpstreamKey(key)) = &mut resource.kind {
            let place = format!("view/{}", key.id);
            let plain =
                seal::open(&self.view_key, place.as_bytes(), &key.secret).map_err(|error| {
                    Rejection {
                        name: ResourceName {
                            kind: ResourceKind::UpstreamKey,
                            id: key.id.clone(),
                        },
                        reason: error.to_string(),
                    }
                })?;
            key.secret = plain.to_vec();
        }
        Ok(Arc::new(resource))
    }
}

/// Wraps a message to the control plane.
pub(super) fn message(message: stream_request::Message) -> StreamRequest {
    StreamRequest {
        message: Some(message),
    }
}

fn nack(refused: Version, rejected: Vec<Rejection>) -> StreamRequest {
    let rejected = rejected
        .into_iter()
        .map(|r| proto::Rejection {
            name: Some(r.name.to_proto()),
            reason: r.reason,
        })
        .collect();
    message(stream_request::Message::Nack(Nack {
        refused: Some(refused.into()),
        rejected,
    }))
}

fn required(version: Option<proto::Version>) -> Result<Version, StreamFault> {
    version.map(Version::from).ok_or(StreamFault::Malformed)
}

fn digest(bytes: &[u8]) -> Result<Digest, StreamFault> {
    Digest::from_bytes(bytes).ok_or(StreamFault::Malformed)
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFault {
    /// The control plane does not keep to the order of messages.
    #[error("the control plane sent a message out of order")]
    OutOfOrder,
    /// A message lacks what it must have.
    #[error("the control plane sent an incomplete message")]
    Malformed,
    /// A difference to another version than the one held.
    #[error("the control plane sent a difference from {from}, but the node holds {held}")]
    Gap {
        /// What it builds on.
        from: Version,
        /// What the node has.
        held: Version,
    },
    /// Not what the control plane meant to send.
    #[error("the content of {version} does not have the digest that the control plane named")]
    Digest {
        /// Of what was received.
        version: Version,
    },
    /// Nothing came for longer than three bookmarks take.
    #[error("the control plane fell silent")]
    Silent,
    /// The other end went away in good order.
    #[error("the control plane ended the stream")]
    Closed,
    /// The call failed, or the connection.
    #[error("the stream failed: {} ({:?})", .0.message(), .0.code())]
    Rpc(#[from] Box<tonic::Status>),
}

impl StreamFault {
    /// Whether the next stream should start with a whole content, as differences did not lead anywhere.
    pub(super) fn starts_over(&self) -> bool {
        match self {
            Self::OutOfOrder | Self::Malformed | Self::Gap { .. } | Self::Digest { .. } => true,
            Self::Silent | Self::Closed | Self::Rpc(_) => false,
        }
    }
}
