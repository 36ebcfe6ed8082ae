//! The configuration as the control plane holds it, and the one way to change it.
//!
//! Invariants: every change is one transaction that raises the head; it is compiled with the nodes' own code before it is committed, so
//! an invalid one is refused here and never reaches a node (law 10). What is in force is decided by the rows of the store alone, which
//! every replica follows: its own writes come back to it like those of others, in one order (`docs/decisions/0202-config-follows-the-store.md`).

mod desk;
mod follow;
mod sealing;
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
use proxyxai_proto::store::v1::{Counter, StoredResource};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    audit::{self, Deed, Trail},
    keyring::{Keyring, Keys},
    publish::Publisher,
    status::Fault,
    store::{Compare, MAX_OPS, Op, Store, Txn, keyspace::Key},
};

pub(crate) use sealing::map_secret;
pub(crate) use state::State;

use follow::Follower;
use sealing::Sealing;

/// Tries before a write gives up on others that keep changing the same.
const TRIES: usize = 8;
/// Objects changed by one call: each takes two operations, the head one, and the record of the audit trail some.
const MAX_EDITS: usize = (MAX_OPS - 1 - audit::OPS) / 2;
/// How long a change may take to come back from the store.
const ECHO: Duration = Duration::from_secs(10);

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
}

/// What the configuration and its follower both hold.
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    sealing: Arc<Sealing>,
    state: ArcSwap<State>,
    publisher: Arc<Publisher>,
    /// Revision of the store up to which everything was taken in.
    seen: watch::Sender<u64>,
    following: AtomicBool,
}

/// Holds and changes the configuration.
pub(crate) struct ConfigStore {
    shared: Arc<Shared>,
    random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
    trail: Arc<Trail>,
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
            seen: watch::Sender::new(0),
            following: AtomicBool::new(false),
        });
        let follower = Follower::start(Arc::clone(&shared)).await?;
        let stopping = CancellationToken::new();
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
            trail,
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
            let done = self.commit(caller, action, &state, edits).await?;
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
            if done.succeeded {
                return match echo {
                    Ok(Ok(_)) => Ok(answer),
                    Ok(Err(_)) | Err(_) => Err(Fault::Unseen),
                };
            }
        }
        Err(Fault::Contended)
    }

    /// A fault of a change, recorded when it tells that the caller reached for what it may not have. What does not exist is recorded like
    /// what the caller does not see, or the time that an answer takes would tell them apart.
    pub(crate) async fn refused(&self, caller: &Caller, action: &str, fault: Fault) -> Fault {
        let reached = match &fault {
            Fault::Denied(_) => true,
            Fault::NotFound { .. } => caller.role != Role::Root,
            Fault::Invalid(_)
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
        self.trail.denied(&deed).await;
    }

    async fn commit(
        &self,
        caller: &Caller,
        action: &str,
        state: &State,
        edits: Vec<Edit>,
    ) -> Result<Committed, Fault> {
        if edits.len() > MAX_EDITS {
            return Err(Fault::Invalid(format!(
                "one call changes at most {MAX_EDITS} objects"
            )));
        }
        let head = state.snapshot.version.revision.saturating_add(1);
        let keys = self.shared.sealing.keyring.now();
        let mut txn = Txn {
            compares: vec![
                Compare::ModRevision(Key::Head.to_string(), state.head_revision),
                keys.fence(),
            ],
            then: Vec::new(),
        };
        let mut changes = Vec::with_capacity(edits.len());
        for edit in edits {
            changes.push(self.stage(state, &keys, &mut txn, edit)?);
        }
        let next = compiled(state, head, &changes)?;
        txn.then.push(Op::Put(
            Key::Head.to_string(),
            Counter { value: head }.encode_to_vec(),
        ));
        let recorded = changes
            .iter()
            .map(|change| {
                let (before, after) = (&state.snapshot.accounts, &next.accounts);
                self.trail
                    .config_change(&state.content, before, change, after)
            })
            .collect::<Result<_, _>>()?;
        let deed = Deed {
            caller,
            action,
            accounts: &next.accounts,
        };
        let done = self.trail.commit(&deed, recorded, txn).await?;
        Ok(Committed {
            revision: done.revision,
            succeeded: done.succeeded,
        })
    }

    /// Adds one edit to the transaction.
    fn stage(
        &self,
        state: &State,
        keys: &Keys,
        txn: &mut Txn,
        edit: Edit,
    ) -> Result<Change, Fault> {
        let (name, put) = match edit {
            Edit::Delete(name) => (name, None),
            Edit::Put(stored) => {
                let resource = stored
                    .resource
                    .clone()
                    .ok_or_else(|| Fault::Defect("an object without content".to_owned()))?;
                let name = ResourceName::of(&resource)
                    .ok_or_else(|| Fault::Defect("an object without a kind".to_owned()))?;
                (name, Some((stored, resource)))
            }
        };
        let key = Key::Config(name.clone()).to_string();
        let good = Key::Good(name.clone()).to_string();
        let written = state.mod_revision(&name);
        txn.compares
            .push(Compare::ModRevision(key.clone(), written));
        let Some((stored, resource)) = put else {
            txn.then.extend([Op::Delete(key), Op::Delete(good)]);
            return Ok(Change::Remove(name));
        };
        let sealed = StoredResource {
            resource: Some(sealing::sealed(keys, &*self.random, &key, &resource)?),
            ..stored
        };
        let value = sealed.encode_to_vec();
        txn.then
            .extend([Op::Put(key, value.clone()), Op::Put(good, value)]);
        Ok(Change::Upsert(Arc::new(resource)))
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
