//! `xai nodes`, `xai withheld` and `xai node …`

mod schedule;

use std::time::Duration;

use clap::Subcommand;
use proxyxai_proto::{
    admin::v1::{
        ListNodesRequest, ListWithheldRequest, NodeState, NodeView, RemoveNodeRequest,
        WaitAppliedRequest, WithheldView,
    },
    config::v1::{self as proto, Version},
};
use serde_json::{Value, json};

use schedule::{drained, schedule, scheduled};

use super::{
    api::{Api, PAGE, all_pages, call},
    connection::Connection,
};
use crate::{
    environment::Environment,
    failure::Failure,
    output::{Kind, Output},
    settings::value::Span,
};

const NODE: Kind<'static> = Kind {
    one: "node",
    many: "nodes",
    columns: &[
        ("ID", "id"),
        ("STATE", "state"),
        ("SCHEDULE", "schedule"),
        ("VERSION", "applied"),
        ("AGE", "age"),
        ("VIEW", "view"),
        ("PROGRAM", "program_version"),
        ("REFUSED", "refused_reasons"),
        ("WITHHELD", "withheld"),
    ],
};

const WITHHELD: Kind<'static> = Kind {
    one: "withheld_object",
    many: "withheld_objects",
    columns: &[
        ("NAME", "name"),
        ("STAND-IN", "stand_in"),
        ("REASON", "reason"),
    ],
};

/// What is asked of all nodes.
#[derive(Debug, clap::Args)]
pub struct All {
    #[command(flatten)]
    connection: Connection,
}

/// What can be done with one node.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Let a node serve again after `cordon` or `drain`.
    Uncordon {
        /// Its id.
        id: String,
    },
    /// Have a node say that it is not ready, so that load balancers take it out; it serves what comes all the same. Kept through restarts.
    Cordon {
        /// Its id.
        id: String,
    },
    /// Cordon a node, and have it end its clients' connections after the requests that they are at; it is drained when no request is open
    /// and all usage is reported.
    Drain {
        /// Its id.
        id: String,
        /// Then wait until it is drained, so long at most; fails, and says what is left, when it is not by then.
        #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true, default_missing_value = "10m")]
        wait: Option<Span>,
    },
    /// Take a node out for good: its certificate is refused from now on, and nobody joins under its id again. Drain and stop it first.
    Remove {
        /// Its id.
        id: String,
        /// Also when it has a stream, which every replica ends at once, as when its certificate was stolen; usage that it has not reported
        /// is refused from then on.
        #[arg(long)]
        force: bool,
    },
}

/// Lists the nodes.
pub async fn list(all: &All, environment: &Environment) -> Result<(), Failure> {
    let api = all.connection.open(environment)?;
    let found = call!(api, api.nodes().list_nodes(ListNodesRequest {}));
    let withheld = withheld(&api).await?.len();
    let nodes = found.nodes.iter().map(|node| view(node, withheld));
    all.connection.output().many(&NODE, nodes.collect())?;
    silent(&found.silent_replicas)
}

/// Lists what is withheld from all nodes.
pub async fn list_withheld(all: &All, environment: &Environment) -> Result<(), Failure> {
    let api = all.connection.open(environment)?;
    let found = withheld(&api).await?;
    let rows = found
        .iter()
        .map(|one| json!({ "name": one.name, "stand_in": one.stand_in, "reason": one.reason }));
    all.connection.output().many(&WITHHELD, rows.collect())
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Uncordon { id } => {
            schedule(api, &id, proto::Schedule::Serve).await?;
            output.done(&format!("Node {id} serves again."))
        }
        Verb::Cordon { id } => {
            schedule(api, &id, proto::Schedule::Cordon).await?;
            output.done(&format!("Cordoned node {id}."))
        }
        Verb::Drain { id, wait } => {
            schedule(api, &id, proto::Schedule::Drain).await?;
            match wait {
                None => output.done(&format!("Node {id} is being drained.")),
                Some(within) => {
                    drained(api, &id, within.0).await?;
                    output.done(&format!("Drained node {id}; it can be stopped."))
                }
            }
        }
        Verb::Remove { id, force } => {
            let request = RemoveNodeRequest {
                id: id.clone(),
                force,
            };
            let removed = call!(api, api.nodes().remove_node(request));
            let cut = if removed.had_stream {
                " and cut it off"
            } else {
                ""
            };
            let lost = match removed.vitals.map(|vitals| vitals.unreported_events) {
                None | Some(0) => {
                    "usage that it did not report, if there is any, stays in its event files"
                        .to_owned()
                }
                Some(events) => {
                    format!("{events} usage events that it did not report stay in its event files")
                }
            };
            output.done(&format!(
                "Removed node {id}{cut}: its certificate is refused; {lost} and is not booked."
            ))
        }
    }
}

