//! The configuration as the control plane holds it, and the one way to change it.
//!
//! Invariants: every change is one transaction that raises the head; it is compiled with the nodes' own code before it is committed, so
//! an invalid one is refused here and never reaches a node (law 10).

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use prost::Message as _;
use proxyxai_core::{
    ports::{Clock, Random},
    snapshot::{Change, Content, ResourceKind, ResourceName, Snapshot, Version},
};
use proxyxai_proto::{
    config::v1::{Resource, UpstreamKey, resource::Kind},
    store::v1::{Counter, StoredResource},
};
use tokio::sync::{Mutex, watch};

use crate::{
    keyring::{Keyring, Keys},
    publish::Published,
    status::Fault,
    store::{
        Compare, Op, Range, Store, StoreError, Txn,
        keyspace::{self, Key},
    },
};

/// Tries before a write gives up on others that keep changing the same.
const TRIES: usize = 8;
/// Objects changed by one call: the transaction needs room for the head and the fence of the keyring.
const MAX_EDITS: usize = crate::store::MAX_OPS - 2;

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
        let from = ResourceName {
            kind,
            id: String::new(),
        };
        self.records
            .range(from..)
            .take_while(move |(name, _)| name.kind == kind)
            .map(|(_, record)| &record.stored)
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
    keyring: Arc<Keyring>,
    generation: u64,
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
        keyring: Arc<Keyring>,
        generation: u64,
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
            keyring,
            generation,
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

    /// Changes the configuration: `decide` sees the state and says what to do; it may be asked again when others were faster.
    pub(crate) async fn edit<T>(
        &self,
        decide: impl Fn(&State) -> Result<(Vec<Edit>, T), Fault>,
    ) -> Result<T, Fault> {
        let _one_at_a_time = self.writer.lock().await;
        for _ in 0..TRIES {
            let state = self.state();
            let (edits, answer) = decide(&state)?;
            if edits.is_empty() {
                return Ok(answer);
            }
            match self.commit(&state, edits).await {
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

    async fn commit(&self, state: &State, edits: Vec<Edit>) -> Result<bool, Fault> {
        if edits.len() > MAX_EDITS {
            return Err(Fault::Invalid(format!(
                "one call changes at most {MAX_EDITS} objects"
            )));
        }
        let head = state.snapshot.version.revision.saturating_add(1);
        let mut next = state.clone();
        let keys = self.keyring.now();
        let mut txn = Txn {
            compares: vec![
                Compare::ModRevision(Key::Head.to_string(), state.head_revision),
                keys.fence(),
            ],
            then: Vec::new(),
        };
        let mut changes = Vec::with_capacity(edits.len());
        for edit in edits {
            changes.push(self.stage(&keys, &mut next, &mut txn, edit)?);
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
            .advance(version, &next.content, &changes, &state.content)
            .map_err(Fault::Rejected)?;
        next.snapshot = Arc::new(snapshot);
        txn.then.push(Op::Put(
            Key::Head.to_string(),
            Counter { value: head }.encode_to_vec(),
        ));
        let written: Vec<ResourceName> = changes.iter().filter_map(name_of).collect();
        let done = self.store.txn(txn).await?;
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
    fn stage(
        &self,
        keys: &Keys,
        next: &mut State,
        txn: &mut Txn,
        edit: Edit,
    ) -> Result<Change, Fault> {
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
            resource: Some(self.sealed(keys, &key, &resource)?),
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
        // The ring before and after: a key that left it while this was read is held from the first, one that joined it from the second.
        self.keyring.refresh().await?;
        let page = self
            .store
            .range(Range::prefix(keyspace::CONFIG_PREFIX))
            .await?;
        self.keyring.refresh().await?;
        let keys = self.keyring.now();
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
                    content.upsert(Arc::new(opened(&keys, &entry.key, resource)?));
                    records.insert(
                        name,
                        Record {
                            stored,
                            mod_revision: entry.mod_revision,
                        },
                    );
                }
                Some(Key::Keyring) => {}
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

    fn sealed(&self, keys: &Keys, key: &str, resource: &Resource) -> Result<Resource, Fault> {
        map_secret(resource.clone(), |secret| {
            keys.seal(&*self.random, key, secret)
        })
    }
}

fn opened(keys: &Keys, key: &str, resource: Resource) -> Result<Resource, Fault> {
    map_secret(resource, |sealed| {
        let plain = keys
            .open(key, sealed)
            .map_err(|error| Fault::sealed(key, &error))?;
        Ok(plain.to_vec())
    })
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

    use super::{ConfigStore, Edit, Fault, Store, StoreError};
    use crate::{
        bootstrap,
        store::sim::{Faults, SimStore},
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
        let owner = SealKey::new([1; 32]).into();
        let deployment = bootstrap::deployment(&store, &*random, &*clock, owner)
            .await
            .unwrap();
        let keyring = deployment.keyring;
        let config = ConfigStore::load(Arc::clone(&store), random, clock, keyring, 1)
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
            let answer = config.edit(edit).await;
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
    }
}
