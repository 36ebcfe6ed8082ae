//! What nodes are sent: each version of the configuration in each view, encoded once and shared by all streams.
//!
//! Invariants: versions only increase (law 9); a delta leads exactly from one published content to another; nothing is encoded while
//! anybody else waits for it to be published.

mod encode;
mod log;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use proxyxai_core::{
    secret::seal::SealError,
    snapshot::{Change, Content, Digest, ResourceKind, Version},
};
use proxyxai_proto::config::v1::NodeSettings;
use tokio::sync::watch;

pub(crate) use encode::ViewKey;
pub(crate) use log::{Point, Step};

use encode::{Coalesced, encode_delta, encode_snapshot};
use log::{Log, Point as At};

/// Changes in one delta, unless a single step has more; what is longer is sent as several.
const DELTA_CHANGES: usize = 2_000;
/// Largest delta, encoded; what is larger goes to nodes as a snapshot, in chunks.
const DELTA_BYTES: usize = 1 << 20;

/// What a node is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum View {
    /// Everything.
    Full,
    /// All but virtual keys and accounts other than the root: the node asks for those, and is told to forget them.
    Keyed,
}

/// One published version.
pub(crate) struct Published {
    pub(crate) point: Point,
    /// When it was published, on the clock of this process.
    pub(crate) at: Duration,
    full: Content,
    keyed: Content,
    /// What nodes enforce beside it.
    pub(crate) settings: NodeSettings,
    /// How many virtual keys it has.
    pub(crate) keys: usize,
}

impl Published {
    fn content(&self, view: View) -> &Content {
        match view {
            View::Full => &self.full,
            View::Keyed => &self.keyed,
        }
    }

    /// The view for a node that preloads at most so many virtual keys; `None` for one without a limit.
    pub(crate) fn view(&self, preload_max: Option<u64>) -> View {
        let keys = u64::try_from(self.keys).unwrap_or(u64::MAX);
        match preload_max {
            Some(max) if keys > max || max == 0 => View::Keyed,
            Some(_) | None => View::Full,
        }
    }
}

/// Messages that lead from one version to another, one after the other.
type Deltas = Arc<[Bytes]>;

/// A whole configuration as messages, and what it is.
#[derive(Clone)]
pub(crate) struct Encoded {
    pub(crate) point: Point,
    pub(crate) frames: Arc<[Bytes]>,
}

/// Publishes versions.
pub(crate) struct Publisher {
    latest: watch::Sender<Arc<Published>>,
    log: Mutex<Log>,
    key: ViewKey,
    /// Deltas to the latest version, by where they begin.
    deltas: Mutex<BTreeMap<(Version, Version, View), Deltas>>,
    /// The last whole configuration that was encoded, by view.
    snapshots: tokio::sync::Mutex<BTreeMap<View, Encoded>>,
}

impl Publisher {
    pub(crate) fn new(key: ViewKey) -> Self {
        let empty = Published {
            point: At::default(),
            at: Duration::ZERO,
            full: Content::default(),
            keyed: Content::default(),
            settings: NodeSettings::default(),
            keys: 0,
        };
        Self {
            latest: watch::Sender::new(Arc::new(empty)),
            log: Mutex::default(),
            key,
            deltas: Mutex::default(),
            snapshots: tokio::sync::Mutex::default(),
        }
    }

    /// Opens the secrets of what is sent.
    pub(crate) fn view_key(&self) -> &[u8; 32] {
        self.key.expose()
    }

    /// The latest version.
    pub(crate) fn latest(&self) -> Arc<Published> {
        Arc::clone(&self.latest.borrow())
    }

