//! Errors of the control plane as gRPC codes with `google.rpc` details: one table, so that the same fault always looks the same.

use std::time::Duration;

use proxyxai_core::{access::Refusal, secret::seal::SealError, snapshot::Rejection};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};

use crate::store::StoreError;

/// Whose reasons the words in `ErrorInfo` are.
const DOMAIN: &str = "proxyxai";

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// What was sent cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The caller may not do it.
    #[error("{0}")]
    Denied(Refusal),
    /// Fields of what was sent cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Fields(Vec<WrongField>),
    /// What is named does not exist, or the caller does not see it; both are told in the same words.
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
    /// Others depend on the object.
    #[error("the {what} `{id}` {why}")]
    InUse {
        /// Its kind.
        what: &'static str,
        /// Its id or path.
        id: String,
        /// By whom, and what to do first.
        why: String,
    },
    /// It was written since the caller read it.
    #[error(
        "the {what} `{id}` was changed since it was read (version {given}, now {current}); read it again, and decide anew"
    )]
    Stale {
        /// Its kind.
        what: &'static str,
        /// Its id.
        id: String,
        /// The version that the caller read.
        given: u64,
        /// The version that it has.
        current: u64,
    },
    /// The change would make the configuration invalid.
    #[error("the change does not fit: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rejected(Vec<Rejection>),
    /// One object of a manifest.
    #[error("{name}: {fault}")]
    Object {
        /// Its place in the manifest.
        index: usize,
        /// As people name it.
        name: String,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
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

/// A field that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub(crate) struct WrongField {
    /// Its name in the request.
    pub(crate) field: &'static str,
    /// What is wrong, and what would be right.
    pub(crate) what: String,
}

impl Fault {
    /// One field that cannot be used.
    pub(crate) fn field(field: &'static str, what: impl ToString) -> Self {
        Self::Fields(vec![WrongField {
            field,
            what: what.to_string(),
        }])
    }

    /// A refusal about an object. One that the caller does not see is not found, so that names do not leak.
    pub(crate) fn refused(refusal: Refusal, what: &'static str, id: &str) -> Self {
        if refusal == Refusal::Hidden {
            let id = id.to_owned();
            Self::NotFound { what, id }
        } else {
            Self::Denied(refusal)
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Object { fault, .. } => fault.code(),
            Self::Invalid(_) | Self::Fields(_) | Self::Rejected(_) => Code::InvalidArgument,
            Self::Denied(_) => Code::PermissionDenied,
            Self::NotFound { .. } => Code::NotFound,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Precondition(_) | Self::InUse { .. } => Code::FailedPrecondition,
            Self::Contended | Self::Stale { .. } => Code::Aborted,
            Self::Unseen => Code::DeadlineExceeded,
            Self::Damaged(_) => Code::DataLoss,
            Self::Store(StoreError::TooLarge { .. }) => Code::ResourceExhausted,
            Self::Store(StoreError::Failed { .. } | StoreError::Closed) => Code::Unavailable,
            // As the code is defined: the change may have been made.
            Self::Store(StoreError::Ambiguous { .. }) => Code::DeadlineExceeded,
            Self::Store(StoreError::Twice(_) | StoreError::Compacted) | Self::Defect(_) => {
                Code::Internal
            }
        }
    }

