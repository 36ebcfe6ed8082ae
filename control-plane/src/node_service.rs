//! Nodes, as administrators see them.

use std::{sync::Arc, time::Duration};

use proxyxai_core::snapshot::Version;
use proxyxai_proto::admin::v1::{
    ListNodesRequest, ListNodesResponse, ListWithheldRequest, ListWithheldResponse,
    RemoveNodeRequest, RemoveNodeResponse, WaitAppliedRequest, WaitAppliedResponse, WithheldView,
    node_service_server::NodeService,
};
use tonic::{Request, Response, Status};

use crate::{
    admin::page,
    config_store::ConfigStore,
    roster::{Roster, enforces},
};

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(290);

pub(crate) struct NodeServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) roster: Arc<Roster>,
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
        let withheld = Arc::clone(&self.config.state().withheld);
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

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        self.roster.remove(&request.into_inner().id).await?;
        Ok(Response::new(RemoveNodeResponse {}))
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
