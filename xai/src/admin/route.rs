//! `xai route …`

use clap::Subcommand;
use proxyxai_core::route::pool::SwitchOver;
use proxyxai_proto::{
    admin::v1::{
        CreateRouteRequest, DeleteRouteRequest, GetRouteRequest, ListRoutesRequest, ManagedBy,
        RouteLevels, RouteView, StringList, UpdateRouteRequest,
    },
    config::v1::RouteLevel,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    options::{IfVersion, Once},
};
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
        /// Id of a provider of the first level; may be given several times.
        #[arg(long, required = true)]
        provider: Vec<String>,
        /// Ids of the providers of a further level, with commas between; may be given several times, in order.
        #[arg(long, value_name = "PROVIDERS")]
        next: Vec<String>,
        /// What the providers call the model, each `*` standing for what the one at the same place of the pattern matched [default: the same].
        #[arg(
            long,
            value_name = "NAME",
            default_value = "",
            hide_default_value = true
        )]
        upstream_model: String,
        /// When the next level is tried: exhausted (every key of the level was tried), `rate_limited` (also at once after a 429), `any_failure` (at once).
        #[arg(long, value_name = "RULE", value_parser = rule, default_value = "exhausted")]
        switch_over: SwitchOver,
        /// That it is made once.
        #[command(flatten)]
        once: Once,
    },
    /// List routes.
    List {
        /// Only those that name this provider, in any level.
        #[arg(long, default_value = "", hide_default_value = true)]
        provider: String,
    },
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
        /// The providers of the first level from now on; may be given several times.
        #[arg(long)]
        provider: Vec<String>,
        /// The further levels from now on, each with commas between its providers; may be given several times, in order.
        #[arg(long, value_name = "PROVIDERS")]
        next: Vec<String>,
        /// It has one level only.
        #[arg(long, conflicts_with = "next")]
        no_next: bool,
        /// What the providers call the model from now on.
        #[arg(long, value_name = "NAME")]
        upstream_model: Option<String>,
        /// The providers call the model what clients call it.
        #[arg(long, conflicts_with = "upstream_model")]
        same_model: bool,
        /// When the next level is tried: exhausted, `rate_limited` or `any_failure`.
        #[arg(long, value_name = "RULE", value_parser = rule)]
        switch_over: Option<SwitchOver>,
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
    },
    /// Delete a route.
    Delete {
        /// Its id.
        id: String,
        /// What was read before.
        #[command(flatten)]
        version: IfVersion,
    },
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let route = match verb {
        Verb::Create {
            id,
            model,
            provider,
            next,
            upstream_model,
            switch_over,
            once,
        } => {
            let request = CreateRouteRequest {
                id,
                model,
                provider_ids: provider,
                managed_by: ManagedBy::Admin.into(),
                upstream_model,
                next_levels: levels(&next),
                switch_over: switch_over.to_proto().into(),
                idempotency_key: once.idempotency_key,
            };
            call!(api, api.routes().create_route(request)).route
        }
        Verb::List { provider } => {
            let all = all_pages!(api, routes, page_token => api.routes().list_routes(ListRoutesRequest {
                provider_id: provider.clone(),
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
            next,
            no_next,
            upstream_model,
            same_model,
            switch_over,
            version,
        } => {
            let request = UpdateRouteRequest {
                id,
                model,
                provider_ids: (!provider.is_empty()).then_some(StringList { values: provider }),
                upstream_model: upstream_model.or_else(|| same_model.then(String::new)),
                next_levels: (no_next || !next.is_empty()).then(|| RouteLevels {
                    values: levels(&next),
                }),
                switch_over: switch_over.map(|rule| rule.to_proto().into()),
                resource_version: version.if_version,
            };
            call!(api, api.routes().update_route(request)).route
        }
        Verb::Delete { id, version } => {
            let request = DeleteRouteRequest {
                id: id.clone(),
                resource_version: version.if_version,
            };
            call!(api, api.routes().delete_route(request));
            return output.done(&format!("Deleted route {id}."));
        }
    };
    output.one(&ROUTE, one(route), &[])
}

/// Levels as they are written: providers with commas between.
fn levels(given: &[String]) -> Vec<RouteLevel> {
    let ids = |level: &String| {
        let ids = level.split(',').map(|id| id.trim().to_owned());
        ids.filter(|id| !id.is_empty()).collect()
    };
    given
        .iter()
        .map(|level| RouteLevel {
            provider_ids: ids(level),
        })
        .collect()
}

fn rule(word: &str) -> Result<SwitchOver, String> {
    SwitchOver::from_word(word).ok_or_else(|| {
        let words = SwitchOver::ALL.map(SwitchOver::as_str);
        format!("a rule is one of {}", words.join(", "))
    })
}

fn one(route: Option<RouteView>) -> Value {
    view::route(&route.unwrap_or_default())
}
