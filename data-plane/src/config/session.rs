//! One stream from the control plane, message by message: what each does to what is held, and what is answered.
//!
//! Invariants: versions never go back (law 9); a difference applies only to exactly the version that it names; a message out of
//! order ends the stream, and the next one starts over. Nothing here waits.

use std::{sync::Arc, time::Duration};

use proxyxai_core::{
    account::key::Pepper,
    secret::seal::{self, SealKey},
    snapshot::{Change, Digest, Rejection, ResourceKind, ResourceName, Version},
};
use proxyxai_proto::config::v1::{
    self as proto, Ack, Nack, ServerHello, StreamRequest, StreamResponse, resource::Kind,
    stream_request, stream_response,
};

use super::held::{Held, Incoming, Refusal, View};
use crate::{keys::KeyResolver, orders::Orders};

/// Schemas that this program reads: the oldest and the newest.
pub(super) const SCHEMAS: (u32, u32) = (1, 1);

/// Most keys that room is made for before they are there.
const RESERVED: usize = 4_000_000;

/// The state of one stream.
pub(super) struct Session<'a> {
    held: &'a mut Held,
    keys: &'a KeyResolver,
    orders: &'a Orders,
    greeting: Option<Greeting>,
    receiving: Option<Receiving>,
    /// Names of changes whose version comes with the last of several messages.
    changed: Vec<ResourceName>,
}

/// What the control plane said first.
struct Greeting {
    view_key: SealKey,
    view: View,
    head: Version,
}

/// A whole content on its way.
struct Receiving {
    version: Version,
    left: u64,
    content: Incoming,
}

/// What to do after a message.
#[derive(Default)]
pub(super) struct Taken {
    /// Answer this.
    pub(super) reply: Option<StreamRequest>,
    /// The control plane spoke first, as it should.
    pub(super) greeted: bool,
    /// The control plane asks the node to connect again, to another one if there is one.
    pub(super) leave: Option<Leave>,
}

/// A wish of the control plane.
pub(super) struct Leave {
    /// When to connect again.
    pub(super) after: Duration,
    /// For the log.
    pub(super) reason: String,
}

impl<'a> Session<'a> {
    pub(super) fn new(held: &'a mut Held, keys: &'a KeyResolver, orders: &'a Orders) -> Self {
        Self {
            held,
            keys,
            orders,
            greeting: None,
            receiving: None,
            changed: Vec::new(),
        }
    }

    /// Takes one message.
    ///
    /// # Errors
    /// [`StreamFault`]: the stream is of no use any more.
    pub(super) fn take(&mut self, message: StreamResponse) -> Result<Taken, StreamFault> {
        use stream_response::Message;
        match message.message {
            Some(Message::ServerHello(hello)) => self.greet(&hello),
            Some(Message::SnapshotBegin(begin)) => {
                self.begin(required(begin.version)?, begin.resources)
            }
            Some(Message::SnapshotChunk(chunk)) => self.chunk(chunk.resources),
            Some(Message::SnapshotEnd(end)) => {
                self.end(required(end.version)?, digest(&end.digest)?)
            }
            Some(Message::Delta(delta)) => self.delta(delta),
            Some(Message::Bookmark(bookmark)) => self.bookmark(&bookmark),
            Some(Message::NodeSettings(settings)) => self.settings(settings),
            Some(Message::Invalidate(invalidate)) => self.invalidate(&invalidate),
            Some(Message::Drain(drain)) => Ok(Taken {
                leave: Some(Leave {
                    after: Duration::from_millis(u64::from(drain.reconnect_after_ms)),
                    reason: drain.reason,
                }),
                ..Taken::default()
            }),
            // Of a newer schema; what it says cannot matter to a node that was not told of it.
            None => Ok(Taken::default()),
        }
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
        // A control plane from before there was a choice names none.
        if hello.schema != 0 && !(SCHEMAS.0..=SCHEMAS.1).contains(&hello.schema) {
            return Err(StreamFault::Schema(hello.schema));
        }
        let deployment = hello.deployment_id.as_str().into();
        self.held.use_pepper(&pepper, &deployment);
        self.greeting = Some(Greeting {
            view_key,
            view: View {
                pepper,
                deployment,
                keyed: hello.keyed,
            },
            head,
        });
        let interval = Duration::from_millis(u64::from(hello.bookmark_interval_ms));
        let max_stale = Duration::from_secs(hello.max_stale_seconds);
        self.held
            .config()
            .note(|facts, _| facts.greeted(interval, max_stale));
        self.compare();
        Ok(Taken {
            greeted: true,
            ..Taken::default()
        })
    }

