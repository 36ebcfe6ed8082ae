//! The keys of a ring at one moment: what they seal, and what they open.

use std::sync::Arc;

use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::{
        Zeroizing,
        seal::{SealError, SealKey, SealKeyId, open, seal, sealed_by},
    },
};
use proxyxai_proto::store::v1 as stored;

use super::wrapped::{UnreadableRing, no_ring, unwrapped, wrapped};
use crate::{
    status::Fault,
    store::{
        Compare, Entry,
        keyspace::{self, Key},
    },
};

/// The keys at one moment.
#[derive(Clone)]
pub(crate) struct Keys {
    /// As it is stored.
    pub(crate) ring: stored::Keyring,
    /// When it was written.
    pub(super) mod_revision: u64,
    /// Those of the ring, and those that were in it before.
    pub(super) held: Vec<Arc<Held>>,
    current: Arc<Held>,
}

/// One key, and what it binds to.
pub(super) struct Held {
    key: Arc<SealKey>,
    generation: u64,
}

impl Keys {
    /// Opens a ring with the key-encryption keys given; keys that are held already need none.
    pub(super) fn read(
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
