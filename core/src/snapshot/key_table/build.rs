//! Makes a table of many keys at once, before it is known which accounts there are.

use std::{collections::HashMap, sync::Arc};

use super::{
    AccountIndex, Digest, IdShard, KeyDigest, KeyId, KeyRecord, KeyTable, Paged, Parts, Row, Shard,
    shard::SHARDS,
};
use crate::account::tree::AccountTree;

/// Gathers keys, whose accounts are known by id only.
pub struct KeyTableBuilder {
    accounts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, AccountIndex>,
    buckets: Vec<Vec<Row>>,
}

impl Default for KeyTableBuilder {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            numbers: HashMap::new(),
            buckets: std::iter::repeat_with(Vec::new).take(SHARDS).collect(),
        }
    }
}

impl KeyTableBuilder {
    /// The number of an account in this builder.
    pub fn account(&mut self, id: &str) -> AccountIndex {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = AccountIndex(u32::try_from(self.accounts.len()).unwrap_or(u32::MAX));
        let id: Arc<str> = id.into();
        self.accounts.push(Arc::clone(&id));
        self.numbers.insert(id, number);
        number
    }

    /// Room for so many keys, evenly spread; for a few none is made.
    pub fn reserve(&mut self, keys: usize) {
        make_room(&mut self.buckets, keys);
    }

    /// Adds a key; the account in its record is a number of [`Self::account`].
    pub fn push(&mut self, digest: KeyDigest, record: KeyRecord, hash: Digest) {
        if let Some(bucket) = self.buckets.get_mut(Shard::number(&digest)) {
            bucket.push(Row::new(digest, record, hash));
        }
    }

    /// The table.
    ///
    /// # Errors
    /// Keys that do not fit, each with what is wrong.
    pub fn finish(self, accounts: &AccountTree) -> Result<KeyTable, Vec<(KeyId, String)>> {
        let known: Vec<Option<AccountIndex>> =
            self.accounts.iter().map(|id| accounts.get(id)).collect();
        let (mut faults, mut len, mut sum) = (Vec::new(), 0_usize, Digest::default());
        let mut owned = Paged::<u32>::default();
        let mut ids: Vec<Vec<u32>> = std::iter::repeat_with(Vec::new).take(SHARDS).collect();
        let all = self.buckets.iter().map(Vec::len).sum();
        make_room(&mut ids, all);
        let buckets = self.buckets.into_iter().enumerate();
        let shards = Parts::of(buckets.map(|(number, mut bucket)| {
            for row in &mut bucket {
                let given = usize::try_from(row.account().0).unwrap_or(usize::MAX);
                match known.get(given).copied().flatten() {
                    Some(account) => {
                        row.move_to(account);
                        owned.set(account, owned.get(account).saturating_add(1));
                    }
                    None => {
                        let id = self.accounts.get(given).map_or("", AsRef::as_ref);
                        let reason = format!("its account `{id}` does not exist");
                        faults.push((*row.id(), reason));
                    }
                }
                if let Some(ids) = ids.get_mut(IdShard::number(row.id())) {
                    ids.push(IdShard::entry(row.id(), number));
                }
                sum.add(row.hash());
            }
            bucket.sort_unstable_by_key(|row| *row.digest());
            let twins = bucket.array_windows();
            let twins = twins.filter(|[a, b]| a.digest() == b.digest());
            faults.extend(twins.map(|[_, row]| (*row.id(), DIGEST_TAKEN.to_owned())));
            len = len.saturating_add(bucket.len());
            (!bucket.is_empty()).then(|| Shard::of(&bucket))
        }));
        let some = |ids: Vec<u32>| (!ids.is_empty()).then(|| IdShard::of(ids));
        let ids = ids.into_iter().map(some);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(KeyTable {
            shards,
            ids: Parts::of(ids),
            owned,
            len,
            sum,
        })
    }
}

/// Room for so many things, evenly spread over the parts. What is made of a part is smaller than that room, so that allocators do not put
/// it between what is about to be freed.
fn make_room<T>(parts: &mut [Vec<T>], things: usize) {
    let each = things / SHARDS;
    // Few parts have more than a quarter above the mean.
    let each = each.saturating_add(each / 4);
    parts.iter_mut().for_each(|part| part.reserve_exact(each));
}

/// What is wrong with a key that shares its digest.
pub(in crate::snapshot) const DIGEST_TAKEN: &str = "its digest is that of another key";
