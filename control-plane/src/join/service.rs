//! The gRPC service by which nodes get in.

use std::sync::Arc;

use proxyxai_proto::node::v1::{
    JoinRequest, JoinResponse, NodeCertificate, RenewRequest, RenewResponse,
    join_service_server::JoinService,
};
use tonic::{Request, Response, Status};

use super::{Door, JoinRefusal};
use crate::authority;

/// Lets nodes in.
pub(crate) struct JoinServer(pub(crate) Arc<Door>);

#[tonic::async_trait]
impl JoinService for JoinServer {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let joined = self
            .0
            .join(
                &request.token,
                &request.node_id,
                &request.certificate_request,
            )
            .await?;
        Ok(Response::new(JoinResponse {
            certificate: Some(certificate(joined.certificate)),
            renewal_secret: joined.renewal_secret,
        }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let request = request.into_inner();
        let next = self
            .0
            .renew(
                &request.node_id,
                &request.renewal_secret,
                &request.certificate_request,
            )
            .await?;
        Ok(Response::new(RenewResponse {
            certificate: Some(certificate(next)),
        }))
    }
}

fn certificate(made: authority::NodeCertificate) -> NodeCertificate {
    NodeCertificate {
        chain: made.chain,
        not_after_unix_ms: made.not_after_unix_ms,
    }
}

impl From<JoinRefusal> for Status {
    fn from(refusal: JoinRefusal) -> Self {
        let said = refusal.to_string();
        match refusal {
            JoinRefusal::UnknownToken | JoinRefusal::UnknownNode(_) => Self::unauthenticated(said),
            JoinRefusal::Spent { .. } => Self::permission_denied(said),
            JoinRefusal::Taken(_) => Self::already_exists(said),
            JoinRefusal::Invalid(_) => Self::invalid_argument(said),
            JoinRefusal::Fault(fault) => fault.into(),
        }
    }
}
