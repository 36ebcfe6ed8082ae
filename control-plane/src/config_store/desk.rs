//! What the rows of the store come to: which are in force, which are withheld and why, what stands in for them.
//!
//! Invariants: a function of the rows as of the write that raised the head, so that every replica comes to the same content for the same
//! version (law 9); a row that does not fit never replaces one that did (law 10). Rows written without raising the head wait for the
//! next write that does.
//!
//! Only rows that are out of order are kept here in their encoded form: those withheld, those that wait, and those whose last good
//! version is not yet noted in the store.

mod of_deployment;
mod summary;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message as _;
use proxyxai_core::snapshot::{
    Change, Content, Fitted, Newcomers, ResourceKind, ResourceName, Version, fit,
};
use proxyxai_proto::{
    admin::v1::ManagedBy,
    config::v1::{Resource, resource::Kind},
    store::v1::{Counter, StoredResource},
};

use of_deployment::OfDeployment;

use super::{
    sealing::Sealing,
    stages::{Next, Stages},
    state::{Cell, Record, Row, State, Withheld},
};
use crate::store::{
    Entry, Event,
    keyspace::{GOOD_PREFIX, Key, STAGE_PREFIX, STAGED},
};

/// No counter of changes gets there; a head beyond it was not written by this program.
const HEAD_MAX: u64 = 1 << 53;
const WAITS: &str = "it was written without raising `cfg/head`; it is looked at with the next change through the admin API";
const GONE: &str = "its row is gone, but nobody deleted it through the admin API; delete it there if that is meant";

/// The object whose row, or last good version, has this key.
fn named_by(key: &str) -> Option<ResourceName> {
    if let Some(Key::Config(name) | Key::Good(name)) = Key::parse(key) {
        Some(name)
    } else {
        None
    }
}

/// A row as it was read.
struct Reading {
    offered: Result<Option<Object>, String>,
    good: Option<Object>,
}

#[derive(Clone)]
struct Object {
    stored: Arc<StoredResource>,
    resource: Arc<Resource>,
}

/// A last good version that is to be noted in the store.
pub(super) struct Unconfirmed {
    /// Its row, and the note.
    pub(super) keys: (String, String),
    pub(super) value: Bytes,
    /// When its row was written.
    pub(super) mod_revision: u64,
    /// When the note that it replaces was written; 0 when there is none.
    pub(super) note_revision: u64,
}

/// What came into force.
pub(super) struct Settled {
    /// The steps from the content that was in force before.
    pub(super) changes: Vec<Change>,
}

pub(super) struct Desk {
    sealing: Arc<Sealing>,
    state: State,
    /// Objects whose rows changed since the content was last settled.
    touched: BTreeSet<ResourceName>,
    withheld: BTreeMap<ResourceName, Withheld>,
    /// Keys that are none of this program's, or the head when it cannot be used.
    strange: BTreeMap<String, String>,
    stages: Stages,
    /// Settings of the deployment.
    settings: OfDeployment,
}

/// What a list of all rows says of the head.
pub(super) enum Head {
    /// This is in force.
    At(Version),
    /// Rows were written after it, or it cannot be used: it must be raised to this before anything is published.
    Raise {
        /// What to raise it to.
        to: u64,
        /// When it was written; 0 when it is not there.
        mod_revision: u64,
    },
}

impl Desk {
    /// Reads all rows, as of one revision. They are in force only after [`Desk::settle`].
    pub(super) fn read(sealing: Arc<Sealing>, entries: Vec<Entry>, revision: u64) -> (Self, Head) {
        let mut desk = Self {
            sealing,
            state: State::empty(),
            touched: BTreeSet::new(),
            withheld: BTreeMap::new(),
            strange: BTreeMap::new(),
            stages: Stages::default(),
            settings: OfDeployment::default(),
        };
        let (mut newest, mut head) = (0, None);
        let ring = Key::Keyring.to_string();
        // What was last in force, the keys that seal, and what is staged change nothing that is in force.
        let apart = |key: &str| {
            let staged = key.starts_with(STAGE_PREFIX) || key == STAGED;
            staged || key.starts_with(GOOD_PREFIX) || key == ring
        };
        for entry in entries {
            if !apart(&entry.key) {
                newest = entry.mod_revision.max(newest);
            }
            head = desk.take(Event::Put(entry), revision).or(head);
        }
        desk.overlay();
        let found = desk.state.head_revision;
        let head = match head {
            Some(value) if newest <= found => Head::At(desk.version(value)),
            Some(value) => desk.raise(value.saturating_add(1)),
            // Every raise of the head raised the revision of the store too, so this is ahead of all of them.
            None => desk.raise(revision.saturating_add(1)),
        };
        (desk, head)
    }

