//! Changes of objects that are there.
//!
//! Invariant: an update says only what changes, as whoever changes one field would; what stays is not judged again.

use proxyxai_proto::admin::v1::{
    RouteLevels, StringList, UpdateAccountRequest, UpdateKeyRequest, UpdateProviderRequest,
    UpdateRouteRequest, UpdateUpstreamKeyRequest, manifest_object::Kind,
};

use super::super::{
    apply::{Tools, held},
    plan::Planned,
};
use crate::{
    admin::{accounts, keys, providers, routes, upstream_keys},
    config_store::{Edit, State},
    status::Fault,
};

/// Changes what is there.
pub(in crate::manifest) fn update(
    state: &State,
    tools: &Tools<'_>,
    planned: &Planned,
) -> Result<Vec<Edit>, Fault> {
    let id = planned.target.as_ref().map(|it| it.id.clone());
    let id = id.unwrap_or_default();
    let after = planned.after.as_ref().and_then(|after| after.kind.as_ref());
    Ok(match (held(planned), after) {
        (Some(Kind::Account(old)), Some(Kind::Account(new))) => {
            let request = UpdateAccountRequest {
                account: id,
                suspended: changed(&old.suspended, &new.suspended),
                gateway: changed(&old.gateway, &new.gateway),
                allowed_models: list(&old.allowed_models, &new.allowed_models),
                allowed_endpoints: list(&old.allowed_endpoints, &new.allowed_endpoints),
                allowed_networks: list(&old.allowed_networks, &new.allowed_networks),
                max_stale_seconds: changed(&old.max_stale_seconds, &new.max_stale_seconds),
                serve_expired: changed(&old.serve_expired, &new.serve_expired),
                ..UpdateAccountRequest::default()
            };
            vec![accounts::update(state, tools.caller, &request)?.0]
        }
        (Some(Kind::Key(old)), Some(Kind::Key(new))) => {
            let request = UpdateKeyRequest {
                id,
                name: changed(&old.name, &new.name),
                disabled: changed(&old.disabled, &new.disabled),
                expires_unix_ms: changed(&old.expires_unix_ms, &new.expires_unix_ms),
                allowed_models: list(&old.allowed_models, &new.allowed_models),
                allowed_endpoints: list(&old.allowed_endpoints, &new.allowed_endpoints),
                allowed_networks: list(&old.allowed_networks, &new.allowed_networks),
                resource_version: 0,
            };
            vec![keys::update(
                state,
                tools.caller,
                &request,
                tools.now_unix_ms,
            )?]
        }
        (Some(Kind::Provider(old)), Some(Kind::Provider(new))) => {
            let request = UpdateProviderRequest {
                id,
                kind: changed(&old.kind, &new.kind),
                base_url: changed(&old.base_url, &new.base_url),
                allow_private: changed(&old.allow_private, &new.allow_private),
                disabled: changed(&old.disabled, &new.disabled),
                resource_version: 0,
            };
            vec![providers::update(state, &request)?]
        }
        (Some(Kind::UpstreamKey(old)), Some(Kind::UpstreamKey(new))) => {
            if old.provider_id != new.provider_id {
                let what = format!(
                    "a key stays with its provider `{}`; give the key of another one another id",
                    old.provider_id
                );
                return Err(Fault::field("provider_id", what));
            }
            let request = UpdateUpstreamKeyRequest {
                id,
                disabled: changed(&old.disabled, &new.disabled),
                secret: new.secret.clone(),
                level: changed(&old.level, &new.level),
                weight: changed(&old.weight, &new.weight),
                models: list(&old.models, &new.models),
                resource_version: 0,
            };
            vec![upstream_keys::update(state, tools.pepper, &request)?]
        }
        (Some(Kind::Route(old)), Some(Kind::Route(new))) => {
            let (first, next) = new.levels.split_first().unzip();
            let levels = old.levels != new.levels;
            let request = UpdateRouteRequest {
                id,
                model: changed(&old.model, &new.model),
                provider_ids: levels.then(|| StringList {
                    values: first.map(|it| it.provider_ids.clone()).unwrap_or_default(),
                }),
                upstream_model: changed(&old.upstream_model, &new.upstream_model),
                next_levels: levels.then(|| RouteLevels {
                    values: next.unwrap_or_default().to_vec(),
                }),
                switch_over: changed(&old.switch_over, &new.switch_over),
                resource_version: 0,
            };
            vec![routes::update(state, &request)?]
        }
        // Prices never change, and a table is put in force in its turn.
        _ => Vec::new(),
    })
}

fn changed<T: PartialEq + Clone>(old: &T, new: &T) -> Option<T> {
    (old != new).then(|| new.clone())
}

fn list(old: &[String], new: &[String]) -> Option<StringList> {
    (old != new).then(|| StringList {
        values: new.to_vec(),
    })
}
