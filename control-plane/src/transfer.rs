//! Moves everything that a store holds: into a file, out of a file, and on after a restore.
//!
//! Invariants: a file holds the state of one revision; secrets stay sealed in it. What comes out of a file, or of a backup by other means,
//! is of a higher generation than before, so that versions never go back, and is sealed anew for it.

pub mod archive;
mod export;
mod import;
mod record;

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    ports::{Clock, Random},
    secret::seal::SealKey,
};
use proxyxai_proto::store::v1::Counter;

use tonic::{Code, Status};

use crate::{
    app::StartError,
    bootstrap,
    keyring::rotate,
    status::Fault,
    store::{Op, Store, StoreError, keyspace::Key},
};

pub use archive::{Archive, ArchiveError};
pub use export::Export;
use record::Record;

pub use import::{Import, Imported, import};

/// Why a store was not moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is nothing to move.
    #[error("the store is empty: nothing was ever started on it")]
    Empty,
    /// There is something that would be lost.
    #[error(
        "the store is not empty (deployment {deployment}); name another one, or say --replace to delete what it holds"
    )]
    NotEmpty {
        /// Id of the deployment there.
        deployment: String,
    },
    /// The file is of a format that is not read.
    #[error(
        "the file holds a store of format {found}, this program reads format {read}; use the version of xai that wrote it"
    )]
    Format {
        /// That of the file.
        found: u64,
        /// That of this program.
        read: u64,
    },
    /// Secrets cannot be opened.
    #[error(
        "the secrets in the file are sealed under key {sealed_by}, but the key-encryption key given is {given}; name the right one by the setting `key_encryption_key`"
    )]
    OtherKey {
        /// Id of the key that is needed.
        sealed_by: String,
        /// Id of the key at hand.
        given: String,
    },
    /// Something else writes to the store.
    #[error(
        "something else writes to the store; stop every control plane on it, then run this again"
    )]
    Disturbed,
    /// An older program wrote the store.
    #[error(
        "the store has format {found}; start a gateway with this xai on it once, which takes it over, then try again"
    )]
    Old {
        /// That of the store.
        found: u64,
    },
    /// The store failed, or what it holds cannot be read.
    #[error("{}", .0.message())]
    Failed(Box<Status>),
}

impl From<Fault> for TransferError {
    fn from(fault: Fault) -> Self {
        Self::Failed(Box::new(fault.into()))
    }
}

impl From<TransferError> for Status {
    fn from(error: TransferError) -> Self {
        let code = match &error {
            TransferError::Failed(status) => status.code(),
            TransferError::Archive(_) => Code::InvalidArgument,
            TransferError::Start(_)
            | TransferError::Empty
            | TransferError::NotEmpty { .. }
            | TransferError::Format { .. }
            | TransferError::Old { .. }
            | TransferError::OtherKey { .. }
            | TransferError::Disturbed => Code::FailedPrecondition,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        Fault::from(error).into()
    }
}

/// What became of a store that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its generation now.
    pub generation: u64,
    /// Why not everything is sealed anew yet.
    pub left: Option<String>,
}

/// Raises the generation of a store that was put back from a backup by other means than [`import`]: to be done before any control plane
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
