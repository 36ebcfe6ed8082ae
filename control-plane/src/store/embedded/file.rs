//! The database of an embedded store, opened anew when it broke.
//!
//! The engine refuses everything after one failed write, such as on a full disk, until it is opened again. Invariants: it is opened again
//! only while nobody reads or writes; what is found then is said to whoever keeps the changes; a database that lacks what was acknowledged
//! is not used any more.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use redb::{Database, ReadableDatabase as _};

use super::{COUNTERS, ENTRIES, REVISION};

/// Opens the database.
pub(super) type Open = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// A database that may break.
pub(super) struct File {
    open: Open,
    database: RwLock<Option<Database>>,
    broken: AtomicBool,
}

impl File {
    /// Opens it, and gives its revision.
    pub(super) fn open(open: Open) -> Result<(Self, u64), redb::Error> {
        let (database, revision) = ready(&open)?;
        let file = Self {
            open,
            database: RwLock::new(Some(database)),
            broken: AtomicBool::new(false),
        };
        Ok((file, revision))
    }

    /// Works with the database; opens it anew first when it broke, and says then which revision it has.
    pub(super) fn with<T>(
        &self,
        reopened: impl FnOnce(u64) -> Result<(), redb::Error>,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        if self.broken.load(Ordering::Acquire) {
            self.mend(reopened)?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let done = match &*database {
            Some(database) => work(database),
            None => Err(redb::Error::PreviousIo),
        };
        if let Err(error) = &done {
            self.note(error);
        }
        done
    }

    /// Notes that an operation failed.
    pub(super) fn note(&self, error: &redb::Error) {
        if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            self.broken.store(true, Ordering::Release);
        }
    }

    fn mend(
        &self,
        reopened: impl FnOnce(u64) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        // The file is locked until the database before is gone.
        drop(database.take());
        let (fresh, revision) = ready(&self.open)?;
        reopened(revision)?;
        *database = Some(fresh);
        self.broken.store(false, Ordering::Release);
        tracing::info!(
            revision,
            "the store was opened anew after a failure, and goes on"
        );
        Ok(())
    }
}

/// A database with its tables, and its revision. Nothing is written to one that has them: there may be no room.
fn ready(open: &Open) -> Result<(Database, u64), redb::Error> {
    let database = open()?;
    let found = database.begin_read()?.open_table(COUNTERS);
    let revision = match found {
        Ok(counters) => counters.get(REVISION)?.map_or(0, |value| value.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let txn = database.begin_write()?;
            txn.open_table(ENTRIES)?;
            txn.open_table(COUNTERS)?;
            txn.commit()?;
            0
        }
        Err(error) => return Err(error.into()),
    };
    Ok((database, revision))
}
