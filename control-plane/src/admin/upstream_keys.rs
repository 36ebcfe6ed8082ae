//! Upstream keys. Secrets go in and never come out; a fingerprint tells equal ones.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    account::{key::Pepper, rules},
    snapshot::{
        ProviderIndex, ResourceKind, ResourceName,
        compile::{check_upstream_key, check_upstream_secret},
    },
};
use proxyxai_proto::{
    admin::v1::{
        CreateUpstreamKeyRequest, CreateUpstreamKeyResponse, DeleteUpstreamKeyRequest,
        DeleteUpstreamKeyResponse, GetUpstreamKeyRequest, GetUpstreamKeyResponse,
        ListUpstreamKeysRequest, ListUpstreamKeysResponse, UpdateUpstreamKeyRequest,
        UpdateUpstreamKeyResponse, UpstreamKeyView,
        upstream_key_service_server::UpstreamKeyService,
    },
    config::v1::{UpstreamKey, resource::Kind},
    store::v1::{CallMark, StoredResource},
};
use tonic::{Request, Response, Status};

use super::{
    new_id, object, page,
    writing::{call_mark, check_version, made_before},
};
use crate::{
    auth,
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

pub(crate) struct UpstreamKeyServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) pepper: Pepper,
}

#[tonic::async_trait]
impl UpstreamKeyService for UpstreamKeyServer {
    async fn create_upstream_key(
        &self,
        request: Request<CreateUpstreamKeyRequest>,
    ) -> Result<Response<CreateUpstreamKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let id = if request.id.is_empty() {
            new_id(self.config.random(), "uk")
        } else {
            request.id.clone()
        };
        let fingerprint = fingerprint(&self.pepper, &clean(&request.secret)?);
        // What is remembered of the call holds the fingerprint in place of the secret.
        let told = CreateUpstreamKeyRequest {
            secret: fingerprint,
            ..request.clone()
        };
        let mark = call_mark(
            &caller,
            "CreateUpstreamKey",
            &request.idempotency_key,
            &told.encode_to_vec(),
        )?;
        let now = self.config.clock.unix_ms();
        let edit = |state: &State| {
            if let Some(made) = made_before(state, ResourceKind::UpstreamKey, mark.as_ref(), now)? {
                return Ok((Vec::new(), made));
            }
            let edit = create(state, &self.pepper, (&id, &request), mark.clone(), now)?;
            Ok((vec![edit], id.clone()))
        };
        let id = self.config.edit(&caller, "CreateUpstreamKey", edit).await?;
        Ok(Response::new(CreateUpstreamKeyResponse {
            upstream_key: Some(self.view(&id)?),
        }))
    }

    async fn list_upstream_keys(
        &self,
        request: Request<ListUpstreamKeysRequest>,
    ) -> Result<Response<ListUpstreamKeysResponse>, Status> {
        let request = request.into_inner();
        let state = self.config.state();
        let wanted = |view: &UpstreamKeyView| {
            (request.provider_id.is_empty() || request.provider_id == view.provider_id)
                && request
                    .disabled
                    .is_none_or(|wanted| wanted == view.disabled)
        };
        let all = state
            .after(ResourceKind::UpstreamKey, &request.page_token)
            .filter_map(|stored| view(&state, stored))
            .filter(wanted);
        let (upstream_keys, next_page_token) = page(
            all,
            |view| view.id.clone(),
            request.page_size,
            &request.page_token,
        );
        Ok(Response::new(ListUpstreamKeysResponse {
            upstream_keys,
            next_page_token,
        }))
    }

    async fn get_upstream_key(
        &self,
        request: Request<GetUpstreamKeyRequest>,
    ) -> Result<Response<GetUpstreamKeyResponse>, Status> {
        Ok(Response::new(GetUpstreamKeyResponse {
            upstream_key: Some(self.view(&request.into_inner().id)?),
        }))
    }

    async fn update_upstream_key(
        &self,
        request: Request<UpdateUpstreamKeyRequest>,
    ) -> Result<Response<UpdateUpstreamKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![update(state, &self.pepper, &request)?], ()));
        self.config.edit(&caller, "UpdateUpstreamKey", edit).await?;
        Ok(Response::new(UpdateUpstreamKeyResponse {
            upstream_key: Some(self.view(&request.id)?),
        }))
    }

    async fn delete_upstream_key(
        &self,
        request: Request<DeleteUpstreamKeyRequest>,
    ) -> Result<Response<DeleteUpstreamKeyResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![delete(state, &request)?], ()));
        self.config.edit(&caller, "DeleteUpstreamKey", edit).await?;
        Ok(Response::new(DeleteUpstreamKeyResponse {}))
    }
}

impl UpstreamKeyServer {
    fn view(&self, id: &str) -> Result<UpstreamKeyView, Fault> {
        let state = self.config.state();
        let stored = state.get(ResourceKind::UpstreamKey, id);
        stored
            .and_then(|stored| view(&state, stored))
            .ok_or_else(|| unknown(id))
    }
}

