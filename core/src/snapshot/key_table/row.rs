//! What is kept of a key: 64 bytes, of which a look-up reads the first half.

use super::{AccountIndex, Digest, KeyDigest, KeyId, KeyRecord};

/// Bits of the word beside the account's index.
const DISABLED: u32 = 1 << 31;
const HAS_TERMS: u32 = 1 << 30;
/// An account's index is smaller than these bits (`account::tree`).
const ACCOUNT: u32 = HAS_TERMS - 1;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Row {
    digest: KeyDigest,
    id: KeyId,
    word: u32,
    /// Of the resource that the key came from.
    hash: Digest,
}

impl Row {
    pub(super) fn new(digest: KeyDigest, record: KeyRecord, hash: Digest) -> Self {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(record.disabled, DISABLED) | flag(record.has_terms, HAS_TERMS);
        Self {
            digest,
            id: record.id,
            word: (record.account.0 & ACCOUNT) | flags,
            hash,
        }
    }

    pub(super) fn digest(&self) -> &KeyDigest {
        &self.digest
    }

    pub(super) fn id(&self) -> &KeyId {
        &self.id
    }

    pub(super) fn hash(&self) -> Digest {
        self.hash
    }

    pub(super) fn record(&self) -> KeyRecord {
        KeyRecord {
            id: self.id,
            account: self.account(),
            disabled: self.word & DISABLED != 0,
            has_terms: self.word & HAS_TERMS != 0,
        }
    }

    pub(super) fn account(&self) -> AccountIndex {
        AccountIndex(self.word & ACCOUNT)
    }

    pub(super) fn move_to(&mut self, account: AccountIndex) {
        self.word = (account.0 & ACCOUNT) | (self.word & !ACCOUNT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::tree::MAX_INDEX;

    #[test]
    fn a_row_is_a_line_of_the_cache_and_keeps_all_it_is_given() {
        assert_eq!(size_of::<Row>(), 64);
        for (account, disabled, has_terms) in
            [(0, false, true), (7, true, false), (MAX_INDEX, true, true)]
        {
            let record = KeyRecord {
                id: KeyId::new("abcdefghijkl").unwrap(),
                account: AccountIndex(account),
                disabled,
                has_terms,
            };
            let mut row = Row::new(KeyDigest([3; 16]), record, Digest([4; 32]));
            assert_eq!((row.record(), row.hash()), (record, Digest([4; 32])));
            row.move_to(AccountIndex(5));
            let moved = KeyRecord {
                account: AccountIndex(5),
                ..record
            };
            assert_eq!(row.record(), moved);
        }
    }
}
