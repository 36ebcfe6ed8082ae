//! Routes.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::snapshot::{ResourceKind, ResourceName, compile::check_route};
use proxyxai_proto::{
    admin::v1::{
        CreateRouteRequest, CreateRouteResponse, DeleteRouteRequest, DeleteRouteResponse,
        GetRouteRequest, GetRouteResponse, ListRoutesRequest, ListRoutesResponse, RouteView,
        UpdateRouteRequest, UpdateRouteResponse, route_service_server::RouteService,
    },
    config::v1::{Route, resource::Kind},
    store::v1::{CallMark, StoredResource},
};
use tonic::{Request, Response, Status};

use super::{
    object, page, with,
    writing::{call_mark, check_version, made_before},
};
use crate::{
    auth,
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

pub(crate) struct RouteServer {
    pub(crate) config: Arc<ConfigStore>,
}

#[tonic::async_trait]
impl RouteService for RouteServer {
    async fn create_route(
        &self,
        request: Request<CreateRouteRequest>,
    ) -> Result<Response<CreateRouteResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let mark = call_mark(
            &caller,
            "CreateRoute",
            &request.idempotency_key,
            &request.encode_to_vec(),
        )?;
        let now = self.config.clock.unix_ms();
        let edit = |state: &State| {
            if let Some(made) = made_before(state, ResourceKind::Route, mark.as_ref(), now)? {
                return Ok((Vec::new(), made));
            }
            let edit = create(state, &request, mark.clone(), now)?;
            Ok((vec![edit], request.id.clone()))
        };
        let id = self.config.edit(&caller, "CreateRoute", edit).await?;
        Ok(Response::new(CreateRouteResponse {
            route: Some(self.view(&id)?),
        }))
    }

    async fn list_routes(
        &self,
        request: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let request = request.into_inner();
        let state = self.config.state();
        let wanted = |view: &RouteView| {
            request.provider_id.is_empty()
                || view
                    .route
                    .as_ref()
                    .is_some_and(|route| names_provider(route, &request.provider_id))
        };
        let all = state
            .after(ResourceKind::Route, &request.page_token)
            .filter_map(|stored| view(&state, stored))
            .filter(wanted);
        let id = |view: &RouteView| {
            view.route
                .as_ref()
                .map(|route| route.id.clone())
                .unwrap_or_default()
        };
        let (routes, next_page_token) = page(all, id, request.page_size, &request.page_token);
        Ok(Response::new(ListRoutesResponse {
            routes,
            next_page_token,
        }))
    }

    async fn get_route(
        &self,
        request: Request<GetRouteRequest>,
    ) -> Result<Response<GetRouteResponse>, Status> {
        Ok(Response::new(GetRouteResponse {
            route: Some(self.view(&request.into_inner().id)?),
        }))
    }

    async fn update_route(
        &self,
        request: Request<UpdateRouteRequest>,
    ) -> Result<Response<UpdateRouteResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![update(state, &request)?], ()));
        self.config.edit(&caller, "UpdateRoute", edit).await?;
        Ok(Response::new(UpdateRouteResponse {
            route: Some(self.view(&request.id)?),
        }))
    }

    async fn delete_route(
        &self,
        request: Request<DeleteRouteRequest>,
    ) -> Result<Response<DeleteRouteResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![delete(state, &request)?], ()));
        self.config.edit(&caller, "DeleteRoute", edit).await?;
        Ok(Response::new(DeleteRouteResponse {}))
    }
}

impl RouteServer {
    fn view(&self, id: &str) -> Result<RouteView, Fault> {
        let state = self.config.state();
        let stored = state.get(ResourceKind::Route, id);
        stored
            .and_then(|stored| view(&state, stored))
            .ok_or_else(|| unknown(id))
    }
}

/// Adds a route.
pub(crate) fn create(
    state: &State,
    request: &CreateRouteRequest,
    created_by: Option<CallMark>,
    now_unix_ms: i64,
) -> Result<Edit, Fault> {
    if state.get(ResourceKind::Route, &request.id).is_some() {
        return Err(Fault::Exists {
            what: "route",
            id: request.id.clone(),
        });
    }
    let route = Route {
        id: request.id.clone(),
        model: request.model.clone(),
        provider_ids: request.provider_ids.clone(),
        upstream_model: request.upstream_model.clone(),
        next_levels: request.next_levels.clone(),
        switch_over: request.switch_over,
    };
    check(state, &route)?;
    let stored = object(Kind::Route(route), request.managed_by(), now_unix_ms);
    Ok(Edit::Put(StoredResource {
        created_by,
        ..stored
    }))
}

/// Changes the fields that are given.
pub(crate) fn update(state: &State, request: &UpdateRouteRequest) -> Result<Edit, Fault> {
    let (stored, mut route) = stored(state, &request.id)?;
    check_version(
        state,
        "route",
        &name_of(&request.id),
        request.resource_version,
    )?;
    if let Some(model) = &request.model {
        route.model.clone_from(model);
    }
    if let Some(providers) = &request.provider_ids {
        route.provider_ids.clone_from(&providers.values);
    }
    if let Some(model) = &request.upstream_model {
        route.upstream_model.clone_from(model);
    }
    if let Some(levels) = &request.next_levels {
        route.next_levels.clone_from(&levels.values);
    }
    route.switch_over = request.switch_over.unwrap_or(route.switch_over);
    check(state, &route)?;
    Ok(Edit::Put(with(stored, Kind::Route(route))))
}

/// Takes a route away.
pub(crate) fn delete(state: &State, request: &DeleteRouteRequest) -> Result<Edit, Fault> {
    stored(state, &request.id)?;
    let name = name_of(&request.id);
    check_version(state, "route", &name, request.resource_version)?;
    Ok(Edit::Delete(name))
}

/// Whether a provider is in any level of a route.
pub(crate) fn names_provider(route: &Route, id: &str) -> bool {
    let further = route
        .next_levels
        .iter()
        .flat_map(|level| &level.provider_ids);
    route
        .provider_ids
        .iter()
        .chain(further)
        .any(|one| one == id)
}

fn check(state: &State, route: &Route) -> Result<(), Fault> {
    if proxyxai_proto::config::v1::SwitchOver::try_from(route.switch_over).is_err() {
        return Err(Fault::field(
            "switch_over",
            "its rule is not one that this version knows",
        ));
    }
    check_route(route, |id| state.get(ResourceKind::Provider, id).is_some())
        .map(drop)
        .map_err(|(field, reason)| Fault::field(field, reason))
}

fn stored<'a>(state: &'a State, id: &str) -> Result<(&'a StoredResource, Route), Fault> {
    let found = state.get(ResourceKind::Route, id);
    let stored = found.ok_or_else(|| unknown(id))?;
    match stored.resource.as_ref().and_then(|r| r.kind.as_ref()) {
        Some(Kind::Route(route)) => Ok((stored, route.clone())),
        _ => Err(unknown(id)),
    }
}

fn view(state: &State, stored: &StoredResource) -> Option<RouteView> {
    let Some(Kind::Route(route)) = &stored.resource.as_ref()?.kind else {
        return None;
    };
    Some(RouteView {
        route: Some(route.clone()),
        managed_by: stored.managed_by,
        created_unix_ms: stored.created_unix_ms,
        resource_version: state.version(&name_of(&route.id)),
    })
}

fn name_of(id: &str) -> ResourceName {
    ResourceName {
        kind: ResourceKind::Route,
        id: id.to_owned(),
    }
}

fn unknown(id: &str) -> Fault {
    Fault::NotFound {
        what: "route",
        id: id.to_owned(),
    }
}
