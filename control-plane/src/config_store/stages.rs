//! Changes that are larger than one transaction, as the store tells of them: which portions stand there, which change is in force, and what
//! is next to be done with it.
//!
//! Invariants: a change is in force from the write that raised the head on, whole, whatever of it stands in the rows; nothing that is next
//! does harm when it is done twice, or by several replicas.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use proxyxai_core::snapshot::ResourceName;
use proxyxai_proto::store::v1::{Counter, StagePortion, Staged};

use super::state::Cell;
use crate::store::{Compare, MAX_OPS, Op, Txn, keyspace::Key};

/// The changes that the store holds.
#[derive(Default)]
pub(super) struct Stages {
    portions: BTreeMap<String, BTreeMap<u64, Bytes>>,
    published: Option<Published>,
    /// Changes that are in the rows, and whose portions are still there.
    finished: BTreeSet<String>,
}

struct Published {
    staged: Staged,
    mod_revision: u64,
}

/// What is next to be done.
pub(super) enum Next {
    Nothing,
    /// Write this, with the record of the audit trail where there is one.
    Write(Box<StagePortion>, Txn),
}

impl Stages {
    /// Takes a portion that was written or deleted.
    pub(super) fn take_portion(&mut self, id: String, number: u64, cell: Option<Cell>) {
        if let Some(cell) = cell {
            self.portions
                .entry(id)
                .or_default()
                .insert(number, cell.value);
            return;
        }
        if let Some(portions) = self.portions.get_mut(&id) {
            portions.remove(&number);
            if portions.is_empty() {
                self.portions.remove(&id);
                self.finished.remove(&id);
            }
        }
    }

    /// Takes what tells which change is in force.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub(super) fn take_published(&mut self, cell: Option<&Cell>) -> Result<(), String> {
        let before = self.published.take();
        let Some(cell) = cell else {
            self.finished.extend(before.map(|before| before.staged.id));
            return Ok(());
        };
        let staged = Staged::decode(cell.value.clone());
        let staged = staged.map_err(|error| format!("{error}; delete it"))?;
        self.published = Some(Published {
            staged,
            mod_revision: cell.mod_revision,
        });
        Ok(())
    }

    /// Whether a change is in force that is not yet in the rows.
    pub(super) fn is_published(&self) -> bool {
        self.published.is_some()
    }

    /// Whether there are portions of changes that nobody put in force: they are being written, or their writer is gone.
    pub(super) fn has_others(&self) -> bool {
        let published = self.published.as_ref().map(|it| &it.staged.id);
        let is_other = |id: &&String| Some(*id) != published && !self.finished.contains(*id);
        self.portions.keys().any(|id| is_other(&id))
    }

    /// What is in force of it beside the rows: those of the portions that were not brought there yet.
    pub(super) fn rows(&self) -> Vec<(ResourceName, Option<Cell>)> {
        let Some(Published {
            staged,
            mod_revision,
        }) = &self.published
        else {
            return Vec::new();
        };
        let cell = |value: Vec<u8>| Cell {
            value: value.into(),
            mod_revision: *mod_revision,
        };
        let portions = self.portions.get(&staged.id);
        let portions = portions.into_iter();
        let portions = portions.flat_map(|all| all.range(staged.brought..));
        let mut rows = Vec::new();
        for (_, portion) in portions {
            for row in decoded(portion).rows {
                if let Some(Key::Config(name)) = Key::parse(&row.key) {
                    rows.push((name, row.value.map(cell)));
                }
            }
        }
        rows
    }

    /// What is next to be done, given the head and when it was written.
    pub(super) fn next(&self, head: u64, head_revision: u64) -> Next {
        let Some(Published {
            staged,
            mod_revision,
        }) = &self.published
        else {
            return self.cleaning();
        };
        let mark = Key::Staged.to_string();
        let mut txn = Txn {
            compares: vec![Compare::ModRevision(mark.clone(), *mod_revision)],
            then: Vec::new(),
        };
        let portions = self.portions.get(&staged.id);
        let found = portions.and_then(|all| all.range(staged.brought..).next());
        let last = found.map_or(staged.portions, |(number, _)| *number);
        if last > staged.brought {
            tracing::error!(
                stage = staged.id,
                "portions of a large change are gone from the store; what was in them is not in force"
            );
        }
        let Some((number, portion)) = found else {
            // Rows were written after the head; it goes past them, so that a list can tell that they are in force.
            let key = Key::Head.to_string();
            let value = head.saturating_add(1);
            txn.compares
                .push(Compare::ModRevision(key.clone(), head_revision));
            txn.then = vec![
                Op::Put(key, Counter { value }.encode_to_vec()),
                Op::Delete(mark),
            ];
            return Next::Write(Box::default(), txn);
        };
        let portion = decoded(portion);
        for row in &portion.rows {
            let Some(Key::Config(name)) = Key::parse(&row.key) else {
                continue;
            };
            let good = Key::Good(name).to_string();
            txn.then.extend(match &row.value {
                Some(value) => [
                    Op::Put(row.key.clone(), value.clone()),
                    Op::Put(good, value.clone()),
                ],
                None => [Op::Delete(row.key.clone()), Op::Delete(good)],
            });
        }
        let brought = Staged {
            brought: number.saturating_add(1),
            ..staged.clone()
        };
        txn.then.push(Op::Put(mark, brought.encode_to_vec()));
        Next::Write(Box::new(portion), txn)
    }

    /// Takes portions away that are in the rows.
    fn cleaning(&self) -> Next {
        let of = |id: &String| {
            let numbers = self.portions.get(id).into_iter().flat_map(BTreeMap::keys);
            let key = |number: &u64| Key::StagePortion {
                stage: id.clone(),
                portion: *number,
            };
            numbers.map(key).collect::<Vec<_>>()
        };
        let keys = self.finished.iter().flat_map(of).take(MAX_OPS);
        let then: Vec<Op> = keys.map(|key| Op::Delete(key.to_string())).collect();
        if then.is_empty() {
            return Next::Nothing;
        }
        let compares = Vec::new();
        Next::Write(Box::default(), Txn { compares, then })
    }
}

/// A portion; a damaged one holds nothing, and everybody sees the same nothing.
fn decoded(portion: &Bytes) -> StagePortion {
    StagePortion::decode(portion.clone()).unwrap_or_else(|error| {
        tracing::error!(%error, "a portion of a large change in the store is damaged; what was in it is not in force");
        StagePortion::default()
    })
}
