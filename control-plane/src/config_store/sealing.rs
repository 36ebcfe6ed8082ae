//! Secrets of upstream keys on their way into the store and out of it.

use std::sync::Arc;

use proxyxai_core::ports::Random;
use proxyxai_proto::config::v1::{Resource, UpstreamKey, resource::Kind};

use crate::{
    keyring::{Keyring, Keys},
    status::Fault,
};

/// Opens secrets with the keys of the deployment.
pub(crate) struct Sealing {
    pub(super) keyring: Arc<Keyring>,
    pub(super) generation: u64,
}

/// Seals each secret for its place.
pub(super) fn sealed(
    keys: &Keys,
    random: &dyn Random,
    key: &str,
    resource: &Resource,
) -> Result<Resource, Fault> {
    map_secret(resource.clone(), |secret| keys.seal(random, key, secret))
}

impl Sealing {
    /// # Errors
    /// Says why a secret does not open.
    pub(super) fn opened(&self, key: &str, resource: Resource) -> Result<Resource, String> {
        map_secret(resource, |sealed| {
            let plain = self.keyring.now().open(key, sealed).map_err(|error| {
                format!("its secret cannot be opened: {error}; restore the store from a backup, or give it anew")
            })?;
            Ok(plain.to_vec())
        })
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
