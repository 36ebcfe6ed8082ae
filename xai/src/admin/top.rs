//! `xai top`: nodes, accounts and providers of a running deployment, again and again.
//!
//! Invariant: only what the API tells is shown. Requests in flight are a node's own word; attempts and money are usage that is booked,
//! so they come a moment after the requests. Rates are what was booked between two looks.

mod frame;
mod history;
mod screen;

use std::{io::IsTerminal as _, time::Duration};

use proxyxai_proto::admin::v1::{
    ListNodesRequest, ListProvidersRequest, ListUpstreamKeysRequest, QueryUsageRequest, UsageGroup,
};
use serde_json::json;
use tonic::{Code, Response, Status};

use super::{
    api::{Api, PAGE, call},
    connection::Connection,
    node,
};
use crate::{
    environment::Environment,
    failure::Failure,
    output::{self, Output, view},
    settings::value::Span,
    system,
};
use frame::Look;
use history::History;
use screen::{Event, Screen};

/// Usage is counted from the hour that this was in, in milliseconds before the first look.
const SINCE: i64 = 3_600_000;
/// Usage older than two days is kept by days; long before that, sums begin anew.
const BEGIN_ANEW: i64 = 24 * 3_600_000;
/// Between looks at the least.
const FASTEST: Duration = Duration::from_millis(200);

/// Show nodes, accounts and providers while they work; `q` or Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub struct Top {
    /// Look once, print, and end; so too where the output is no terminal.
    #[arg(long)]
    once: bool,
    /// Time between two looks.
    #[arg(long, value_name = "SPAN", default_value = "2s")]
    every: Span,
    /// Only this account and those below it (id or path).
    #[arg(long, default_value = "", hide_default_value = true)]
    account: String,
    #[command(flatten)]
    connection: Connection,
}

/// Looks and shows.
///
/// # Errors
/// When the first look fails; a later one that does is shown, and tried again.
pub async fn run(top: Top, environment: &Environment) -> Result<(), Failure> {
    let api = top.connection.open(environment)?;
    let output = top.connection.output();
    let mut begun = system::unix_ms();
    let first = look(&api, &top.account, begun).await?;
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if top.once || output == Output::Json || !terminal {
        return once(&first, output);
    }
    let mut history = History::default();
    history.add(&first);
    let screen = Screen::open()?;
    let mut last = first;
    let mut trouble = None;
    loop {
        screen.show(&frame::lines(&last, Some(&history), trouble.as_ref()))?;
        match screen.wait(top.every.0.max(FASTEST)).await {
            Event::Time => {}
            Event::End => return Ok(()),
        }
        let now = system::unix_ms();
        if now.saturating_sub(begun) > BEGIN_ANEW {
            begun = now;
            history = History::default();
        }
        match look(&api, &top.account, begun).await {
            Ok(next) => {
                history.add(&next);
                last = next;
                trouble = None;
            }
            Err(failure) => trouble = Some(failure),
        }
    }
}

fn once(look: &Look, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => output.fields(&json!({
            "nodes": look.nodes.iter().map(|one| node::view(one, 0)).collect::<Vec<_>>(),
            "accounts": look.accounts.iter().map(view::usage_row).collect::<Vec<_>>(),
            "providers": look.providers.iter().map(view::provider).collect::<Vec<_>>(),
            "disabled_upstream_keys": look.disabled_keys.iter().map(view::upstream_key).collect::<Vec<_>>(),
            "since_unix_ms": look.since_unix_ms,
        })),
        Output::Table => output::print(&format!("{}\n", frame::lines(look, None, None).join("\n"))),
    }
}

/// Asks for all that is shown. What this credential may not see is empty; of providers and disabled keys the first thousand are shown.
async fn look(api: &Api, under: &str, begun: i64) -> Result<Look, Failure> {
    let since = begun.saturating_sub(SINCE);
    let since = since.saturating_sub(since.rem_euclid(SINCE));
    let request = QueryUsageRequest {
        under: under.to_owned(),
        from_unix_ms: since,
        group_by: vec![UsageGroup::Account.into()],
        ..QueryUsageRequest::default()
    };
    let accounts = call!(api, api.usage().query_usage(request)).rows;
    let nodes = api.nodes().list_nodes(ListNodesRequest {}).await;
    let request = ListProvidersRequest {
        page_size: PAGE,
        ..ListProvidersRequest::default()
    };
    let providers = api.providers().list_providers(request).await;
    let request = ListUpstreamKeysRequest {
        page_size: PAGE,
        disabled: Some(true),
        ..ListUpstreamKeysRequest::default()
    };
    let disabled_keys = api.upstream_keys().list_upstream_keys(request).await;
    Ok(Look {
        at_unix_ms: system::unix_ms(),
        since_unix_ms: since,
        nodes: allowed(api, nodes)?.nodes,
        accounts,
        providers: allowed(api, providers)?.providers,
        disabled_keys: allowed(api, disabled_keys)?.upstream_keys,
    })
}

/// An answer; an empty one where the credential does not allow it.
fn allowed<T: Default>(api: &Api, answer: Result<Response<T>, Status>) -> Result<T, Failure> {
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if status.code() == Code::PermissionDenied => Ok(T::default()),
        Err(status) => Err(api.failure(status)),
    }
}
