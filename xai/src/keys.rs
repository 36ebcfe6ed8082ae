//! The key that seals secrets in the store, read from where the settings say: a file, an environment variable or a command.
//!
//! Invariants: what was read is never repeated in a sentence; a command is bounded in time, and in what it may print.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use proxyxai_control_plane::{
    app::key_encryption_key_id,
    keyring::{KeySource, NextKey},
    store::Store,
};
use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::{
        Zeroizing,
        seal::{SealKey, SealKeyId},
    },
};
use tokio::io::AsyncReadExt as _;

use crate::{
    data::{KEY_ENCRYPTION_KEY, NEXT_KEY_ENCRYPTION_KEY},
    environment::Environment,
    failure::Failure,
    new_file::{sync_folder, write_new},
    settings::key_place::{KeyPlace, KeyPlaces},
};

/// Longest time that a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(30);
/// Longest text that a key is looked for in.
const MAX: u64 = 4096;

/// Reads one of the two keys that the settings name.
#[derive(Clone)]
pub(crate) struct KeyReader {
    setting: &'static str,
    place: KeyPlace,
    /// The file in the data directory.
    own: PathBuf,
    environment: Environment,
}

impl KeyReader {
    /// The key in use.
    pub(crate) fn in_use(places: KeyPlaces<'_>, environment: &Environment) -> Self {
        Self {
            setting: "key_encryption_key",
            place: places.in_use.clone(),
            own: places.data.join(KEY_ENCRYPTION_KEY),
            environment: environment.clone(),
        }
    }

    /// The one to be used next.
    pub(crate) fn next(places: KeyPlaces<'_>, environment: &Environment) -> Self {
        Self {
            setting: "next_key_encryption_key",
            place: places.next.clone(),
            own: places.data.join(NEXT_KEY_ENCRYPTION_KEY),
            environment: environment.clone(),
        }
    }

    /// Reads it; `None` when there is nothing at its place.
    pub(crate) async fn read(&self) -> Result<Option<SealKey>, Failure> {
        let text = match &self.place {
            KeyPlace::Own => read_file(&self.own).map_err(|error| self.failed(error))?,
            KeyPlace::File(file) => read_file(file).map_err(|error| self.failed(error))?,
            KeyPlace::Variable(name) => {
                let text = self.environment.get(name);
                text.map(|text| Zeroizing::new(text.to_owned()))
            }
            KeyPlace::Command { program, arguments } => Some(
                run(program, arguments, COMMAND_TIME)
                    .await
                    .map_err(|reason| self.failed(reason))?,
            ),
        };
        let Some(text) = text else { return Ok(None) };
        let key = parse(text.trim()).ok_or_else(|| {
            self.failed("what is there is no key of 64 hexadecimal digits; put the right one back from your backup")
        })?;
        Ok(Some(key))
    }

    fn failed(&self, reason: impl fmt::Display) -> Failure {
        Failure::failed(format!("the key at {self} cannot be used: {reason}"))
    }
}

impl fmt::Display for KeyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            KeyPlace::Own => write!(f, "{}", self.own.display()),
            place @ (KeyPlace::File(_) | KeyPlace::Variable(_) | KeyPlace::Command { .. }) => {
                write!(f, "`{place}` (setting `{}`)", self.setting)
            }
        }
    }
}

/// The key that the store is sealed under, among the two that the settings name. In an empty store, and in the data directory alone, one is
/// made.
pub(crate) async fn choose(
    places: KeyPlaces<'_>,
    environment: &Environment,
    store: &Arc<dyn Store>,
    random: Option<&dyn Random>,
) -> Result<SealKey, Failure> {
    let wanted = key_encryption_key_id(store).await;
    let wanted = wanted.map_err(|error| Failure::failed(error.to_string()))?;
    let (in_use, next) = (
        KeyReader::in_use(places, environment),
        KeyReader::next(places, environment),
    );
    let fits = |key: &SealKey| wanted.as_ref().is_none_or(|id| *id == key.id().to_string());
    let found = match in_use.read().await? {
        Some(key) if fits(&key) => return Ok(key),
        other => other,
    };
    if let Some(wanted) = &wanted {
        // A rotation that ended before its process could say so.
        if let Some(key) = next.read().await?
            && key.id().to_string() == *wanted
        {
            Next::new(places, environment).adopted(key.id());
            return Ok(key);
        }
        return found.ok_or_else(|| {
            Failure::failed(format!(
                "the secrets in the store are sealed under key {wanted}, and there is no key at {in_use}; put it back from where you keep it"
            ))
        });
    }
    match (random, &in_use.place) {
        (Some(random), KeyPlace::Own) => make(&in_use.own, random),
        _ => Err(Failure::failed(format!(
            "there is no key at {in_use}; write one with `xai secret new-key`"
        ))),
    }
}

