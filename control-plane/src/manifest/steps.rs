//! Each step of a plan as the call that would make it by itself.

mod delete;
mod finish;
mod update;

use proxyxai_core::snapshot::ResourceKind;
use proxyxai_proto::admin::v1::{
    ChangeAction, CreateProviderRequest, CreateRouteRequest, CreateUpstreamKeyRequest, ManagedBy,
    ManifestObject, manifest_object::Kind,
};

pub(super) use delete::delete;
pub(super) use finish::finish;
pub(super) use update::update;

use super::{apply::Tools, plan::Planned};
use crate::{
    admin::{prices, providers, routes, upstream_keys},
    config_store::{Edit, State},
    status::Fault,
};

/// The call that puts a price table in force.
pub(super) const ACTIVATE: &str = "/proxyxai.admin.v1.PriceService/ActivatePriceTable";

/// The call that would make this step, for what it needs.
pub(super) fn call(planned: &Planned) -> &'static str {
    let (create, update, delete) = match planned.named.kind {
        ResourceKind::Account => (
            "/proxyxai.admin.v1.AccountService/CreateAccount",
            "/proxyxai.admin.v1.AccountService/UpdateAccount",
            "/proxyxai.admin.v1.AccountService/DeleteAccount",
        ),
        ResourceKind::VirtualKey => (
            "/proxyxai.admin.v1.KeyService/CreateKey",
            "/proxyxai.admin.v1.KeyService/UpdateKey",
            "/proxyxai.admin.v1.KeyService/DeleteKey",
        ),
        ResourceKind::Provider => (
            "/proxyxai.admin.v1.ProviderService/CreateProvider",
            "/proxyxai.admin.v1.ProviderService/UpdateProvider",
            "/proxyxai.admin.v1.ProviderService/DeleteProvider",
        ),
        ResourceKind::UpstreamKey => (
            "/proxyxai.admin.v1.UpstreamKeyService/CreateUpstreamKey",
            "/proxyxai.admin.v1.UpstreamKeyService/UpdateUpstreamKey",
            "/proxyxai.admin.v1.UpstreamKeyService/DeleteUpstreamKey",
        ),
        ResourceKind::Route => (
            "/proxyxai.admin.v1.RouteService/CreateRoute",
            "/proxyxai.admin.v1.RouteService/UpdateRoute",
            "/proxyxai.admin.v1.RouteService/DeleteRoute",
        ),
        ResourceKind::PriceTable => (
            "/proxyxai.admin.v1.PriceService/PutPriceTable",
            ACTIVATE,
            "/proxyxai.admin.v1.PriceService/DeletePriceTable",
        ),
    };
    match planned.action() {
        ChangeAction::Create => create,
        ChangeAction::Delete => delete,
        ChangeAction::Update | ChangeAction::Unspecified => update,
    }
}

/// Makes what belongs to the whole deployment.
pub(super) fn create(
    state: &State,
    tools: &Tools<'_>,
    object: &ManifestObject,
) -> Result<Vec<Edit>, Fault> {
    let now = tools.now_unix_ms;
    let managed_by = ManagedBy::Apply.into();
    let idempotency_key = String::new();
    Ok(match &object.kind {
        Some(Kind::Provider(it)) => {
            let request = CreateProviderRequest {
                id: it.id.clone(),
                kind: it.kind,
                base_url: it.base_url.clone(),
                allow_private: it.allow_private,
                managed_by,
                idempotency_key,
            };
            vec![providers::create(state, &request, None, now)?]
        }
        Some(Kind::UpstreamKey(it)) => {
            let request = CreateUpstreamKeyRequest {
                id: it.id.clone(),
                provider_id: it.provider_id.clone(),
                secret: it.secret.clone().unwrap_or_default(),
                managed_by,
                level: it.level,
                weight: it.weight,
                models: it.models.clone(),
                idempotency_key,
            };
            let named = (it.id.as_str(), &request);
            vec![upstream_keys::create(
                state,
                tools.pepper,
                named,
                None,
                now,
            )?]
        }
        Some(Kind::Route(it)) => {
            let (first, next) = it.levels.split_first().unzip();
            let request = CreateRouteRequest {
                id: it.id.clone(),
                model: it.model.clone(),
                provider_ids: first.map(|it| it.provider_ids.clone()).unwrap_or_default(),
                managed_by,
                upstream_model: it.upstream_model.clone(),
                next_levels: next.unwrap_or_default().to_vec(),
                switch_over: it.switch_over,
                idempotency_key,
            };
            vec![routes::create(state, &request, None, now)?]
        }
        Some(Kind::PriceTable(it)) => {
            let content = it.content.clone().unwrap_or_default();
            let book = prices::read(&content)?;
            let put = prices::put(state, &book, &content, ManagedBy::Apply, now)?;
            put.into_iter().collect()
        }
        Some(Kind::Account(_) | Kind::Key(_)) | None => Vec::new(),
    })
}