    /// Puts what a large change has that is not in the rows yet in the place of the rows.
    fn overlay(&mut self) {
        for (name, cell) in self.stages.rows() {
            let row = self.row(&name);
            (row.offered, row.good) = (cell.clone(), cell);
            self.touched.insert(name);
        }
    }

    /// What is next to be done with a large change.
    pub(super) fn next_of_stage(&self) -> Next {
        let head = self.state.snapshot.version.revision;
        self.stages.next(head, self.state.head_revision)
    }

    /// Whether the store holds portions of large changes that nobody put in force.
    pub(super) fn has_left_overs(&self) -> bool {
        self.stages.has_others()
    }

    fn raise(&self, to: u64) -> Head {
        Head::Raise {
            to,
            mod_revision: self.state.head_revision,
        }
    }

    fn version(&self, revision: u64) -> Version {
        Version {
            generation: self.sealing.generation,
            revision,
        }
    }

    /// The moment that all this comes to.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Takes the changes of one revision of the store. `Some` when they raised the head, and so came into force.
    pub(super) fn changes(&mut self, revision: u64, events: Vec<Event>) -> Option<Settled> {
        let keys: Vec<String> = events.iter().map(|event| event.key().to_owned()).collect();
        let mut head = None;
        for event in events {
            head = self.take(event, revision).or(head);
        }
        // Without a new head what was touched before is as it was: looking at all of it again would make a thousand rows that are
        // written one by one cost a million looks.
        let names: Vec<ResourceName> = if head.is_some() {
            self.overlay();
            self.touched.iter().cloned().collect()
        } else {
            keys.iter().filter_map(|key| named_by(key)).collect()
        };
        names.iter().for_each(|name| self.tidy(name));
        let settled = head.map(|revision| self.settle(self.version(revision)));
        if settled.is_none() {
            self.summarise_rows(&keys);
        }
        settled
    }

    /// Takes one change; returns the new head, if it is one that can be used.
    fn take(&mut self, event: Event, revision: u64) -> Option<u64> {
        let parsed = Key::parse(event.key());
        if let (Some(Key::Keyring), Event::Put(entry)) = (&parsed, &event) {
            // Rows are opened when all were taken, so it does not matter which comes first.
            self.adopt(entry);
        }
        let (key, cell) = match event {
            Event::Put(entry) => {
                let cell = Cell {
                    value: entry.value.into(),
                    mod_revision: entry.mod_revision,
                };
                (entry.key, Some(cell))
            }
            Event::Delete(key) => (key, None),
        };
        match parsed {
            Some(Key::Keyring) => {}
            Some(Key::Head) => {
                self.state.head_revision = cell.as_ref().map_or(0, |cell| cell.mod_revision);
                let read = self.read_head(cell.as_ref());
                self.strange.remove(&key);
                match read {
                    Ok(value) => return Some(value),
                    Err(reason) => {
                        self.strange.insert(key, reason);
                    }
                }
            }
            Some(Key::Settings) => {
                self.state.settings_revision = cell.as_ref().map_or(0, |cell| cell.mod_revision);
                self.settings.offered = cell;
            }
            Some(Key::GoodSettings) => self.settings.good = cell,
            Some(Key::Config(name)) => {
                self.row(&name).offered = cell;
                self.touched.insert(name);
            }
            Some(Key::Good(name)) => {
                self.row(&name).good = cell;
                self.touched.insert(name);
            }
            Some(Key::StagePortion { stage, portion }) => {
                self.stages.take_portion(stage, portion, cell);
            }
            Some(Key::Staged) => {
                self.strange.remove(&key);
                if let Err(reason) = self.stages.take_published(cell.as_ref()) {
                    self.strange.insert(key, reason);
                }
                self.state.staged = self.stages.is_published();
            }
            _ if cell.is_some() => {
                let reason = format!(
                    "no key that this program knows (revision {revision}); use the program that wrote it, or delete it"
                );
                self.strange.insert(key, reason);
            }
            _ => {
                self.strange.remove(&key);
            }
        }
        None
    }

    /// Takes up data keys before what they sealed is read.
    fn adopt(&self, entry: &Entry) {
        if let Err(error) = self.sealing.keyring.adopt(entry) {
            tracing::error!(%error, "the data keys in the store cannot be opened");
        }
    }

