//! One node's stream.
//!
//! Invariants: never an older version than one that was sent or that the node holds (law 9); what the keyed view forgets is told at once
//! and in order; a bookmark says only what is proven, and comes after everything that it covers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use proxyxai_core::{
    secret::seal::SealError,
    snapshot::{Change, Digest, ResourceKind, ResourceName, Version},
};
use proxyxai_proto::config::v1::{
    Bookmark, Drain, Invalidate, Invalidation, NodeSettings, StreamRequest, StreamResponse,
    resource::Kind, stream_request, stream_response::Message,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, sleep_until, timeout},
};
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use super::codec::Frame;
use crate::{
    config_store::ConfigStore,
    nodes::{Nodes, Refused, same},
    orders::Orders,
    publish::{Published, Publisher, Step, View},
};

/// How long a node that is ahead of this replica is kept waiting.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Changes told one by one; with more a node revalidates all.
const INVALIDATIONS: usize = 10_000;

/// What a session has in hand.
pub(crate) struct Session {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) node_id: String,
    pub(crate) stream: u64,
    pub(crate) view: View,
    /// Most virtual keys that the node preloads; `None` for one without a limit.
    pub(crate) preload_max: Option<u64>,
    pub(crate) bookmark_interval: Duration,
    pub(crate) debounce: Duration,
    pub(crate) sender: mpsc::Sender<Result<Frame, Status>>,
    /// The content that the node holds.
    pub(crate) sent: (Version, Digest),
    /// The settings that the node was told last.
    pub(crate) settings: NodeSettings,
    /// Up to where the node was told what to forget.
    pub(crate) told: Version,
    /// When the stream began.
    pub(crate) began: Duration,
}

