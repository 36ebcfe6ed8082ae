//! What the event files need of a disk, and the real one.
//!
//! Small on purpose: a simulated disk that forgets what was not synced has to be a page long.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::UNIX_EPOCH,
};

/// One flat directory of files. Names have no `/`.
pub trait Disk: Send + Sync {
    /// Adds to the end of a file, which it makes if need be. After an error any part of it may have been added.
    ///
    /// # Errors
    /// The disk is full, or fails.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was appended, and that the file exists.
    ///
    /// # Errors
    /// The disk fails; what was appended since the last sync may be lost, also after a sync that succeeds later.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Cuts a file to this length; durable with the next sync.
    ///
    /// # Errors
    /// There is no such file, or the disk fails.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;

    /// Up to `max` bytes from `offset` on; fewer at the end of the file.
    ///
    /// # Errors
    /// There is no such file, or the disk fails.
    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>>;

    /// Puts one file in the place of another, durably.
    ///
    /// # Errors
    /// There is no such file, or the disk fails.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes a file; one that does not exist is no error.
    ///
    /// # Errors
    /// The disk fails.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All files, in no order.
    ///
    /// # Errors
    /// The disk fails.
    fn list(&self) -> io::Result<Vec<FileInfo>>;
}

/// A file in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// When it was written last, in Unix milliseconds.
    pub modified_unix_ms: i64,
}

/// A directory of the file system.
pub struct FsDisk {
    dir: PathBuf,
    /// The file that was appended to last stays open.
    open: Mutex<Option<OpenFile>>,
}

struct OpenFile {
    name: String,
    file: File,
    /// Whether the directory is known to hold the file after a crash.
    listed: bool,
}

impl FsDisk {
    /// Takes a directory, which it makes if need be.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            open: Mutex::new(None),
        })
    }

    fn with_open<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut OpenFile) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.as_mut() {
            Some(file) if file.name == name => act(file),
            Some(_) | None => {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(self.dir.join(name))?;
                act(open.insert(OpenFile {
                    name: name.to_owned(),
                    file,
                    listed: false,
                }))
            }
        }
    }

    fn forget(&self, name: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|file| file.name == name) {
            *open = None;
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl Disk for FsDisk {
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with_open(name, |open| open.file.write_all(bytes))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.with_open(name, |open| {
            open.file.sync_data()?;
            if !open.listed {
                self.sync_dir()?;
                open.listed = true;
            }
            Ok(())
        })
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.dir.join(name))?
            .set_len(len)
    }

    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.dir.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(u64::try_from(max).unwrap_or(u64::MAX))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.forget(from);
        self.forget(to);
        fs::rename(self.dir.join(from), self.dir.join(to))?;
        self.sync_dir()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.forget(name);
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (meta, Ok(name)) = (entry.metadata()?, entry.file_name().into_string()) else {
                continue;
            };
            let age = meta
                .modified()?
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let modified_unix_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            files.push(FileInfo {
                name,
                len: meta.len(),
                modified_unix_ms,
            });
        }
        Ok(files)
    }
}
