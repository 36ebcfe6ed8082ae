//! Why a store was not moved, and what to do about it.

use tonic::{Code, Status};

use super::ArchiveError;
use crate::{app::StartError, status::Fault, store::StoreError};

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
