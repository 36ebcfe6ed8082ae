//! Changes of the ring that somebody asked for, as the audit trail tells them: ids of keys, never what is sealed.

use prost::Message as _;
use proxyxai_core::secret::seal::{SealKeyId, sealed_by};
use proxyxai_proto::{
    admin::v1::{DataKeyView, KeyringView},
    store::v1 as stored,
};

use crate::{
    audit::{Deed, Trail},
    status::Fault,
    store::{Txn, keyspace::Key},
};

/// What the trail calls the ring, and by which name.
const OBJECT: (&str, &str) = ("keyring", "keyring");

/// Who asked for a change, and where it is recorded.
pub(crate) struct Asked<'a> {
    pub(crate) trail: &'a Trail,
    pub(crate) deed: Deed<'a>,
}

impl Asked<'_> {
    /// Commits a change of the ring together with its record. Says whether the ring was as it was before.
    pub(crate) async fn commit(
        &self,
        before: &stored::Keyring,
        after: &stored::Keyring,
        txn: Txn,
    ) -> Result<bool, Fault> {
        let (before, after) = (view(before)?.encode_to_vec(), view(after)?.encode_to_vec());
        let message = "proxyxai.admin.v1.KeyringView";
        let change = self
            .trail
            .change(OBJECT, Vec::new(), message, Some(&before), Some(&after))?;
        let done = self.trail.commit(&self.deed, vec![change], txn).await?;
        Ok(done.succeeded)
    }
}

/// The ring without what is sealed in it, and without how many secrets each key seals.
pub(crate) fn view(ring: &stored::Keyring) -> Result<KeyringView, Fault> {
    let place = Key::Keyring.to_string();
    let last = ring.keys.last().ok_or_else(|| super::no_ring(&place))?;
    let under = sealed_by(&last.sealed).map_err(|error| Fault::sealed(&place, &error))?;
    let data_keys = ring.keys.iter().map(|key| DataKeyView {
        id: SealKeyId(<[u8; 8]>::try_from(key.id.as_slice()).unwrap_or_default()).to_string(),
        generation: key.generation,
        created_unix_ms: key.created_unix_ms,
        secrets: 0,
    });
    Ok(KeyringView {
        key_encryption_key_id: under.to_string(),
        generation: last.generation,
        data_keys: data_keys.collect(),
    })
}