    fn read_head(&self, cell: Option<&Cell>) -> Result<u64, String> {
        let cell = cell.ok_or("it is gone; the next change writes it anew")?;
        let held = self.state.snapshot.version.revision;
        match Counter::decode(cell.value.clone()) {
            Ok(counter) if counter.value > held && counter.value < HEAD_MAX => Ok(counter.value),
            Ok(counter) => Err(format!(
                "it is {}, which cannot follow {held}; the next change writes it anew",
                counter.value
            )),
            Err(error) => Err(format!("{error}; the next change writes it anew")),
        }
    }

    /// The row of an object; one that is in order is as its record says.
    fn row(&mut self, name: &ResourceName) -> &mut Row {
        let records = &self.state.records;
        self.state.odd.entry(name.clone()).or_insert_with(|| {
            let cell = records.get(name).map(|record| Cell {
                value: record.stored.encode_to_vec().into(),
                mod_revision: record.mod_revision,
            });
            Row {
                offered: cell.clone(),
                good: cell,
            }
        })
    }

    /// Forgets a row that is in order.
    fn tidy(&mut self, name: &ResourceName) {
        let Some(row) = self.state.odd.get(name) else {
            return;
        };
        let record = self.state.records.get(name);
        let in_order = match (&row.offered, &row.good, record) {
            (None, None, None) => true,
            (Some(offered), Some(good), Some(record)) => {
                offered.value == good.value && offered.value == record.stored.encode_to_vec()
            }
            _ => false,
        };
        if in_order {
            if let (Some(offered), Some(record)) = (&row.offered, record) {
                let record = Record {
                    mod_revision: offered.mod_revision,
                    ..record.clone()
                };
                self.state.records.insert(name.clone(), record);
            }
            self.state.odd.remove(name);
            self.touched.remove(name);
            self.withheld.remove(name);
        }
    }

    /// Puts into force what fits of all rows.
    pub(super) fn settle(&mut self, version: Version) -> Settled {
        let changes = match self.step(version) {
            Some(changes) => changes,
            None => self.refit(version),
        };
        self.touched.clear();
        self.state.settings = Arc::new(self.settings.in_force());
        self.summarise();
        Settled { changes }
    }

    /// The common case: what was written is in order, and nothing that is withheld can depend on it.
    fn step(&mut self, version: Version) -> Option<Vec<Change>> {
        let only_keys = |name: &ResourceName| name.kind == ResourceKind::VirtualKey;
        let apart = self.touched.iter().all(only_keys) && !self.withheld.keys().any(only_keys);
        if from_scratch(&self.state) || !(self.withheld.is_empty() || apart) {
            return None;
        }
        let mut content = self.state.content.clone();
        let (mut changes, mut readings) = (Vec::new(), Vec::new());
        for name in &self.touched {
            let row = self.state.odd.get(name)?;
            if !row.is_confirmed() {
                return None;
            }
            let reading = self.read_row(name, row);
            let object = reading.offered.as_ref().ok()?;
            let change = match object {
                Some(object) => Change::Upsert(Arc::clone(&object.resource)),
                None => Change::Remove(name.clone()),
            };
            content.apply(change.clone());
            changes.push(change);
            readings.push((name.clone(), reading));
        }
        let old = &self.state;
        let next = old.snapshot.advance(version, &content, &changes);
        self.state.snapshot = Arc::new(next.ok()?);
        self.state.content = content;
        for (name, reading) in readings {
            self.record(&name, &reading, None);
        }
        Some(changes)
    }

    /// Finds out anew what fits of all that is out of order, and of what depends on it.
    fn refit(&mut self, version: Version) -> Vec<Change> {
        let mut offered = self.state.content.clone();
        let mut newcomers = Newcomers::new();
        let mut readings = BTreeMap::new();
        for (name, row) in &self.state.odd {
            let reading = self.read_row(name, row);
            let good = reading.good.as_ref().map(|good| Arc::clone(&good.resource));
            match (&reading.offered, &good) {
                (Ok(Some(object)), _) => {
                    offered.upsert(Arc::clone(&object.resource));
                    if !row.is_confirmed() {
                        newcomers.insert(name.clone(), good);
                    }
                }
                (Err(_) | Ok(None), Some(good)) => offered.upsert(Arc::clone(good)),
                (Err(_) | Ok(None), None) => offered.remove(name),
            }
            readings.insert(name.clone(), reading);
        }
        let fitted = fit(version, &offered, &newcomers);
        let Fitted {
            content,
            snapshot,
            withheld,
        } = fitted;
        let before = std::mem::replace(&mut self.state.content, content);
        self.state.snapshot = Arc::new(snapshot);
        for name in withheld.keys() {
            if !readings.contains_key(name) {
                let row = self.row(name).clone();
                readings.insert(name.clone(), self.read_row(name, &row));
            }
        }
        let mut changes = Vec::new();
        for (name, reading) in readings {
            changes.extend(difference(&name, &before, &self.state.content));
            self.record(&name, &reading, withheld.get(&name));
        }
        changes
    }

