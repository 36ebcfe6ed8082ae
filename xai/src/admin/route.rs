//! `xai route …`

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    CreateRouteRequest, DeleteRouteRequest, GetRouteRequest, ListRoutesRequest, ManagedBy,
    RouteView, StringList, UpdateRouteRequest,
};
use serde_json::Value;

use super::api::{Api, PAGE, all_pages, call};
use crate::{
    failure::Failure,
    output::{
        Output,
        view::{self, ROUTE},
    },
};

/// What can be done with routes.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Send models to certain providers; the longest pattern that fits a model wins.
    Create {
        /// Its id: lower-case letters, digits and `-`.
        id: String,
        /// Pattern of model names, `*` standing for any characters.
        #[arg(long, value_name = "PATTERN")]
        model: String,
        /// Id of a provider; may be given several times.
        #[arg(long, required = true)]
        provider: Vec<String>,
    },
    /// List routes.
    List,
    /// Show one route.
    Show {
        /// Its id.
        id: String,
    },
    /// Change a route.
    Set {
        /// Its id.
        id: String,
        /// A new pattern.
        #[arg(long, value_name = "PATTERN")]
        model: Option<String>,
        /// The providers from now on; may be given several times.
        #[arg(long)]
        provider: Vec<String>,
    },
    /// Delete a route.
    Delete {
        /// Its id.
        id: String,
    },
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let route = match verb {
        Verb::Create {
            id,
            model,
            provider,
        } => {
            let request = CreateRouteRequest {
                id,
                model,
                provider_ids: provider,
                managed_by: ManagedBy::Admin.into(),
            };
            call!(api, api.routes().create_route(request)).route
        }
        Verb::List => {
            let all = all_pages!(api, routes, page_token => api.routes().list_routes(ListRoutesRequest {
                page_size: PAGE,
                page_token,
            }));
            return output.many(&ROUTE, all.iter().map(view::route).collect());
        }
        Verb::Show { id } => call!(api, api.routes().get_route(GetRouteRequest { id })).route,
        Verb::Set {
            id,
            model,
            provider,
        } => {
            let request = UpdateRouteRequest {
                id,
                model,
                provider_ids: (!provider.is_empty()).then_some(StringList { values: provider }),
            };
            call!(api, api.routes().update_route(request)).route
        }
        Verb::Delete { id } => {
            let request = DeleteRouteRequest { id: id.clone() };
            call!(api, api.routes().delete_route(request));
            return output.done(&format!("Deleted route {id}."));
        }
    };
    output.one(&ROUTE, one(route), &[])
}

fn one(route: Option<RouteView>) -> Value {
    view::route(&route.unwrap_or_default())
}