/// Makes a key in a new file for its owner alone.
pub(crate) fn make(file: &Path, random: &dyn Random) -> Result<SealKey, Failure> {
    let bytes: [u8; 32] = random_bytes(random);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = Zeroizing::new(text);
    write_new(file, &text).map_err(|error| {
        let advice = if error.kind() == io::ErrorKind::AlreadyExists {
            "; nothing was changed"
        } else {
            ""
        };
        Failure::failed(format!(
            "the key cannot be written to {}: {error}{advice}",
            file.display()
        ))
    })?;
    Ok(SealKey::new(bytes))
}

/// The next key as the control plane asks for it.
pub(crate) struct Next {
    reader: KeyReader,
    in_use: KeyReader,
}

impl Next {
    pub(crate) fn new(places: KeyPlaces<'_>, environment: &Environment) -> Self {
        Self {
            reader: KeyReader::next(places, environment),
            in_use: KeyReader::in_use(places, environment),
        }
    }

    /// Puts the next key in the place of the one in use. The old one is kept under its id: it opens older backups.
    fn promote(&self) -> io::Result<()> {
        let (current, next) = (&self.in_use.own, &self.reader.own);
        if !next.exists() {
            return Ok(());
        }
        if let Some(old) = read_file(current)?
            && let Some(key) = parse(old.trim())
        {
            let kept = PathBuf::from(format!("{}.{}", current.display(), key.id()));
            match write_new(&kept, old.trim()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(next, current)?;
        sync_folder(current)
    }
}

impl KeySource for Next {
    fn read(&self) -> NextKey<'_> {
        Box::pin(async move { self.reader.read().await.map_err(|error| error.to_string()) })
    }

    fn adopted(&self, id: SealKeyId) {
        let (from, to) = (&self.reader, &self.in_use);
        if from.place != KeyPlace::Own || to.place != KeyPlace::Own {
            tracing::warn!(%id, "the key-encryption key is now that at {from}: make it that of the setting `key_encryption_key`");
            return;
        }
        match self.promote() {
            Ok(()) => tracing::info!(%id, "the key-encryption key in use is now in {to}"),
            Err(error) => {
                tracing::error!(%id, %error, "the key-encryption key in use is still in {from}: move it to {to}")
            }
        }
    }
}

/// What a program prints.
async fn run(
    program: &str,
    arguments: &[String],
    time: Duration,
) -> Result<Zeroizing<String>, String> {
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("it does not start: {error}"))?;
    let group = child.id();
    let out = child.stdout.take();
    let answer = async {
        let mut text = Zeroizing::new(String::new());
        if let Some(out) = out {
            let read = out.take(MAX).read_to_string(&mut text).await;
            read.map_err(|_| "it prints no text".to_owned())?;
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(text);
        }
        Err(format!(
            "the command failed ({status}); run it by hand as this user to see why"
        ))
    };
    let answer = tokio::time::timeout(time, answer).await;
    answer.unwrap_or_else(|_| {
        // Also what it started.
        let group = group.and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            let _may_be_gone =
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        Err(format!(
            "the command gave no answer within {} s",
            time.as_secs()
        ))
    })
}

fn parse(text: &str) -> Option<SealKey> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut key = Zeroizing::new([0_u8; 32]);
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        let digit = |c: u8| {
            char::from(c)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(SealKey::new(*key))
}

fn read_file(file: &Path) -> io::Result<Option<Zeroizing<String>>> {
    let open = match fs::File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Zeroizing::new(String::new());
    open.take(MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
