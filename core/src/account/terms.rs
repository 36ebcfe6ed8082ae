//! On what terms a virtual key works: until when, for what, and by which of its secrets.
//!
//! Most keys have none and are told by their record alone; what is here is kept beside the records, for those keys that have some.

use std::sync::Arc;

use proxyxai_proto::config::v1 as proto;

use super::{
    key::KeyDigest,
    limits::{InvalidLimit, Limits},
};
use crate::snapshot::KeyRecord;

/// A virtual key, as it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Which one it is.
    pub record: KeyRecord,
    /// On what terms it works.
    pub terms: Terms,
}

/// On what terms a key works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Refused from then on, in Unix milliseconds; [`NEVER`] for a key without an end.
    pub expires_unix_ms: i64,
    /// Its own lists, shared by all keys with the same ones; `None` where it has none.
    pub limits: Option<Arc<Limits>>,
    /// Which of its secrets was shown.
    pub secret: SecretAge,
}

/// The end of a key without an end.
pub const NEVER: i64 = i64::MAX;

/// Which secret of a key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretAge {
    /// The one in use.
    Current,
    /// The one before the last rotation, which works on for a while.
    Previous,
}

impl Default for Terms {
    /// Those of a key that has none of its own.
    fn default() -> Self {
        Self {
            expires_unix_ms: NEVER,
            limits: None,
            secret: SecretAge::Current,
        }
    }
}

impl Terms {
    /// The terms of a key, shown by its current secret.
    ///
    /// # Errors
    /// The first entry of a list that cannot be used.
    pub fn of(key: &proto::VirtualKey) -> Result<Self, InvalidLimit> {
        let limits = limits_of(key)?;
        Ok(Self {
            expires_unix_ms: match key.expires_unix_ms {
                0 => NEVER,
                end => end,
            },
            limits: (!limits.is_empty()).then(|| Arc::new(limits)),
            secret: SecretAge::Current,
        })
    }

    /// The terms by the secret before the last rotation, which works until then at most.
    #[must_use]
    pub fn by_previous(self, until_unix_ms: i64) -> Self {
        Self {
            expires_unix_ms: self.expires_unix_ms.min(until_unix_ms),
            secret: SecretAge::Previous,
            ..self
        }
    }
}

impl Key {
    /// Whether the key works at this time, whatever is asked for.
    ///
    /// # Errors
    /// Why it does not.
    pub fn active(&self, now_unix_ms: i64) -> Result<(), KeyRefusal> {
        match (self.record.disabled, self.terms.secret) {
            (true, _) => Err(KeyRefusal::Disabled),
            (false, _) if now_unix_ms < self.terms.expires_unix_ms => Ok(()),
            (false, SecretAge::Current) => Err(KeyRefusal::Expired),
            (false, SecretAge::Previous) => Err(KeyRefusal::Replaced),
        }
    }
}

/// Whether a key has terms of its own, so that its record alone does not tell whether it works.
pub fn has_terms(key: &proto::VirtualKey) -> bool {
    key.expires_unix_ms != 0
        || !key.previous_digest.is_empty()
        || !key.allowed_models.is_empty()
        || !key.allowed_endpoints.is_empty()
        || !key.allowed_networks.is_empty()
}

/// The digest of a key before its last rotation.
pub fn previous_digest(key: &proto::VirtualKey) -> Option<KeyDigest> {
    key.previous_digest
        .as_slice()
        .try_into()
        .ok()
        .map(KeyDigest)
}

/// A key's own lists.
///
/// # Errors
/// The first entry that cannot be used.
pub fn limits_of(key: &proto::VirtualKey) -> Result<Limits, InvalidLimit> {
    Limits::parse(
        &key.allowed_models,
        &key.allowed_endpoints,
        &key.allowed_networks,
    )
}

/// Why a key does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// By an administrator.
    #[error("is disabled; ask its administrator to enable it")]
    Disabled,
    /// Its time is over.
    #[error("has expired; ask its administrator for another one")]
    Expired,
    /// It has another secret now.
    #[error("was rotated, and the time of this secret is over; use the new secret")]
    Replaced,
}