/// Why a stream is over.
pub(crate) enum Ended {
    /// The node left.
    Gone,
    /// The node shall go elsewhere, or come back.
    Drain(&'static str),
    /// Something that must not happen.
    Failed(Status),
}

impl From<SealError> for Ended {
    fn from(error: SealError) -> Self {
        Self::Failed(Status::internal(error.to_string()))
    }
}

impl Session {
    /// Serves the node until its stream is over.
    pub(crate) async fn serve(
        &mut self,
        greeting: Message,
        requests: &mut Streaming<StreamRequest>,
    ) -> Ended {
        match self.run(greeting, requests).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn run(
        &mut self,
        greeting: Message,
        requests: &mut Streaming<StreamRequest>,
    ) -> Result<std::convert::Infallible, Ended> {
        self.message(greeting).await?;
        let mut published = self.publisher().subscribe();
        let mut orders = self.orders.subscribe(&self.node_id);
        let mut no_orders = false;
        self.catch_up(&mut published, requests).await?;
        let newest = Arc::clone(&published.borrow_and_update());
        self.forget(&newest).await?;
        self.update(&newest).await?;
        let mut bookmark = tokio::time::interval(self.bookmark_interval);
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Until when changes are gathered, and whether there are some.
        let (mut quiet_until, mut gathered) = (Instant::now(), false);
        loop {
            tokio::select! {
                biased;
                request = requests.next() => self.hear(request)?,
                changed = published.changed() => {
                    changed.map_err(|_| Ended::Gone)?;
                    let newest = Arc::clone(&published.borrow_and_update());
                    self.check_view(&newest)?;
                    self.forget(&newest).await?;
                    // The first change goes out at once; those that follow soon are sent together.
                    if Instant::now() < quiet_until {
                        gathered = true;
                    } else {
                        self.update(&newest).await?;
                        quiet_until = after(self.debounce);
                    }
                }
                () = sleep_until(quiet_until), if gathered => {
                    gathered = false;
                    let newest = Arc::clone(&published.borrow());
                    self.update(&newest).await?;
                    quiet_until = after(self.debounce);
                }
                changed = orders.changed(), if !no_orders => match changed {
                    Ok(()) => bookmark.reset_immediately(),
                    // It was removed, and is cut off.
                    Err(_) => no_orders = true,
                },
                _ = bookmark.tick() => {
                    if self.config.is_following() && self.nodes.may_prove() {
                        gathered = false;
                        let newest = Arc::clone(&published.borrow_and_update());
                        self.check_view(&newest)?;
                        self.forget(&newest).await?;
                        self.update(&newest).await?;
                        self.bookmark().await?;
                    }
                }
            }
        }
    }

    /// Waits until this replica is not behind the node.
    async fn catch_up(
        &mut self,
        published: &mut watch::Receiver<Arc<Published>>,
        requests: &mut Streaming<StreamRequest>,
    ) -> Result<(), Ended> {
        let needed = self.sent.0.max(self.told);
        let reached = published.wait_for(|latest| latest.point.version >= needed);
        tokio::select! {
            biased;
            reached = timeout(CATCH_UP, reached) => match reached {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(Ended::Gone),
                Err(_) => Err(Ended::Drain("this replica of the control plane is behind the node")),
            },
            // A node that knows what it does says nothing before it is told something.
            request = requests.next() => match request {
                Some(Ok(_)) => Err(Ended::Failed(Status::invalid_argument(
                    "a node answers what it is sent",
                ))),
                Some(Err(_)) | None => Err(Ended::Gone),
            },
        }
    }

    /// Sends what leads to a published version: a delta when there is one, else everything.
    async fn update(&mut self, to: &Published) -> Result<(), Ended> {
        // First, so that a node that acknowledges the version enforces them.
        if self.settings != to.settings && self.sent.0 <= to.point.version {
            self.settings = to.settings;
            self.message(Message::NodeSettings(to.settings)).await?;
        }
        while self.sent != (to.point.version, to.point.digest(self.view)) {
            if self.sent.0 > to.point.version {
                return Ok(());
            }
            if let Some(deltas) = self.publisher().deltas(self.sent, to, self.view)? {
                for delta in deltas.iter() {
                    self.send(Frame::Encoded(Bytes::clone(delta))).await?;
                }
                self.sent = (to.point.version, to.point.digest(self.view));
                return Ok(());
            }
            let publisher = Arc::clone(self.publisher());
            let whole = publisher.snapshot(self.sent.0, self.view).await?;
            for frame in whole.frames.iter() {
                self.send(Frame::Encoded(Bytes::clone(frame))).await?;
            }
            self.sent = (whole.point.version, whole.point.digest(self.view));
        }
        Ok(())
    }

    /// Tells what to forget, in the keyed view: in one message, as who has processed it enforces all of it.
    async fn forget(&mut self, newest: &Published) -> Result<(), Ended> {
        let mut to = newest.point.version;
        if self.view == View::Full || self.told == to {
            return Ok(());
        }
        let known = self.publisher().after(self.told).map(|steps| {
            let reached = steps.last().map_or(to, |step| step.to.version);
            (reached, invalidations(&steps))
        });
        let (from, entries) = match known {
            Some((reached, entries)) if entries.len() <= INVALIDATIONS => {
                to = reached;
                (self.told, entries)
            }
            // Too much changed, or what did is not known any more: a node that has processed less than this revalidates all.
            Some(_) | None => (to, Vec::new()),
        };
        self.told = to;
        let message = Invalidate {
            from: Some(from.into()),
            to: Some(to.into()),
            entries,
        };
        self.message(Message::Invalidate(message)).await
    }

    /// A node that is of the other view by now comes back to that one. Not at once when keys become fewer: near the limit nodes would come
    /// back for every key.
    fn check_view(&self, newest: &Published) -> Result<(), Ended> {
        let Some(max) = self.preload_max else {
            return Ok(());
        };
        let keys = u64::try_from(newest.keys).unwrap_or(u64::MAX);
        let crossed = match self.view {
            View::Full => keys > max,
            View::Keyed => keys <= max.saturating_sub(max / 10) && max > 0,
        };
        if crossed {
            return Err(Ended::Drain(
                "the number of virtual keys crossed what the node preloads",
            ));
        }
        Ok(())
    }

    async fn bookmark(&mut self) -> Result<(), Ended> {
        let (head, _) = self.sent;
        let told = match self.view {
            View::Full => head,
            View::Keyed => self.told,
        };
        let bookmark = Bookmark {
            head: Some(head.into()),
            invalidated_through: Some(told.into()),
            order: self.orders.of(&self.node_id),
        };
        self.message(Message::Bookmark(bookmark)).await
    }

    fn hear(&self, request: Option<Result<StreamRequest, Status>>) -> Result<(), Ended> {
        let request = request.and_then(Result::ok).ok_or(Ended::Gone)?;
        match request.message {
            Some(stream_request::Message::Ack(ack)) => {
                let applied = ack.applied.map(Version::from).unwrap_or_default();
                let point = self.publisher().point(applied);
                let equal = same(point.map(|point| point.digest(self.view)), &ack.digest);
                if equal == Some(false) {
                    tracing::error!(node = self.node_id, version = %applied, "a node holds another content than was published");
                }
                let newest = self.publisher().latest();
                let now = self.config.clock.monotonic();
                // A node that came later took up what was there, however old that was.
                let timed = applied == newest.point.version && newest.at > self.began;
                self.nodes.hear(&self.node_id, self.stream, |node| {
                    if timed && applied > node.applied {
                        let took = now.saturating_sub(newest.at);
                        self.nodes.propagation.observe(took);
                    }
                    node.applied = applied;
                    node.vitals = ack.vitals.or(node.vitals);
                    node.digest_equal = equal.or(node.digest_equal);
                    node.invalidated_through = ack
                        .invalidated_through
                        .map(Version::from)
                        .unwrap_or_default();
                    if node.refused.as_ref().is_some_and(|r| r.version <= applied) {
                        node.refused = None;
                    }
                });
            }
            Some(stream_request::Message::Nack(nack)) => {
                let version = nack.refused.map(Version::from).unwrap_or_default();
                let reasons: Vec<String> = nack
                    .rejected
                    .into_iter()
                    .map(|rejection| {
                        let name = rejection.name.as_ref().and_then(ResourceName::from_proto);
                        let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
                        format!("{name}{}", rejection.reason)
                    })
                    .collect();
                tracing::error!(
                    node = self.node_id, %version, ?reasons,
                    "a node refused the configuration and keeps what it had"
                );
                self.nodes.hear(&self.node_id, self.stream, |node| {
                    node.refused = Some(Refused { version, reasons });
                });
            }
            Some(stream_request::Message::Hello(_)) | None => {}
        }
        Ok(())
    }

    fn publisher(&self) -> &Arc<Publisher> {
        self.config.publisher()
    }

    async fn message(&self, message: Message) -> Result<(), Ended> {
        self.send(Frame::Message(StreamResponse {
            message: Some(message),
        }))
        .await
    }

    async fn send(&self, frame: Frame) -> Result<(), Ended> {
        self.sender.send(Ok(frame)).await.map_err(|_| Ended::Gone)
    }
}

/// Tells a node to leave; one that does not read is not waited for.
pub(crate) fn drain(
    sender: &mpsc::Sender<Result<Frame, Status>>,
    reason: &str,
    reconnect_after: Duration,
) {
    let drain = Message::Drain(Drain {
        reconnect_after_ms: u32::try_from(reconnect_after.as_millis()).unwrap_or(u32::MAX),
        reason: reason.to_owned(),
    });
    let frame = Frame::Message(StreamResponse {
        message: Some(drain),
    });
    let _node_may_have_left = sender.try_send(Ok(frame));
}

/// What must be forgotten after some steps, each name once.
fn invalidations(steps: &[Arc<Step>]) -> Vec<Invalidation> {
    let mut names: BTreeMap<ResourceName, bool> = BTreeMap::new();
    for change in steps.iter().flat_map(|step| &step.changes) {
        let Some(name) = change.name().filter(ResourceKind::is_keyed) else {
            continue;
        };
        names.insert(name, is_revoked(change));
    }
    names
        .into_iter()
        .map(|(name, revoked)| Invalidation {
            name: Some(name.to_proto()),
            revoked,
        })
        .collect()
}

/// Deleted, disabled or suspended.
fn is_revoked(change: &Change) -> bool {
    match change {
        Change::Remove(_) => true,
        Change::Upsert(resource) => match &resource.kind {
            Some(Kind::VirtualKey(key)) => key.disabled,
            Some(Kind::Account(account)) => account.suspended,
            Some(
                Kind::Provider(_) | Kind::UpstreamKey(_) | Kind::Route(_) | Kind::PriceTable(_),
            )
            | None => false,
        },
    }
}

fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}
