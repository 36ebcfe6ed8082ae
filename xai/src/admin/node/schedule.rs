//! `xai node cordon`, `drain` and `uncordon`: what a node is told, and what keeps it from being drained.

use std::time::Duration;

use proxyxai_proto::{
    admin::v1::{ListNodesRequest, NodeView, ScheduleNodeRequest},
    config::v1 as proto,
};

use super::{
    super::api::{Api, call},
    word,
};
use crate::failure::Failure;

/// Between looks at a node that is being drained.
const LOOK: Duration = Duration::from_secs(1);

/// Says what a node is to do.
pub(super) async fn schedule(
    api: &Api,
    id: &str,
    schedule: proto::Schedule,
) -> Result<(), Failure> {
    let request = ScheduleNodeRequest {
        id: id.to_owned(),
        schedule: schedule.into(),
    };
    call!(api, api.nodes().schedule_node(request));
    Ok(())
}

/// Waits until a node is drained.
pub(super) async fn drained(api: &Api, id: &str, within: Duration) -> Result<(), Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        let found = call!(api, api.nodes().list_nodes(ListNodesRequest {}));
        let node = found.nodes.into_iter().find(|node| node.id == id);
        let node = node.unwrap_or_default();
        if node.drained {
            return Ok(());
        }
        if begun.elapsed() >= within {
            return Err(Failure::failed(format!(
                "node {id} is not drained: {}; it goes on draining, see `xai nodes`",
                left(&node)
            )));
        }
        tokio::time::sleep(LOOK.min(within)).await;
    }
}

/// What keeps a node from being drained.
fn left(node: &NodeView) -> String {
    let vitals = match node.vitals {
        Some(vitals) if node.connected => vitals,
        Some(_) | None => {
            return format!("it is {} and does not say what it does", word(node.state()));
        }
    };
    if node.schedule() != proto::Schedule::Drain {
        return "somebody else let it serve again".to_owned();
    }
    if vitals.schedule() != proto::Schedule::Drain {
        return "it has not begun to".to_owned();
    }
    format!(
        "{} requests are open, {} usage events are not reported, and those of {} earlier starts",
        vitals.open_requests, vitals.unreported_events, vitals.unreported_starts
    )
}

/// What is wanted of a node and how far it is, in one word.
pub(super) fn scheduled(node: &NodeView) -> &'static str {
    match node.schedule() {
        _ if node.drained => "drained",
        proto::Schedule::Unspecified | proto::Schedule::Serve => "serve",
        proto::Schedule::Cordon => "cordoned",
        proto::Schedule::Drain => "draining",
    }
}
