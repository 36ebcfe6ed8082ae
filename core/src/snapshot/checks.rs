//! Checks single resources as they came over the wire: the same code at the admin API, which names the field, and at the node.

use std::sync::Arc;

use proxyxai_proto::config::v1 as proto;
use secrecy::SecretString;

use super::compile::{Provider, ProviderIndex, UpstreamKey};
use crate::{
    account::{
        pattern::{Pattern, PatternList},
        rules,
    },
    route::{
        base_url::BaseUrl,
        mapping::Mapping,
        pool::MAX_LEVEL,
        provider::{self, ProviderKind},
        turns::MAX_WEIGHT,
    },
};

/// A field that does not fit, and why.
pub type WrongField = (&'static str, String);

/// Checks a provider as it came over the wire; the same code at the admin API and at the node.
///
/// # Errors
/// Which field is wrong, and what would be right.
pub fn check_provider(given: &proto::Provider) -> Result<Provider, WrongField> {
    rules::check_id(&given.id).map_err(|error| ("id", error.to_string()))?;
    let unknown = || {
        (
            "kind",
            "its kind is not one that this version knows".to_owned(),
        )
    };
    let kind = ProviderKind::from_proto(given.kind()).ok_or_else(unknown)?;
    let base = BaseUrl::parse(&given.base_url).map_err(|e| ("base_url", e.to_string()))?;
    if !given.allow_private
        && base
            .literal_address()
            .is_some_and(crate::route::address::is_private)
    {
        let reason = format!(
            "{base} is a private address; allow private addresses for this provider if that is meant"
        );
        return Err(("base_url", reason));
    }
    Ok(Provider {
        id: given.id.as_str().into(),
        kind,
        official: kind != ProviderKind::Gateway && provider::is_official(&base),
        base,
        allow_private: given.allow_private,
        disabled: given.disabled,
    })
}

/// Longest secret of an upstream, in bytes: servers refuse headers that are much longer.
const MAX_SECRET_BYTES: usize = 4096;

/// Checks a secret: it must be able to stand in a header.
///
/// # Errors
/// Says what does not belong into a secret.
pub fn check_upstream_secret(secret: &[u8]) -> Result<String, &'static str> {
    let text = str::from_utf8(secret).map_err(|_| "its secret is not text")?;
    if text.is_empty() {
        return Err("its secret is empty");
    }
    if text.len() > MAX_SECRET_BYTES {
        return Err("its secret is too long: at most 4096 bytes can stand in a header");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its secret has spaces or other characters that cannot stand in a header");
    }
    Ok(text.to_owned())
}

/// Checks an upstream key as it came over the wire, its secret in plain; the same code at the admin API and at the node.
///
/// # Errors
/// Which field is wrong, and what would be right.
pub fn check_upstream_key(
    given: &proto::UpstreamKey,
    provider: ProviderIndex,
) -> Result<UpstreamKey, WrongField> {
    let secret =
        check_upstream_secret(&given.secret).map_err(|reason| ("secret", reason.to_owned()))?;
    if given.level > MAX_LEVEL {
        let reason = format!("a level is 0 to {MAX_LEVEL}, and {} is not", given.level);
        return Err(("level", reason));
    }
    if given.weight > MAX_WEIGHT {
        let reason = format!("a weight is 1 to {MAX_WEIGHT}, and {} is not", given.weight);
        return Err(("weight", reason));
    }
    let models = PatternList::parse(&given.models).map_err(|e| ("models", e.to_string()))?;
    Ok(UpstreamKey {
        id: given.id.as_str().into(),
        provider,
        disabled: given.disabled,
        secret: SecretString::from(secret),
        level: given.level,
        weight: given.weight.max(1),
        models: Arc::new(models),
    })
}

/// The providers of each level of a route, in order.
pub(super) fn levels_given(route: &proto::Route) -> impl Iterator<Item = &[String]> {
    let further = route.next_levels.iter();
    std::iter::once(&*route.provider_ids).chain(further.map(|level| &*level.provider_ids))
}

/// Checks a route as it came over the wire; the same code at the admin API and at the node.
///
/// # Errors
/// Which field is wrong, and what would be right.
pub fn check_route(
    route: &proto::Route,
    is_provider: impl Fn(&str) -> bool,
) -> Result<(Pattern, Option<Mapping>), WrongField> {
    rules::check_id(&route.id).map_err(|error| ("id", error.to_string()))?;
    let fields = std::iter::once("provider_ids").chain(std::iter::repeat("next_levels"));
    for (field, ids) in fields.zip(levels_given(route)) {
        if ids.is_empty() {
            return Err((field, "it names no provider".to_owned()));
        }
        if let Some(unknown) = ids.iter().find(|id| !is_provider(id)) {
            return Err((field, format!("its provider `{unknown}` does not exist")));
        }
    }
    let pattern = Pattern::parse(&route.model).map_err(|error| ("model", error.to_string()))?;
    let mapping = Mapping::parse(&pattern, &route.upstream_model)
        .map_err(|error| ("upstream_model", error.to_string()))?;
    Ok((pattern, mapping))
}
