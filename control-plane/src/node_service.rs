//! Nodes, as administrators see them.

use std::{sync::Arc, time::Duration};

use proxyxai_core::{order::Schedule, snapshot::Version};
use proxyxai_proto::{
    admin::v1::{
        ListNodesRequest, ListNodesResponse, ListWithheldRequest, ListWithheldResponse, NodeView,
        RemoveNodeRequest, RemoveNodeResponse, ScheduleNodeRequest, ScheduleNodeResponse,
        WaitAppliedRequest, WaitAppliedResponse, WithheldView, node_service_server::NodeService,
    },
    store::v1::RosterRow,
};
use tonic::{Request, Response, Status};

use crate::{
    admin::page,
    auth,
    config_store::ConfigStore,
    join::Door,
    orders::Wishes,
    roster::{Roster, enforces},
    status::Fault,
};

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(290);

pub(crate) struct NodeServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) door: Arc<Door>,
    pub(crate) wishes: Arc<Wishes>,
}

#[tonic::async_trait]
impl NodeService for NodeServer {
    async fn list_nodes(
        &self,
        _: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let census = self.roster.census(None, Duration::ZERO).await?;
        Ok(Response::new(ListNodesResponse {
            nodes: census.nodes,
            head: Some(self.config.state().snapshot.version.into()),
            silent_replicas: census.silent,
        }))
    }

    async fn list_withheld(
        &self,
        request: Request<ListWithheldRequest>,
    ) -> Result<Response<ListWithheldResponse>, Status> {
        let request = request.into_inner();
        let withheld = self.config.state().withheld.clone();
        let views = withheld.iter().map(|(name, why)| WithheldView {
            name: name.clone(),
            reason: why.reason.clone(),
            stand_in: why.stand_in,
        });
        let id = |view: &WithheldView| view.name.clone();
        let (withheld, next_page_token) = page(views, id, request.page_size, &request.page_token);
        Ok(Response::new(ListWithheldResponse {
            withheld,
            next_page_token,
        }))
    }

    async fn schedule_node(
        &self,
        request: Request<ScheduleNodeRequest>,
    ) -> Result<Response<ScheduleNodeResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let schedule = Schedule::from_proto(request.schedule())
            .ok_or_else(|| Fault::field("schedule", "say what the node is to do"))?
            .to_proto();
        let change = |row: &mut RosterRow| row.set_schedule(schedule);
        let wish = self
            .wishes
            .of_node(&caller, "ScheduleNode", &request.id, change);
        wish.await?;
        Ok(Response::new(ScheduleNodeResponse {}))
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let caller = auth::caller(&request)?;
        let RemoveNodeRequest { id, force } = request.into_inner();
        let census = self.roster.census(None, Duration::ZERO).await?;
        let node = census.nodes.into_iter().find(|node| node.id == id);
        let had_stream = node.as_ref().is_some_and(|node| node.connected);
        if had_stream && !force {
            return Err(has_stream(&id, node.as_ref()).into());
        }
        if had_stream && self.door.caller(&id).await.is_err() {
            return Err(Fault::Precondition(format!(
                "the node `{id}` runs in the process of a control plane and has no certificate that could be refused; stop it first"
            ))
            .into());
        }
        if !self.door.remove_node(&caller, &id).await? && node.is_none() {
            return Err(Fault::NotFound { what: "node", id }.into());
        }
        self.roster.forget(&id);
        Ok(Response::new(RemoveNodeResponse {
            had_stream,
            vitals: node.and_then(|node| node.vitals),
        }))
    }

    async fn wait_applied(
        &self,
        request: Request<WaitAppliedRequest>,
    ) -> Result<Response<WaitAppliedResponse>, Status> {
        let request = request.into_inner();
        let version = match request.version {
            Some(version) => Version::from(version),
            None => self.roster.head().await?,
        };
        let within = Duration::from_millis(u64::from(request.timeout_ms)).min(LONGEST);
        let census = self.roster.census(Some(version), within).await?;
        let (applied, missing): (Vec<_>, Vec<_>) = census
            .nodes
            .into_iter()
            .partition(|node| enforces(node, version));
        Ok(Response::new(WaitAppliedResponse {
            version: Some(version.into()),
            applied: u32::try_from(applied.len()).unwrap_or(u32::MAX),
            missing,
            silent_replicas: census.silent,
        }))
    }
}

fn has_stream(id: &str, node: Option<&NodeView>) -> Fault {
    let vitals = node.and_then(|node| node.vitals).unwrap_or_default();
    Fault::Precondition(format!(
        "the node `{id}` has a stream, {} open requests, and {} usage events that it has not reported; drain and stop it first, or remove it by force, which cuts it off and loses that usage",
        vitals.open_requests, vitals.unreported_events
    ))
}
