//! Follows the store: lists, watches from the next revision on, and lists again when the watch lost its place.
//!
//! Invariants: the state of this process is always that of some write of the head, and never an older one than before; what a new list
//! differs in is published, and nothing else.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prost::Message as _;
use proxyxai_core::{settings, snapshot::Version};
use proxyxai_proto::{config::v1::NodeSettings, store::v1::Counter};

use super::{
    Shared,
    desk::{Desk, Head, Settled, Unconfirmed},
    stages::Next,
};
use crate::{
    status::Fault,
    store::{
        Compare, MAX_BYTES, MAX_OPS, Op, Range, StoreError, Txn, WatchEvent,
        keyspace::{CONFIG_PREFIX, Key},
    },
};

/// Times that the head is raised for rows that were written past it, before others are let do it.
const TRIES: usize = 8;
/// Between tries to reach a store that failed.
const PAUSE: Duration = Duration::from_millis(200);
/// Objects noted as good in one transaction.
const CONFIRMED: usize = MAX_OPS / 2;

/// The side of a [`ConfigStore`](super::ConfigStore) that follows the store.
pub(super) struct Follower {
    shared: Arc<Shared>,
    desk: Desk,
    /// Everything up to this revision was taken in.
    seen: u64,
}

impl Follower {
    /// Reads everything, and publishes it.
    pub(super) async fn start(shared: Arc<Shared>) -> Result<Self, Fault> {
        let (mut desk, version, seen) = list(&shared).await?;
        let settled = desk.settle(version);
        let follower = Self { shared, desk, seen };
        follower.publish(Some(settled));
        Ok(follower)
    }

    /// Whether the store holds portions of large changes that nobody put in force.
    pub(super) fn has_left_overs(&self) -> bool {
        self.desk.has_left_overs()
    }

