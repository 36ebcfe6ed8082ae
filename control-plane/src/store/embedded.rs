//! The store of a gateway in one process: redb below, commits on a thread of their own.
//!
//! A commit is durable before it is answered. Transactions that wait while one is being synced share the next sync. The page
//! cache is small and quick repair is on, so that neither memory nor a crash costs much (`docs/decisions/0001-embedded-store.md`).

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, backends::InMemoryBackend,
};
use tokio::sync::oneshot;

use super::{
    Compare, Entry, Event, Leadership, Op, Page, Range, Reply, Store, StoreError, Txn, TxnResult,
    Watch, check, ring::Ring,
};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
const CACHE_BYTES: usize = 8 << 20;
/// Transactions that one sync may carry.
const GROUP: usize = 256;

/// An embedded store. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    commits: Commits,
}

struct Shared {
    place: String,
    database: Database,
    ring: Mutex<Ring>,
}

#[derive(Clone)]
enum Commits {
    /// To the thread.
    Queue(mpsc::Sender<Waiting>),
    /// In the caller, for runtimes that must not wait for a thread (simulations).
    Inline,
}

struct Waiting {
    txn: Txn,
    answer: oneshot::Sender<Result<TxnResult, StoreError>>,
}

impl EmbeddedStore {
    /// Opens the store in this file, or makes it.
    ///
    /// # Errors
    /// When the file cannot be opened, is used by another process, or is no store.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let place = file.display().to_string();
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(file)
            .map_err(|error| failed(&place, &error))?;
        let shared = Shared::new(place, database)?;
        let (queue, waiting) = mpsc::channel();
        let worker = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.run(&waiting))
            .map_err(|error| failed(&shared.place, &error))?;
        Ok(Self {
            shared,
            commits: Commits::Queue(queue),
        })
    }

    /// A store in memory that commits in the caller and uses no thread.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn in_memory() -> Result<Self, StoreError> {
        let place = "memory".to_owned();
        let builder = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(InMemoryBackend::new());
        let database = builder.map_err(|error| failed(&place, &error))?;
        Ok(Self {
            shared: Shared::new(place, database)?,
            commits: Commits::Inline,
        })
    }
}

impl Store for EmbeddedStore {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        Box::pin(async move { self.shared.get(key) })
    }

    fn range(&self, range: Range) -> Reply<'_, Page> {
        Box::pin(async move { self.shared.range(&range) })
    }

    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        Box::pin(async move {
            check(&txn)?;
            match &self.commits {
                Commits::Inline => self
                    .shared
                    .commit(std::slice::from_ref(&txn))?
                    .pop()
                    .ok_or(StoreError::Closed),
                Commits::Queue(queue) => {
                    let (answer, answered) = oneshot::channel();
                    queue
                        .send(Waiting { txn, answer })
                        .map_err(|_| StoreError::Closed)?;
                    answered.await.map_err(|_| StoreError::Closed)?
                }
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        Box::pin(async move { Ok(self.shared.ring().follow(prefix, from)) })
    }

    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        // One process holds the file, so whoever asks last leads; its fence deposes who asked before.
        Box::pin(async move {
            let key = format!("leader/{name}");
            let won = self
                .txn(Txn {
                    compares: Vec::new(),
                    then: vec![Op::Put(key.clone(), Vec::new())],
                })
                .await?;
            Ok(Leadership {
                fence: Compare::ModRevision(key, won.revision),
            })
        })
    }
}

impl Shared {
    fn new(place: String, database: Database) -> Result<Arc<Self>, StoreError> {
        let write = || -> Result<u64, redb::Error> {
            let txn = database.begin_write()?;
            txn.open_table(ENTRIES)?;
            let revision = txn
                .open_table(COUNTERS)?
                .get(REVISION)?
                .map_or(0, |value| value.value());
            txn.commit()?;
            Ok(revision)
        };
        let revision = write().map_err(|error| failed(&place, &error))?;
        Ok(Arc::new(Self {
            place,
            database,
            ring: Mutex::new(Ring::starting_after(revision)),
        }))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what waits, until nobody can ask any more.
    fn run(&self, waiting: &mpsc::Receiver<Waiting>) {
        while let Ok(first) = waiting.recv() {
            let (txns, answers): (Vec<Txn>, Vec<_>) = std::iter::once(first)
                .chain(waiting.try_iter())
                .take(GROUP)
                .map(|w| (w.txn, w.answer))
                .unzip();
            match self.commit(&txns) {
                Ok(results) => results
                    .into_iter()
                    .zip(answers)
                    .for_each(|(result, answer)| {
                        let _asker_may_have_left = answer.send(Ok(result));
                    }),
                Err(error) => answers.into_iter().for_each(|answer| {
                    let _asker_may_have_left = answer.send(Err(error.clone()));
                }),
            }
        }
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let read = || -> Result<Option<Entry>, redb::Error> {
            let table = self.database.begin_read()?.open_table(ENTRIES)?;
            Ok(table.get(key)?.and_then(|value| decode(key, value.value())))
        };
        read().map_err(|error| failed(&self.place, &error))
    }

    fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let read = || -> Result<Page, redb::Error> {
            let txn = self.database.begin_read()?;
            let revision = txn
                .open_table(COUNTERS)?
                .get(REVISION)?
                .map_or(0, |value| value.value());
            let table = txn.open_table(ENTRIES)?;
            let start = range.after.as_deref().unwrap_or(&range.prefix);
            let limit = if range.limit == 0 {
                usize::MAX
            } else {
                range.limit
            };
            let mut page = Page {
                revision,
                ..Page::default()
            };
            for row in table.range(start..)? {
                let (key, value) = row?;
                let key = key.value();
                if range.after.as_deref() == Some(key) {
                    continue;
                }
                if !key.starts_with(&range.prefix) {
                    break;
                }
                if page.entries.len() >= limit {
                    page.more = true;
                    break;
                }
                page.entries.extend(decode(key, value.value()));
            }
            Ok(page)
        };
        let page = read().map_err(|error| failed(&self.place, &error))?;
        if range.at_revision.is_some_and(|at| at != page.revision) {
            Err(StoreError::Compacted)
        } else {
            Ok(page)
        }
    }

