//! Secrets of upstream keys on their way into the store and out of it.

use proxyxai_core::{
    ports::{Random, random_bytes},
    secret::seal::{SealKey, open, seal},
};
use proxyxai_proto::config::v1::{Resource, UpstreamKey, resource::Kind};

use crate::status::Fault;

/// Seals under the key-encryption key, each secret for its place.
pub(crate) struct Sealing {
    pub(super) kek: SealKey,
    pub(super) generation: u64,
}

impl Sealing {
    pub(super) fn sealed(
        &self,
        random: &dyn Random,
        key: &str,
        resource: &Resource,
    ) -> Result<Resource, Fault> {
        map_secret(resource.clone(), |secret| {
            seal(&self.kek, random_bytes(random), &self.place(key), secret)
                .map_err(|error| Fault::Defect(error.to_string()))
        })
    }

    /// # Errors
    /// Says why a secret does not open.
    pub(super) fn opened(&self, key: &str, resource: Resource) -> Result<Resource, String> {
        map_secret(resource, |sealed| {
            let plain = open(&self.kek, &self.place(key), sealed).map_err(|error| {
                format!("its secret cannot be opened: {error}; restore the store from a backup, or give it anew")
            })?;
            Ok(plain.to_vec())
        })
    }

    /// Where a secret stands: a ciphertext that is moved does not open.
    fn place(&self, key: &str) -> Vec<u8> {
        [key.as_bytes(), &[0], &self.generation.to_le_bytes()].concat()
    }
}

/// Replaces the secret of an upstream key; other resources have none.
pub(crate) fn map_secret<E>(
    resource: Resource,
    map: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Resource, E> {
    match resource.kind {
        Some(Kind::UpstreamKey(key)) => {
            let secret = map(&key.secret)?;
            Ok(Resource {
                kind: Some(Kind::UpstreamKey(UpstreamKey { secret, ..key })),
            })
        }
        other => Ok(Resource { kind: other }),
    }
}
