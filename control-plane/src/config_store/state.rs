//! One moment of the configuration, as everything in this process reads it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;
use proxyxai_core::snapshot::{Content, ResourceKind, ResourceName, Snapshot};
use proxyxai_proto::store::v1::StoredResource;

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
    pub(crate) withheld: Arc<BTreeMap<String, Withheld>>,
    /// Rows that are out of order: withheld, waiting for the head, or not yet noted as good.
    pub(super) odd: OrdMap<ResourceName, Row>,
    /// When the head was written.
    pub(super) head_revision: u64,
}

impl State {
    pub(super) fn empty() -> Self {
        Self {
            records: OrdMap::new(),
            content: Content::default(),
            snapshot: Arc::new(Snapshot::empty()),
            withheld: Arc::default(),
            odd: OrdMap::new(),
            head_revision: 0,
        }
    }

    /// Objects of one kind, in the order of their ids.
    pub(crate) fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &StoredResource> {
        let from = ResourceName {
            kind,
            id: String::new(),
        };
        self.records
            .range(from..)
            .take_while(move |(name, _)| name.kind == kind)
            .map(|(_, record)| &*record.stored)
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
