//! The configuration as the control plane holds it, and the one way to change it.
//!
//! Invariants: every change is one transaction that raises the head; it is compiled with the nodes' own code before it is committed, so
//! an invalid one is refused here and never reaches a node (law 10).

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use arc_swap::ArcSwap;
use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Role},
    ports::{Clock, Random, random_bytes},
    secret::seal::{SealKey, open, seal},
    snapshot::{Change, Content, ResourceKind, ResourceName, Snapshot, Version},
};
use proxyxai_proto::{
    config::v1::{Resource, UpstreamKey, resource::Kind},
    store::v1::{Counter, StoredResource},
};
use tokio::sync::{Mutex, watch};

use crate::{
    audit::{self, Deed, Trail},
    publish::Published,
    status::Fault,
    store::{
        Compare, Op, Range, Store, StoreError, Txn,
        keyspace::{self, Key},
    },
};

/// Tries before a write gives up on others that keep changing the same.
const TRIES: usize = 8;
/// Objects changed by one call: the transaction needs room for the head and for the record of the audit trail.
const MAX_EDITS: usize = crate::store::MAX_OPS - 1 - audit::OPS;

/// An object as it is stored, and when it was written.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) stored: StoredResource,
    mod_revision: u64,
}

/// One moment of the configuration.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) records: BTreeMap<ResourceName, Record>,
    pub(crate) content: Content,
    pub(crate) snapshot: Arc<Snapshot>,
    head_revision: u64,
}

impl State {
    /// Objects of one kind, in the order of their ids.
    pub(crate) fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &StoredResource> {
        self.after(kind, "")
    }

    /// Objects of one kind whose ids come after this one, in their order.
    pub(crate) fn after(
        &self,
        kind: ResourceKind,
        id: &str,
    ) -> impl Iterator<Item = &StoredResource> {
        let from = ResourceName {
            kind,
            id: id.to_owned(),
        };
        self.records
            .range((Bound::Excluded(from), Bound::Unbounded))
            .take_while(move |(name, _)| name.kind == kind)
            .map(|(_, record)| &record.stored)
    }

    /// The version of an object: the revision of the store at its last write; 0 when there is none.
    pub(crate) fn version(&self, name: &ResourceName) -> u64 {
        self.records
            .get(name)
            .map_or(0, |record| record.mod_revision)
    }

    /// One object.
    pub(crate) fn get(&self, kind: ResourceKind, id: &str) -> Option<&StoredResource> {
        self.records
            .get(&ResourceName {
                kind,
                id: id.to_owned(),
            })
            .map(|record| &record.stored)
    }
}

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

/// Holds and changes the configuration.
pub(crate) struct ConfigStore {
    store: Arc<dyn Store>,
    random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
    kek: SealKey,
    generation: u64,
    trail: Arc<Trail>,
    state: ArcSwap<State>,
    writer: Mutex<()>,
    published: watch::Sender<Arc<Published>>,
}

impl ConfigStore {
    /// Reads the configuration from the store.
    pub(crate) async fn load(
        store: Arc<dyn Store>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        kek: SealKey,
        generation: u64,
        trail: Arc<Trail>,
    ) -> Result<Self, Fault> {
        let empty = State {
            records: BTreeMap::new(),
            content: Content::default(),
            snapshot: Arc::new(Snapshot::empty()),
            head_revision: 0,
        };
        let (published, _) = watch::channel(Arc::new(Published::empty()));
        let config = Self {
            store,
            random,
            clock,
            kek,
            generation,
            trail,
            state: ArcSwap::from_pointee(empty),
            writer: Mutex::new(()),
            published,
        };
        config.reload().await?;
        Ok(config)
    }

