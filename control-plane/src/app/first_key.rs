//! The first virtual key of a deployment: made once, and never again when it was deleted.

use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Role},
    account::{key::GeneratedKey, tree::ROOT},
    snapshot::ResourceKind,
};
use proxyxai_proto::store::v1::Text;

use super::{ControlPlane, StartError, process};
use crate::{
    admin::keys,
    status::Fault,
    store::{
        Compare, Op, Txn,
        keyspace::{self, Key},
    },
};

/// What became of the first virtual key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstKey {
    /// It was made of the key given.
    Created,
    /// It was made before and exists.
    Exists {
        /// Its id.
        id: String,
    },
    /// It was made before and deleted since.
    Gone,
}

impl ControlPlane {
    /// Makes the first virtual key of the deployment from `key`, unless one was ever made.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn adopt_first_key(&self, key: &GeneratedKey) -> Result<FirstKey, StartError> {
        let mark = Key::FirstKey.to_string();
        let entry = self.store.get(&mark).await.map_err(Fault::from)?;
        let text = entry.map(|e| keyspace::decode::<Text>(&mark, &e.value));
        let exists = |id: &str| {
            let state = self.config.state();
            state.get(ResourceKind::VirtualKey, id).is_some()
        };
        if let Some(text) = text.transpose().map_err(Fault::from)? {
            return Ok(if exists(&text.value) {
                FirstKey::Exists { id: text.value }
            } else {
                FirstKey::Gone
            });
        }
        // The key comes first and the mark after it: whatever a crash leaves between them is completed at the next start, and a key
        // that was deleted once is never made again.
        if !exists(&key.id) {
            let start = Caller::of_deployment(process::START, Role::Root);
            keys::create(&self.config, &start, &self.pepper, key, ROOT, "first").await?;
        }
        let value = key.id.clone();
        let note = Txn {
            compares: vec![Compare::absent(mark.clone())],
            then: vec![Op::Put(mark, Text { value }.encode_to_vec())],
        };
        self.store.txn(note).await.map_err(Fault::from)?;
        Ok(FirstKey::Created)
    }

    /// Whether this is the current secret of a virtual key: it is not after that was rotated.
    pub fn knows(&self, key: &GeneratedKey) -> bool {
        let state = self.config.state();
        let digest = self.pepper.digest_of(key);
        state.snapshot.keys.get(&digest).is_some()
    }
}
