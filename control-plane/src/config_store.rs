//! The configuration as the control plane holds it, and the one way to change it.
//!
//! Invariants: every change is one transaction that raises the head; it is compiled with the nodes' own code before it is committed, so
//! an invalid one is refused here and never reaches a node (law 10). What is in force is decided by the rows of the store alone, which
//! every replica follows: its own writes come back to it like those of others, in one order (`docs/decisions/0202-config-follows-the-store.md`).

mod desk;
mod follow;
mod sealing;
mod settings;
mod stage;
mod stages;
mod state;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Role},
    ports::{Clock, Random},
    snapshot::{Change, Content, ResourceName, Snapshot, Version},
};
use proxyxai_proto::{
    config::v1::Resource,
    store::v1::{Counter, StoredResource, StoredSettings},
};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    audit::{Deed, Trail},
    keyring::{Keyring, Keys},
    publish::Publisher,
    status::Fault,
    store::{Compare, Op, Store, Txn, keyspace::Key},
};

pub(crate) use sealing::map_secret;
pub(crate) use state::State;

use follow::Follower;
use sealing::Sealing;
use settings::Beside;
use stage::Row;

/// Tries before a write gives up on others that keep changing the same.
const TRIES: usize = 8;
/// How long a change may take to come back from the store.
const ECHO: Duration = Duration::from_secs(10);

/// How long a change waits for one before it that is not yet in the rows.
const BRINGING: Duration = Duration::from_secs(60);

/// One step of a change.
#[expect(
    clippy::large_enum_variant,
    reason = "a handful of them live for the time of one call"
)]
pub(crate) enum Edit {
    /// Put, with secrets in plain.
    Put(StoredResource),
    /// Take away.
    Delete(ResourceName),
    /// Change the settings of the deployment to these.
    Settings(StoredSettings),
    /// Only if this holds; else the change is refused as contended, and whoever asks looks again.
    Only(Compare),
}

impl Edit {
    /// What it changes; `None` for an object without a kind.
    pub(crate) fn name(&self) -> Option<ResourceName> {
        match self {
            Self::Put(stored) => ResourceName::of(stored.resource.as_ref()?),
            Self::Delete(name) => Some(name.clone()),
            Self::Settings(_) | Self::Only(_) => None,
        }
    }
}

/// What the configuration and its follower both hold.
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    sealing: Arc<Sealing>,
    state: ArcSwap<State>,
    publisher: Arc<Publisher>,
    trail: Arc<Trail>,
    /// Revision of the store up to which everything was taken in.
    seen: watch::Sender<u64>,
    following: AtomicBool,
}

/// Holds and changes the configuration.
pub(crate) struct ConfigStore {
    shared: Arc<Shared>,
    random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
    writer: Mutex<()>,
    _until_dropped: DropGuard,
}

/// What a change was committed as.
#[derive(Debug, Clone, Copy)]
struct Committed {
    revision: u64,
    succeeded: bool,
}

