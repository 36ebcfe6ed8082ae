//! What is in force, as manifests say it.
//!
//! Invariant: the order depends on what is shown alone: kinds in turn, each by name.

use std::collections::BTreeMap;

use proxyxai_core::{
    access::{Caller, Permission, may, may_call},
    manifest,
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::{
        ManifestAccount, ManifestKey, ManifestObject, ManifestPriceTable, ManifestProvider,
        ManifestRoute, ManifestUpstreamKey, manifest_object::Kind,
    },
    config::v1::{RouteLevel, resource},
    store::v1::StoredResource,
};

use crate::config_store::State;

/// The kinds that belong to the whole deployment.
const OF_DEPLOYMENT: [ResourceKind; 4] = [
    ResourceKind::Provider,
    ResourceKind::UpstreamKey,
    ResourceKind::Route,
    ResourceKind::PriceTable,
];

/// Everything that a caller sees. A virtual key has its id where others of its account have its name too.
pub(super) fn all(state: &State, caller: &Caller) -> Vec<ManifestObject> {
    let mut shown = BTreeMap::new();
    let mut kinds = vec![ResourceKind::Account, ResourceKind::VirtualKey];
    if may_call(caller, Permission::ReadDeployment).is_ok() {
        kinds.extend(OF_DEPLOYMENT);
    }
    let ambiguous = ambiguous_keys(state);
    let stored = kinds.into_iter().flat_map(|kind| state.of_kind(kind));
    for stored in stored.filter(|stored| is_seen(state, caller, stored)) {
        let Some(mut object) = one(state, stored) else {
            continue;
        };
        if let (Some(Kind::Key(key)), Some(resource::Kind::VirtualKey(it))) =
            (&mut object.kind, kind_of(stored))
            && ambiguous.contains_key(&(it.account_id.clone(), it.name.clone()))
        {
            key.id.clone_from(&it.id);
        }
        if let Some(Kind::PriceTable(table)) = &mut object.kind {
            table.content = content_of(stored);
        }
        if let Some(name) = manifest::named(&object) {
            shown.insert(name, object);
        }
    }
    shown.into_values().collect()
}

/// Accounts and names that several virtual keys have.
fn ambiguous_keys(state: &State) -> BTreeMap<(String, String), usize> {
    let mut counted: BTreeMap<(String, String), usize> = BTreeMap::new();
    for stored in state.of_kind(ResourceKind::VirtualKey) {
        if let Some(resource::Kind::VirtualKey(key)) = kind_of(stored) {
            let count = counted
                .entry((key.account_id.clone(), key.name.clone()))
                .or_default();
            *count = count.saturating_add(1);
        }
    }
    counted.retain(|_, count| *count > 1);
    counted
}

/// Whether a caller sees an object.
pub(super) fn is_seen(state: &State, caller: &Caller, stored: &StoredResource) -> bool {
    let accounts = &state.snapshot.accounts;
    let account = match kind_of(stored) {
        Some(resource::Kind::Account(account)) => &account.id,
        Some(resource::Kind::VirtualKey(key)) => &key.account_id,
        Some(
            resource::Kind::Provider(_)
            | resource::Kind::UpstreamKey(_)
            | resource::Kind::Route(_)
            | resource::Kind::PriceTable(_),
        ) => return may_call(caller, Permission::ReadDeployment).is_ok(),
        None => return false,
    };
    let at = accounts.get(account);
    at.is_some_and(|at| may(caller, Permission::Read, accounts, at).is_ok())
}

/// One object, without what is only said when everything is written out: the id of a virtual key, the content of a price table.
pub(super) fn one(state: &State, stored: &StoredResource) -> Option<ManifestObject> {
    let accounts = &state.snapshot.accounts;
    let path = |id: &str| accounts.get(id).map(|at| accounts.path(at));
    let kind = match kind_of(stored)? {
        resource::Kind::Account(it) => Kind::Account(ManifestAccount {
            path: path(&it.id)?,
            suspended: it.suspended,
            gateway: it.gateway,
            allowed_models: it.allowed_models.clone(),
            allowed_endpoints: it.allowed_endpoints.clone(),
            allowed_networks: it.allowed_networks.clone(),
            max_stale_seconds: it.max_stale_seconds,
            serve_expired: it.serve_expired,
        }),
        resource::Kind::VirtualKey(it) => Kind::Key(ManifestKey {
            account: path(&it.account_id)?,
            name: it.name.clone(),
            id: String::new(),
            disabled: it.disabled,
            expires_unix_ms: it.expires_unix_ms,
            allowed_models: it.allowed_models.clone(),
            allowed_endpoints: it.allowed_endpoints.clone(),
            allowed_networks: it.allowed_networks.clone(),
        }),
        resource::Kind::Provider(it) => Kind::Provider(ManifestProvider {
            id: it.id.clone(),
            kind: it.kind,
            base_url: it.base_url.clone(),
            allow_private: it.allow_private,
            disabled: it.disabled,
        }),
        resource::Kind::UpstreamKey(it) => Kind::UpstreamKey(ManifestUpstreamKey {
            id: it.id.clone(),
            provider_id: it.provider_id.clone(),
            disabled: it.disabled,
            level: it.level,
            weight: it.weight,
            models: it.models.clone(),
            secret: None,
            fingerprint: stored.fingerprint.clone(),
        }),
        resource::Kind::Route(it) => {
            let first = RouteLevel {
                provider_ids: it.provider_ids.clone(),
            };
            let further = it.next_levels.iter().cloned();
            Kind::Route(ManifestRoute {
                id: it.id.clone(),
                model: it.model.clone(),
                upstream_model: it.upstream_model.clone(),
                levels: std::iter::once(first).chain(further).collect(),
                switch_over: it.switch_over,
            })
        }
        resource::Kind::PriceTable(it) => Kind::PriceTable(ManifestPriceTable {
            version: it.version.clone(),
            active: state.snapshot.prices.version == it.version,
            content: None,
        }),
    };
    Some(manifest::normal(ManifestObject { kind: Some(kind) }))
}

fn content_of(stored: &StoredResource) -> Option<Vec<u8>> {
    match kind_of(stored)? {
        resource::Kind::PriceTable(table) => Some(table.content.clone()),
        resource::Kind::Account(_)
        | resource::Kind::VirtualKey(_)
        | resource::Kind::Provider(_)
        | resource::Kind::UpstreamKey(_)
        | resource::Kind::Route(_) => None,
    }
}

pub(super) fn kind_of(stored: &StoredResource) -> Option<&resource::Kind> {
    stored.resource.as_ref()?.kind.as_ref()
}

/// The name of a stored object in the store.
pub(super) fn name_of(stored: &StoredResource) -> Option<ResourceName> {
    ResourceName::of(stored.resource.as_ref()?)
}