    /// The configuration now.
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Follows what is published.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
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
            let state = self.state();
            let (edits, answer) = match decide(&state) {
                Ok(decided) => decided,
                Err(fault) => return Err(self.refused(caller, action, fault).await),
            };
            if edits.is_empty() {
                return Ok(answer);
            }
            match self.commit(caller, action, &state, edits).await {
                Ok(true) => return Ok(answer),
                Ok(false) => self.reload().await?,
                Err(error) => {
                    // It may have been done: then nodes must not wait for the next change to see it.
                    if matches!(&error, Fault::Store(StoreError::Ambiguous { .. }))
                        && let Err(error) = self.reload().await
                    {
                        tracing::warn!(%error, "whether a change was made shows with the next one");
                    }
                    return Err(error);
                }
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
    ) -> Result<bool, Fault> {
        if edits.len() > MAX_EDITS {
            return Err(Fault::Invalid(format!(
                "one call changes at most {MAX_EDITS} objects"
            )));
        }
        let head = state.snapshot.version.revision.saturating_add(1);
        let mut next = state.clone();
        let mut txn = Txn {
            compares: vec![Compare::ModRevision(
                Key::Head.to_string(),
                state.head_revision,
            )],
            then: Vec::new(),
        };
        let mut changes = Vec::with_capacity(edits.len());
        for edit in edits {
            changes.push(self.stage(&mut next, &mut txn, edit)?);
        }
        let version = Version {
            generation: self.generation,
            revision: head,
        };
        changes
            .iter()
            .cloned()
            .for_each(|change| next.content.apply(change));
        let snapshot = state
            .snapshot
            .advance(version, &next.content, &changes)
            .map_err(Fault::Rejected)?;
        next.snapshot = Arc::new(snapshot);
        txn.then.push(Op::Put(
            Key::Head.to_string(),
            Counter { value: head }.encode_to_vec(),
        ));
        let written: Vec<ResourceName> = changes.iter().filter_map(name_of).collect();
        let accounts = &next.snapshot.accounts;
        let recorded = changes
            .iter()
            .map(|change| {
                self.trail
                    .config_change(&state.content, &state.snapshot.accounts, change, accounts)
            })
            .collect::<Result<_, _>>()?;
        let deed = Deed {
            caller,
            action,
            accounts,
        };
        let done = self.trail.commit(&deed, recorded, txn).await?;
        if done.succeeded {
            next.head_revision = done.revision;
            for name in written {
                if let Some(record) = next.records.get_mut(&name) {
                    record.mod_revision = done.revision;
                }
            }
            self.publish(next, Some((state.snapshot.version, changes)));
        }
        Ok(done.succeeded)
    }

    /// Adds one edit to the transaction and to the next state.
    fn stage(&self, next: &mut State, txn: &mut Txn, edit: Edit) -> Result<Change, Fault> {
        let stored = match edit {
            Edit::Put(stored) => stored,
            Edit::Delete(name) => {
                let old = next
                    .records
                    .remove(&name)
                    .map_or(0, |record| record.mod_revision);
                let key = Key::Config(name.clone()).to_string();
                txn.compares.push(Compare::ModRevision(key.clone(), old));
                txn.then.push(Op::Delete(key));
                return Ok(Change::Remove(name));
            }
        };
        let resource = stored
            .resource
            .clone()
            .ok_or_else(|| Fault::Defect("an object without content".to_owned()))?;
        let name = ResourceName::of(&resource)
            .ok_or_else(|| Fault::Defect("an object without a kind".to_owned()))?;
        let key = Key::Config(name.clone()).to_string();
        let sealed = StoredResource {
            resource: Some(self.sealed(&key, &resource)?),
            ..stored
        };
        let old = next
            .records
            .get(&name)
            .map_or(0, |record| record.mod_revision);
        txn.compares.push(Compare::ModRevision(key.clone(), old));
        txn.then.push(Op::Put(key, sealed.encode_to_vec()));
        next.records.insert(
            name,
            Record {
                stored: sealed,
                mod_revision: old,
            },
        );
        Ok(Change::Upsert(Arc::new(resource)))
    }

    /// Reads everything anew and publishes it.
    async fn reload(&self) -> Result<(), Fault> {
        let page = self
            .store
            .range(Range::prefix(keyspace::CONFIG_PREFIX))
            .await?;
        let (mut records, mut content, mut head, mut head_revision) =
            (BTreeMap::new(), Content::default(), 0, 0);
        for entry in page.entries {
            match Key::parse(&entry.key) {
                Some(Key::Head) => {
                    head = keyspace::decode::<Counter>(&entry.key, &entry.value)?.value;
                    head_revision = entry.mod_revision;
                }
                Some(Key::Config(name)) => {
                    let stored: StoredResource = keyspace::decode(&entry.key, &entry.value)?;
                    let resource = stored.resource.clone().unwrap_or_default();
                    content.upsert(Arc::new(self.opened(&entry.key, resource)?));
                    records.insert(
                        name,
                        Record {
                            stored,
                            mod_revision: entry.mod_revision,
                        },
                    );
                }
                _ => tracing::warn!(
                    key = entry.key,
                    "the store holds a key that this version does not know"
                ),
            }
        }
        let version = Version {
            generation: self.generation,
            revision: head,
        };
        let snapshot = Arc::new(Snapshot::compile(version, &content).map_err(Fault::Rejected)?);
        self.publish(
            State {
                records,
                content,
                snapshot,
                head_revision,
            },
            None,
        );
        Ok(())
    }

    fn publish(&self, state: State, step: Option<(Version, Vec<Change>)>) {
        let published = Published::new(state.snapshot.version, state.content.clone(), step);
        self.state.store(Arc::new(state));
        self.published.send_replace(Arc::new(published));
    }

