//! Virtual keys by digest: 1,024 immutable shards, of which a change copies one.
//!
//! A million keys take about 100 bytes each; a look-up is an index by ten bits of the digest and a search in one shard. The digest
//! is a keyed hash already, so its own bits spread the keys and nobody can choose them.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use crate::account::{
    key::{ID_LEN, KeyDigest},
    tree::AccountIndex,
};

const SHARDS: usize = 1024;

/// What is known of a virtual key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRecord {
    /// Names the key.
    pub id: KeyId,
    /// The account that it belongs to.
    pub account: AccountIndex,
    /// Refused until it is enabled again.
    pub disabled: bool,
    /// Whether its terms are to be looked up; without them the record does not tell whether it works.
    pub has_terms: bool,
}

/// Id of a virtual key, kept in place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// Takes an id of the right form.
    pub fn new(id: &str) -> Option<Self> {
        id.as_bytes()
            .try_into()
            .ok()
            .filter(|_| id.is_ascii())
            .map(Self)
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

type Shard = HashMap<KeyDigest, KeyRecord, BuildHasherDefault<AlreadyHashed>>;

/// All preloaded keys. Cloning shares every shard.
#[derive(Clone)]
pub struct KeyTable {
    shards: Arc<[Arc<Shard>]>,
}

impl Default for KeyTable {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self {
            shards: std::iter::repeat_n(empty, SHARDS).collect(),
        }
    }
}

impl KeyTable {
    /// Looks a key up.
    pub fn get(&self, digest: &KeyDigest) -> Option<KeyRecord> {
        self.shards
            .get(shard_of(digest))
            .and_then(|shard| shard.get(digest))
            .copied()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }

    /// A table with these changes made: `None` takes a key away. Only the shards that change are copied.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = (KeyDigest, Option<KeyRecord>)>) -> Self {
        let mut shards: Vec<Arc<Shard>> = self.shards.to_vec();
        for (digest, record) in changes {
            let Some(shard) = shards.get_mut(shard_of(&digest)) else {
                continue;
            };
            match record {
                Some(record) => Arc::make_mut(shard).insert(digest, record),
                None => Arc::make_mut(shard).remove(&digest),
            };
        }
        Self {
            shards: shards.into(),
        }
    }
}

impl std::fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyTable({} keys)", self.len())
    }
}

fn shard_of(digest: &KeyDigest) -> usize {
    let [first, second, ..] = digest.0;
    usize::from(u16::from_le_bytes([first, second])) % SHARDS
}

/// Takes the last eight bytes written as the hash.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    /// Called with the length of the array before its bytes; says nothing about the key.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn record(account: u32) -> KeyRecord {
        KeyRecord {
            id: KeyId::new("abcdefABCDEF").unwrap(),
            account: AccountIndex(account),
            disabled: false,
            has_terms: false,
        }
    }

    proptest! {
        #[test]
        fn a_table_equals_a_plain_map(steps in prop::collection::vec((any::<[u8; 16]>(), 0_u8..40, any::<Option<u32>>()), 0..60)) {
            let (mut table, mut model) = (KeyTable::default(), BTreeMap::new());
            for (mut digest, few, account) in steps {
                digest[0] = few;
                digest[2..].fill(few);
                let digest = KeyDigest(digest);
                table = table.with([(digest, account.map(record))]);
                match account {
                    Some(account) => model.insert(digest, record(account)),
                    None => model.remove(&digest),
                };
                prop_assert_eq!(table.len(), model.len());
            }
            for (digest, expected) in &model {
                prop_assert_eq!(table.get(digest), Some(*expected));
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard() {
        let before =
            KeyTable::default().with((0..=255).map(|b| (KeyDigest([b; 16]), Some(record(1)))));
        let after = before.with([(KeyDigest([7; 16]), Some(record(2)))]);
        let copied = before
            .shards
            .iter()
            .zip(after.shards.iter())
            .filter(|(a, b)| !Arc::ptr_eq(a, b))
            .count();
        assert_eq!(copied, 1);
        assert_eq!(
            before.get(&KeyDigest([7; 16])),
            Some(record(1)),
            "readers of the old table see the old key"
        );
    }
}