    /// The reason in one word, for `ErrorInfo`.
    fn reason(&self) -> &'static str {
        match self {
            Self::Object { fault, .. } => fault.reason(),
            Self::Invalid(_) | Self::Fields(_) => "INVALID_FIELD",
            Self::Rejected(_) => "DOES_NOT_FIT",
            Self::Denied(_) => "DENIED",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::Exists { .. } => "EXISTS",
            Self::Precondition(_) => "PRECONDITION",
            Self::InUse { .. } => "IN_USE",
            Self::Stale { .. } => "STALE_RESOURCE_VERSION",
            Self::Contended => "CONTENDED",
            Self::Unseen => "NOT_SEEN_YET",
            Self::Damaged(_) => "STORE_DAMAGED",
            Self::Store(StoreError::TooLarge { .. }) => "TOO_LARGE",
            Self::Store(StoreError::Failed { .. } | StoreError::Closed) => "STORE_UNAVAILABLE",
            Self::Store(StoreError::Ambiguous { .. }) => "MAY_BE_DONE",
            Self::Store(StoreError::Twice(_) | StoreError::Compacted) | Self::Defect(_) => "DEFECT",
        }
    }

    /// What is wrong with the object at a place.
    fn violations(&self, place: &str) -> Vec<FieldViolation> {
        if let Self::Fields(fields) = self {
            let violation = |one: &WrongField| {
                FieldViolation::new(format!("{place}.{}", one.field), one.what.as_str())
            };
            return fields.iter().map(violation).collect();
        }
        vec![FieldViolation::new(place, self.to_string())]
    }

    fn details(&self) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason(), DOMAIN, []);
        let sentence = self.to_string();
        match self {
            Self::Object { index, fault, .. } => {
                details = fault.details();
                details.set_bad_request(fault.violations(&format!("objects[{index}]")));
            }
            Self::Fields(fields) => {
                let violation =
                    |one: &WrongField| FieldViolation::new(one.field, one.what.as_str());
                details.set_bad_request(fields.iter().map(violation).collect::<Vec<_>>());
            }
            Self::Rejected(rejections) => {
                let violation = |one: &Rejection| {
                    FieldViolation::new(one.name.to_string(), one.reason.as_str())
                };
                details.set_bad_request(rejections.iter().map(violation).collect::<Vec<_>>());
            }
            Self::NotFound { what, id } | Self::Exists { what, id } => {
                details.set_resource_info(*what, id.as_str(), "", sentence);
            }
            Self::Precondition(why) => {
                let violation = PreconditionViolation::new(self.reason(), "", why.as_str());
                details.set_precondition_failure(vec![violation]);
            }
            Self::InUse { what, id, .. } => {
                let subject = format!("{what} {id}");
                let violation = PreconditionViolation::new(self.reason(), subject, sentence);
                details.set_precondition_failure(vec![violation]);
            }
            Self::Stale { what, id, .. } => {
                details.set_resource_info(*what, id.as_str(), "", sentence);
            }
            Self::Contended => {
                details.set_retry_info(Some(Duration::from_millis(100)));
            }
            Self::Store(StoreError::Failed { .. } | StoreError::Closed) => {
                details.set_retry_info(Some(Duration::from_secs(1)));
            }
            Self::Invalid(_)
            | Self::Denied(_)
            | Self::Unseen
            | Self::Store(
                StoreError::TooLarge { .. }
                | StoreError::Ambiguous { .. }
                | StoreError::Twice(_)
                | StoreError::Compacted,
            )
            | Self::Damaged(_)
            | Self::Defect(_) => {}
        }
        details
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::with_error_details(fault.code(), fault.to_string(), fault.details())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_programs_need() {
        let check = |fault: Fault, code: Code, reason: &str, want: &str| {
            let status = Status::from(fault);
            let details = status.get_error_details();
            assert_eq!(status.code(), code, "{status:?}");
            let info = details.error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str()),
                (reason, DOMAIN)
            );
            let shown = format!("{details:?}");
            assert!(shown.contains(want), "{shown} does not say {want:?}");
        };
        check(
            Fault::field("name", "is empty"),
            Code::InvalidArgument,
            "INVALID_FIELD",
            r#"FieldViolation { field: "name", description: "is empty""#,
        );
        check(
            Fault::InUse {
                what: "provider",
                id: "p".into(),
                why: "has 2 upstream keys; delete those first".into(),
            },
            Code::FailedPrecondition,
            "IN_USE",
            r#"subject: "provider p", description: "the provider `p` has 2 upstream keys; delete those first""#,
        );
        check(
            Fault::Stale {
                what: "route",
                id: "r".into(),
                given: 3,
                current: 5,
            },
            Code::Aborted,
            "STALE_RESOURCE_VERSION",
            r#"resource_name: "r""#,
        );
        check(
            Fault::NotFound {
                what: "account",
                id: "x".into(),
            },
            Code::NotFound,
            "NOT_FOUND",
            r#"resource_type: "account", resource_name: "x""#,
        );
        check(
            Fault::Contended,
            Code::Aborted,
            "CONTENDED",
            "retry_delay: Some(100ms)",
        );
        check(
            Fault::Store(StoreError::Closed),
            Code::Unavailable,
            "STORE_UNAVAILABLE",
            "retry_delay: Some(1s)",
        );
    }
}
