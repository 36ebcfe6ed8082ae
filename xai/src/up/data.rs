//! The data directory: the one place where a gateway keeps anything.
//!
//! Invariants: one process at a time; the directory is for its owner alone, and so is each file with a secret (mode 0600), which is
//! written under another name first, so that a crash leaves a whole file or none.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use proxyxai_core::{
    account::key::base62,
    ports::{Random, random_bytes},
    secret::{ExposeSecret as _, SecretString},
};

use crate::{
    data::{ADDRESSES, ADMIN_CREDENTIAL, AUTHORITY, FIRST_KEY, IDENTITY, OPS_CREDENTIAL},
    failure::Failure,
};

/// Less than this on the disk, and a gateway does not start.
const LEAST_FREE: u64 = 100 << 20;

/// A data directory that this process holds.
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory, and makes it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let refuse = |error: &io::Error| unusable(path, error);
        make_dir(path).map_err(|error| refuse(&error))?;
        check_space(path)?;
        let lock_file = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_file)
            .map_err(|error| refuse(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(Failure::failed(format!(
                    "another xai uses the data directory {path}; stop that one, or choose another directory with --data"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(refuse(&error)),
        }
        let data = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        // Those of a process that was killed lead nowhere.
        data.remove_addresses();
        Ok(data)
    }

    pub(crate) fn store_file(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    pub(crate) fn events_dir(&self) -> PathBuf {
        self.path.join("events")
    }

    /// Where the node keeps a sealed copy of its configuration.
    pub(crate) fn config_dir(&self) -> PathBuf {
        self.path.join("config")
    }

    /// What administrators show; made at first start.
    pub(crate) fn admin_credential(&self, random: &dyn Random) -> Result<SecretString, Failure> {
        let make = || format!("pxai-admin-{}", base62(&random_bytes(random), 40));
        self.read_or_make(ADMIN_CREDENTIAL, make)
            .map(SecretString::from)
    }

    /// What administrators show, made by somebody else: kept where commands on this machine look for it.
    pub(crate) fn keep_admin_credential(
        &self,
        given: SecretString,
    ) -> Result<SecretString, Failure> {
        if self.read(ADMIN_CREDENTIAL)?.as_deref() != Some(given.expose_secret()) {
            self.write(ADMIN_CREDENTIAL, given.expose_secret())?;
        }
        Ok(given)
    }

    /// What is shown to the ops port of a node that runs alone; made at first start.
    pub(crate) fn ops_credential(&self, random: &dyn Random) -> Result<SecretString, Failure> {
        let make = || format!("pxai-ops-{}", base62(&random_bytes(random), 40));
        self.read_or_make(OPS_CREDENTIAL, make)
            .map(SecretString::from)
    }

    /// The identity of a node that joined.
    pub(crate) fn identity(&self) -> Result<Option<SecretString>, Failure> {
        Ok(self.read(IDENTITY)?.map(SecretString::from))
    }

    pub(crate) fn write_identity(&self, identity: &SecretString) -> Result<(), Failure> {
        self.write(IDENTITY, identity.expose_secret())
    }

    /// Names the node of this process; made at first start.
    pub(crate) fn node_id(&self, random: &dyn Random) -> Result<String, Failure> {
        self.read_or_make("node-id", || {
            format!(
                "node-{}",
                base62(&random_bytes(random), 10).to_ascii_lowercase()
            )
        })
    }

    /// The first virtual key, while it is kept.
    pub(crate) fn first_key(&self) -> Result<Option<String>, Failure> {
        self.read(FIRST_KEY)
    }

    pub(crate) fn write_first_key(&self, key: &SecretString) -> Result<(), Failure> {
        self.write(FIRST_KEY, key.expose_secret())
    }

    pub(crate) fn remove_first_key(&self) {
        let _may_be_gone = fs::remove_file(self.path.join(FIRST_KEY));
    }

    /// Tells other programs where the process of this directory is.
    pub(crate) fn write_addresses(&self, addresses: &impl serde::Serialize) -> Result<(), Failure> {
        self.write(
            ADDRESSES,
            &serde_json::to_string(addresses).unwrap_or_default(),
        )
    }

    /// The authority's certificate in PEM, for clients that do not pin it; no secret.
    pub(crate) fn write_authority(&self, pem: &str) -> Result<(), Failure> {
        self.write(AUTHORITY, pem.trim_end())
    }

    pub(crate) fn remove_addresses(&self) {
        let _may_be_gone = fs::remove_file(self.path.join(ADDRESSES));
    }

    /// A failure with something in the directory.
    pub(crate) fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::failed(format!(
            "{what} in {} cannot be used: {error}",
            self.path.display()
        ))
    }

    fn read_or_make(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, Failure> {
        if let Some(text) = self.read(name)? {
            return Ok(text);
        }
        let made = make();
        self.write(name, &made)?;
        Ok(made)
    }

    fn read(&self, name: &str) -> Result<Option<String>, Failure> {
        match fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(&format!("the file `{name}`"), &error)),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let (file, new) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut out = options.open(&new)?;
            out.write_all(text.as_bytes())?;
            out.write_all(b"\n")?;
            out.sync_all()?;
            fs::rename(&new, &file)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| unusable(&self.path, &error))
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn check_space(path: &Path) -> Result<(), Failure> {
    let Ok(disk) = rustix::fs::statvfs(path) else {
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= LEAST_FREE {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::failed(format!(
        "the disk of {path} has {} MB left; free at least {} MB, or choose another directory with --data",
        free >> 20,
        LEAST_FREE >> 20
    )))
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
    Failure::failed(
        if is(&[
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
        ]) {
            format!(
                "this user may not write to the data directory {path}; give it the right, or choose another directory with --data"
            )
        } else if is(&[io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]) {
            format!(
                "the disk of {path} is full; free some space, or choose another directory with --data"
            )
        } else {
            format!(
                "the data directory {path} cannot be used: {error}; choose another one with --data"
            )
        },
    )
}
