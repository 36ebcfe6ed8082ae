//! A data key as the ring holds it: sealed under the key-encryption key, bound to its id and its generation.

use std::sync::Arc;

use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::seal::{SealError, SealKey, sealed_by, unwrap_key, wrap},
};
use proxyxai_proto::store::v1::DataKey;

use crate::{status::Fault, store::keyspace::Key};

fn ring_associated(id: &[u8], generation: u64) -> Vec<u8> {
    let place = Key::Keyring.to_string();
    [place.as_bytes(), &[0], id, &generation.to_le_bytes()].concat()
}

pub(super) fn wrapped(
    random: &dyn Random,
    under: &SealKey,
    key: &SealKey,
    generation: u64,
    created_unix_ms: i64,
) -> Result<DataKey, Fault> {
    let id = key.id().0;
    let sealed = wrap(
        under,
        random_bytes(random),
        &ring_associated(&id, generation),
        key,
    )
    .map_err(|error| Fault::Defect(error.to_string()))?;
    Ok(DataKey {
        id: id.to_vec(),
        sealed,
        generation,
        created_unix_ms,
    })
}

/// A data key, and the key-encryption key that it was sealed under.
pub(super) fn unwrapped(
    data_key: &DataKey,
    given: &[Arc<SealKey>],
) -> Result<(SealKey, Arc<SealKey>), UnreadableRing> {
    let place = Key::Keyring.to_string();
    let damaged =
        |error: SealError| UnreadableRing::Damaged(Fault::sealed(&place, &error).to_string());
    let id = sealed_by(&data_key.sealed).map_err(damaged)?;
    let under = given.iter().find(|key| key.id() == id);
    let under = under.ok_or_else(|| UnreadableRing::OtherKey {
        sealed_by: id.to_string(),
        given: given
            .last()
            .map(|key| key.id().to_string())
            .unwrap_or_default(),
    })?;
    let associated = ring_associated(&data_key.id, data_key.generation);
    let key = unwrap_key(under, &associated, &data_key.sealed).map_err(damaged)?;
    if key.id().0 == *data_key.id {
        Ok((key, Arc::clone(under)))
    } else {
        Err(damaged(SealError::Content))
    }
}

pub(super) fn no_ring(key: &str) -> Fault {
    Fault::Damaged(format!(
        "the store lacks `{key}`, without which no secret can be opened; restore it from a backup"
    ))
}

/// Why a ring cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnreadableRing {
    /// It is sealed under a key that this process was not given.
    #[error(
        "the data keys in the store are sealed under key-encryption key {sealed_by}, but this process was given {given}; give it the other one and start it again"
    )]
    OtherKey {
        /// The key that is needed.
        sealed_by: String,
        /// The key at hand.
        given: String,
    },
    /// It was changed.
    #[error("{0}")]
    Damaged(String),
}

impl From<UnreadableRing> for Fault {
    fn from(unreadable: UnreadableRing) -> Self {
        match unreadable {
            UnreadableRing::OtherKey { .. } => Self::Precondition(unreadable.to_string()),
            UnreadableRing::Damaged(text) => Self::Damaged(text),
        }
    }
}
