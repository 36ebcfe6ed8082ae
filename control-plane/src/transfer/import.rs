//! A file as a store.
//!
//! Order: the whole file is checked → a mark says that an import began, and the format is taken away, so that nothing starts on the store →
//! what is there is deleted → entries are written, secrets sealed anew → one transaction puts format, generation, keys and the head of the
//! config, records what was done in the audit trail that came with the file, and takes the mark away. After a crash anywhere, the same
//! import begins anew. The mark holds the generation, so it never goes back.

use std::{
    io::{Read, Seek, SeekFrom},
    sync::Arc,
};

use proxyxai_core::{ports::Random, secret::seal::SealKey};
use proxyxai_proto::store::v1::{ArchiveEntry, Sealed};

use super::{TransferError, archive::Archive, record::Record, target::Target};
use crate::{
    keyring::{Keys, sealed},
    status::Fault,
    store::{
        Entry, Op, Store,
        keyspace::{self, FORMAT, Key},
    },
};

/// What is not taken from the file.
const MADE_ANEW: [Key; 4] = [Key::Format, Key::Generation, Key::Keyring, Key::Import];

/// What an import is given.
pub struct Import {
    /// Opens the secrets in the file, and seals them in the store.
    pub key: Arc<SealKey>,
    /// Whether what the store holds is deleted.
    pub replace: bool,
    /// Unix milliseconds.
    pub now_unix_ms: i64,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Id of the deployment.
    pub deployment_id: String,
    /// Its generation now.
    pub generation: u64,
    /// Entries of the file.
    pub entries: u64,
    /// Keys of the store whose secrets do not open; they are in the store as they are in the file.
    pub unopened: Vec<String>,
}

/// Writes a file into a store.
///
/// # Errors
/// When the file or the key cannot be used, or the store is not empty; then nothing was changed. When the store fails; then the import is to
/// be run again.
pub async fn import<R: Read + Seek>(
    store: &Arc<dyn Store>,
    file: &mut R,
    import: Import,
    random: &dyn Random,
) -> Result<Imported, TransferError> {
    let checked = check(file, &import.key)?;
    let mut target = Target::begin(store, &import, checked.generation).await?;
    target.clear().await?;
    let keys = Keys::make(random, &import.key, target.generation, import.now_unix_ms)?;
    file.seek(SeekFrom::Start(0))
        .map_err(super::ArchiveError::from)?;
    let mut archive = Archive::open(&mut *file)?;
    let (mut unopened, mut head) = (Vec::new(), None);
    while let Some(entries) = archive.next_entries()? {
        for entry in entries {
            if MADE_ANEW.iter().any(|key| key.to_string() == entry.key) {
                continue;
            }
            if entry.key == Key::Head.to_string() {
                head = Some(Op::Put(entry.key, entry.value));
                continue;
            }
            let value = match renewed(&entry, &checked.keys, &keys, random) {
                Ok(value) => value.unwrap_or(entry.value),
                Err(_) => {
                    unopened.push(entry.key.clone());
                    entry.value
                }
            };
            target.put(Op::Put(entry.key, value)).await?;
        }
    }
    let record = Record::new(store, import.now_unix_ms, "ImportStore")?;
    target.finish(&checked.keys, &keys, head, &record).await?;
    Ok(Imported {
        deployment_id: archive.header().deployment_id.clone(),
        generation: target.generation,
        entries: archive.entries(),
        unopened,
    })
}

/// What is known of a file before anything is written.
struct Checked {
    generation: u64,
    keys: Keys,
}

fn check<R: Read + Seek>(file: &mut R, key: &Arc<SealKey>) -> Result<Checked, TransferError> {
    let mut archive = Archive::open(&mut *file)?;
    let header = archive.header().clone();
    if header.format != FORMAT {
        return Err(TransferError::Format {
            found: header.format,
            read: FORMAT,
        });
    }
    let given = key.id().to_string();
    if header.key_encryption_key_id != given {
        return Err(TransferError::OtherKey {
            sealed_by: header.key_encryption_key_id,
            given,
        });
    }
    let (place, pepper_place) = (Key::Keyring.to_string(), Key::Pepper.to_string());
    let (mut ring, mut pepper) = (ArchiveEntry::default(), ArchiveEntry::default());
    while let Some(entries) = archive.next_entries()? {
        for entry in entries {
            if entry.key == place {
                ring = entry;
            } else if entry.key == pepper_place {
                pepper = entry;
            }
        }
    }
    let keys = Keys::of_archive(
        &Entry {
            key: place,
            value: ring.value,
            create_revision: 1,
            mod_revision: 1,
            version: 1,
        },
        key,
    )?;
    // Without this one no virtual key is known again.
    let sealed: Sealed = keyspace::decode(&pepper_place, &pepper.value).map_err(Fault::from)?;
    keys.open(&pepper_place, &sealed.value)
        .map_err(|error| Fault::sealed(&pepper_place, &error))?;
    Ok(Checked {
        generation: header.generation,
        keys,
    })
}

/// A value with its secret sealed anew; `None` when it has none.
fn renewed(
    entry: &ArchiveEntry,
    old: &Keys,
    new: &Keys,
    random: &dyn Random,
) -> Result<Option<Vec<u8>>, Fault> {
    sealed::map(&entry.key, &entry.value, |place, sealed| {
        let plain = old
            .open(place, sealed)
            .map_err(|error| Fault::sealed(&entry.key, &error))?;
        new.seal(random, place, &plain)
    })
}
