//! A disk in memory, for simulations: it can crash, be full, and fail to sync.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::disk::{Disk, FileInfo};

/// Files in memory. What was not synced is lost at [`MemoryDisk::crash`], but for as much of it as the caller says.
#[derive(Default)]
pub struct MemoryDisk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Bytes>,
    full: bool,
    sync_fails: bool,
    now_unix_ms: i64,
}

#[derive(Default)]
struct Bytes {
    content: Vec<u8>,
    synced: usize,
    listed: bool,
    modified_unix_ms: i64,
}

impl MemoryDisk {
    /// Loses what was not synced, but for the first `kept` bytes of it in each file.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state();
        state.files.retain(|_, file| file.listed || kept > 0);
        for file in state.files.values_mut() {
            file.content.truncate(file.synced.saturating_add(kept));
            file.synced = file.content.len();
            file.listed = true;
        }
    }

    /// Whether appends fail, half done.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Whether syncs fail.
    pub fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    /// The time that files written from now on bear.
    pub fn set_time(&self, unix_ms: i64) {
        self.state().now_unix_ms = unix_ms;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for MemoryDisk {
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let (full, now) = (state.full, state.now_unix_ms);
        let file = state.files.entry(name.to_owned()).or_default();
        file.modified_unix_ms = now;
        let fits = if full { bytes.len() / 2 } else { bytes.len() };
        file.content.extend(bytes.iter().take(fits));
        if full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.sync_fails {
            return Err(io::ErrorKind::Other.into());
        }
        let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.synced = file.content.len();
        file.listed = true;
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.content
            .truncate(usize::try_from(len).unwrap_or(usize::MAX));
        file.synced = file.synced.min(file.content.len());
        Ok(())
    }

    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        let file = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(file
            .content
            .iter()
            .skip(offset)
            .take(max)
            .copied()
            .collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let mut file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        file.listed = true;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().files.remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let info = |(name, file): (&String, &Bytes)| FileInfo {
            name: name.clone(),
            len: u64::try_from(file.content.len()).unwrap_or(u64::MAX),
            modified_unix_ms: file.modified_unix_ms,
        };
        Ok(self.state().files.iter().map(info).collect())
    }
}
