//! The data directory, where it is on this machine: room on its disk, and every secret in a plain file (design.md §10).
//!
//! Invariant: a secret file is opened only to make sure that nothing of it gets into a bundle.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    finding::{Finding, Severity, Whose},
    ports::Port,
};
use crate::{
    data::{
        ADDRESSES, ADMIN_CREDENTIAL, FIRST_KEY, IDENTITY, KEY_ENCRYPTION_KEY,
        NEXT_KEY_ENCRYPTION_KEY, OPS_CREDENTIAL,
    },
    settings::Line,
};

/// Secrets in the data directory, and what each is.
const IN_DATA: [(&str, &str); 6] = [
    (
        KEY_ENCRYPTION_KEY,
        "the key that seals all secrets in the store",
    ),
    (
        NEXT_KEY_ENCRYPTION_KEY,
        "the sealing key that is taken next",
    ),
    (ADMIN_CREDENTIAL, "the admin credential"),
    (FIRST_KEY, "the first virtual key"),
    (OPS_CREDENTIAL, "what opens the port of operations"),
    (IDENTITY, "the certificate and key of a node"),
];

/// Settings that name a file with a secret, and what it is.
const BY_SETTING: [(&str, &str); 9] = [
    ("tls_key_file", "the key of the certificate for clients"),
    (
        "authority_key_file",
        "the key of the deployment's authority",
    ),
    ("admin_credential_file", "the admin credential"),
    ("join_token_file", "a join token"),
    ("etcd_key_file", "the key of the certificate for etcd"),
    ("etcd_password_file", "the password for etcd"),
    ("trace_headers_file", "headers for the collector of traces"),
    (
        "key_encryption_key",
        "the key that seals all secrets in the store",
    ),
    (
        "next_key_encryption_key",
        "the sealing key that is taken next",
    ),
];

/// Less room than this on its disk, in bytes, is soon none.
const LITTLE_ROOM: u64 = 512 << 20;
/// With less than this, in bytes, writes fail.
const NO_ROOM: u64 = 32 << 20;

/// The data directory as it is here.
pub(super) struct Place<'a> {
    data: &'a Path,
}

/// A secret in a plain file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SecretFile {
    pub(super) path: PathBuf,
    pub(super) what: &'static str,
}

impl<'a> Place<'a> {
    pub(super) fn of(data: &'a Path) -> Self {
        Self { data }
    }

    /// The port of operations of the process that runs on it.
    pub(super) fn ops(&self) -> Option<String> {
        let addresses = fs::read(self.data.join(ADDRESSES)).ok()?;
        let addresses: Value = serde_json::from_slice(&addresses).ok()?;
        Some(addresses.get("ops")?.as_str()?.to_owned())
    }

    /// The secrets that are in plain files here: in the directory, and where the settings of this command or of a process here name one.
    pub(super) fn secrets(&self, lines: &[Line], ports: &[Port]) -> Vec<SecretFile> {
        let own = IN_DATA
            .iter()
            .map(|(name, what)| (self.data.join(name), *what));
        let here: Vec<&Port> = ports.iter().filter(|port| port.is_here()).collect();
        let named = BY_SETTING.iter().flat_map(|(name, what)| {
            let given = lines.iter().find(|line| line.name == *name);
            let given = given.map(|line| line.value.as_str());
            let run = here.iter().filter_map(|port| port.setting(name));
            run.chain(given)
                .filter_map(|text| Some((file(text)?, *what)))
        });
        let all = own.chain(named).filter(|(path, _)| path.is_file());
        let mut all: Vec<_> = all.map(|(path, what)| SecretFile { path, what }).collect();
        all.sort();
        all.dedup_by(|a, b| a.path == b.path);
        all
    }

    /// What is to be said of it, and of them.
    pub(super) fn judge(&self, secrets: &[SecretFile], findings: &mut Vec<Finding>) {
        for one in secrets {
            findings.push(one.judge());
        }
        let Ok(disk) = rustix::fs::statvfs(self.data) else {
            return;
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let what = format!("{} MiB are free on its disk", free >> 20);
        let object = self.data.display().to_string();
        let finding = Finding::info("disk", object, what, Whose::Machine);
        let next = format!(
            "df {}; make room: xai backup writes elsewhere",
            self.data.display()
        );
        findings.push(match free {
            ..NO_ROOM => finding.but(Severity::Error, next),
            NO_ROOM..LITTLE_ROOM => finding.but(Severity::Warning, next),
            LITTLE_ROOM.. => finding,
        });
    }
}

impl SecretFile {
    fn judge(&self) -> Finding {
        let path = self.path.display();
        let found = |what| Finding::info("secret_file", path.to_string(), what, Whose::Machine);
        let what = self.what;
        match mode(&self.path) {
            Some(mode) if mode & 0o077 != 0 => {
                let open = found(format!(
                    "{what}: others than its owner may use it (mode {mode:04o})"
                ));
                open.but(Severity::Error, format!("chmod 600 {path}"))
            }
            Some(mode) => found(format!("{what}, for its owner alone (mode {mode:04o})")),
            None => found(what.to_owned()),
        }
    }
}

/// The permissions of a file.
#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(fs::metadata(path).ok()?.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
fn mode(_path: &Path) -> Option<u32> {
    None
}

/// The file that a setting names; a relative one is relative to another process.
fn file(text: &str) -> Option<PathBuf> {
    let path = Path::new(text.strip_prefix("file:").unwrap_or(text));
    path.is_absolute().then(|| path.to_owned())
}
