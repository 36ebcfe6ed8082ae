//! The keys that seal secrets: what there is of them, and their rotation.

use std::sync::Arc;

use proxyxai_core::ports::Random;
use proxyxai_proto::admin::v1::{
    GetKeyringRequest, GetKeyringResponse, KeyringView, RotateKeyringRequest,
    RotateKeyringResponse, secret_service_server::SecretService,
};
use tonic::{Request, Response, Status};

use crate::{
    audit::{Deed, Trail},
    auth,
    config_store::ConfigStore,
    keyring::{
        Keyring,
        asked::{self, Asked},
        rotate,
    },
    status::Fault,
};

pub(crate) struct SecretServer {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) trail: Arc<Trail>,
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
        let caller = auth::caller(&request)?;
        let state = self.config.state();
        let asked = Asked {
            trail: &self.trail,
            deed: Deed {
                caller: &caller,
                action: "RotateKeyring",
                accounts: &state.snapshot.accounts,
            },
        };
        // The key-encryption key first: the new data key is never sealed under the old one.
        if request.into_inner().key_encryption_key {
            let id = rotate::take_next_key(&self.keyring, &*self.random, &asked).await?;
            tracing::info!(%id, "the data keys are sealed under the next key-encryption key");
        }
        self.keyring.refresh().await?;
        let generation = self.keyring.now().generation();
        let now = self.config.clock.unix_ms();
        let (keyring, random) = (&self.keyring, &*self.random);
        rotate::add_data_key(keyring, random, now, generation, &[], &asked).await?;
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
        let mut view = asked::view(&self.keyring.now().ring)?;
        for key in &mut view.data_keys {
            key.secrets = uses.get(&key.id).copied().unwrap_or_default();
        }
        Ok(view)
    }
}
