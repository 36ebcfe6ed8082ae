//! Routes.

use std::sync::Arc;

use proxyxai_core::snapshot::{ResourceKind, ResourceName};
use proxyxai_proto::{
    admin::v1::{
        CreateRouteRequest, CreateRouteResponse, DeleteRouteRequest, DeleteRouteResponse,
        GetRouteRequest, GetRouteResponse, ListRoutesRequest, ListRoutesResponse, RouteView,
        UpdateRouteRequest, UpdateRouteResponse, route_service_server::RouteService,
    },
    config::v1::{Route, resource::Kind},
    store::v1::StoredResource,
};
use tonic::{Request, Response, Status};

use super::{object, page, with};
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
        let created = self.config.clock.unix_ms();
        let edit = |state: &State| {
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
            };
            Ok((
                vec![Edit::Put(object(
                    Kind::Route(route),
                    request.managed_by(),
                    created,
                ))],
                (),
            ))
        };
        self.config.edit(&caller, "CreateRoute", edit).await?;
        Ok(Response::new(CreateRouteResponse {
            route: Some(self.view(&request.id)?),
        }))
    }

    async fn list_routes(
        &self,
        request: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let request = request.into_inner();
        let state = self.config.state();
        let all = state.of_kind(ResourceKind::Route).filter_map(view);
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
        let edit = |state: &State| {
            let stored = state
                .get(ResourceKind::Route, &request.id)
                .ok_or_else(|| unknown(&request.id))?;
            let mut route = view(stored)
                .and_then(|view| view.route)
                .ok_or_else(|| unknown(&request.id))?;
            if let Some(model) = &request.model {
                route.model.clone_from(model);
            }
            if let Some(providers) = &request.provider_ids {
                route.provider_ids.clone_from(&providers.values);
            }
            Ok((vec![Edit::Put(with(stored, Kind::Route(route)))], ()))
        };
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
        let id = request.into_inner().id;
        let edit = |state: &State| {
            state
                .get(ResourceKind::Route, &id)
                .ok_or_else(|| unknown(&id))?;
            Ok((
                vec![Edit::Delete(ResourceName {
                    kind: ResourceKind::Route,
                    id: id.clone(),
                })],
                (),
            ))
        };
        self.config.edit(&caller, "DeleteRoute", edit).await?;
        Ok(Response::new(DeleteRouteResponse {}))
    }
}

impl RouteServer {
    fn view(&self, id: &str) -> Result<RouteView, Fault> {
        self.config
            .state()
            .get(ResourceKind::Route, id)
            .and_then(view)
            .ok_or_else(|| unknown(id))
    }
}

fn view(stored: &StoredResource) -> Option<RouteView> {
    let Some(Kind::Route(route)) = &stored.resource.as_ref()?.kind else {
        return None;
    };
    Some(RouteView {
        route: Some(route.clone()),
        managed_by: stored.managed_by,
        created_unix_ms: stored.created_unix_ms,
    })
}

fn unknown(id: &str) -> Fault {
    Fault::NotFound {
        what: "route",
        id: id.to_owned(),
    }
}