    /// Follows what is published.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.latest.subscribe()
    }

    /// Publishes a newer version, to which `changes` lead from the latest one. An older one is passed over.
    pub(crate) fn publish(
        &self,
        version: Version,
        content: Content,
        settings: NodeSettings,
        changes: Vec<Change>,
        now: Duration,
    ) {
        let before = self.latest();
        if version <= before.point.version {
            tracing::error!(%version, published = %before.point.version, "an older configuration is not published");
            return;
        }
        let (mut keyed, mut keys) = (before.keyed.clone(), before.keys);
        for change in &changes {
            let Some(name) = change.name() else {
                continue;
            };
            if name.kind == ResourceKind::VirtualKey {
                let had = usize::from(before.full.get(&name).is_some());
                let has = usize::from(matches!(change, Change::Upsert(_)));
                keys = keys.saturating_sub(had).saturating_add(has);
            }
            if !ResourceKind::is_keyed(&name) {
                keyed.apply(change.clone());
            }
        }
        let point = At {
            version,
            full: content.digest(),
            keyed: keyed.digest(),
        };
        let published = Published {
            point,
            at: now,
            full: content,
            keyed,
            settings,
            keys,
        };
        // What came before the first version of this process is not known.
        if before.point.version != Version::default() {
            self.log().push(Step {
                from: before.point,
                to: point,
                changes,
                at: now,
            });
        }
        lock(&self.deltas).clear();
        self.latest.send_replace(Arc::new(published));
    }

    /// The messages that lead from what a node holds to a published version; `None` when it must be sent everything.
    pub(crate) fn deltas(
        &self,
        from: (Version, Digest),
        to: &Published,
        view: View,
    ) -> Result<Option<Deltas>, SealError> {
        let key = (from.0, to.point.version, view);
        if let Some(ready) = lock(&self.deltas).get(&key) {
            return Ok(Some(Arc::clone(ready)));
        }
        let Some(mut steps) = self.log().since(from.0, from.1, view) else {
            return Ok(None);
        };
        steps.retain(|step| step.to.version <= to.point.version);
        let (mut at, mut messages) = (from.0, Vec::new());
        for some in in_parts(&steps) {
            let reached = some.last().map_or(to.point, |step| step.to);
            let changes = Coalesced::of(some, view);
            let message = encode_delta(at, reached, &changes, view, &self.key)?;
            if message.len() > DELTA_BYTES {
                return Ok(None);
            }
            messages.push(message);
            at = reached.version;
        }
        let deltas: Deltas = messages.into();
        if self.latest.borrow().point == to.point {
            lock(&self.deltas).insert(key, Arc::clone(&deltas));
        }
        Ok(Some(deltas))
    }

    /// A whole configuration that is not older than `at_least`, from which deltas lead to the latest one: the last one that was encoded,
    /// when it will do, else the latest.
    pub(crate) async fn snapshot(
        &self,
        at_least: Version,
        view: View,
    ) -> Result<Encoded, SealError> {
        let mut ready = self.snapshots.lock().await;
        let latest = self.latest();
        if let Some(encoded) = ready.get(&view) {
            let point = encoded.point;
            let from = (point.version, point.digest(view));
            let near = point == latest.point || self.deltas(from, &latest, view)?.is_some();
            if near && point.version >= at_least {
                return Ok(encoded.clone());
            }
        }
        let frames = encode_snapshot(latest.point, latest.content(view), view, &self.key).await?;
        let encoded = Encoded {
            point: latest.point,
            frames,
        };
        ready.insert(view, encoded.clone());
        Ok(encoded)
    }

    /// Everything that changed after this version; `None` when that is not known any more.
    pub(crate) fn after(&self, version: Version) -> Option<Vec<Arc<Step>>> {
        if version == self.latest.borrow().point.version {
            return Some(Vec::new());
        }
        self.log().after(version)
    }

    /// What a version looked like, when it is known.
    pub(crate) fn point(&self, version: Version) -> Option<Point> {
        let latest = self.latest.borrow().point;
        if latest.version == version {
            return Some(latest);
        }
        self.log().point(version)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }
}

/// Steps in groups of so many changes as one delta shall have.
fn in_parts(steps: &[Arc<Step>]) -> Vec<&[Arc<Step>]> {
    let (mut parts, mut rest) = (Vec::new(), steps);
    while !rest.is_empty() {
        let (mut changes, mut bytes) = (0_usize, 0_usize);
        let count = rest
            .iter()
            .take_while(|step| {
                changes = changes.saturating_add(step.changes.len());
                bytes = step
                    .changes
                    .iter()
                    .map(size)
                    .fold(bytes, usize::saturating_add);
                changes <= DELTA_CHANGES && bytes <= DELTA_BYTES / 2
            })
            .count();
        let (part, more) = rest.split_at(count.max(1));
        parts.push(part);
        rest = more;
    }
    parts
}

fn size(change: &Change) -> usize {
    match change {
        Change::Upsert(resource) => resource.encoded_len(),
        Change::Remove(name) => name.id.len(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
