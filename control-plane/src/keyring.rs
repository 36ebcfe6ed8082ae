//! The keys that seal secrets in the store: data keys, each sealed under the key-encryption key in one row, `cfg/keyring`.
//!
//! Invariants: what is sealed is bound to its place and to the generation of its data key, so a ciphertext that was moved, or that is
//! of before a restore, does not open. Every transaction that writes something sealed compares [`Keys::fence`]: once the ring changed,
//! nothing is written under a key that it may drop. A process never forgets a key that it held, so it reads what it listed before.
//!
//! The row stands below the prefix of the config, so that one watch tells of a new key before it tells of what is sealed under it.

pub(crate) mod asked;
pub(crate) mod rotate;
pub(crate) mod sealed;

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use prost::Message as _;
use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::{
        Zeroizing,
        seal::{SealError, SealKey, SealKeyId, open, seal, sealed_by, unwrap_key, wrap},
    },
};
use proxyxai_proto::store::v1::{self as stored, DataKey};

use crate::{
    status::Fault,
    store::{
        Compare, Entry, Store,
        keyspace::{self, Key},
    },
};

/// The next key-encryption key, or why it cannot be had.
pub type NextKey<'a> = Pin<Box<dyn Future<Output = Result<Option<SealKey>, String>> + Send + 'a>>;

/// Where the next key-encryption key comes from.
pub trait KeySource: Send + Sync {
    /// Reads it; `None` when there is none.
    fn read(&self) -> NextKey<'_>;

    /// The store is sealed under the key that was read: it is the one to start with from now on.
    fn adopted(&self, id: SealKeyId);
}

/// There is no next key.
#[derive(Debug, Clone, Copy)]
pub struct NoNextKey;

impl KeySource for NoNextKey {
    fn read(&self) -> NextKey<'_> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn adopted(&self, _: SealKeyId) {}
}

/// The keys of a running process.
pub(crate) struct Keyring {
    store: Arc<dyn Store>,
    next: Arc<dyn KeySource>,
    /// Key-encryption keys that this process was given.
    given: Mutex<Vec<Arc<SealKey>>>,
    now: ArcSwap<Keys>,
}

/// The keys at one moment.
#[derive(Clone)]
pub(crate) struct Keys {
    /// As it is stored.
    pub(crate) ring: stored::Keyring,
    /// When it was written.
    mod_revision: u64,
    /// Those of the ring, and those that were in it before.
    held: Vec<Arc<Held>>,
    current: Arc<Held>,
}

/// One key, and what it binds to.
struct Held {
    key: Arc<SealKey>,
    generation: u64,
}

impl Keyring {
    /// Takes up the ring of a store.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        key_encryption_key: Arc<SealKey>,
        next: Arc<dyn KeySource>,
        entry: &Entry,
    ) -> Result<Self, Fault> {
        let given = vec![key_encryption_key];
        let keys = Keys::read(entry, &given, &[]).map_err(Fault::from)?;
        Ok(Self {
            store,
            next,
            given: Mutex::new(given),
            now: ArcSwap::from_pointee(keys),
        })
    }

    /// The keys now. Whoever seals with them compares their fence.
    pub(crate) fn now(&self) -> Arc<Keys> {
        self.now.load_full()
    }

    /// Takes up the row of the ring as it was read or as a watch told it; an older one changes nothing.
    pub(crate) fn adopt(&self, entry: &Entry) -> Result<(), UnreadableRing> {
        let now = self.now();
        if entry.mod_revision <= now.mod_revision {
            return Ok(());
        }
        let given = self.given();
        let keys = Arc::new(Keys::read(entry, &given, &now.held)?);
        self.now.rcu(|now| {
            if keys.mod_revision > now.mod_revision {
                Arc::clone(&keys)
            } else {
                Arc::clone(now)
            }
        });
        Ok(())
    }

    /// Reads the ring anew. When another replica took the next key-encryption key, so does this one.
    pub(crate) async fn refresh(&self) -> Result<(), Fault> {
        let key = Key::Keyring.to_string();
        let entry = self.store.get(&key).await?.ok_or_else(|| no_ring(&key))?;
        self.follow(&entry).await;
        Ok(self.adopt(&entry)?)
    }

    /// Looks for the key that the ring is sealed under, when this process was not given it. Without it nothing is lost yet: the data keys
    /// at hand go on opening and sealing.
    async fn follow(&self, entry: &Entry) {
        let ring = stored::Keyring::decode(entry.value.as_slice()).unwrap_or_default();
        let Some(Ok(wanted)) = ring.keys.last().map(|last| sealed_by(&last.sealed)) else {
            return;
        };
        if self.given().iter().any(|key| key.id() == wanted) {
            return;
        }
        match self.next.read().await {
            Ok(Some(next)) if next.id() == wanted => {
                self.give(Arc::new(next));
                self.next.adopted(wanted);
            }
            Ok(_) => tracing::error!(
                %wanted,
                "the data keys in the store are sealed under a key-encryption key that this process was not given; give it that one before it starts again"
            ),
            Err(error) => {
                tracing::error!(%wanted, error, "the next key-encryption key cannot be read")
            }
        }
    }

    fn given(&self) -> Vec<Arc<SealKey>> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.clone()
    }

    fn give(&self, key: Arc<SealKey>) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.iter().all(|had| had.id() != key.id()) {
            given.push(key);
        }
    }
}

