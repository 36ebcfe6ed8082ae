//! Objects of the admin API as JSON values. The field names are those of the protos and stay the same.

use proxyxai_core::{
    money::nano::NanoUsd,
    route::{pool::SwitchOver, provider},
};
use proxyxai_proto::{
    admin::v1::{
        AccountView, KeyView, ManagedBy, PriceTableView, ProviderView, RouteView, UpstreamKeyView,
        UsageRow,
    },
    config::v1::ProviderKind,
    usage::v1::Tokens,
};
use serde_json::{Value, json};

use super::Kind;
use crate::admin::stale::said;

/// Accounts.
pub const ACCOUNT: Kind<'static> = Kind {
    one: "account",
    many: "accounts",
    columns: &[
        ("PATH", "path"),
        ("ID", "id"),
        ("SUSPENDED", "suspended"),
        ("IN EFFECT", "effectively_suspended"),
        ("GATEWAY", "gateway"),
        ("MODELS", "allowed_models"),
        ("ENDPOINTS", "allowed_endpoints"),
        ("FROM", "allowed_networks"),
        ("MAX STALE S", "max_stale_seconds"),
        ("SERVE EXPIRED", "serve_expired"),
        ("CREATED", "created_unix_ms"),
    ],
};

/// Virtual keys.
pub const KEY: Kind<'static> = Kind {
    one: "key",
    many: "keys",
    columns: &[
        ("ID", "id"),
        ("NAME", "name"),
        ("ACCOUNT", "account_path"),
        ("DISABLED", "disabled"),
        ("EXPIRES", "expires_unix_ms"),
        ("OLD SECRET UNTIL", "previous_expires_unix_ms"),
        ("MODELS", "allowed_models"),
        ("ENDPOINTS", "allowed_endpoints"),
        ("FROM", "allowed_networks"),
        ("HINT", "hint"),
        ("CREATED", "created_unix_ms"),
    ],
};

/// Providers.
pub const PROVIDER: Kind<'static> = Kind {
    one: "provider",
    many: "providers",
    columns: &[
        ("ID", "id"),
        ("KIND", "kind"),
        ("BASE", "base_url"),
        ("PRIVATE", "allow_private"),
        ("DISABLED", "disabled"),
        ("KEYS", "keys"),
        ("ENABLED KEYS", "enabled_keys"),
        ("MANAGED BY", "managed_by"),
        ("CREATED", "created_unix_ms"),
    ],
};

/// Upstream keys.
pub const UPSTREAM_KEY: Kind<'static> = Kind {
    one: "upstream_key",
    many: "upstream_keys",
    columns: &[
        ("ID", "id"),
        ("PROVIDER", "provider_id"),
        ("LEVEL", "level"),
        ("WEIGHT", "weight"),
        ("MODELS", "models"),
        ("DISABLED", "disabled"),
        ("FINGERPRINT", "fingerprint"),
        ("MANAGED BY", "managed_by"),
        ("CREATED", "created_unix_ms"),
    ],
};

/// Routes.
pub const ROUTE: Kind<'static> = Kind {
    one: "route",
    many: "routes",
    columns: &[
        ("ID", "id"),
        ("MODEL", "model"),
        ("UPSTREAM MODEL", "upstream_model"),
        ("PROVIDERS", "provider_ids"),
        ("NEXT LEVELS", "next_levels"),
        ("SWITCH OVER", "switch_over"),
        ("MANAGED BY", "managed_by"),
        ("CREATED", "created_unix_ms"),
    ],
};

/// Tables of prices.
pub const PRICE_TABLE: Kind<'static> = Kind {
    one: "price_table",
    many: "price_tables",
    columns: &[
        ("VERSION", "version"),
        ("IN FORCE", "active"),
        ("DATE", "date"),
        ("MODELS", "models"),
        ("SOURCE", "source"),
        ("CREATED", "created_unix_ms"),
    ],
};

/// A table of prices, without its content.
pub fn price_table(view: &PriceTableView) -> Value {
    json!({
        "version": view.version, "active": view.active, "date": view.date, "models": view.models, "source": view.source,
        "created_unix_ms": view.created_unix_ms, "resource_version": view.resource_version,
    })
}

/// An account.
pub fn account(view: &AccountView) -> Value {
    let account = view.account.clone().unwrap_or_default();
    json!({
        "id": account.id, "parent_id": account.parent_id, "name": account.name, "path": view.path,
        "suspended": account.suspended, "gateway": account.gateway, "effectively_suspended": view.effectively_suspended,
        "allowed_models": account.allowed_models, "allowed_endpoints": account.allowed_endpoints,
        "allowed_networks": account.allowed_networks,
        "max_stale_seconds": Some(account.max_stale_seconds).filter(|seconds| *seconds != 0),
        "serve_expired": said(account.serve_expired()), "created_unix_ms": view.created_unix_ms,
        "resource_version": view.resource_version,
    })
}

