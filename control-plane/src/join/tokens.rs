//! Join tokens, as administrators see them.

use std::sync::Arc;

use proxyxai_proto::{
    admin::v1::{
        CreateJoinTokenRequest, CreateJoinTokenResponse, JoinTokenView, ListJoinTokensRequest,
        ListJoinTokensResponse, RevokeJoinTokenRequest, RevokeJoinTokenResponse,
        join_token_service_server::JoinTokenService,
    },
    store::v1 as stored,
};
use tonic::{Request, Response, Status};

use super::Door;
use crate::{admin::page, auth, status::Fault};

/// Makes and revokes what lets nodes in.
pub(crate) struct JoinTokenServer(pub(crate) Arc<Door>);

#[tonic::async_trait]
impl JoinTokenService for JoinTokenServer {
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let expires_in_ms = i64::try_from(request.expires_in_seconds.saturating_mul(1000))
            .map_err(|_| {
                Fault::Invalid("a join token cannot last that long; 0 means for ever".to_owned())
            })?;
        let (token, row) = self
            .0
            .create_token(&caller, expires_in_ms, request.uses_max)
            .await?;
        Ok(Response::new(CreateJoinTokenResponse {
            join_token: Some(view(&token.id, &row)),
            token: token.expose().to_owned(),
        }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        let request = request.into_inner();
        let views = self.0.tokens().await?;
        let (join_tokens, next_page_token) = page(
            views.iter().map(|(id, row)| view(id, row)),
            |view| view.id.clone(),
            request.page_size,
            &request.page_token,
        );
        Ok(Response::new(ListJoinTokensResponse {
            join_tokens,
            next_page_token,
        }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<RevokeJoinTokenRequest>,
    ) -> Result<Response<RevokeJoinTokenResponse>, Status> {
        let caller = auth::caller(&request)?;
        let id = request.into_inner().id;
        let row = self.0.revoke_token(&caller, &id).await?;
        Ok(Response::new(RevokeJoinTokenResponse {
            join_token: Some(view(&id, &row)),
        }))
    }
}

fn view(id: &str, row: &stored::JoinToken) -> JoinTokenView {
    JoinTokenView {
        id: id.to_owned(),
        expires_unix_ms: row.expires_unix_ms,
        uses_max: row.uses_max,
        uses: row.uses,
        revoked: row.revoked,
        created_unix_ms: row.created_unix_ms,
    }
}
