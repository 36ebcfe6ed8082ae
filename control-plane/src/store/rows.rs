//! What transactions do to rows, and how rows become pages, whatever keeps the rows.
//!
//! Invariant: the same transactions on the same rows give the same rows, revisions and changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use super::{Compare, Entry, Event, Op, Page, Range, Txn};

/// Rows by key.
pub(super) trait Rows {
    type Error;
    fn read(&self, key: &str) -> Result<Option<Entry>, Self::Error>;
    fn write(&mut self, entry: &Entry) -> Result<(), Self::Error>;
    fn erase(&mut self, key: &str) -> Result<(), Self::Error>;
}

impl Rows for BTreeMap<String, Entry> {
    type Error = Infallible;

    fn read(&self, key: &str) -> Result<Option<Entry>, Infallible> {
        Ok(self.get(key).cloned())
    }

    fn write(&mut self, entry: &Entry) -> Result<(), Infallible> {
        self.insert(entry.key.clone(), entry.clone());
        Ok(())
    }

    fn erase(&mut self, key: &str) -> Result<(), Infallible> {
        self.remove(key);
        Ok(())
    }
}

/// One change of one key, and what was there before.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) event: Event,
    pub(super) before: Option<Entry>,
}

/// Runs a transaction that writes at `revision`: its changes, or `None` when a compare does not hold.
pub(super) fn run<R: Rows>(
    rows: &mut R,
    txn: &Txn,
    revision: u64,
) -> Result<Option<Vec<Change>>, R::Error> {
    for compare in &txn.compares {
        let (Compare::ModRevision(key, want) | Compare::CreateRevision(key, want)) = compare;
        let have = rows.read(key)?.map_or(0, |entry| match compare {
            Compare::ModRevision(..) => entry.mod_revision,
            Compare::CreateRevision(..) => entry.create_revision,
        });
        if have != *want {
            return Ok(None);
        }
    }
    let mut changes = Vec::with_capacity(txn.then.len());
    for op in &txn.then {
        let before = rows.read(op.key())?;
        match op {
            Op::Put(key, value) => {
                let entry = Entry {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: before.as_ref().map_or(revision, |old| old.create_revision),
                    mod_revision: revision,
                    version: before
                        .as_ref()
                        .map_or(1, |old| old.version.saturating_add(1)),
                };
                rows.write(&entry)?;
                let event = Event::Put(entry);
                changes.push(Change { event, before });
            }
            Op::Delete(key) if before.is_some() => {
                rows.erase(key)?;
                let event = Event::Delete(key.clone());
                changes.push(Change { event, before });
            }
            Op::Delete(_) => {}
        }
    }
    Ok(Some(changes))
}

/// Where the reading of a range begins; a key equal to it may have to be skipped.
pub(super) fn start(range: &Range) -> &str {
    let after = range.after.as_deref().unwrap_or_default();
    after.max(&range.prefix)
}

/// Makes a page of rows that are in order and begin at [`start`]; `earlier` says what other keys held at the revision asked for.
pub(super) fn page<E>(
    rows: impl Iterator<Item = Result<Entry, E>>,
    range: &Range,
    revision: u64,
    earlier: BTreeMap<String, Option<Entry>>,
) -> Result<Page, E> {
    let wanted = |key: &str| {
        key.starts_with(&range.prefix) && range.after.as_deref().is_none_or(|after| key > after)
    };
    let limit = if range.limit == 0 {
        usize::MAX
    } else {
        range.limit
    };
    let replaced: BTreeSet<String> = earlier.keys().cloned().collect();
    let mut found: BTreeMap<String, Entry> = earlier
        .into_values()
        .flatten()
        .filter(|entry| wanted(&entry.key))
        .map(|entry| (entry.key.clone(), entry))
        .collect();
    let mut taken = 0_usize;
    for row in rows {
        let entry = row?;
        if !entry.key.starts_with(&range.prefix) || taken > limit {
            break;
        }
        if wanted(&entry.key) && !replaced.contains(&entry.key) {
            taken = taken.saturating_add(1);
            found.insert(entry.key.clone(), entry);
        }
    }
    let more = found.len() > limit;
    Ok(Page {
        entries: found.into_values().take(limit).collect(),
        revision,
        more,
    })
}
