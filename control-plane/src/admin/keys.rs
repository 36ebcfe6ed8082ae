//! Virtual keys. The key itself appears in two answers, those of its making and of its rotation; after that only its digest exists.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Permission, may},
    account::{
        key::{self, GeneratedKey, PREFIX, Pepper},
        limits::Dimension,
        rules,
        terms::limits_of,
    },
    ports::random_bytes,
    secret::ExposeSecret as _,
    snapshot::{ResourceKind, ResourceName, key_table::KeyId},
};
use proxyxai_proto::{
    admin::v1::{
        CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest, DeleteKeyResponse, GetKeyRequest,
        GetKeyResponse, KeyView, ListKeysRequest, ListKeysResponse, ManagedBy, RotateKeyRequest,
        RotateKeyResponse, UpdateKeyRequest, UpdateKeyResponse, key_service_server::KeyService,
    },
    config::v1::{VirtualKey, resource::Kind},
    store::v1::StoredResource,
};
use tonic::{Request, Response, Status};

use super::{
    accounts::find_account,
    object, page, with,
    writing::{call_mark, check_limits, check_version, made_before, name_filter},
};
use crate::{
    auth,
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

/// Longest time that a replaced secret may work on.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

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
    let request = CreateKeyRequest {
        account: account.to_owned(),
        name: name.to_owned(),
        ..CreateKeyRequest::default()
    };
    make(config, caller, pepper, key, &request)
        .await
        .map(|_| ())
}

/// Makes the key that is asked for; gives the id of the one that the same call made before, if one did.
async fn make(
    config: &ConfigStore,
    caller: &Caller,
    pepper: &Pepper,
    key: &GeneratedKey,
    request: &CreateKeyRequest,
) -> Result<String, Fault> {
    // The end is not compared: who repeats a call has often counted it from another now.
    let told = CreateKeyRequest {
        expires_unix_ms: 0,
        ..request.clone()
    };
    let mark = call_mark(
        caller,
        "CreateKey",
        &request.idempotency_key,
        &told.encode_to_vec(),
    )?;
    let now = config.clock.unix_ms();
    let edit = |state: &State| {
        if let Some(made) = made_before(state, ResourceKind::VirtualKey, mark.as_ref(), now)? {
            return Ok((Vec::new(), made));
        }
        let stored = new(state, caller, pepper, key, request, now)?;
        let created_by = mark.clone();
        Ok((
            vec![Edit::Put(StoredResource {
                created_by,
                ..stored
            })],
            key.id.clone(),
        ))
    };
    config.edit(caller, "CreateKey", edit).await
}

