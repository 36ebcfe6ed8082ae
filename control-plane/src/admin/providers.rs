//! Providers.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    route::base_url::BaseUrl,
    snapshot::{ResourceKind, ResourceName, compile::check_provider},
};
use proxyxai_proto::{
    admin::v1::{
        CreateProviderRequest, CreateProviderResponse, DeleteProviderRequest,
        DeleteProviderResponse, GetProviderRequest, GetProviderResponse, ListProvidersRequest,
        ListProvidersResponse, ProviderView, UpdateProviderRequest, UpdateProviderResponse,
        provider_service_server::ProviderService,
    },
    config::v1::{Provider, UpstreamKey, resource::Kind},
    store::v1::{CallMark, StoredResource},
};
use tonic::{Request, Response, Status};

use super::{
    object, page,
    routes::names_provider,
    with,
    writing::{call_mark, check_version, made_before},
};
use crate::{
    auth,
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

pub(crate) struct ProviderServer {
    pub(crate) config: Arc<ConfigStore>,
}

#[tonic::async_trait]
impl ProviderService for ProviderServer {
    async fn create_provider(
        &self,
        request: Request<CreateProviderRequest>,
    ) -> Result<Response<CreateProviderResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let mark = call_mark(
            &caller,
            "CreateProvider",
            &request.idempotency_key,
            &request.encode_to_vec(),
        )?;
        let now = self.config.clock.unix_ms();
        let edit = |state: &State| {
            if let Some(made) = made_before(state, ResourceKind::Provider, mark.as_ref(), now)? {
                return Ok((Vec::new(), made));
            }
            let edit = create(state, &request, mark.clone(), now)?;
            Ok((vec![edit], request.id.clone()))
        };
        let id = self.config.edit(&caller, "CreateProvider", edit).await?;
        Ok(Response::new(CreateProviderResponse {
            provider: Some(self.view(&id)?),
        }))
    }

    async fn list_providers(
        &self,
        request: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let request = request.into_inner();
        let state = self.config.state();
        let wanted = |provider: &ProviderView| {
            let disabled = provider.provider.as_ref().is_some_and(|p| p.disabled);
            request.disabled.is_none_or(|wanted| wanted == disabled)
        };
        let all = state
            .after(ResourceKind::Provider, &request.page_token)
            .filter_map(|stored| view(&state, stored))
            .filter(wanted);
        let (providers, next_page_token) = page(all, id_of, request.page_size, &request.page_token);
        Ok(Response::new(ListProvidersResponse {
            providers,
            next_page_token,
        }))
    }

    async fn get_provider(
        &self,
        request: Request<GetProviderRequest>,
    ) -> Result<Response<GetProviderResponse>, Status> {
        Ok(Response::new(GetProviderResponse {
            provider: Some(self.view(&request.into_inner().id)?),
        }))
    }

    async fn update_provider(
        &self,
        request: Request<UpdateProviderRequest>,
    ) -> Result<Response<UpdateProviderResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![update(state, &request)?], ()));
        self.config.edit(&caller, "UpdateProvider", edit).await?;
        Ok(Response::new(UpdateProviderResponse {
            provider: Some(self.view(&request.id)?),
        }))
    }

    async fn delete_provider(
        &self,
        request: Request<DeleteProviderRequest>,
    ) -> Result<Response<DeleteProviderResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![delete(state, &request)?], ()));
        self.config.edit(&caller, "DeleteProvider", edit).await?;
        Ok(Response::new(DeleteProviderResponse {}))
    }
}

impl ProviderServer {
    fn view(&self, id: &str) -> Result<ProviderView, Fault> {
        let state = self.config.state();
        let stored = state.get(ResourceKind::Provider, id);
        stored
            .and_then(|stored| view(&state, stored))
            .ok_or_else(|| unknown(id))
    }
}

/// Adds a provider.
pub(crate) fn create(
    state: &State,
    request: &CreateProviderRequest,
    created_by: Option<CallMark>,
    now_unix_ms: i64,
) -> Result<Edit, Fault> {
    if state.get(ResourceKind::Provider, &request.id).is_some() {
        return Err(Fault::Exists {
            what: "provider",
            id: request.id.clone(),
        });
    }
    let provider = Provider {
        id: request.id.clone(),
        kind: request.kind,
        base_url: canonical(&request.base_url),
        allow_private: request.allow_private,
        disabled: false,
    };
    check(&provider)?;
    let stored = object(Kind::Provider(provider), request.managed_by(), now_unix_ms);
    Ok(Edit::Put(StoredResource {
        created_by,
        ..stored
    }))
}

