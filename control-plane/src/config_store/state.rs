//! One moment of the configuration, as everything in this process reads it.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;
use proxyxai_core::snapshot::{Change, Content, ResourceKind, ResourceName, Snapshot};
use proxyxai_proto::store::v1::{StoredResource, StoredSettings};

use super::Edit;
use crate::status::Fault;

/// An object in force as it is stored, and when its row was written.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) stored: Arc<StoredResource>,
    pub(super) mod_revision: u64,
}

/// A value and when it was written.
#[derive(Clone)]
pub(super) struct Cell {
    pub(super) value: Bytes,
    pub(super) mod_revision: u64,
}

/// An object as it stands in the store.
#[derive(Clone, Default)]
pub(super) struct Row {
    /// What stands under its key.
    pub(super) offered: Option<Cell>,
    /// What stands under the key of its last good version.
    pub(super) good: Option<Cell>,
}

impl Row {
    /// Whether what is offered was in force before, or is gone with all that stood for it.
    pub(super) fn is_confirmed(&self) -> bool {
        let value = |cell: &Option<Cell>| cell.as_ref().map(|cell| cell.value.clone());
        value(&self.offered) == value(&self.good)
    }
}

/// A row of the store that is not in force as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Withheld {
    /// Why.
    pub(crate) reason: String,
    /// Whether its last good version stands in.
    pub(crate) stand_in: bool,
}

/// One moment of the configuration. Cloning shares everything.
#[derive(Clone)]
pub(crate) struct State {
    /// What is in force, in its stored form.
    pub(crate) records: OrdMap<ResourceName, Record>,
    /// What is in force, in plain.
    pub(crate) content: Content,
    /// That, compiled.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Rows that are not in force as they stand in the store, by key below the prefix of all config.
    pub(crate) withheld: OrdMap<String, Withheld>,
    /// Rows that are out of order: withheld, waiting for the head, or not yet noted as good.
    pub(super) odd: OrdMap<ResourceName, Row>,
    /// Settings of the deployment, and when they were written; 0 when they never were.
    pub(crate) settings: Arc<StoredSettings>,
    pub(crate) settings_revision: u64,
    /// When the head was written.
    pub(super) head_revision: u64,
    /// Whether a change is in force that is not yet in the rows.
    pub(super) staged: bool,
}

impl State {
    pub(super) fn empty() -> Self {
        Self {
            records: OrdMap::new(),
            content: Content::default(),
            snapshot: Arc::new(Snapshot::empty()),
            withheld: OrdMap::new(),
            odd: OrdMap::new(),
            settings: Arc::default(),
            settings_revision: 0,
            head_revision: 0,
            staged: false,
        }
    }

    /// The state that edits lead to, before they are committed.
    ///
    /// # Errors
    /// What of it would not fit.
    pub(crate) fn with(&self, edits: &[Edit]) -> Result<Self, Fault> {
        let mut next = self.clone();
        let mut changes = Vec::with_capacity(edits.len());
        for edit in edits {
            let name = || {
                let unnamed = || Fault::Defect("an object without a kind".to_owned());
                edit.name().ok_or_else(unnamed)
            };
            match edit {
                Edit::Only(_) => {}
                Edit::Settings(settings) => next.settings = Arc::new(settings.clone()),
                Edit::Put(stored) => {
                    let name = name()?;
                    let resource = stored.resource.clone().unwrap_or_default();
                    changes.push(Change::Upsert(Arc::new(resource)));
                    let record = Record {
                        stored: Arc::new(stored.clone()),
                        mod_revision: self.mod_revision(&name),
                    };
                    next.records.insert(name, record);
                }
                Edit::Delete(name) => {
                    next.records.remove(name);
                    changes.push(Change::Remove(name.clone()));
                }
            }
        }
        for change in &changes {
            next.content.apply(change.clone());
        }
        let version = self.snapshot.version;
        let snapshot = self.snapshot.advance(version, &next.content, &changes);
        next.snapshot = Arc::new(snapshot.map_err(Fault::Rejected)?);
        Ok(next)
    }

    /// All objects in force, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ResourceName, &StoredResource)> {
        self.records
            .iter()
            .map(|(name, record)| (name, &*record.stored))
    }

    /// Objects of one kind, in the order of their ids.
    pub(crate) fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &StoredResource> {
        self.after(kind, "")
    }

    /// Objects of one kind whose ids come after this one, in their order.
    pub(crate) fn after(
        &self,
        kind: ResourceKind,
        id: &str,
    ) -> impl Iterator<Item = &StoredResource> {
        let from = ResourceName {
            kind,
            id: id.to_owned(),
        };
        self.records
            .range((Bound::Excluded(from), Bound::Unbounded))
            .take_while(move |(name, _)| name.kind == kind)
            .map(|(_, record)| &*record.stored)
    }

    /// The version of an object: the revision of the store at its last write; 0 when there is none.
    pub(crate) fn version(&self, name: &ResourceName) -> u64 {
        self.mod_revision(name)
    }

    /// One object.
    pub(crate) fn get(&self, kind: ResourceKind, id: &str) -> Option<&StoredResource> {
        self.records
            .get(&ResourceName {
                kind,
                id: id.to_owned(),
            })
            .map(|record| &*record.stored)
    }

    /// When the row of an object was last written; 0 when there is none.
    pub(super) fn mod_revision(&self, name: &ResourceName) -> u64 {
        match self.odd.get(name) {
            Some(row) => row.offered.as_ref().map_or(0, |cell| cell.mod_revision),
            None => self
                .records
                .get(name)
                .map_or(0, |record| record.mod_revision),
        }
    }
}