impl Keys {
    /// Opens a ring with the key-encryption keys given; keys that are held already need none.
    fn read(
        entry: &Entry,
        given: &[Arc<SealKey>],
        before: &[Arc<Held>],
    ) -> Result<Self, UnreadableRing> {
        let ring: stored::Keyring = keyspace::decode(&entry.key, &entry.value)
            .map_err(|error| UnreadableRing::Damaged(error.to_string()))?;
        let mut held: Vec<Arc<Held>> = before.to_vec();
        for data_key in &ring.keys {
            if held.iter().any(|had| had.key.id().0 == *data_key.id) {
                continue;
            }
            let (key, _) = unwrapped(data_key, given)?;
            held.push(Arc::new(Held {
                key: Arc::new(key),
                generation: data_key.generation,
            }));
        }
        let last = ring.keys.last();
        let current = last.and_then(|last| held.iter().find(|held| held.key.id().0 == *last.id));
        let current = current
            .map(Arc::clone)
            .ok_or_else(|| UnreadableRing::Damaged(no_ring(&entry.key).to_string()))?;
        if ring.direct {
            for key in given {
                if held.iter().all(|had| had.key.id() != key.id()) {
                    // Of the generation that the ring was made in: its first key stays until nothing direct is left.
                    held.push(Arc::new(Held {
                        key: Arc::clone(key),
                        generation: ring.keys.first().map_or(0, |first| first.generation),
                    }));
                }
            }
        }
        Ok(Self {
            ring,
            mod_revision: entry.mod_revision,
            held,
            current,
        })
    }

    /// A ring that is not in a store yet: a new data key of this generation.
    pub(crate) fn make(
        random: &dyn Random,
        key_encryption_key: &SealKey,
        generation: u64,
        created_unix_ms: i64,
    ) -> Result<Self, Fault> {
        let key = SealKey::new(random_bytes(random));
        let data_key = wrapped(
            random,
            key_encryption_key,
            &key,
            generation,
            created_unix_ms,
        )?;
        let current = Arc::new(Held {
            key: Arc::new(key),
            generation,
        });
        Ok(Self {
            ring: stored::Keyring {
                keys: vec![data_key],
                direct: false,
            },
            mod_revision: 0,
            held: vec![Arc::clone(&current)],
            current,
        })
    }

    /// Opens the ring of an archive.
    pub(crate) fn of_archive(entry: &Entry, key: &Arc<SealKey>) -> Result<Self, Fault> {
        Ok(Self::read(entry, std::slice::from_ref(key), &[])?)
    }

    /// The key that seals.
    pub(crate) fn current(&self) -> SealKeyId {
        self.current.key.id()
    }

