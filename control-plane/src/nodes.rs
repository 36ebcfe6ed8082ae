//! What this replica knows of the nodes whose streams it has, or had last.
//!
//! Invariant: a node is live while it acknowledged something within three bookmark intervals, whether its stream is open or not: until then
//! it may serve from what it has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proxyxai_core::{
    exposition::Histogram,
    ports::Clock,
    snapshot::{Digest, Version},
};
use proxyxai_proto::config::v1::Vitals;
use tokio::sync::watch;

use crate::publish::View;

/// Nodes known at most; those not heard of for longest are forgotten first.
const MAX_NODES: usize = 10_000;
/// Bookmarks that a node may leave unanswered before it is not live any more.
const MISSED: u32 = 3;

/// Upper bounds of the time that a version takes to reach a node, in milliseconds.
const PROPAGATION_MS: [u64; 10] = [10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 60_000];

/// A refusal of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What it refused.
    pub(crate) version: Version,
    /// Names and reasons.
    pub(crate) reasons: Vec<String>,
}

/// What is known of a node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) boot_id: String,
    pub(crate) program_version: String,
    pub(crate) view: View,
    /// The version that it acknowledged last, and whether its content is the one that was published.
    pub(crate) applied: Version,
    pub(crate) digest_equal: Option<bool>,
    pub(crate) invalidated_through: Version,
    /// Its last refusal, until it acknowledges that version or a newer one.
    pub(crate) refused: Option<Refused>,
    /// When it last acknowledged anything, or began its stream.
    pub(crate) heard: Duration,
    /// Its open stream.
    pub(crate) stream: Option<u64>,
    /// What it said of itself last since its start.
    pub(crate) vitals: Option<Vitals>,
}

impl Node {
    /// Whether it enforces a version.
    pub(crate) fn enforces(&self, version: Version) -> bool {
        self.applied >= version
            && self.digest_equal != Some(false)
            && (self.view == View::Full || self.invalidated_through >= version)
    }
}

/// What a node says of itself at the beginning of a stream.
pub(crate) struct Arrival {
    pub(crate) id: String,
    pub(crate) boot_id: String,
    pub(crate) program_version: String,
    pub(crate) view: View,
    pub(crate) applied: Version,
    pub(crate) digest_equal: Option<bool>,
    pub(crate) invalidated_through: Version,
}

/// The nodes of this replica.
pub(crate) struct Nodes {
    clock: Arc<dyn Clock>,
    live_for: Duration,
    /// From publishing a version to the acknowledgements of nodes that were there.
    pub(crate) propagation: Histogram,
    /// Until when this replica may prove anything to nodes; `None` without an end.
    proves_until: Mutex<Option<Duration>>,
    state: Mutex<State>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    streams: u64,
}

impl Nodes {
    pub(crate) fn new(clock: Arc<dyn Clock>, bookmark_interval: Duration) -> Self {
        Self {
            clock,
            live_for: bookmark_interval.saturating_mul(MISSED),
            propagation: Histogram::new(&PROPAGATION_MS),
            proves_until: Mutex::default(),
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Notes that a node began a stream; the number names the stream.
    pub(crate) fn arrive(&self, arrival: Arrival) -> u64 {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        state.streams = state.streams.saturating_add(1);
        let stream = state.streams;
        let before = state.nodes.get(&arrival.id);
        let before = before.filter(|node| node.boot_id == arrival.boot_id);
        let vitals = before.and_then(|node| node.vitals);
        let node = Node {
            vitals,
            boot_id: arrival.boot_id,
            program_version: arrival.program_version,
            view: arrival.view,
            applied: arrival.applied,
            digest_equal: arrival.digest_equal,
            invalidated_through: arrival.invalidated_through,
            refused: None,
            heard: now,
            stream: Some(stream),
        };
        state.nodes.insert(arrival.id, node);
        if state.nodes.len() > MAX_NODES {
            let idle = state.nodes.iter().filter(|(_, node)| node.stream.is_none());
            let oldest = idle.min_by_key(|(_, node)| node.heard);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                state.nodes.remove(&id);
            }
        }
        drop(state);
        self.tell();
        stream
    }

    /// Notes what a node says on a stream; one that was replaced by a newer stream is not listened to.
    pub(crate) fn hear(&self, id: &str, stream: u64, note: impl FnOnce(&mut Node)) {
        let now = self.clock.monotonic();
        if let Some(node) = self.lock().nodes.get_mut(id)
            && node.stream == Some(stream)
        {
            node.heard = now;
            note(node);
        }
        self.tell();
    }

    /// Notes that a stream ended.
    pub(crate) fn leave(&self, id: &str, stream: u64) {
        if let Some(node) = self.lock().nodes.get_mut(id)
            && node.stream == Some(stream)
        {
            node.stream = None;
        }
        self.tell();
    }

    /// Forgets a node whose stream was ended because it was removed.
    pub(crate) fn expel(&self, id: &str, stream: u64) {
        let mut state = self.lock();
        if state
            .nodes
            .get(id)
            .is_some_and(|node| node.stream == Some(stream))
        {
            state.nodes.remove(id);
        }
        drop(state);
        self.tell();
    }

    /// Forgets a node, unless it has a stream.
    pub(crate) fn forget(&self, id: &str) {
        let mut state = self.lock();
        if state
            .nodes
            .get(id)
            .is_some_and(|node| node.stream.is_none())
        {
            state.nodes.remove(id);
        }
        drop(state);
        self.tell();
    }

    /// All nodes by id, with how long ago each was heard.
    pub(crate) fn all(&self) -> BTreeMap<String, (Node, Duration)> {
        let now = self.clock.monotonic();
        let state = self.lock();
        let aged = state.nodes.iter().map(|(id, node)| {
            let age = now.saturating_sub(node.heard);
            (id.clone(), (node.clone(), age))
        });
        aged.collect()
    }

    /// Whether a node that was heard so long ago counts as live.
    pub(crate) fn is_live(&self, age: Duration) -> bool {
        age <= self.live_for
    }

    /// How long a node counts as live after it was heard.
    pub(crate) fn live_for(&self) -> Duration {
        self.live_for
    }

    /// Lets this replica prove things to nodes until then: others wait as long before they take it for dead.
    pub(crate) fn prove_until(&self, time: Duration) {
        *self.proves_until() = Some(time);
    }

    /// Whether this replica may send bookmarks: not when others may take it for dead.
    pub(crate) fn may_prove(&self) -> bool {
        let now = self.clock.monotonic();
        self.proves_until().is_none_or(|until| now < until)
    }

    fn proves_until(&self) -> MutexGuard<'_, Option<Duration>> {
        self.proves_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes ready when something changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a content that a node names is the one that was published, when that is known.
pub(crate) fn same(published: Option<Digest>, named: &[u8]) -> Option<bool> {
    let published = published?;
    Some(Digest::from_bytes(named) == Some(published))
}
