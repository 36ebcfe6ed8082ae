//! Errors of the control plane as gRPC codes: one table, so that the same fault always looks the same.

use proxyxai_core::{secret::seal::SealError, snapshot::Rejection};
use tonic::{Code, Status};

use crate::store::StoreError;

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// What was sent cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// What is named does not exist.
    #[error("there is no {what} `{id}`; list them to see which there are")]
    NotFound {
        /// Its kind.
        what: &'static str,
        /// What was given.
        id: String,
    },
    /// What shall be made exists.
    #[error("the {what} `{id}` exists already; choose another one, or change that")]
    Exists {
        /// Its kind.
        what: &'static str,
        /// What was given.
        id: String,
    },
    /// Something else must be done first.
    #[error("{0}")]
    Precondition(String),
    /// The change would make the configuration invalid.
    #[error("the change does not fit: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rejected(Vec<Rejection>),
    /// Others changed the same things at the same time, again and again.
    #[error("others keep changing the same objects; try again")]
    Contended,
    /// The change is made, and did not come back from the store in time.
    #[error(
        "the change is made, but this replica of the control plane has not seen it yet; read it again before you repeat it"
    )]
    Unseen,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds was changed by something else than this program.
    #[error("{0}")]
    Damaged(String),
    /// Something that must hold does not.
    #[error("{0}; this is a defect of the control plane")]
    Defect(String),
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let code = match &fault {
            Fault::Invalid(_) | Fault::Rejected(_) => Code::InvalidArgument,
            Fault::NotFound { .. } => Code::NotFound,
            Fault::Exists { .. } => Code::AlreadyExists,
            Fault::Precondition(_) => Code::FailedPrecondition,
            Fault::Contended => Code::Aborted,
            Fault::Unseen => Code::DeadlineExceeded,
            Fault::Damaged(_) => Code::DataLoss,
            Fault::Store(StoreError::TooLarge { .. }) => Code::ResourceExhausted,
            Fault::Store(StoreError::Failed { .. } | StoreError::Closed) => Code::Unavailable,
            // As the code is defined: the change may have been made.
            Fault::Store(StoreError::Ambiguous { .. }) => Code::DeadlineExceeded,
            Fault::Store(StoreError::Twice(_) | StoreError::Compacted) | Fault::Defect(_) => {
                Code::Internal
            }
        };
        Self::new(code, fault.to_string())
    }
}

impl From<crate::store::keyspace::DamagedValue> for Fault {
    fn from(damage: crate::store::keyspace::DamagedValue) -> Self {
        Self::Damaged(damage.to_string())
    }
}

impl Fault {
    /// A secret at `key` of the store does not open.
    pub(crate) fn sealed(key: &str, error: &SealError) -> Self {
        Self::Damaged(format!(
            "the secret at `{key}` in the store cannot be opened: {error}; restore the store from a backup"
        ))
    }
}