    /// The generation that what is sealed now is bound to.
    pub(crate) fn generation(&self) -> u64 {
        self.current.generation
    }

    /// To be compared by every transaction that writes something that these keys sealed.
    pub(crate) fn fence(&self) -> Compare {
        Compare::ModRevision(Key::Keyring.to_string(), self.mod_revision)
    }

    /// Seals for a place in the store.
    pub(crate) fn seal(
        &self,
        random: &dyn Random,
        place: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let associated = associated(place, self.current.generation);
        seal(&self.current.key, random_bytes(random), &associated, plain)
            .map_err(|error| Fault::Defect(error.to_string()))
    }

    /// Opens what stands at a place of the store.
    pub(crate) fn open(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let id = sealed_by(sealed)?;
        let held = self.held.iter().find(|held| held.key.id() == id);
        let held = held.ok_or_else(|| SealError::OtherKey {
            sealed_by: id,
            given: self.current.key.id(),
        })?;
        open(&held.key, &associated(place, held.generation), sealed)
    }
}

/// Where a secret stands, and of which generation it is.
fn associated(place: &str, generation: u64) -> Vec<u8> {
    [place.as_bytes(), &[0], &generation.to_le_bytes()].concat()
}

fn ring_associated(id: &[u8], generation: u64) -> Vec<u8> {
    let place = Key::Keyring.to_string();
    [place.as_bytes(), &[0], id, &generation.to_le_bytes()].concat()
}

fn wrapped(
    random: &dyn Random,
    under: &SealKey,
    key: &SealKey,
    generation: u64,
    created_unix_ms: i64,
) -> Result<DataKey, Fault> {
    let id = key.id().0;
    let sealed = wrap(
        under,
        random_bytes(random),
        &ring_associated(&id, generation),
        key,
    )
    .map_err(|error| Fault::Defect(error.to_string()))?;
    Ok(DataKey {
        id: id.to_vec(),
        sealed,
        generation,
        created_unix_ms,
    })
}

/// A data key, and the key-encryption key that it was sealed under.
fn unwrapped(
    data_key: &DataKey,
    given: &[Arc<SealKey>],
) -> Result<(SealKey, Arc<SealKey>), UnreadableRing> {
    let place = Key::Keyring.to_string();
    let damaged =
        |error: SealError| UnreadableRing::Damaged(Fault::sealed(&place, &error).to_string());
    let id = sealed_by(&data_key.sealed).map_err(damaged)?;
    let under = given.iter().find(|key| key.id() == id);
    let under = under.ok_or_else(|| UnreadableRing::OtherKey {
        sealed_by: id.to_string(),
        given: given
            .last()
            .map(|key| key.id().to_string())
            .unwrap_or_default(),
    })?;
    let associated = ring_associated(&data_key.id, data_key.generation);
    let key = unwrap_key(under, &associated, &data_key.sealed).map_err(damaged)?;
    if key.id().0 == *data_key.id {
        Ok((key, Arc::clone(under)))
    } else {
        Err(damaged(SealError::Content))
    }
}

fn no_ring(key: &str) -> Fault {
    Fault::Damaged(format!(
        "the store lacks `{key}`, without which no secret can be opened; restore it from a backup"
    ))
}

/// Why a ring cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnreadableRing {
    /// It is sealed under a key that this process was not given.
    #[error(
        "the data keys in the store are sealed under key-encryption key {sealed_by}, but this process was given {given}; give it the other one and start it again"
    )]
    OtherKey {
        /// The key that is needed.
        sealed_by: String,
        /// The key at hand.
        given: String,
    },
    /// It was changed.
    #[error("{0}")]
    Damaged(String),
}

impl From<UnreadableRing> for Fault {
    fn from(unreadable: UnreadableRing) -> Self {
        match unreadable {
            UnreadableRing::OtherKey { .. } => Self::Precondition(unreadable.to_string()),
            UnreadableRing::Damaged(text) => Self::Damaged(text),
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.now().current())
    }
}
