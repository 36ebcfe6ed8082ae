//! An entry of a file as an object of a manifest.

use std::path::Path;

use proxyxai_proto::{
    admin::v1::{
        ManifestAccount, ManifestKey, ManifestPriceTable, ManifestProvider, ManifestRoute,
        ManifestUpstreamKey, Settings, manifest_object::Kind,
    },
    config::v1::{self as proto, RouteLevel, ServeExpired},
};

use super::{file, source::text};
use crate::{
    admin::{settings::whole_seconds, when::When},
    environment::Environment,
};

/// A field that cannot be used, by its name in files.
pub(super) type WrongField = (&'static str, String);

pub(super) fn settings(it: &file::Settings) -> Result<Settings, WrongField> {
    let seconds = |field, span: &Option<String>| match span {
        None => Ok(0),
        Some(span) => whole_seconds(span).map_err(|what| (field, what)),
    };
    Ok(Settings {
        max_stale_seconds: seconds("max_stale", &it.max_stale)?,
        audit_keep_seconds: seconds("audit_keep", &it.audit_keep)?,
    })
}

pub(super) fn account(it: file::Account) -> Result<Kind, WrongField> {
    let seconds = it.max_stale.as_deref().map(whole_seconds).transpose();
    let serve_expired = match it.serve_expired {
        None => ServeExpired::Unspecified,
        Some(true) => ServeExpired::Allowed,
        Some(false) => ServeExpired::Forbidden,
    };
    Ok(Kind::Account(ManifestAccount {
        path: it.path,
        suspended: it.suspended,
        gateway: it.gateway,
        allowed_models: it.allowed_models,
        allowed_endpoints: it.allowed_endpoints,
        allowed_networks: it.allowed_networks,
        max_stale_seconds: seconds
            .map_err(|what| ("max_stale", what))?
            .unwrap_or_default(),
        serve_expired: serve_expired.into(),
    }))
}

pub(super) fn key(it: file::Key) -> Result<Kind, WrongField> {
    let expires_unix_ms = match it.expires.as_deref().map(str::parse) {
        None => 0,
        Some(Ok(When::At(unix_ms))) => unix_ms,
        Some(Ok(When::Apart(_)) | Err(_)) => {
            let what = "say a date (2027-01-31) or a time (2027-01-31T12:00:00Z); a distance means another time whenever it is read";
            return Err(("expires", what.to_owned()));
        }
    };
    Ok(Kind::Key(ManifestKey {
        account: it.account,
        name: it.name,
        id: it.id,
        disabled: it.disabled,
        expires_unix_ms,
        allowed_models: it.allowed_models,
        allowed_endpoints: it.allowed_endpoints,
        allowed_networks: it.allowed_networks,
    }))
}

pub(super) fn provider(it: file::Provider) -> Result<Kind, WrongField> {
    let kind = match it.kind {
        file::ProviderKind::Openai => proto::ProviderKind::Openai,
        file::ProviderKind::Anthropic => proto::ProviderKind::Anthropic,
        file::ProviderKind::OpenaiCompatible => proto::ProviderKind::OpenaiCompatible,
        file::ProviderKind::Gateway => proto::ProviderKind::Gateway,
    };
    Ok(Kind::Provider(ManifestProvider {
        id: it.id,
        kind: kind.into(),
        base_url: it.base_url,
        allow_private: it.allow_private,
        disabled: it.disabled,
    }))
}

pub(super) fn upstream_key(
    it: file::UpstreamKey,
    (folder, environment): (&Path, &Environment),
) -> Result<Kind, WrongField> {
    let secret = match (&it.secret_file, &it.secret_env) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            let what = "the secret is in a file or in a variable; say one of them";
            return Err(("secret_env", what.to_owned()));
        }
        (Some(file), None) => {
            let file = folder.join(file);
            let secret = text(&file).map_err(|error| {
                let what = format!("{} cannot be read: {error}", file.display());
                ("secret_file", what)
            })?;
            Some(secret.trim().to_owned())
        }
        (None, Some(name)) => {
            let secret = environment.get(name).map(|secret| secret.trim().to_owned());
            let what = || {
                format!(
                    "the variable {name} is not set; set it, or say nothing to keep the secret that the key has"
                )
            };
            Some(secret.ok_or_else(|| ("secret_env", what()))?)
        }
    };
    Ok(Kind::UpstreamKey(ManifestUpstreamKey {
        id: it.id,
        provider_id: it.provider,
        disabled: it.disabled,
        level: it.level,
        weight: it.weight,
        models: it.models,
        secret,
        fingerprint: String::new(),
    }))
}

pub(super) fn route(it: file::Route) -> Result<Kind, WrongField> {
    let switch_over = match it.switch_over {
        file::SwitchOver::Exhausted => proto::SwitchOver::Exhausted,
        file::SwitchOver::RateLimited => proto::SwitchOver::RateLimited,
        file::SwitchOver::AnyFailure => proto::SwitchOver::AnyFailure,
    };
    let levels = it.levels.into_iter();
    Ok(Kind::Route(ManifestRoute {
        id: it.id,
        model: it.model,
        upstream_model: it.upstream_model.unwrap_or_default(),
        levels: levels
            .map(|provider_ids| RouteLevel { provider_ids })
            .collect(),
        switch_over: switch_over.into(),
    }))
}

pub(super) fn price_table(it: file::PriceTable, folder: &Path) -> Result<Kind, WrongField> {
    let content = match (it.table, it.table_file) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            let what = "the table is here or in a file; say one of them";
            return Err(("table_file", what.to_owned()));
        }
        (Some(table), None) => Some(table.into_bytes()),
        (None, Some(file)) => {
            let file = folder.join(file);
            let table = text(&file).map_err(|error| {
                let what = format!("{} cannot be read: {error}", file.display());
                ("table_file", what)
            })?;
            Some(table.into_bytes())
        }
    };
    Ok(Kind::PriceTable(ManifestPriceTable {
        version: it.version,
        active: it.active,
        content,
    }))
}