/// A virtual key.
pub fn key(view: &KeyView) -> Value {
    json!({
        "id": view.id, "name": view.name, "account_id": view.account_id, "account_path": view.account_path,
        "disabled": view.disabled, "expires_unix_ms": time(view.expires_unix_ms),
        "previous_expires_unix_ms": time(view.previous_expires_unix_ms), "allowed_models": view.allowed_models,
        "allowed_endpoints": view.allowed_endpoints, "allowed_networks": view.allowed_networks, "hint": view.hint,
        "created_unix_ms": view.created_unix_ms, "resource_version": view.resource_version,
    })
}

/// A provider.
pub fn provider(view: &ProviderView) -> Value {
    let provider = view.provider.clone().unwrap_or_default();
    json!({
        "id": provider.id, "kind": kind_word(provider.kind()), "base_url": provider.base_url,
        "allow_private": provider.allow_private, "disabled": provider.disabled,
        "keys": view.keys, "enabled_keys": view.enabled_keys,
        "managed_by": managed_by(view.managed_by()), "created_unix_ms": view.created_unix_ms,
        "resource_version": view.resource_version,
    })
}

/// An upstream key.
pub fn upstream_key(view: &UpstreamKeyView) -> Value {
    json!({
        "id": view.id, "provider_id": view.provider_id, "disabled": view.disabled, "fingerprint": view.fingerprint,
        "level": view.level, "weight": view.weight, "models": view.models,
        "managed_by": managed_by(view.managed_by()), "created_unix_ms": view.created_unix_ms,
        "resource_version": view.resource_version,
    })
}

/// A route. Each of its further levels is one text, its providers with commas between, as the command line takes it.
pub fn route(view: &RouteView) -> Value {
    let route = view.route.clone().unwrap_or_default();
    let next: Vec<String> = route
        .next_levels
        .iter()
        .map(|level| level.provider_ids.join(","))
        .collect();
    json!({
        "id": route.id, "model": route.model, "upstream_model": route.upstream_model, "provider_ids": route.provider_ids,
        "next_levels": next, "switch_over": SwitchOver::from_proto(route.switch_over()).as_str(),
        "managed_by": managed_by(view.managed_by()), "created_unix_ms": view.created_unix_ms,
        "resource_version": view.resource_version,
    })
}

/// A row of usage. Money stands there twice: in nano-USD for programs, in USD for people.
pub fn usage_row(row: &UsageRow) -> Value {
    let usd = |nano: i64| NanoUsd(nano).to_string();
    json!({
        "account_id": row.account_id, "account_path": row.account_path, "key_id": row.key_id, "key_name": row.key_name,
        "model": row.model, "attempts": row.attempts, "reported": row.reported, "rejected": row.rejected,
        "not_sent": row.not_sent, "unknown": row.unknown, "tokens": tokens(row.tokens.as_ref()),
        "estimated_tokens": tokens(row.estimated_tokens.as_ref()),
        "cost_nano_usd": row.cost_nano_usd, "cost_usd": usd(row.cost_nano_usd),
        "estimated_cost_nano_usd": row.estimated_cost_nano_usd, "estimated_cost_usd": usd(row.estimated_cost_nano_usd),
        "unpriced": row.unpriced, "web_searches": row.web_searches,
    })
}

/// The word for a kind of provider.
pub fn kind_word(kind: ProviderKind) -> &'static str {
    provider::ProviderKind::from_proto(kind).map_or("unspecified", provider::ProviderKind::as_str)
}

/// A time that there may not be.
fn time(unix_ms: i64) -> Option<i64> {
    (unix_ms != 0).then_some(unix_ms)
}

fn managed_by(by: ManagedBy) -> &'static str {
    match by {
        ManagedBy::Unspecified => "unspecified",
        ManagedBy::Admin => "admin",
        ManagedBy::Env => "env",
        ManagedBy::Demo => "demo",
        ManagedBy::Apply => "apply",
    }
}

fn tokens(tokens: Option<&Tokens>) -> Value {
    let tokens = tokens.copied().unwrap_or_default();
    json!({
        "input": tokens.input, "cache_read": tokens.cache_read, "cache_write_5m": tokens.cache_write_5m,
        "cache_write_1h": tokens.cache_write_1h, "output": tokens.output,
    })
}