/// Adds a key to a pool, under this id.
pub(crate) fn create(
    state: &State,
    pepper: &Pepper,
    (id, request): (&str, &CreateUpstreamKeyRequest),
    created_by: Option<CallMark>,
    now_unix_ms: i64,
) -> Result<Edit, Fault> {
    rules::check_id(id).map_err(|error| Fault::field("id", error))?;
    let secret = clean(&request.secret)?;
    if state.get(ResourceKind::UpstreamKey, id).is_some() {
        return Err(Fault::Exists {
            what: "upstream key",
            id: id.to_owned(),
        });
    }
    let key = UpstreamKey {
        id: id.to_owned(),
        provider_id: request.provider_id.clone(),
        disabled: false,
        secret: secret.clone().into_bytes(),
        level: request.level,
        weight: request.weight.max(1),
        models: request.models.clone(),
    };
    check(state, &key)?;
    let stored = object(Kind::UpstreamKey(key), request.managed_by(), now_unix_ms);
    Ok(Edit::Put(StoredResource {
        fingerprint: fingerprint(pepper, &secret),
        created_by,
        ..stored
    }))
}

/// Changes the fields that are given.
pub(crate) fn update(
    state: &State,
    pepper: &Pepper,
    request: &UpdateUpstreamKeyRequest,
) -> Result<Edit, Fault> {
    let secret = request.secret.as_deref().map(clean).transpose()?;
    // The content holds the secret in plain; what is stored holds it sealed.
    let name = name_of(&request.id);
    let plain = state
        .content
        .get(&name)
        .and_then(|resource| resource.kind.clone());
    let (Some(stored), Some(Kind::UpstreamKey(mut key))) = (state.get(name.kind, &name.id), plain)
    else {
        return Err(unknown(&request.id));
    };
    check_version(state, "upstream key", &name, request.resource_version)?;
    let mut next = stored.clone();
    key.disabled = request.disabled.unwrap_or(key.disabled);
    key.level = request.level.unwrap_or(key.level);
    key.weight = request.weight.map_or(key.weight, |weight| weight.max(1));
    if let Some(models) = &request.models {
        key.models.clone_from(&models.values);
    }
    if let Some(secret) = &secret {
        key.secret = secret.clone().into_bytes();
        next.fingerprint = fingerprint(pepper, secret);
    }
    check(state, &key)?;
    next.resource = Some(proxyxai_proto::config::v1::Resource {
        kind: Some(Kind::UpstreamKey(key)),
    });
    Ok(Edit::Put(next))
}

/// Takes a key away.
pub(crate) fn delete(state: &State, request: &DeleteUpstreamKeyRequest) -> Result<Edit, Fault> {
    state
        .get(ResourceKind::UpstreamKey, &request.id)
        .ok_or_else(|| unknown(&request.id))?;
    let name = name_of(&request.id);
    check_version(state, "upstream key", &name, request.resource_version)?;
    Ok(Edit::Delete(name))
}

/// Tells equal secrets apart from different ones.
pub(crate) fn fingerprint(pepper: &Pepper, secret: &str) -> String {
    format!("{:?}", pepper.digest(secret))
        .chars()
        .take(16)
        .collect()
}

/// A secret as it came from a file or a paste: without the space around it.
pub(crate) fn clean(secret: &str) -> Result<String, Fault> {
    check_upstream_secret(secret.trim().as_bytes()).map_err(|reason| Fault::field("secret", reason))
}

/// What a node will check; and that there is such a provider.
fn check(state: &State, key: &UpstreamKey) -> Result<(), Fault> {
    if state
        .get(ResourceKind::Provider, &key.provider_id)
        .is_none()
    {
        let reason = format!("its provider `{}` does not exist", key.provider_id);
        return Err(Fault::field("provider_id", reason));
    }
    check_upstream_key(key, ProviderIndex(0))
        .map(drop)
        .map_err(|(field, reason)| Fault::field(field, reason))
}

fn name_of(id: &str) -> ResourceName {
    ResourceName {
        kind: ResourceKind::UpstreamKey,
        id: id.to_owned(),
    }
}

fn view(state: &State, stored: &StoredResource) -> Option<UpstreamKeyView> {
    let Some(Kind::UpstreamKey(key)) = &stored.resource.as_ref()?.kind else {
        return None;
    };
    Some(UpstreamKeyView {
        id: key.id.clone(),
        provider_id: key.provider_id.clone(),
        disabled: key.disabled,
        managed_by: stored.managed_by,
        created_unix_ms: stored.created_unix_ms,
        fingerprint: stored.fingerprint.clone(),
        level: key.level,
        weight: key.weight.max(1),
        models: key.models.clone(),
        resource_version: state.version(&name_of(&key.id)),
    })
}

fn unknown(id: &str) -> Fault {
    Fault::NotFound {
        what: "upstream key",
        id: id.to_owned(),
    }
}
