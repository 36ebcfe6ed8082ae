//! The store of a gateway in one process: redb below, commits on a thread of their own.
//!
//! A commit is durable before it is answered. Transactions that wait while one is being synced share the next sync. The page
//! cache is small and quick repair is on, so that neither memory nor a crash costs much (`docs/decisions/0001-embedded-store.md`).

mod file;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
    backends::InMemoryBackend,
};
use tokio::sync::oneshot;

use file::{File, Open};

use super::{
    Compare, Entry, Leadership, Op, Page, Range, Reply, Store, StoreError, Txn, TxnResult, Watch,
    check, leader_key,
    local::Elections,
    ring::Ring,
    rows::{self, Rows},
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
    file: File,
    ring: Mutex<Ring>,
    elections: Elections,
}

#[derive(Clone)]
enum Commits {
    /// To the thread.
    Queue(Arc<Worker>),
    /// In the caller, for runtimes that must not wait for a thread (simulations).
    Inline,
}

/// The thread that commits. The file is closed when the last handle is dropped: that waits for the commit in hand.
struct Worker {
    queue: Option<mpsc::Sender<Waiting>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue = None;
        let _it_does_not_panic = self.thread.take().map(JoinHandle::join);
    }
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
        let file = file.to_owned();
        let open = move || {
            let mut builder = Database::builder();
            Ok(builder.set_cache_size(CACHE_BYTES).create(&file)?)
        };
        Self::on_a_thread(Shared::new(place, Box::new(open))?)
    }

    fn on_a_thread(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let (queue, waiting) = mpsc::channel();
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.run(&waiting))
            .map_err(|error| failed(&shared.place, &error))?;
        Ok(Self {
            shared,
            commits: Commits::Queue(Arc::new(Worker {
                queue: Some(queue),
                thread: Some(thread),
            })),
        })
    }

    /// Forgets changes at and below a revision: who follows from there, or reads a state before it, begins anew.
    pub fn compact(&self, revision: u64) {
        self.shared.ring().compact(revision);
    }

    /// A store in memory that commits in the caller and uses no thread.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn in_memory() -> Result<Self, StoreError> {
        let place = "memory".to_owned();
        let open = || {
            let mut builder = Database::builder();
            let builder = builder.set_cache_size(CACHE_BYTES);
            Ok(builder.create_with_backend(InMemoryBackend::new())?)
        };
        Ok(Self {
            shared: Shared::new(place, Box::new(open))?,
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
                Commits::Queue(worker) => {
                    let (answer, answered) = oneshot::channel();
                    let queue = worker.queue.as_ref().ok_or(StoreError::Closed)?;
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
        // One process holds the file: the fence deposes whoever led before this process, the turn waits for those in it.
        Box::pin(async move {
            let (turn, over) = self.shared.elections.wait(name).await;
            let key = leader_key(name);
            let won = self
                .txn(Txn {
                    compares: Vec::new(),
                    then: vec![Op::Put(key.clone(), Vec::new())],
                })
                .await?;
            let fence = Compare::ModRevision(key, won.revision);
            Ok(Leadership::new(fence, over, turn))
        })
    }
}

impl Shared {
    fn new(place: String, open: Open) -> Result<Arc<Self>, StoreError> {
        let (file, revision) = File::open(open).map_err(|error| failed(&place, &error))?;
        Ok(Arc::new(Self {
            place,
            file,
            ring: Mutex::new(Ring::starting_after(revision)),
            elections: Elections::default(),
        }))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the database as it was opened anew with the changes that were recorded: a change whose commit gave no answer may be in it.
    fn reopened(&self, revision: u64) -> Result<(), redb::Error> {
        let mut ring = self.ring();
        let committed = ring.committed();
        if revision < committed {
            return Err(redb::Error::Corrupted(format!(
                "it holds revision {revision}, and {committed} was acknowledged; restore it from a backup"
            )));
        }
        if revision > committed {
            ring.begin_after(revision);
        }
        Ok(())
    }

    /// Works with the database, opened anew if it broke.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        self.file.with(|revision| self.reopened(revision), work)
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
        let read = |database: &Database| -> Result<Option<Entry>, redb::Error> {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            Ok(table.get(key)?.and_then(|value| decode(key, value.value())))
        };
        self.with(read).map_err(|error| failed(&self.place, &error))
    }

    fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let read = |database: &Database| -> Result<Option<Page>, redb::Error> {
            let txn = database.begin_read()?;
            let now = txn
                .open_table(COUNTERS)?
                .get(REVISION)?
                .map_or(0, |value| value.value());
            let at = range.at_revision.unwrap_or(now);
            let earlier = if at == now {
                BTreeMap::new()
            } else {
                match self.ring().earlier(at, now) {
                    Some(earlier) => earlier,
                    None => return Ok(None),
                }
            };
            let table = txn.open_table(ENTRIES)?;
            let found = table.range(rows::start(range)..)?.filter_map(|row| {
                row.map(|(key, value)| decode(key.value(), value.value()))
                    .transpose()
            });
            Ok(Some(rows::page(found, range, at, earlier)?))
        };
        let page = self
            .with(read)
            .map_err(|error| failed(&self.place, &error))?;
        page.ok_or(StoreError::Compacted)
    }

    /// Commits all with one sync, each at a revision of its own.
    fn commit(&self, txns: &[Txn]) -> Result<Vec<TxnResult>, StoreError> {
        let committed = self.with(|database| {
            let (prepared, results) = self.prepare(database, txns)?;
            let Some(prepared) = prepared else {
                return Ok(Ok(results));
            };
            let committed = prepared.transaction.commit().map_err(redb::Error::from);
            let mut ring = self.ring();
            if let Err(error) = committed {
                ring.withdraw(prepared.first);
                drop(ring);
                self.file.note(&error);
                return Ok(Err(StoreError::Ambiguous {
                    place: self.place.clone(),
                    what: error.to_string(),
                }));
            }
            ring.publish(prepared.last);
            Ok(Ok(results))
        });
        committed.map_err(|error| failed(&self.place, &error))?
    }

    /// Runs transactions up to their commit; without one when nothing changed.
    fn prepare(
        &self,
        database: &Database,
        txns: &[Txn],
    ) -> Result<(Option<Prepared>, Vec<TxnResult>), redb::Error> {
        let mut database_txn = database.begin_write()?;
        database_txn.set_quick_repair(true);
        let mut results = Vec::with_capacity(txns.len());
        let mut changed = Vec::new();
        {
            let mut entries = Table(database_txn.open_table(ENTRIES)?);
            let mut counters = database_txn.open_table(COUNTERS)?;
            let mut revision = counters.get(REVISION)?.map_or(0, |value| value.value());
            for txn in txns {
                let next = revision.saturating_add(1);
                let changes = rows::run(&mut entries, txn, next)?;
                let succeeded = changes.is_some();
                if let Some(changes) = changes.filter(|changes| !changes.is_empty()) {
                    revision = next;
                    changed.push((next, changes));
                }
                results.push(TxnResult {
                    succeeded,
                    revision,
                });
            }
            counters.insert(REVISION, revision)?;
        }
        let ends = (changed.first(), changed.last());
        let (Some((first, _)), Some((last, _))) = ends else {
            database_txn.abort()?;
            return Ok((None, results));
        };
        let prepared = Prepared {
            transaction: database_txn,
            first: *first,
            last: *last,
        };
        let mut ring = self.ring();
        for (revision, changes) in changed {
            ring.record(revision, changes);
        }
        Ok((Some(prepared), results))
    }
}

/// What is recorded and to be committed: these revisions.
struct Prepared {
    transaction: WriteTransaction,
    first: u64,
    last: u64,
}

/// Rows of a transaction that is not committed yet.
struct Table<'txn>(redb::Table<'txn, &'static str, &'static [u8]>);

impl Rows for Table<'_> {
    type Error = redb::Error;

    fn read(&self, key: &str) -> Result<Option<Entry>, redb::Error> {
        let value = self.0.get(key)?;
        Ok(value.and_then(|value| decode(key, value.value())))
    }

    fn write(&mut self, entry: &Entry) -> Result<(), redb::Error> {
        self.0
            .insert(entry.key.as_str(), encode(entry).as_slice())?;
        Ok(())
    }

    fn erase(&mut self, key: &str) -> Result<(), redb::Error> {
        self.0.remove(key)?;
        Ok(())
    }
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

#[cfg(test)]
mod tests;