    /// Notes what is in force of an object, and why not what was offered.
    fn record(&mut self, name: &ResourceName, reading: &Reading, misfit: Option<&String>) {
        let in_force = self.state.content.get(name);
        let is_it = |object: &&Object| in_force.is_some_and(|now| *now == object.resource);
        let offered = reading.offered.as_ref().ok().and_then(Option::as_ref);
        let object = offered
            .filter(is_it)
            .or(reading.good.as_ref().filter(is_it));
        match object {
            Some(object) => {
                let mod_revision = self
                    .state
                    .odd
                    .get(name)
                    .and_then(|row| row.offered.as_ref())
                    .map_or(0, |cell| cell.mod_revision);
                let record = Record {
                    stored: Arc::clone(&object.stored),
                    mod_revision,
                };
                self.state.records.insert(name.clone(), record);
            }
            None => {
                self.state.records.remove(name);
            }
        }
        let reason = match (&reading.offered, misfit) {
            (Err(reason), _) => Some(reason.clone()),
            (Ok(None), _) if object.is_some() => Some(GONE.to_owned()),
            (Ok(_), misfit) => misfit.cloned(),
        };
        match reason {
            Some(reason) => {
                let stand_in = object.is_some();
                let withheld = Withheld { reason, stand_in };
                self.withheld.insert(name.clone(), withheld);
            }
            None => {
                self.withheld.remove(name);
            }
        }
        self.tidy(name);
    }

    fn read_row(&self, name: &ResourceName, row: &Row) -> Reading {
        let object = |cell: &Cell| self.object(name, &cell.value);
        let offered = row.offered.as_ref().map(object).transpose();
        let good = if row.is_confirmed() {
            offered.clone().ok().flatten()
        } else {
            row.good.as_ref().and_then(|cell| object(cell).ok())
        };
        Reading { offered, good }
    }

    /// Reads an object, or says why this program cannot use it.
    fn object(&self, name: &ResourceName, value: &[u8]) -> Result<Object, String> {
        let stored = StoredResource::decode(value).map_err(|error| error.to_string())?;
        if stored.encode_to_vec() != value {
            return Err("it has fields that this program does not know, or was written by something else; use the program that wrote it".to_owned());
        }
        if ManagedBy::try_from(stored.managed_by).is_err() {
            return Err("who manages it is nothing that this program knows".to_owned());
        }
        let resource = stored.resource.clone().ok_or("it is empty")?;
        match ResourceName::of(&resource) {
            Some(found) if found == *name => {}
            Some(found) => return Err(format!("its row holds the {found}")),
            None => return Err("it is of no kind that this program knows".to_owned()),
        }
        let resource = match resource.kind {
            Some(Kind::UpstreamKey(_)) => self
                .sealing
                .opened(&Key::Config(name.clone()).to_string(), resource)?,
            _ => resource,
        };
        Ok(Object {
            stored: Arc::new(stored),
            resource: Arc::new(resource),
        })
    }

    /// Some objects that are in force as they are offered, and whose last good version is not noted yet.
    pub(super) fn unconfirmed(&self, most: usize) -> Vec<Unconfirmed> {
        let settled = self.state.odd.iter().filter(|(name, _)| {
            !self.touched.contains(*name) && !self.withheld.contains_key(*name)
        });
        let noted = settled.filter_map(|(name, row)| {
            let offered = row.offered.as_ref()?;
            Some(Unconfirmed {
                keys: (
                    Key::Config(name.clone()).to_string(),
                    Key::Good(name.clone()).to_string(),
                ),
                value: offered.value.clone(),
                mod_revision: offered.mod_revision,
                note_revision: row.good.as_ref().map_or(0, |cell| cell.mod_revision),
            })
        });
        let settings = self.settings.unconfirmed();
        let settings = settings.filter(|_| self.settings.in_force() == *self.state.settings);
        noted.chain(settings).take(most).collect()
    }
}

fn from_scratch(state: &State) -> bool {
    state.snapshot.version == Version::default()
}

fn difference(name: &ResourceName, before: &Content, after: &Content) -> Option<Change> {
    match (before.get(name), after.get(name)) {
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) || old == new => None,
        (_, Some(new)) => Some(Change::Upsert(Arc::clone(new))),
        (Some(_), None) => Some(Change::Remove(name.clone())),
        (None, None) => None,
    }
}
