//! The virtual keys of a copy, one row of fixed size each: digest 16, hash of the resource 32, id 12, number of the account 4, flags 4.
//!
//! Rows and not messages: a million of them are read in the time that a tenth of a million messages take.

use proxyxai_core::{
    account::{key::KeyDigest, tree::AccountIndex},
    snapshot::{Digest, KeyId, KeyRecord, KeyTableBuilder, Snapshot},
};

use super::{CopyFault, pieces::PieceWriter};

/// Bytes of a row.
const ROW: usize = 68;
/// Rows in a piece: about a MiB.
const EACH: usize = 15_000;
const DISABLED: u32 = 1;

/// How many rows there will be.
pub(super) fn count(snapshot: &Snapshot) -> u64 {
    u64::try_from(in_table_alone(snapshot).count()).unwrap_or(u64::MAX)
}

/// The accounts that rows name by number; an empty id for a number that no account has.
pub(super) fn accounts(snapshot: &Snapshot) -> Vec<String> {
    if snapshot.keys.is_empty() {
        return Vec::new();
    }
    snapshot.accounts.ids().map(str::to_owned).collect()
}

/// Keys that are part of a content too bear no hash, and are no rows.
fn in_table_alone(
    snapshot: &Snapshot,
) -> impl Iterator<Item = (KeyDigest, KeyRecord, Digest)> + '_ {
    let rows = snapshot.keys.rows();
    rows.filter(|(_, _, hash)| *hash != Digest::default())
}

pub(super) fn encode(snapshot: &Snapshot, file: &mut PieceWriter<'_>) -> Result<(), CopyFault> {
    let mut gathered = 0_usize;
    for (digest, record, hash) in in_table_alone(snapshot) {
        let flags = if record.disabled { DISABLED } else { 0 };
        let out = file.plain();
        out.extend_from_slice(&digest.0);
        out.extend_from_slice(&hash.0);
        out.extend_from_slice(record.id.as_bytes());
        out.extend_from_slice(&record.account.0.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        gathered = gathered.saturating_add(1);
        if gathered == EACH {
            file.end_piece()?;
            gathered = 0;
        }
    }
    if gathered > 0 {
        file.end_piece()?;
    }
    Ok(())
}

/// Takes rows piece by piece.
pub(super) struct Rows<'a> {
    left: u64,
    accounts: Vec<AccountIndex>,
    keys: &'a mut KeyTableBuilder,
}

impl<'a> Rows<'a> {
    pub(super) fn begin(count: u64, accounts: &[String], keys: &'a mut KeyTableBuilder) -> Self {
        keys.reserve(usize::try_from(count).unwrap_or(0));
        Self {
            left: count,
            accounts: accounts.iter().map(|id| keys.account(id)).collect(),
            keys,
        }
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), CopyFault> {
        let (rows, rest) = piece.as_chunks::<ROW>();
        let taken = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        let left = self.left.checked_sub(taken).filter(|_| rest.is_empty());
        self.left = left.ok_or(CopyFault::Content("the number of its keys"))?;
        for row in rows {
            let row = read(row, &self.accounts).ok_or(CopyFault::Content("a key"))?;
            let (digest, record, hash) = row;
            self.keys.push(digest, record, hash);
        }
        Ok(())
    }

    pub(super) fn end(self) -> Result<(), CopyFault> {
        match self.left {
            0 => Ok(()),
            _ => Err(CopyFault::Content("the number of its keys")),
        }
    }
}

fn read(row: &[u8; ROW], accounts: &[AccountIndex]) -> Option<(KeyDigest, KeyRecord, Digest)> {
    let (digest, rest) = row.split_first_chunk::<16>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (id, rest) = rest.split_first_chunk::<12>()?;
    let (account, rest) = rest.split_first_chunk::<4>()?;
    let flags = u32::from_le_bytes(rest.try_into().ok()?);
    let account = usize::try_from(u32::from_le_bytes(*account)).ok()?;
    let record = KeyRecord {
        id: KeyId::from_bytes(id)?,
        account: *accounts.get(account)?,
        disabled: flags & DISABLED != 0,
        // One with terms is part of a content.
        has_terms: false,
    };
    // A flag of a newer program may forbid what the others permit.
    (flags & !DISABLED == 0).then_some((KeyDigest(*digest), record, Digest(*hash)))
}