/// A new key of a text that was generated.
pub(crate) fn new(
    state: &State,
    caller: &Caller,
    pepper: &Pepper,
    key: &GeneratedKey,
    request: &CreateKeyRequest,
    now_unix_ms: i64,
) -> Result<StoredResource, Fault> {
    check_name(&request.name)?;
    check_end(request.expires_unix_ms, now_unix_ms)?;
    let at = find_account(state, caller, Permission::Write, &request.account)?;
    let virtual_key = VirtualKey {
        id: key.id.clone(),
        account_id: state.snapshot.accounts.id(at).to_owned(),
        name: request.name.clone(),
        digest: pepper.digest_of(key).0.to_vec(),
        expires_unix_ms: request.expires_unix_ms,
        allowed_models: request.allowed_models.clone(),
        allowed_endpoints: request.allowed_endpoints.clone(),
        allowed_networks: request.allowed_networks.clone(),
        ..VirtualKey::default()
    };
    check_limits(state, Some(at), limits_of(&virtual_key), &Dimension::ALL)?;
    Ok(object(
        Kind::VirtualKey(virtual_key),
        ManagedBy::Admin,
        now_unix_ms,
    ))
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
        let id = make(&self.config, &caller, &self.pepper, &key, &request).await?;
        let repeated = id != key.id;
        let secret = if repeated {
            String::new()
        } else {
            key.text.expose_secret().to_owned()
        };
        Ok(Response::new(CreateKeyResponse {
            key: Some(self.view(&id)?),
            secret,
            repeated,
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
        let (name, now) = (name_filter(&request.name)?, self.config.clock.unix_ms());
        let accounts = &state.snapshot.accounts;
        let wanted = |stored: &&StoredResource| {
            key_of(stored).is_some_and(|key| {
                let expired = key.expires_unix_ms != 0 && key.expires_unix_ms <= now;
                name.as_ref().is_none_or(|name| name.matches(&key.name))
                    && request.disabled.is_none_or(|d| d == key.disabled)
                    && request.expired.is_none_or(|e| e == expired)
                    && accounts
                        .get(&key.account_id)
                        .is_some_and(|at| accounts.in_subtree(at, under))
            })
        };
        let inside = state
            .after(ResourceKind::VirtualKey, &request.page_token)
            .filter(wanted)
            .filter_map(|stored| view(&state, stored));
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
        let now = self.config.clock.unix_ms();
        let edit = |state: &State| Ok((vec![update(state, &caller, &request, now)?], ()));
        self.config.edit(&caller, "UpdateKey", edit).await?;
        Ok(Response::new(UpdateKeyResponse {
            key: Some(self.view(&request.id)?),
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<RotateKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        if Duration::from_millis(request.overlap_ms) > MAX_OVERLAP {
            return Err(Fault::field(
                "overlap_ms",
                "a replaced secret works on for 30 days at most, which are 2592000000 ms",
            )
            .into());
        }
        let id = KeyId::new(&request.id).ok_or_else(|| unknown(&request.id))?;
        let new = key::regenerate(id, random_bytes(self.config.random()));
        let overlap = i64::try_from(request.overlap_ms).unwrap_or(i64::MAX);
        let end = self.config.clock.unix_ms().saturating_add(overlap);
        let edit = |state: &State| {
            let (stored, key) = stored(state, &caller, Permission::Write, &request.id)?;
            check_version(
                state,
                "virtual key",
                &name_of(&key.id),
                request.resource_version,
            )?;
            let key = VirtualKey {
                previous_digest: key.digest.clone(),
                previous_expires_unix_ms: end,
                digest: self.pepper.digest_of(&new).0.to_vec(),
                ..key
            };
            Ok((vec![Edit::Put(with(&stored, Kind::VirtualKey(key)))], ()))
        };
        self.config.edit(&caller, "RotateKey", edit).await?;
        Ok(Response::new(RotateKeyResponse {
            key: Some(self.view(&request.id)?),
            secret: new.text.expose_secret().to_owned(),
        }))
    }

    async fn delete_key(
        &self,
        request: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![delete(state, &caller, &request)?], ()));
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

/// A key that was just made, refused until it is enabled.
pub(crate) fn disabled(mut stored: StoredResource) -> StoredResource {
    if let Some(Kind::VirtualKey(key)) = stored.resource.as_mut().and_then(|r| r.kind.as_mut()) {
        key.disabled = true;
    }
    stored
}

/// Changes the fields that are given.
pub(crate) fn update(
    state: &State,
    caller: &Caller,
    request: &UpdateKeyRequest,
    now_unix_ms: i64,
) -> Result<Edit, Fault> {
    let (stored, key) = stored(state, caller, Permission::Write, &request.id)?;
    let name = name_of(&key.id);
    check_version(state, "virtual key", &name, request.resource_version)?;
    let key = changed(state, key, request, now_unix_ms)?;
    Ok(Edit::Put(with(&stored, Kind::VirtualKey(key))))
}

/// Takes a key away.
pub(crate) fn delete(
    state: &State,
    caller: &Caller,
    request: &DeleteKeyRequest,
) -> Result<Edit, Fault> {
    let (_, key) = stored(state, caller, Permission::Write, &request.id)?;
    let name = name_of(&key.id);
    check_version(state, "virtual key", &name, request.resource_version)?;
    Ok(Edit::Delete(name))
}

/// The key with the fields that are present in the request.
fn changed(
    state: &State,
    mut key: VirtualKey,
    request: &UpdateKeyRequest,
    now_unix_ms: i64,
) -> Result<VirtualKey, Fault> {
    if let Some(name) = &request.name {
        check_name(name)?;
        key.name.clone_from(name);
    }
    key.disabled = request.disabled.unwrap_or(key.disabled);
    if let Some(end) = request.expires_unix_ms {
        check_end(end, now_unix_ms)?;
        key.expires_unix_ms = end;
    }
    let mut written = Vec::new();
    for (dimension, given, list) in [
        (
            Dimension::Models,
            &request.allowed_models,
            &mut key.allowed_models,
        ),
        (
            Dimension::Endpoints,
            &request.allowed_endpoints,
            &mut key.allowed_endpoints,
        ),
        (
            Dimension::Networks,
            &request.allowed_networks,
            &mut key.allowed_networks,
        ),
    ] {
        if let Some(given) = given {
            list.clone_from(&given.values);
            written.push(dimension);
        }
    }
    let account = state.snapshot.accounts.get(&key.account_id);
    check_limits(state, account, limits_of(&key), &written)?;
    Ok(key)
}

fn check_name(name: &str) -> Result<(), Fault> {
    rules::check_account_name(name).map_err(|error| Fault::field("name", error))
}

fn check_end(expires_unix_ms: i64, now_unix_ms: i64) -> Result<(), Fault> {
    if expires_unix_ms == 0 || expires_unix_ms > now_unix_ms {
        return Ok(());
    }
    Err(Fault::field(
        "expires_unix_ms",
        "this time is over; give one that is to come, or disable the key",
    ))
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
    let key = key_of(found).ok_or_else(|| unknown(id))?;
    let accounts = &state.snapshot.accounts;
    let at = accounts.get(&key.account_id).ok_or_else(|| unknown(id))?;
    may(caller, permission, accounts, at)
        .map_err(|refusal| Fault::refused(refusal, "virtual key", id))?;
    Ok((found.clone(), key.clone()))
}

fn key_of(stored: &StoredResource) -> Option<&VirtualKey> {
    let Some(Kind::VirtualKey(key)) = &stored.resource.as_ref()?.kind else {
        return None;
    };
    Some(key)
}

fn view(state: &State, stored: &StoredResource) -> Option<KeyView> {
    let key = key_of(stored)?;
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
        expires_unix_ms: key.expires_unix_ms,
        allowed_models: key.allowed_models.clone(),
        allowed_endpoints: key.allowed_endpoints.clone(),
        allowed_networks: key.allowed_networks.clone(),
        previous_expires_unix_ms: key.previous_expires_unix_ms,
        resource_version: state.version(&name_of(&key.id)),
    })
}

fn name_of(id: &str) -> ResourceName {
    ResourceName {
        kind: ResourceKind::VirtualKey,
        id: id.to_owned(),
    }
}

fn unknown(id: &str) -> Fault {
    Fault::NotFound {
        what: "virtual key",
        id: id.to_owned(),
    }
}