    /// Commits all with one sync, each at a revision of its own.
    fn commit(&self, txns: &[Txn]) -> Result<Vec<TxnResult>, StoreError> {
        let mut changes = Vec::new();
        let mut write = || -> Result<Vec<TxnResult>, redb::Error> {
            let mut database_txn = self.database.begin_write()?;
            database_txn.set_quick_repair(true);
            let mut results = Vec::with_capacity(txns.len());
            {
                let mut entries = database_txn.open_table(ENTRIES)?;
                let mut counters = database_txn.open_table(COUNTERS)?;
                let mut revision = counters.get(REVISION)?.map_or(0, |value| value.value());
                for txn in txns {
                    let succeeded = holds(&entries, &txn.compares)?;
                    if succeeded {
                        let next = revision.saturating_add(1);
                        let events = apply(&mut entries, &txn.then, next)?;
                        if !events.is_empty() {
                            revision = next;
                            changes.push((revision, events));
                        }
                    }
                    results.push(TxnResult {
                        succeeded,
                        revision,
                    });
                }
                counters.insert(REVISION, revision)?;
            }
            if changes.is_empty() {
                database_txn.abort()?;
            } else {
                database_txn.commit()?;
            }
            Ok(results)
        };
        let results = write().map_err(|error| failed(&self.place, &error))?;
        let mut ring = self.ring();
        changes
            .into_iter()
            .for_each(|(revision, events)| ring.add(revision, events));
        Ok(results)
    }
}

fn holds(
    entries: &redb::Table<'_, &str, &[u8]>,
    compares: &[Compare],
) -> Result<bool, redb::Error> {
    for compare in compares {
        let (Compare::ModRevision(key, want) | Compare::CreateRevision(key, want)) = compare;
        let entry = entries
            .get(key.as_str())?
            .and_then(|value| decode(key, value.value()));
        let have = entry.map_or(0, |entry| match compare {
            Compare::ModRevision(..) => entry.mod_revision,
            Compare::CreateRevision(..) => entry.create_revision,
        });
        if have != *want {
            return Ok(false);
        }
    }
    Ok(true)
}

fn apply(
    entries: &mut redb::Table<'_, &str, &[u8]>,
    ops: &[Op],
    revision: u64,
) -> Result<Vec<Event>, redb::Error> {
    let mut events = Vec::with_capacity(ops.len());
    for op in ops {
        match op {
            Op::Put(key, value) => {
                let old = entries
                    .get(key.as_str())?
                    .and_then(|value| decode(key, value.value()));
                let entry = Entry {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
                    mod_revision: revision,
                    version: old.map_or(1, |old| old.version.saturating_add(1)),
                };
                entries.insert(key.as_str(), encode(&entry).as_slice())?;
                events.push(Event::Put(entry));
            }
            Op::Delete(key) => {
                if entries.remove(key.as_str())?.is_some() {
                    events.push(Event::Delete(key.clone()));
                }
            }
        }
    }
    Ok(events)
}

/// Three numbers, then the value.
fn encode(entry: &Entry) -> Vec<u8> {
    let head = [entry.create_revision, entry.mod_revision, entry.version].map(u64::to_le_bytes);
    [head.as_flattened(), &entry.value].concat()
}

fn decode(key: &str, bytes: &[u8]) -> Option<Entry> {
    let (head, value) = bytes.split_at_checked(24)?;
    let (numbers, _) = head.as_chunks::<8>();
    let [create_revision, mod_revision, version] = <[[u8; 8]; 3]>::try_from(numbers)
        .ok()?
        .map(u64::from_le_bytes);
    Some(Entry {
        key: key.to_owned(),
        value: value.to_vec(),
        create_revision,
        mod_revision,
        version,
    })
}

fn failed(place: &str, error: &dyn std::error::Error) -> StoreError {
    let what = error.to_string();
    let next = if what.contains("already open") {
        "another process uses it: stop that one first"
    } else if what.contains("ermission") {
        "give this user the right to write there"
    } else if what.contains("space") {
        "free some disk space; nothing that was acknowledged is lost"
    } else {
        "see whether the disk is healthy, then start again"
    };
    StoreError::Failed {
        place: place.to_owned(),
        what,
        next,
    }
}