/// Waits until every live node enforces the newest configuration.
///
/// # Errors
/// Names the nodes that do not, or of which that is not known.
pub async fn wait(api: &Api, within: Duration) -> Result<(), Failure> {
    let request = WaitAppliedRequest {
        version: None,
        timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
    };
    let answer = call!(api, api.nodes().wait_applied(request));
    if answer.missing.is_empty() && answer.silent_replicas.is_empty() {
        return Ok(());
    }
    let nodes = answer
        .missing
        .iter()
        .map(|node| format!("node {} ({})", node.id, word(node.state())));
    let replicas = answer
        .silent_replicas
        .iter()
        .map(|id| format!("control plane {id} (does not answer)"));
    let named: Vec<String> = nodes.chain(replicas).collect();
    Err(Failure::failed(format!(
        "the change is made and enforced by {} nodes as version {}, but not surely by: {}; remove nodes that are gone with `xai node remove`",
        answer.applied,
        version(answer.version.as_ref()).unwrap_or_default(),
        named.join(", ")
    )))
}

async fn withheld(api: &Api) -> Result<Vec<WithheldView>, Failure> {
    Ok(
        all_pages!(api, withheld, page_token => api.nodes().list_withheld(ListWithheldRequest {
            page_size: PAGE,
            page_token,
        })),
    )
}

fn silent(replicas: &[String]) -> Result<(), Failure> {
    if replicas.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "these replicas of the control plane did not say which nodes they have: {}",
        replicas.join(", ")
    )))
}

/// A node as JSON.
pub(super) fn view(node: &NodeView, withheld: usize) -> Value {
    let vitals = node.vitals.as_ref();
    json!({
        "schedule": scheduled(node), "drained": node.drained,
        "open_requests": vitals.map(|vitals| vitals.open_requests),
        "unreported_events": vitals.map(|vitals| vitals.unreported_events),
        "unreported_starts": vitals.map(|vitals| vitals.unreported_starts),
        "id": node.id, "boot_id": node.boot_id, "program_version": node.program_version,
        "state": word(node.state()), "applied": version(node.applied.as_ref()),
        "digest_equal": node.digest_equal, "invalidated_through": version(node.invalidated_through.as_ref()),
        "view": if node.keyed { "keyed" } else { "full" }, "connected": node.connected,
        "age_ms": node.age_ms, "age": age(node), "refused": version(node.refused.as_ref()),
        "refused_reasons": node.refused_reasons, "withheld": withheld,
    })
}

fn age(node: &NodeView) -> String {
    match node.state() {
        NodeState::Unknown => String::new(),
        NodeState::Unspecified
        | NodeState::Current
        | NodeState::Behind
        | NodeState::Refused
        | NodeState::Silent => format!("{} s", node.age_ms / 1000),
    }
}

fn version(version: Option<&Version>) -> Option<String> {
    version.map(|version| format!("{}.{}", version.generation, version.revision))
}

/// The word for how a node stands.
pub(super) fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Unspecified => "unspecified",
        NodeState::Current => "current",
        NodeState::Behind => "behind",
        NodeState::Refused => "refused",
        NodeState::Silent => "silent",
        NodeState::Unknown => "unknown",
    }
}
