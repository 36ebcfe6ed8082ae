//! Writes a change that is larger than one transaction: in portions beside the rows, put in force by the one write that raises the head.
//!
//! Invariants: one writer at a time (the leader of a name), and only on the head that the change was decided on; portions that are in force
//! are never deleted by a writer. Who dies on the way leaves portions that nobody reads, and the next writer takes them away.

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;
use proxyxai_core::snapshot::ResourceName;
use proxyxai_proto::{
    admin::v1::{AuditChange, AuditOutcome},
    store::v1::{Counter, StagePortion, Staged, StagedRow},
};

use super::{Committed, ConfigStore, settings::Beside};
use crate::{
    admin::new_id,
    audit::{self, Deed},
    status::Fault,
    store::{
        Compare, MAX_BYTES, MAX_OPS, Op, Range, Store, StoreError, Txn,
        keyspace::{Key, STAGE_PREFIX},
    },
};

/// Who leads this name writes large changes.
pub(super) const LEADER: &str = "config-stage";
/// How long a writer waits for the one before it.
const TURN: Duration = Duration::from_secs(10);
/// Rows of one transaction: each takes two operations, the record of the audit trail some, the head or what counts the portions one, and the
/// settings two.
const MOST_ROWS: usize = (MAX_OPS - 3 - audit::OPS) / 2;
/// Bytes that rows may take in a transaction; the rest is for the head, what counts the portions, and the frame of the record.
const MOST_BYTES: usize = MAX_BYTES - (8 << 10);
/// More than any key has beside the id of its object.
const KEY_BYTES: usize = 32;

/// One object of a change, as it will be stored.
pub(super) struct Row {
    pub(super) name: ResourceName,
    /// `None` takes it away.
    pub(super) value: Option<Vec<u8>>,
    /// When its row was written before; 0 when there is none.
    pub(super) written: u64,
    /// What the audit trail says of it.
    pub(super) told: AuditChange,
}

impl Row {
    /// What it takes at most in the transaction that writes it: its row and its good note, what is told of it, and a compared key.
    fn bytes(&self) -> usize {
        let value = self.value.as_ref().map_or(0, Vec::len);
        let key = self.name.id.len().saturating_add(KEY_BYTES);
        value
            .saturating_mul(2)
            .saturating_add(key.saturating_mul(3))
            .saturating_add(self.told.encoded_len())
    }
}

/// Whether rows go into one transaction.
pub(super) fn fit(rows: &[Row]) -> bool {
    let bytes = rows.iter().map(Row::bytes).fold(0, usize::saturating_add);
    rows.len() <= MOST_ROWS && bytes <= MOST_BYTES
}

impl ConfigStore {
    /// Writes the portions, and puts them in force, while what `guard` says holds.
    pub(super) async fn commit_staged(
        &self,
        deed: &Deed<'_>,
        mut guard: Vec<Compare>,
        head: u64,
        (rows, beside): (Vec<Row>, Beside),
    ) -> Result<Committed, Fault> {
        // What no transaction takes would never come into the rows.
        if let Some(row) = rows.iter().find(|row| row.bytes() > MOST_BYTES) {
            // Its row, its good note, the head or what counts the portions, and the record.
            let (ops, bytes) = (3_usize.saturating_add(audit::OPS), row.bytes());
            return Err(StoreError::TooLarge { ops, bytes }.into());
        }
        let names: BTreeSet<&ResourceName> = rows.iter().map(|row| &row.name).collect();
        if names.len() < rows.len() {
            return Err(Fault::Defect("a change has an object twice".to_owned()));
        }
        let store = &*self.shared.store;
        let turn = tokio::time::timeout(TURN, store.campaign(LEADER)).await;
        let leader = turn.map_err(|_| Fault::Contended)??;
        guard.push(leader.fence.clone());
        let lost = Committed {
            revision: 0,
            succeeded: false,
        };
        if !clean(store, &guard).await? {
            return Ok(lost);
        }
        let id = new_id(&*self.random, "stage");
        let mut portions = 0_u64;
        for portion in portioned(rows) {
            let key = Key::StagePortion {
                stage: id.clone(),
                portion: portions,
            };
            let value = self.portion(deed, portion).encode_to_vec();
            let txn = Txn {
                compares: guard.clone(),
                then: vec![Op::Put(key.to_string(), value)],
            };
            if !store.txn(txn).await?.succeeded {
                return Ok(lost);
            }
            portions = portions.saturating_add(1);
        }
        let staged = Staged {
            id,
            portions,
            brought: 0,
        };
        let (key, mark) = (Key::Head.to_string(), Key::Staged.to_string());
        let mut txn = Txn {
            compares: guard,
            then: vec![
                Op::Put(key, Counter { value: head }.encode_to_vec()),
                Op::Put(mark, staged.encode_to_vec()),
            ],
        };
        let told = beside.join(&mut txn);
        let done = self.shared.trail.commit(deed, told, txn).await?;
        Ok(Committed {
            revision: done.revision,
            succeeded: done.succeeded,
        })
    }

    fn portion(&self, deed: &Deed<'_>, rows: Vec<Row>) -> StagePortion {
        let (mut staged, mut told) = (Vec::new(), Vec::new());
        for row in rows {
            staged.push(StagedRow {
                key: Key::Config(row.name).to_string(),
                value: row.value,
            });
            told.push(row.told);
        }
        let record = self.shared.trail.record(deed, told, AuditOutcome::Done);
        StagePortion {
            rows: staged,
            record: Some(record),
        }
    }
}

/// Rows as portions, each of which fits into a transaction.
fn portioned(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut portions: Vec<Vec<Row>> = Vec::new();
    let mut bytes = 0_usize;
    for row in rows {
        let more = bytes.saturating_add(row.bytes());
        match portions.last_mut() {
            Some(last) if last.len() < MOST_ROWS && more <= MOST_BYTES => {
                bytes = more;
                last.push(row);
            }
            _ => {
                bytes = row.bytes();
                portions.push(vec![row]);
            }
        }
    }
    portions
}

/// Takes away what dead writers left, while what `guard` says holds; whether it does.
pub(super) async fn clean(store: &dyn Store, guard: &[Compare]) -> Result<bool, StoreError> {
    let left = store.range(Range::prefix(STAGE_PREFIX)).await?;
    let keys: Vec<String> = left.entries.into_iter().map(|entry| entry.key).collect();
    for keys in keys.chunks(MAX_OPS) {
        let txn = Txn {
            compares: guard.to_vec(),
            then: keys.iter().cloned().map(Op::Delete).collect(),
        };
        if !store.txn(txn).await?.succeeded {
            return Ok(false);
        }
    }
    Ok(true)
}
