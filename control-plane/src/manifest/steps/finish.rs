//! What comes after the making of an object.

use proxyxai_proto::admin::v1::{
    UpdateAccountRequest, UpdateProviderRequest, UpdateUpstreamKeyRequest, manifest_object::Kind,
};

use super::super::{apply::Tools, plan::Planned};
use crate::{
    admin::{accounts, providers, upstream_keys},
    config_store::{Edit, State},
    status::Fault,
};

/// Says of what was just made what its creation does not take. `id` is that of a new account.
pub(in crate::manifest) fn finish(
    state: &State,
    tools: &Tools<'_>,
    planned: &Planned,
    id: Option<&String>,
) -> Result<Vec<Edit>, Fault> {
    Ok(
        match planned.after.as_ref().and_then(|after| after.kind.as_ref()) {
            Some(Kind::Account(it)) if it.suspended => {
                let request = UpdateAccountRequest {
                    account: id.cloned().unwrap_or_default(),
                    suspended: Some(true),
                    ..UpdateAccountRequest::default()
                };
                vec![accounts::update(state, tools.caller, &request)?.0]
            }
            Some(Kind::Provider(it)) if it.disabled => {
                let request = UpdateProviderRequest {
                    id: it.id.clone(),
                    disabled: Some(true),
                    ..UpdateProviderRequest::default()
                };
                vec![providers::update(state, &request)?]
            }
            Some(Kind::UpstreamKey(it)) if it.disabled => {
                let request = UpdateUpstreamKeyRequest {
                    id: it.id.clone(),
                    disabled: Some(true),
                    ..UpdateUpstreamKeyRequest::default()
                };
                vec![upstream_keys::update(state, tools.pepper, &request)?]
            }
            _ => Vec::new(),
        },
    )
}
