//! Virtual keys by digest: 4,096 immutable shards of sorted rows, of which a change copies one.
//!
//! A million keys take about 70 bytes each: digest 16, id 12, account and flags 4, hash of the resource 32, and 6 in indices by digest
//! and by id. The hash is kept because the digest of a content is a sum of hashes: whoever takes a key away has to know its part of
//! the sum, and 32 bytes are less than all the fields that it could be computed from. A look-up is an index by twelve bits of the
//! digest and one by the next 32, since a keyed hash spreads the keys evenly and nobody can choose it.
//!
//! Invariants: no two rows have the same digest or the same id; [`KeyTable::sum`] is the sum of the hashes of all rows. Rows name
//! accounts by their index, which an account keeps for as long as it exists, so that a new account tree changes no row.

mod build;
mod ids;
mod parts;
mod row;
mod shard;

use std::collections::BTreeSet;

pub(super) use build::DIGEST_TAKEN;
pub use build::KeyTableBuilder;
use ids::IdShard;
use parts::Parts;
use row::Row;
use shard::Shard;

use super::Digest;
use crate::account::{
    key::{ID_LEN, KeyDigest},
    paged::Paged,
    tree::AccountIndex,
};

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
        Self::from_bytes(id.as_bytes())
    }

    /// Takes the bytes of an id of the right form.
    pub fn from_bytes(id: &[u8]) -> Option<Self> {
        id.try_into().ok().filter(|_| id.is_ascii()).map(Self)
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The id as it is kept.
    pub fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All preloaded keys. Cloning shares every shard.
#[derive(Clone, Default)]
pub struct KeyTable {
    shards: Parts<Shard>,
    ids: Parts<IdShard>,
    /// How many keys each account has.
    owned: Paged<u32>,
    len: usize,
    sum: Digest,
}

/// The digest of a key is that of another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestTaken;

impl KeyTable {
    /// Looks a key up.
    pub fn get(&self, digest: &KeyDigest) -> Option<KeyRecord> {
        let shard = self.shards.get(Shard::number(digest))?;
        shard.get(shard.find(digest).ok()?).map(Row::record)
    }

    /// Looks a key up by its id.
    pub fn find(&self, id: &KeyId) -> Option<(KeyDigest, KeyRecord)> {
        let row = self.place(id)?;
        Some((*row.digest(), row.record()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many keys an account has.
    pub fn owned(&self, account: AccountIndex) -> u32 {
        self.owned.get(account)
    }

    /// The keys of some accounts; reads all keys.
    pub fn of_accounts(
        &self,
        accounts: &BTreeSet<AccountIndex>,
    ) -> impl Iterator<Item = (KeyDigest, KeyRecord, Digest)> {
        self.rows()
            .filter(|(_, record, _)| accounts.contains(&record.account))
    }

    /// The sum of the hashes of all keys: their part of the digest of the content.
    pub fn sum(&self) -> Digest {
        self.sum
    }

    /// All keys with the hashes of their resources, in the order of their digests.
    pub fn rows(&self) -> impl Iterator<Item = (KeyDigest, KeyRecord, Digest)> + '_ {
        let rows = self.shards.iter().flat_map(Shard::rows);
        rows.map(|row| (*row.digest(), row.record(), row.hash()))
    }

    /// Takes a key away, if it is there; gives its digest.
    pub fn remove(&mut self, id: &KeyId) -> Option<KeyDigest> {
        let row = *self.place(id)?;
        let digest = *row.digest();
        let number = Shard::number(&digest);
        let (shard, ids) = (self.shards.get(number)?, self.ids.get(IdShard::number(id))?);
        let (shard, ids) = (shard.without(&digest), ids.without(id, number));
        self.sum.subtract(row.hash());
        self.shards.set(number, shard);
        self.ids.set(IdShard::number(id), ids);
        self.len = self.len.saturating_sub(1);
        let account = row.record().account;
        self.owned
            .set(account, self.owned.get(account).saturating_sub(1));
        Some(digest)
    }

    /// Puts a key that is not there. `hash` is that of its resource, or none where the contents themselves are kept.
    ///
    /// # Errors
    /// [`DigestTaken`]; nothing is changed then.
    pub fn insert(
        &mut self,
        digest: KeyDigest,
        record: KeyRecord,
        hash: Digest,
    ) -> Result<(), DigestTaken> {
        let (number, id) = (Shard::number(&digest), record.id);
        let (Some(shard), Some(ids)) =
            (self.shards.get(number), self.ids.get(IdShard::number(&id)))
        else {
            return Ok(());
        };
        let Err(at) = shard.find(&digest) else {
            return Err(DigestTaken);
        };
        let row = Row::new(digest, record, hash);
        let (shard, ids) = (shard.with(at, row), ids.with(&id, number));
        self.sum.add(hash);
        self.shards.set(number, shard);
        self.ids.set(IdShard::number(&id), ids);
        self.len = self.len.saturating_add(1);
        let account = record.account;
        self.owned
            .set(account, self.owned.get(account).saturating_add(1));
        Ok(())
    }

    fn place(&self, id: &KeyId) -> Option<&Row> {
        let ids = self.ids.get(IdShard::number(id))?;
        ids.candidates(id)
            .filter_map(|number| self.shards.get(number))
            .find_map(|shard| shard.by_id(id))
    }
}

impl std::fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyTable({} keys)", self.len())
    }
}

#[cfg(test)]
mod tests;