    fn sealed(&self, key: &str, resource: &Resource) -> Result<Resource, Fault> {
        map_secret(resource.clone(), |secret| {
            seal(
                &self.kek,
                random_bytes(&*self.random),
                &self.place(key),
                secret,
            )
            .map_err(|error| Fault::Defect(error.to_string()))
        })
    }

    fn opened(&self, key: &str, resource: Resource) -> Result<Resource, Fault> {
        map_secret(resource, |sealed| {
            let plain = open(&self.kek, &self.place(key), sealed)
                .map_err(|error| Fault::sealed(key, &error))?;
            Ok(plain.to_vec())
        })
    }

    /// Where a secret stands: a ciphertext that is moved does not open.
    fn place(&self, key: &str) -> Vec<u8> {
        [key.as_bytes(), &[0], &self.generation.to_le_bytes()].concat()
    }
}

/// Replaces the secret of an upstream key; other resources have none.
pub(crate) fn map_secret<E>(
    resource: Resource,
    map: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Resource, E> {
    match resource.kind {
        Some(Kind::UpstreamKey(key)) => {
            let secret = map(&key.secret)?;
            Ok(Resource {
                kind: Some(Kind::UpstreamKey(UpstreamKey { secret, ..key })),
            })
        }
        other => Ok(Resource { kind: other }),
    }
}

fn name_of(change: &Change) -> Option<ResourceName> {
    match change {
        Change::Upsert(resource) => ResourceName::of(resource),
        Change::Remove(name) => Some(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use proxyxai_core::{
        ports::{Clock, Random},
        secret::seal::SealKey,
        snapshot::ResourceKind,
    };
    use proxyxai_proto::{
        config::v1::{Account, Resource, resource::Kind},
        store::v1::StoredResource,
    };

    use super::{Caller, ConfigStore, Edit, Fault, Range, Role, Store, StoreError, Trail};
    use crate::{
        bootstrap,
        store::{
            keyspace::AUDIT_RECORD_PREFIX,
            sim::{Faults, SimStore},
        },
    };

    struct Still;

    impl Clock for Still {
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn unix_ms(&self) -> i64 {
            1
        }
    }

    #[derive(Default)]
    struct Counting(Mutex<u8>);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            let mut next = self.0.lock().unwrap();
            for byte in bytes {
                *next = next.wrapping_add(1);
                *byte = *next;
            }
        }
    }

    /// An account whose id is its name, below root.
    fn account(id: &str) -> StoredResource {
        StoredResource {
            resource: Some(Resource {
                kind: Some(Kind::Account(Account {
                    id: id.to_owned(),
                    parent_id: "root".to_owned(),
                    name: id.to_owned(),
                    ..Account::default()
                })),
            }),
            ..StoredResource::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_without_an_answer_is_shown_if_it_was_made() {
        let sim = SimStore::new(5);
        let store: Arc<dyn Store> = Arc::new(sim.clone());
        let (random, clock): (Arc<dyn Random>, Arc<dyn Clock>) =
            (Arc::new(Counting::default()), Arc::new(Still));
        let kek = || SealKey::new([1; 32]);
        bootstrap::deployment(&store, &*random, &*clock, &kek())
            .await
            .unwrap();
        let trail = Arc::new(Trail::new(Arc::clone(&store), Arc::clone(&clock)).unwrap());
        let root = Caller::of_deployment("test", Role::Root);
        let config = ConfigStore::load(Arc::clone(&store), random, clock, kek(), 1, trail)
            .await
            .unwrap();
        sim.set_faults(Faults {
            ambiguous: 1000,
            ..Faults::default()
        });
        let mut made = [0, 0];
        for number in 0..20 {
            let id = format!("a{number}");
            let edit = |_: &_| Ok((vec![Edit::Put(account(&id))], ()));
            let answer = config.edit(&root, "Test", edit).await;
            assert!(matches!(
                answer,
                Err(Fault::Store(StoreError::Ambiguous { .. }))
            ));
            let key = format!("cfg/account/{id}");
            let stored = store.get(&key).await.unwrap().is_some();
            let shown = config.state().get(ResourceKind::Account, &id).is_some();
            assert_eq!(shown, stored, "{id}");
            made[usize::from(stored)] += 1_u32;
        }
        assert!(made.iter().all(|count| *count > 0), "{made:?}");
        // What was made is in the audit trail, and nothing else is.
        let page = store.range(Range::prefix(AUDIT_RECORD_PREFIX)).await;
        assert_eq!(u32::try_from(page.unwrap().entries.len()), Ok(made[1]));
    }
}
