//! The keys that seal secrets in the store: data keys, each sealed under the key-encryption key in one row, `cfg/keyring`.
//!
//! Invariants: what is sealed is bound to its place and to the generation of its data key, so a ciphertext that was moved, or that is
//! of before a restore, does not open. Every transaction that writes something sealed compares `Keys::fence`: once the ring changed,
//! nothing is written under a key that it may drop. A process never forgets a key that it held, so it reads what it listed before.
//!
//! The row stands below the prefix of the config, so that one watch tells of a new key before it tells of what is sealed under it.

pub(crate) mod asked;
mod keys;
pub(crate) mod rotate;
pub(crate) mod sealed;
mod source;
mod wrapped;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use prost::Message as _;
use proxyxai_core::secret::seal::{SealKey, sealed_by};
use proxyxai_proto::store::v1 as stored;

use crate::{
    status::Fault,
    store::{Entry, Store, keyspace::Key},
};

pub(crate) use keys::Keys;
pub use source::{KeySource, NextKey, NoNextKey};

use wrapped::{UnreadableRing, no_ring, unwrapped, wrapped};

/// The keys of a running process.
pub(crate) struct Keyring {
    store: Arc<dyn Store>,
    next: Arc<dyn KeySource>,
    /// Key-encryption keys that this process was given.
    given: Mutex<Vec<Arc<SealKey>>>,
    now: ArcSwap<Keys>,
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

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.now().current())
    }
}