/// Changes the fields that are given.
pub(crate) fn update(state: &State, request: &UpdateProviderRequest) -> Result<Edit, Fault> {
    let (stored, mut provider) = stored(state, &request.id)?;
    check_version(
        state,
        "provider",
        &name_of(&request.id),
        request.resource_version,
    )?;
    provider.kind = request.kind.unwrap_or(provider.kind);
    provider.allow_private = request.allow_private.unwrap_or(provider.allow_private);
    provider.disabled = request.disabled.unwrap_or(provider.disabled);
    if let Some(base_url) = &request.base_url {
        provider.base_url = canonical(base_url);
    }
    check(&provider)?;
    Ok(Edit::Put(with(&stored, Kind::Provider(provider))))
}

/// Takes a provider away that nothing names.
pub(crate) fn delete(state: &State, request: &DeleteProviderRequest) -> Result<Edit, Fault> {
    let id = &request.id;
    stored(state, id)?;
    check_version(state, "provider", &name_of(id), request.resource_version)?;
    let in_use = |why: String| Fault::InUse {
        what: "provider",
        id: id.clone(),
        why,
    };
    let keys = keys_of(state, id).count();
    if keys > 0 {
        return Err(in_use(format!(
            "has {keys} upstream keys; delete those first"
        )));
    }
    let names = |stored: &&StoredResource| matches!(kind(stored), Some(Kind::Route(route)) if names_provider(route, id));
    if let Some(Kind::Route(route)) = state
        .of_kind(ResourceKind::Route)
        .find(names)
        .and_then(kind)
    {
        return Err(in_use(format!(
            "is named by the route `{}`; change that first",
            route.id
        )));
    }
    Ok(Edit::Delete(name_of(id)))
}

/// A base as it is kept: scheme, authority and prefix. What is no base stays as it is, to be refused with the rest.
pub(crate) fn canonical(base_url: &str) -> String {
    BaseUrl::parse(base_url).map_or_else(|_| base_url.to_owned(), |base| base.to_string())
}

fn check(provider: &Provider) -> Result<(), Fault> {
    check_provider(provider)
        .map(drop)
        .map_err(|(field, reason)| Fault::field(field, reason))
}

fn name_of(id: &str) -> ResourceName {
    ResourceName {
        kind: ResourceKind::Provider,
        id: id.to_owned(),
    }
}

fn stored(state: &State, id: &str) -> Result<(StoredResource, Provider), Fault> {
    let found = state
        .get(ResourceKind::Provider, id)
        .ok_or_else(|| unknown(id))?;
    match kind(found) {
        Some(Kind::Provider(provider)) => Ok((found.clone(), provider.clone())),
        _ => Err(unknown(id)),
    }
}

fn view(state: &State, stored: &StoredResource) -> Option<ProviderView> {
    let Some(Kind::Provider(provider)) = kind(stored) else {
        return None;
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(ProviderView {
        keys: count(keys_of(state, &provider.id).count()),
        enabled_keys: count(
            keys_of(state, &provider.id)
                .filter(|key| !key.disabled)
                .count(),
        ),
        provider: Some(provider.clone()),
        managed_by: stored.managed_by,
        created_unix_ms: stored.created_unix_ms,
        resource_version: state.version(&name_of(&provider.id)),
    })
}

fn keys_of<'a>(state: &'a State, provider: &'a str) -> impl Iterator<Item = &'a UpstreamKey> {
    state
        .of_kind(ResourceKind::UpstreamKey)
        .filter_map(move |stored| match kind(stored) {
            Some(Kind::UpstreamKey(key)) if key.provider_id == provider => Some(key),
            _ => None,
        })
}

fn id_of(view: &ProviderView) -> String {
    view.provider
        .as_ref()
        .map(|provider| provider.id.clone())
        .unwrap_or_default()
}

fn kind(stored: &StoredResource) -> Option<&Kind> {
    stored.resource.as_ref()?.kind.as_ref()
}

fn unknown(id: &str) -> Fault {
    Fault::NotFound {
        what: "provider",
        id: id.to_owned(),
    }
}
