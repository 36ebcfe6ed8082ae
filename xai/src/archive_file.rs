//! The file that a backup is written to.
//!
//! Invariants: it stands under its name only when it is whole, checked, and durable; it is for its owner alone; nothing that exists is
//! written over.

use std::{
    fmt, fs,
    io::{self, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use proxyxai_control_plane::transfer::Archive;

use crate::failure::Failure;

/// A file that is being written.
pub(crate) struct ArchiveFile {
    file: PathBuf,
    draft: PathBuf,
    out: fs::File,
}

impl ArchiveFile {
    /// Begins a file.
    pub(crate) fn create(file: &Path) -> Result<Self, Failure> {
        if file.exists() {
            return Err(failed(file, "it exists already; name another one"));
        }
        let draft = PathBuf::from(format!("{}.part", file.display()));
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let out = options.open(&draft).map_err(|error| failed(file, error))?;
        Ok(Self {
            file: file.to_owned(),
            draft,
            out,
        })
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out
            .write_all(bytes)
            .map_err(|error| failed(&self.file, error))
    }

    /// Forgets what was written.
    pub(crate) fn begin_anew(&mut self) -> Result<(), Failure> {
        let anew = self.out.rewind().and_then(|()| self.out.set_len(0));
        anew.map_err(|error| failed(&self.file, error))
    }

    /// Checks the file and gives it its name. Says what it is of.
    pub(crate) fn finish(mut self) -> Result<String, Failure> {
        let entries = self.check()?;
        let done = || -> io::Result<()> {
            self.out.sync_all()?;
            // A link, other than a rename, never replaces what is there.
            fs::hard_link(&self.draft, &self.file)?;
            let folder = self.file.parent();
            let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
            fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        done().map_err(|error| failed(&self.file, error))?;
        Ok(format!("{entries} are in {}.", self.file.display()))
    }

    fn check(&mut self) -> Result<String, Failure> {
        let sought = self.out.seek(SeekFrom::Start(0));
        sought.map_err(|error| failed(&self.file, error))?;
        let archive = Archive::open(BufReader::new(&self.out));
        let checked = archive.and_then(|mut archive| {
            archive.check()?;
            let header = archive.header();
            Ok(format!(
                "{} entries of deployment {}, generation {}, sealed under key {},",
                archive.entries(),
                header.deployment_id,
                header.generation,
                header.key_encryption_key_id
            ))
        });
        checked.map_err(|error| failed(&self.file, error))
    }
}

impl Drop for ArchiveFile {
    fn drop(&mut self) {
        let _may_be_gone = fs::remove_file(&self.draft);
    }
}

fn failed(file: &Path, reason: impl fmt::Display) -> Failure {
    Failure::failed(format!(
        "the backup cannot be written to {}: {reason}",
        file.display()
    ))
}
