//! Deletions.

use proxyxai_core::snapshot::ResourceKind;
use proxyxai_proto::admin::v1::{
    DeleteAccountRequest, DeleteKeyRequest, DeletePriceTableRequest, DeleteProviderRequest,
    DeleteRouteRequest, DeleteUpstreamKeyRequest,
};

use super::super::{apply::Tools, plan::Planned};
use crate::{
    admin::{accounts, keys, prices, providers, routes, upstream_keys},
    config_store::{Edit, State},
    status::Fault,
};

/// Takes away what is there.
pub(in crate::manifest) fn delete(
    state: &State,
    tools: &Tools<'_>,
    planned: &Planned,
) -> Result<Vec<Edit>, Fault> {
    let Some(target) = &planned.target else {
        return Ok(Vec::new());
    };
    let (id, resource_version) = (target.id.clone(), 0);
    let edit = match target.kind {
        ResourceKind::Account => {
            let request = DeleteAccountRequest {
                account: id,
                resource_version,
            };
            accounts::delete(state, tools.caller, &request, tools.with_credentials)
        }
        ResourceKind::VirtualKey => {
            let request = DeleteKeyRequest {
                id,
                resource_version,
            };
            keys::delete(state, tools.caller, &request)
        }
        ResourceKind::Provider => {
            let request = DeleteProviderRequest {
                id,
                resource_version,
            };
            providers::delete(state, &request)
        }
        ResourceKind::UpstreamKey => {
            let request = DeleteUpstreamKeyRequest {
                id,
                resource_version,
            };
            upstream_keys::delete(state, &request)
        }
        ResourceKind::Route => {
            let request = DeleteRouteRequest {
                id,
                resource_version,
            };
            routes::delete(state, &request)
        }
        ResourceKind::PriceTable => {
            let request = DeletePriceTableRequest {
                version: id,
                resource_version,
            };
            prices::delete(state, &request)
        }
    };
    edit.map(|edit| vec![edit])
}
