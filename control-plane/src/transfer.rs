//! Moves everything that a store holds: into a file, out of a file, and on after a restore.
//!
//! Invariants: a file holds the state of one revision; secrets stay sealed in it. What comes out of a file, or of a backup by other means,
//! is of a higher generation than before, so that versions never go back, and is sealed anew for it.

pub mod archive;
mod error;
mod export;
mod import;
mod record;
mod target;

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    ports::{Clock, Random},
    secret::seal::SealKey,
};
use proxyxai_proto::store::v1::Counter;

use crate::{
    bootstrap,
    keyring::rotate,
    store::{Op, Store, keyspace::Key},
};

pub use archive::{Archive, ArchiveError};
pub use error::TransferError;
pub use export::Export;
pub use import::{Import, Imported, import};

use record::Record;

/// What became of a store that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its generation now.
    pub generation: u64,
    /// Why not everything is sealed anew yet.
    pub left: Option<String>,
}

/// Raises the generation of a store that was put back from a backup by other means than [`import()`]: to be done before any control plane
/// starts on it. What it holds is sealed anew for the new generation; when that is cut short, the next start ends it.
///
/// # Errors
/// When the store is empty, or cannot be opened with this key.
pub async fn restored(
    store: &Arc<dyn Store>,
    key: SealKey,
    random: &dyn Random,
    clock: &dyn Clock,
) -> Result<Restored, TransferError> {
    if store.get(&Key::Format.to_string()).await?.is_none()
        && store.get(&Key::Import.to_string()).await?.is_none()
    {
        return Err(TransferError::Empty);
    }
    let deployment = bootstrap::deployment(store, random, clock, key.into()).await?;
    let keyring = &deployment.keyring;
    let generation = deployment.generation.saturating_add(1);
    let raise = Op::Put(
        Key::Generation.to_string(),
        Counter { value: generation }.encode_to_vec(),
    );
    let now = clock.unix_ms();
    let record = Record::new(store, now, "RestoreStore")?;
    let asked = record.asked();
    rotate::add_data_key(keyring, random, now, generation, &[raise], &asked).await?;
    let tidied = rotate::tidy(keyring, random).await;
    Ok(Restored {
        generation,
        left: tidied.err().map(|fault| fault.to_string()),
    })
}
