//! Virtual keys. The key itself appears in one answer, that of its making; after that only its digest exists.

use std::sync::Arc;

use proxyxai_core::{
    access::{Caller, Permission, may},
    account::{
        key::{self, GeneratedKey, PREFIX, Pepper},
        rules,
    },
    ports::random_bytes,
    secret::ExposeSecret as _,
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::{
        CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest, DeleteKeyResponse, GetKeyRequest,
        GetKeyResponse, KeyView, ListKeysRequest, ListKeysResponse, ManagedBy, UpdateKeyRequest,
        UpdateKeyResponse, key_service_server::KeyService,
    },
    config::v1::{VirtualKey, resource::Kind},
    store::v1::StoredResource,
};
use tonic::{Request, Response, Status};

use super::{accounts::find_account, object, page, with};
use crate::{
    auth,
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

pub(crate) struct KeyServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) pepper: Pepper,
}

/// Makes a virtual key of a text that was generated.
pub(crate) async fn create(
    config: &ConfigStore,
    caller: &Caller,
    pepper: &Pepper,
    key: &GeneratedKey,
    account: &str,
    name: &str,
) -> Result<(), Fault> {
    rules::check_account_name(name).map_err(|error| Fault::Invalid(error.to_string()))?;
    let created = config.clock.unix_ms();
    let edit = |state: &State| {
        let at = find_account(state, caller, Permission::Write, account)?;
        let virtual_key = VirtualKey {
            id: key.id.clone(),
            account_id: state.snapshot.accounts.id(at).to_owned(),
            name: name.to_owned(),
            disabled: false,
            digest: pepper.digest_of(key).0.to_vec(),
        };
        Ok((
            vec![Edit::Put(object(
                Kind::VirtualKey(virtual_key),
                ManagedBy::Admin,
                created,
            ))],
            (),
        ))
    };
    config.edit(caller, "CreateKey", edit).await
}

#[tonic::async_trait]
impl KeyService for KeyServer {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let key = key::generate(random_bytes(self.config.random()));
        create(
            &self.config,
            &caller,
            &self.pepper,
            &key,
            &request.account,
            &request.name,
        )
        .await?;
        Ok(Response::new(CreateKeyResponse {
            key: Some(self.view(&key.id)?),
            secret: key.text.expose_secret().to_owned(),
        }))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let state = self.config.state();
        let under = find_account(&state, &caller, Permission::Read, &request.under)?;
        let accounts = &state.snapshot.accounts;
        let inside = state
            .of_kind(ResourceKind::VirtualKey)
            .filter_map(|stored| view(&state, stored))
            .filter(|view| {
                accounts
                    .get(&view.account_id)
                    .is_some_and(|at| accounts.in_subtree(at, under))
            });
        let (keys, next_page_token) = page(
            inside,
            |view| view.id.clone(),
            request.page_size,
            &request.page_token,
        );
        Ok(Response::new(ListKeysResponse {
            keys,
            next_page_token,
        }))
    }

    async fn get_key(
        &self,
        request: Request<GetKeyRequest>,
    ) -> Result<Response<GetKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let id = request.into_inner().id;
        stored(&self.config.state(), &caller, Permission::Read, &id)?;
        Ok(Response::new(GetKeyResponse {
            key: Some(self.view(&id)?),
        }))
    }

    async fn update_key(
        &self,
        request: Request<UpdateKeyRequest>,
    ) -> Result<Response<UpdateKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        if let Some(name) = &request.name {
            rules::check_account_name(name).map_err(|error| Fault::Invalid(error.to_string()))?;
        }
        let edit = |state: &State| {
            let (stored, mut key) = stored(state, &caller, Permission::Write, &request.id)?;
            if let Some(name) = &request.name {
                key.name.clone_from(name);
            }
            if let Some(disabled) = request.disabled {
                key.disabled = disabled;
            }
            Ok((vec![Edit::Put(with(&stored, Kind::VirtualKey(key)))], ()))
        };
        self.config.edit(&caller, "UpdateKey", edit).await?;
        Ok(Response::new(UpdateKeyResponse {
            key: Some(self.view(&request.id)?),
        }))
    }

    async fn delete_key(
        &self,
        request: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let id = request.into_inner().id;
        let edit = |state: &State| {
            stored(state, &caller, Permission::Write, &id)?;
            Ok((
                vec![Edit::Delete(ResourceName {
                    kind: ResourceKind::VirtualKey,
                    id: id.clone(),
                })],
                (),
            ))
        };
        self.config.edit(&caller, "DeleteKey", edit).await?;
        Ok(Response::new(DeleteKeyResponse {}))
    }
}

impl KeyServer {
    fn view(&self, id: &str) -> Result<KeyView, Fault> {
        let state = self.config.state();
        let stored = state.get(ResourceKind::VirtualKey, id);
        stored
            .and_then(|stored| view(&state, stored))
            .ok_or_else(|| unknown(id))
    }
}

/// The key with this id, if the caller may do this with what is in its account.
fn stored(
    state: &State,
    caller: &Caller,
    permission: Permission,
    id: &str,
) -> Result<(StoredResource, VirtualKey), Fault> {
    let found = state
        .get(ResourceKind::VirtualKey, id)
        .ok_or_else(|| unknown(id))?;
    let kind = found.resource.as_ref().and_then(|it| it.kind.as_ref());
    let Some(Kind::VirtualKey(key)) = kind else {
        return Err(unknown(id));
    };
    let accounts = &state.snapshot.accounts;
    let at = accounts.get(&key.account_id).ok_or_else(|| unknown(id))?;
    may(caller, permission, accounts, at)
        .map_err(|refusal| Fault::refused(refusal, "virtual key", id))?;
    Ok((found.clone(), key.clone()))
}

fn view(state: &State, stored: &StoredResource) -> Option<KeyView> {
    let Some(Kind::VirtualKey(key)) = &stored.resource.as_ref()?.kind else {
        return None;
    };
    let accounts = &state.snapshot.accounts;
    Some(KeyView {
        id: key.id.clone(),
        name: key.name.clone(),
        account_path: accounts
            .get(&key.account_id)
            .map(|at| accounts.path(at))
            .unwrap_or_default(),
        account_id: key.account_id.clone(),
        disabled: key.disabled,
        hint: format!("{PREFIX}{}…", key.id),
        created_unix_ms: stored.created_unix_ms,
    })
}

fn unknown(id: &str) -> Fault {
    Fault::NotFound {
        what: "virtual key",
        id: id.to_owned(),
    }
}
