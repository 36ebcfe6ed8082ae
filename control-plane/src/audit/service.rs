//! Shows the trail: page by page, as much of it as the caller sees.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Permission},
    audit::seen,
};
use proxyxai_proto::admin::v1::{
    AuditRecord, GetAuditChainRequest, GetAuditChainResponse, ListAuditRecordsRequest,
    ListAuditRecordsResponse, audit_service_server::AuditService,
};
use tonic::{Request, Response, Status};

use super::Trail;
use crate::{
    admin::{accounts::find_account, page_size},
    auth,
    config_store::ConfigStore,
    status::Fault,
};

/// Records read for one page, shown or not.
const SCAN: usize = 2000;
/// Bytes after which a page ends: with one more record it is still within what gRPC clients take.
const PAGE_BYTES: usize = 2 << 20;
/// Records read at once.
const STEP: usize = 200;

pub(crate) struct AuditServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) deployment_id: String,
}

#[tonic::async_trait]
impl AuditService for AuditServer {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        let caller = auth::caller(&request)?;
        let query = request.into_inner();
        let wanted = self.wanted(&caller, &query)?;
        let (anchor, head) = self.trail.ends().await?;
        let token = match query.page_token.as_str() {
            "" if query.newest_first => head.sequence.saturating_add(1),
            "" => anchor.sequence,
            token => token.parse().map_err(|_| {
                Fault::Invalid("the page token is none that this call gave".to_owned())
            })?,
        };
        let size = page_size(query.page_size);
        let (mut at, mut records) = (token, Vec::new());
        let (mut read, mut bytes) = (0_usize, 0_usize);
        let next = loop {
            if records.len() >= size || read >= SCAN || bytes >= PAGE_BYTES {
                break Some(at);
            }
            let step = if query.newest_first {
                self.step_back(at).await?
            } else {
                self.trail.after(at, STEP).await?
            };
            if step.is_empty() {
                break None;
            }
            read = read.saturating_add(step.len());
            for (place, record) in step {
                if records.len() >= size || bytes >= PAGE_BYTES {
                    break;
                }
                at = place;
                if let Some(record) = wanted(record) {
                    bytes = bytes.saturating_add(record.encoded_len());
                    records.push(record);
                }
            }
        };
        Ok(Response::new(ListAuditRecordsResponse {
            records,
            next_page_token: next.map(|at| at.to_string()).unwrap_or_default(),
        }))
    }

    async fn get_audit_chain(
        &self,
        _: Request<GetAuditChainRequest>,
    ) -> Result<Response<GetAuditChainResponse>, Status> {
        let (anchor, head) = self.trail.ends().await?;
        Ok(Response::new(GetAuditChainResponse {
            anchor: Some(anchor.to_proto()),
            head: Some(head.to_proto()),
            deployment_id: self.deployment_id.clone(),
        }))
    }
}

impl AuditServer {
    /// What is shown of a record, if anything is.
    fn wanted(
        &self,
        caller: &Caller,
        query: &ListAuditRecordsRequest,
    ) -> Result<impl Fn(AuditRecord) -> Option<AuditRecord>, Fault> {
        let state = self.config.state();
        // Whoever sees the whole deployment and names no account sees every record as it is, so that its hash can be checked.
        let whole = caller.sees_deployment() && query.under.is_empty();
        let under = if whole {
            None
        } else {
            let under = find_account(&state, caller, Permission::Read, &query.under)?;
            Some(state.snapshot.accounts.id(under).to_owned())
        };
        let (query, top) = (query.clone(), caller.account.clone());
        Ok(move |record: AuditRecord| {
            let seen = match &under {
                None => record,
                Some(under) => seen(&record, under, &top)?,
            };
            let actor = seen.actor.as_ref();
            let by = actor.is_some_and(|actor| actor.credential_id == query.credential_id);
            let object = seen.changes.iter().any(|change| {
                (query.object_id.is_empty() || change.id == query.object_id)
                    && (query.object_kind.is_empty() || change.kind == query.object_kind)
            });
            let fits = (query.from_unix_ms == 0 || seen.unix_ms >= query.from_unix_ms)
                && (query.to_unix_ms == 0 || seen.unix_ms < query.to_unix_ms)
                && (query.credential_id.is_empty() || by)
                && ((query.object_id.is_empty() && query.object_kind.is_empty()) || object);
            fits.then_some(seen)
        })
    }

    /// The records before this one, the newest first.
    async fn step_back(&self, before: u64) -> Result<Vec<(u64, AuditRecord)>, Fault> {
        let step = u64::try_from(STEP).unwrap_or(u64::MAX);
        let after = before.saturating_sub(1).saturating_sub(step);
        let mut records = self.trail.after(after, STEP).await?;
        records.retain(|(place, _)| *place < before);
        records.reverse();
        Ok(records)
    }
}
