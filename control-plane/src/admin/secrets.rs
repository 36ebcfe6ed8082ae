//! The keys that seal secrets: what there is of them, and their rotation.

use std::sync::Arc;

use proxyxai_core::{
    ports::{Clock, Random},
    secret::seal::SealKeyId,
};
use proxyxai_proto::admin::v1::{
    DataKeyView, GetKeyringRequest, GetKeyringResponse, KeyringView, RotateKeyringRequest,
    RotateKeyringResponse, secret_service_server::SecretService,
};
use tonic::{Request, Response, Status};

use crate::{
    keyring::{Keyring, rotate},
    status::Fault,
};

pub(crate) struct SecretServer {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl SecretService for SecretServer {
    async fn get_keyring(
        &self,
        _: Request<GetKeyringRequest>,
    ) -> Result<Response<GetKeyringResponse>, Status> {
        Ok(Response::new(GetKeyringResponse {
            keyring: Some(self.view().await?),
        }))
    }

    async fn rotate_keyring(
        &self,
        request: Request<RotateKeyringRequest>,
    ) -> Result<Response<RotateKeyringResponse>, Status> {
        // The key-encryption key first: the new data key is never sealed under the old one.
        if request.into_inner().key_encryption_key {
            let id = rotate::take_next_key(&self.keyring, &*self.random).await?;
            tracing::info!(%id, "the data keys are sealed under the next key-encryption key");
        }
        self.keyring.refresh().await?;
        let generation = self.keyring.now().generation();
        let now = self.clock.unix_ms();
        rotate::add_data_key(&self.keyring, &*self.random, now, generation, &[]).await?;
        let sealed = rotate::tidy(&self.keyring, &*self.random).await?;
        tracing::info!(sealed, "secrets are sealed under a new data key");
        Ok(Response::new(RotateKeyringResponse {
            keyring: Some(self.view().await?),
            sealed,
        }))
    }
}

impl SecretServer {
    async fn view(&self) -> Result<KeyringView, Fault> {
        self.keyring.refresh().await?;
        let uses = rotate::uses(&self.keyring).await?;
        let now = self.keyring.now();
        let data_keys = now.ring.keys.iter().map(|key| {
            let id = <[u8; 8]>::try_from(key.id.as_slice()).unwrap_or_default();
            DataKeyView {
                id: SealKeyId(id).to_string(),
                generation: key.generation,
                created_unix_ms: key.created_unix_ms,
                secrets: uses.get(&id).copied().unwrap_or_default(),
            }
        });
        Ok(KeyringView {
            key_encryption_key_id: rotate::key_encryption_key_id(&now)?,
            generation: now.generation(),
            data_keys: data_keys.collect(),
        })
    }
}