    fn begin(&mut self, version: Version, resources: u64) -> Result<Taken, StreamFault> {
        if self.receiving.is_some() || self.greeting.is_none() {
            return Err(StreamFault::OutOfOrder);
        }
        let mut content = Incoming::default();
        let room = usize::try_from(resources).unwrap_or(usize::MAX);
        content.keys.reserve(room.min(RESERVED));
        self.receiving = Some(Receiving {
            version,
            left: resources,
            content,
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
                Ok(resource) => receiving.content.add(resource),
                Err(rejection) => receiving.content.rejected.push(rejection),
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
        let view = greeting.view.clone();
        let result = self.held.replace(version, digest, received.content, &view);
        if result.is_ok() {
            if view.keyed {
                // Of keys and accounts it holds the root account alone.
                self.keys.note(std::iter::once(root()), version);
            } else {
                self.keys.miss(version);
            }
        }
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
        if to <= held {
            return Ok(self.acknowledge());
        }
        if from != held {
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
        let view = greeting.view.clone();
        let result = if rejected.is_empty() {
            self.held.advance(to, digest, &changes, &view)
        } else {
            Err(Refusal::Rejected(rejected))
        };
        if result.is_ok() {
            let names = changes.iter().filter_map(Change::name);
            if view.keyed {
                self.keys.note(names, to);
            } else {
                self.keys.take(from, to, names);
            }
        }
        self.conclude(to, result)
    }

    fn bookmark(&mut self, bookmark: &proto::Bookmark) -> Result<Taken, StreamFault> {
        let greeting = self.greeting.as_mut().ok_or(StreamFault::OutOfOrder)?;
        let head = required(bookmark.head)?;
        greeting.head = greeting.head.max(head);
        if greeting.view.keyed
            && let Some(through) = bookmark.invalidated_through
        {
            self.keys.advance(through.into());
        }
        if let Some(order) = &bookmark.order {
            self.orders.obey(order);
        }
        Ok(self.acknowledge())
    }

    /// Settings of the deployment changed; the version that they came with follows, and is what is acknowledged.
    fn settings(&mut self, settings: proto::NodeSettings) -> Result<Taken, StreamFault> {
        if self.greeting.is_none() {
            return Err(StreamFault::OutOfOrder);
        }
        let max_stale = Duration::from_secs(settings.max_stale_seconds);
        tracing::info!(
            ?max_stale,
            "the deployment says how old the configuration may become"
        );
        self.held.config().note(|facts, _| facts.limited(max_stale));
        Ok(Taken::default())
    }

    /// Keys and accounts changed that are not part of the content.
    fn invalidate(&mut self, invalidate: &proto::Invalidate) -> Result<Taken, StreamFault> {
        if self.greeting.is_none() {
            return Err(StreamFault::OutOfOrder);
        }
        let (from, to) = (required(invalidate.from)?, required(invalidate.to)?);
        let names = invalidate.entries.iter().map(|entry| {
            let name = entry.name.as_ref().and_then(ResourceName::from_proto);
            name.ok_or(StreamFault::Malformed)
        });
        let names: Vec<ResourceName> = names.collect::<Result<_, _>>()?;
        if from == to && !names.is_empty() {
            self.changed.extend(names);
            return Ok(Taken::default());
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.extend(names);
        tracing::debug!(%from, %to, names = changed.len(), "keys and accounts changed");
        self.keys.take(from, to, changed);
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
                self.compare();
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
        self.compare();
        let version = self.held.version();
        let ack = Ack {
            applied: Some(version.into()),
            digest: self.held.digest().0.to_vec(),
            invalidated_through: Some(self.keys.through().into()),
            vitals: Some(self.orders.vitals()),
        };
        Taken {
            reply: (version != Version::default())
                .then(|| message(stream_request::Message::Ack(ack))),
            ..Taken::default()
        }
    }

    /// Notes whether what is held is the newest.
    fn compare(&self) {
        let (held, Some(greeting)) = (self.held.version(), &self.greeting) else {
            return;
        };
        // Keys and accounts of the keyed view change without the content.
        let head = greeting.head;
        let newest = head == held || (greeting.view.keyed && head == self.keys.through());
        let holds = held != Version::default();
        self.held
            .config()
            .note(|facts, now| facts.compared(now, holds, holds && newest));
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

fn root() -> ResourceName {
    ResourceName {
        kind: ResourceKind::Account,
        id: proxyxai_core::account::tree::ROOT.to_owned(),
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
    /// It speaks what this program does not read.
    #[error("the control plane speaks schema {0}, and this program reads {min} to {max}; update the older of the two", min = SCHEMAS.0, max = SCHEMAS.1)]
    Schema(u32),
    /// Nothing came for longer than three bookmarks take.
    #[error("the control plane fell silent")]
    Silent,
    /// The other end went away in good order.
    #[error("the control plane ended the stream")]
    Closed,
    /// The control plane asked for it.
    #[error("the control plane asked the node to connect again: {0}")]
    Drained(String),
    /// The call failed, or the connection.
    #[error("the stream failed: {} ({:?})", .0.message(), .0.code())]
    Rpc(#[from] Box<tonic::Status>),
}

impl StreamFault {
    /// Whether the next stream should start with a whole content, as differences did not lead anywhere.
    pub(super) fn starts_over(&self) -> bool {
        match self {
            Self::OutOfOrder | Self::Malformed | Self::Gap { .. } | Self::Digest { .. } => true,
            Self::Schema(_) | Self::Silent | Self::Closed | Self::Drained(_) | Self::Rpc(_) => {
                false
            }
        }
    }
}