    /// Follows until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let failed = match self.watch().await {
                WatchEnd::Compacted => self.list_again().await.err().map(|f| f.to_string()),
                WatchEnd::Lost => None,
                WatchEnd::Failed(error) => Some(error.to_string()),
            };
            self.shared.following.store(false, Ordering::Release);
            if let Some(error) = failed {
                tracing::warn!(
                    error,
                    "the store cannot be followed; this replica serves what it has and tries again"
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn watch(&mut self) -> WatchEnd {
        let store = Arc::clone(&self.shared.store);
        let mut watch = match store
            .watch(CONFIG_PREFIX, self.seen.saturating_add(1))
            .await
        {
            Ok(watch) => watch,
            Err(StoreError::Compacted) => return WatchEnd::Compacted,
            Err(error) => return WatchEnd::Failed(error),
        };
        // That the watch began proves nothing of a store without a quorum; that its newest state was read does.
        let newest = match store.get(&Key::Head.to_string()).await {
            Ok(head) => head.map_or(0, |head| head.mod_revision),
            Err(error) => return WatchEnd::Failed(error),
        };
        loop {
            if self.seen >= newest {
                self.shared.following.store(true, Ordering::Release);
            }
            let unconfirmed = self.desk.unconfirmed(CONFIRMED);
            let next = self.desk.next_of_stage();
            let idle = unconfirmed.is_empty() && matches!(next, Next::Nothing);
            let event = tokio::select! {
                biased;
                event = watch.next() => event,
                noted = tidy_up(&self.shared, &unconfirmed, next), if !idle => {
                    match noted {
                        // The watch tells what became of it; whatever was changed meanwhile is tried again after that.
                        Ok(()) => watch.next().await,
                        Err(error) => {
                            tracing::warn!(%error, "good versions of objects, or a large change, did not come into the rows; it is tried again");
                            tokio::select! {
                                biased;
                                event = watch.next() => event,
                                () = tokio::time::sleep(PAUSE) => continue,
                            }
                        }
                    }
                }
            };
            match event {
                WatchEvent::Changes { revision, events } if revision > self.seen => {
                    let settled = self.desk.changes(revision, events);
                    self.seen = revision;
                    self.publish(settled);
                }
                WatchEvent::Changes { .. } => {}
                WatchEvent::Compacted => return WatchEnd::Compacted,
                WatchEvent::Lost => return WatchEnd::Lost,
            }
        }
    }

    /// Lists all, and publishes what is different from before.
    async fn list_again(&mut self) -> Result<(), Fault> {
        let (mut desk, version, seen) = list(&self.shared).await?;
        let held = self.desk.state().snapshot.version;
        if version < held {
            return Err(Fault::Defect(format!(
                "the store holds version {version}, which is older than {held}; if it was restored from a backup, import it, so that its generation is raised"
            )));
        }
        desk.settle(version);
        let before = &self.desk.state().content;
        let changes = before.diff(&desk.state().content);
        if version == held && !changes.is_empty() {
            tracing::error!(
                %version, changes = changes.len(),
                "the store holds another content under the version that was published; it is published with the next one"
            );
        }
        let settled = (version > held).then_some(Settled { changes });
        (self.desk, self.seen) = (desk, seen);
        self.publish(settled);
        Ok(())
    }

    /// Shows the state to this process, and to nodes when the head was raised.
    fn publish(&self, settled: Option<Settled>) {
        let state = self.desk.state();
        self.shared.state.store(Arc::new(state.clone()));
        if let Some(Settled { changes }) = settled {
            let set = state.settings.settings.unwrap_or_default();
            self.shared.publisher.publish(
                state.snapshot.version,
                state.content.clone(),
                NodeSettings {
                    max_stale_seconds: settings::in_force(&set, 0).max_stale_seconds,
                },
                changes,
                self.shared.clock.monotonic(),
            );
        }
        self.shared.seen.send_replace(self.seen);
    }
}

enum WatchEnd {
    Compacted,
    Lost,
    Failed(StoreError),
}

/// Reads all rows. When some were written past the head, or the head cannot be used, it is raised first: what was in force before them is
/// not known here any more, so all replicas must go on from the same new version.
async fn list(shared: &Shared) -> Result<(Desk, Version, u64), Fault> {
    let head = Key::Head.to_string();
    for _ in 0..TRIES {
        let page = shared.store.range(Range::prefix(CONFIG_PREFIX)).await?;
        // When another replica took the next key-encryption key, so does this one; it reads the ring no later than the rows.
        shared.sealing.keyring.refresh().await?;
        let sealing = Arc::clone(&shared.sealing);
        let (desk, found) = Desk::read(sealing, page.entries, page.revision);
        let (to, mod_revision) = match found {
            Head::At(version) => return Ok((desk, version, page.revision)),
            Head::Raise { to, mod_revision } => (to, mod_revision),
        };
        tracing::warn!(
            to,
            "rows were written past the head of the configuration; it is raised"
        );
        let raise = Txn {
            compares: vec![Compare::ModRevision(head.clone(), mod_revision)],
            then: vec![Op::Put(head.clone(), Counter { value: to }.encode_to_vec())],
        };
        shared.store.txn(raise).await?;
    }
    Err(Fault::Contended)
}

/// Brings the rows in line with what is in force.
async fn tidy_up(shared: &Shared, unconfirmed: &[Unconfirmed], next: Next) -> Result<(), Fault> {
    let Next::Write(portion, txn) = next else {
        return Ok(confirm(shared, unconfirmed).await?);
    };
    match portion.record {
        Some(record) => shared.trail.append(record, txn).await?,
        None => shared.store.txn(txn).await?,
    };
    Ok(())
}

/// Notes objects that are in force as good, unless they were changed since.
async fn confirm(shared: &Shared, unconfirmed: &[Unconfirmed]) -> Result<(), StoreError> {
    let mut txn = Txn::default();
    let mut bytes = 0_usize;
    for object in unconfirmed {
        let (key, good) = object.keys.clone();
        bytes = bytes
            .saturating_add(object.value.len())
            .saturating_add(key.len().saturating_add(good.len()).saturating_mul(2));
        if bytes > MAX_BYTES && !txn.then.is_empty() {
            break;
        }
        txn.compares
            .push(Compare::ModRevision(key, object.mod_revision));
        txn.compares
            .push(Compare::ModRevision(good.clone(), object.note_revision));
        txn.then.push(Op::Put(good, object.value.to_vec()));
    }
    shared.store.txn(txn).await.map(|_| ())
}