impl ConfigStore {
    /// Reads the configuration from the store, and follows it from then on.
    pub(crate) async fn load(
        store: Arc<dyn Store>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        keyring: Arc<Keyring>,
        generation: u64,
        trail: Arc<Trail>,
        publisher: Arc<Publisher>,
    ) -> Result<Self, Fault> {
        let shared = Arc::new(Shared {
            store,
            clock: Arc::clone(&clock),
            sealing: Arc::new(Sealing {
                keyring,
                generation,
            }),
            state: ArcSwap::from_pointee(State::empty()),
            publisher,
            trail,
            seen: watch::Sender::new(0),
            following: AtomicBool::new(false),
        });
        let follower = Follower::start(Arc::clone(&shared)).await?;
        let stopping = CancellationToken::new();
        if follower.has_left_overs() {
            let (shared, until) = (Arc::clone(&shared), stopping.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = until.cancelled() => {}
                    () = clean_up(&shared) => {}
                }
            });
        }
        let until = stopping.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = until.cancelled() => {}
                () = follower.run() => {}
            }
        });
        Ok(Self {
            shared,
            random,
            clock,
            writer: Mutex::new(()),
            _until_dropped: stopping.drop_guard(),
        })
    }

    /// The configuration now.
    pub(crate) fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }

    /// What nodes are sent.
    pub(crate) fn publisher(&self) -> &Arc<Publisher> {
        &self.shared.publisher
    }

    /// Whether it is proven that changes of the store reach this process: a read of the store had its newest state when the watch began,
    /// and the watch lasts. A watch that hears nothing for too long is lost by the store's own rules, also when nothing changes.
    pub(crate) fn is_following(&self) -> bool {
        self.shared.following.load(Ordering::Acquire)
    }

    /// The random source, for ids.
    pub(crate) fn random(&self) -> &dyn Random {
        &*self.random
    }

    /// Changes the configuration, and records who did: `decide` sees the state and says what to do; it may be asked again when others
    /// were faster. `action` is the name of the call.
    pub(crate) async fn edit<T>(
        &self,
        caller: &Caller,
        action: &str,
        decide: impl Fn(&State) -> Result<(Vec<Edit>, T), Fault>,
    ) -> Result<T, Fault> {
        let _one_at_a_time = self.writer.lock().await;
        for _ in 0..TRIES {
            self.rows_are_in_line().await?;
            let mut seen = self.shared.seen.subscribe();
            let known = *seen.borrow_and_update();
            let state = self.state();
            let (edits, answer) = match decide(&state) {
                Ok(decided) => decided,
                Err(fault) => return Err(self.refused(caller, action, fault).await),
            };
            if edits.is_empty() {
                return Ok(answer);
            }
            let guarded = edits.iter().any(|edit| matches!(edit, Edit::Only(_)));
            let done = self.commit(caller, action, &state, edits).await?;
            if guarded && !done.succeeded {
                return Err(Fault::Contended);
            }
            let news = |seen: &u64| {
                if done.succeeded {
                    *seen >= done.revision
                } else {
                    *seen > known
                }
            };
            if !done.succeeded {
                // Also under a key-encryption key that only now came into use.
                self.shared.sealing.keyring.refresh().await?;
            }
            let echo = tokio::time::timeout(ECHO, seen.wait_for(news)).await;
            let is_seen = echo.is_ok_and(|seen| seen.is_ok());
            if done.succeeded {
                if !is_seen {
                    return Err(Fault::Unseen);
                }
                // It is in force; the rows follow. Who reads versions of objects before would soon be told others.
                let _in_force_anyway = self.rows_are_in_line().await;
                return Ok(answer);
            }
        }
        Err(Fault::Contended)
    }

    /// A fault of a change, recorded when it tells that the caller reached for what it may not have. What does not exist is recorded like
    /// what the caller does not see, or the time that an answer takes would tell them apart.
    pub(crate) async fn refused(&self, caller: &Caller, action: &str, fault: Fault) -> Fault {
        let mut cause = &fault;
        while let Fault::Object { fault, .. } = cause {
            cause = fault;
        }
        let reached = match cause {
            Fault::Denied(_) => true,
            Fault::NotFound { .. } => caller.role != Role::Root,
            Fault::Object { .. }
            | Fault::Invalid(_)
            | Fault::Fields(_)
            | Fault::InUse { .. }
            | Fault::Stale { .. }
            | Fault::Exists { .. }
            | Fault::Precondition(_)
            | Fault::Rejected(_)
            | Fault::Contended
            | Fault::Unseen
            | Fault::Store(_)
            | Fault::Damaged(_)
            | Fault::Defect(_) => false,
        };
        if reached {
            self.note_denied(caller, action).await;
        }
        fault
    }

    /// Records that a caller may not do what it asked for.
    pub(crate) async fn note_denied(&self, caller: &Caller, action: &str) {
        let state = self.state();
        let accounts = &state.snapshot.accounts;
        let deed = Deed {
            caller,
            action,
            accounts,
        };
        self.shared.trail.denied(&deed).await;
    }

    async fn commit(
        &self,
        caller: &Caller,
        action: &str,
        state: &State,
        edits: Vec<Edit>,
    ) -> Result<Committed, Fault> {
        let head = state.snapshot.version.revision.saturating_add(1);
        let keys = self.shared.sealing.keyring.now();
        let mut guard = vec![
            Compare::ModRevision(Key::Head.to_string(), state.head_revision),
            keys.fence(),
        ];
        let mut rows = Vec::with_capacity(edits.len());
        let mut changes = Vec::with_capacity(edits.len());
        let mut beside = Beside::default();
        for edit in edits {
            let put = match edit {
                Edit::Only(compare) => {
                    guard.push(compare);
                    continue;
                }
                Edit::Settings(next) => {
                    beside = Beside::settings(&self.shared.trail, state, &next)?;
                    continue;
                }
                Edit::Delete(name) => {
                    rows.push(None);
                    changes.push(Change::Remove(name));
                    continue;
                }
                Edit::Put(stored) => stored,
            };
            let (value, resource) = self.sealed(&keys, put)?;
            rows.push(Some(value));
            changes.push(Change::Upsert(Arc::new(resource)));
        }
        let next = compiled(state, head, &changes)?;
        let told = |(value, change): (Option<Vec<u8>>, &Change)| {
            let (before, after) = (&state.snapshot.accounts, &next.accounts);
            let trail = &self.shared.trail;
            let told = trail.config_change(&state.content, before, change, after)?;
            let name = change.name().ok_or_else(unnamed)?;
            Ok::<Row, Fault>(Row {
                written: state.mod_revision(&name),
                name,
                value,
                told,
            })
        };
        let rows = rows.into_iter().zip(&changes).map(told);
        let rows = rows.collect::<Result<Vec<Row>, Fault>>()?;
        let deed = Deed {
            caller,
            action,
            accounts: &next.accounts,
        };
        if !stage::fit(&rows) {
            return self.commit_staged(&deed, guard, head, (rows, beside)).await;
        }
        self.commit_at_once(&deed, guard, head, (rows, beside))
            .await
    }

    /// Commits rows in one transaction, if what `guard` says holds.
    async fn commit_at_once(
        &self,
        deed: &Deed<'_>,
        guard: Vec<Compare>,
        head: u64,
        (rows, beside): (Vec<Row>, Beside),
    ) -> Result<Committed, Fault> {
        let key = Key::Head.to_string();
        let mut txn = Txn {
            compares: guard,
            then: vec![Op::Put(key, Counter { value: head }.encode_to_vec())],
        };
        let mut recorded = beside.join(&mut txn);
        for row in rows {
            let key = Key::Config(row.name.clone()).to_string();
            let good = Key::Good(row.name).to_string();
            txn.compares
                .push(Compare::ModRevision(key.clone(), row.written));
            txn.then.extend(match row.value {
                Some(value) => [Op::Put(key, value.clone()), Op::Put(good, value)],
                None => [Op::Delete(key), Op::Delete(good)],
            });
            recorded.push(row.told);
        }
        let done = self.shared.trail.commit(deed, recorded, txn).await?;
        Ok(Committed {
            revision: done.revision,
            succeeded: done.succeeded,
        })
    }

    /// Waits until a large change that is in force stands in the rows.
    async fn rows_are_in_line(&self) -> Result<(), Fault> {
        let mut seen = self.shared.seen.subscribe();
        let in_line = seen.wait_for(|_| !self.shared.state.load().staged);
        match tokio::time::timeout(BRINGING, in_line).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Fault::Contended),
        }
    }

    /// What the store holds of an object, its secret sealed, and the object itself.
    fn sealed(&self, keys: &Keys, stored: StoredResource) -> Result<(Vec<u8>, Resource), Fault> {
        let resource = stored
            .resource
            .clone()
            .ok_or_else(|| Fault::Defect("an object without content".to_owned()))?;
        let name = ResourceName::of(&resource).ok_or_else(unnamed)?;
        let key = Key::Config(name).to_string();
        let sealed = StoredResource {
            resource: Some(sealing::sealed(keys, &*self.random, &key, &resource)?),
            ..stored
        };
        Ok((sealed.encode_to_vec(), resource))
    }
}

fn unnamed() -> Fault {
    Fault::Defect("an object without a kind".to_owned())
}

/// Takes away what writers of large changes left who died, unless one is at work.
async fn clean_up(shared: &Shared) {
    let head = shared.state.load().head_revision;
    let done = async {
        let leader = shared.store.campaign(stage::LEADER).await?;
        let unchanged = Compare::ModRevision(Key::Head.to_string(), head);
        stage::clean(&*shared.store, &[leader.fence.clone(), unchanged]).await
    };
    if let Err(error) = done.await {
        tracing::warn!(%error, "what is left of large changes was not taken away; the next large change does it");
    }
}

/// What changes come to; refuses those that do not fit to what is in force.
fn compiled(state: &State, revision: u64, changes: &[Change]) -> Result<Snapshot, Fault> {
    let mut content: Content = state.content.clone();
    changes
        .iter()
        .cloned()
        .for_each(|change| content.apply(change));
    let version = Version {
        revision,
        ..state.snapshot.version
    };
    state
        .snapshot
        .advance(version, &content, changes)
        .map_err(Fault::Rejected)
}

#[cfg(test)]
mod tests;
