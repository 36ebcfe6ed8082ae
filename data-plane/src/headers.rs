//! Which headers pass: of a request to the provider, of an answer to the client.
//!
//! Invariants: no credential, cookie, organisation or address of a client reaches a provider; no hop-by-hop header passes either way
//! (RFC 9110 §7.6.1), those that `Connection` names included; what is not listed passes, in order.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST},
};
use proxyxai_core::route::provider::ProviderKind;

use crate::config::UpstreamCredential;

/// Where clients of Anthropic's API put their key.
pub(crate) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What only clients of Anthropic's API send.
pub(crate) const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// Names a request, on the way in and out.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Names a request as this gateway does, whatever the provider calls it.
pub(crate) const X_PROXYXAI_REQUEST_ID: HeaderName =
    HeaderName::from_static("x-proxyxai-request-id");

/// The headers of one attempt.
pub(crate) fn upstream(
    client: &HeaderMap,
    kind: ProviderKind,
    credential: &UpstreamCredential,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(client.len().saturating_add(4));
    headers.insert(HOST, credential.host.clone());
    let connection = Connection::of(client);
    for (name, value) in client {
        if !stays_here(name.as_str()) && !connection.names(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    // Usage is read from the answer as it passes, so it must not be compressed.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    match kind {
        ProviderKind::Anthropic => headers.insert(X_API_KEY, credential.raw.clone()),
        ProviderKind::Openai | ProviderKind::OpenaiCompatible | ProviderKind::Gateway => {
            headers.insert(AUTHORIZATION, credential.bearer.clone())
        }
    };
    headers
}

/// Takes away what a client must not see of an answer. Rate limits describe the upstream key, which clients share; they pass with a
/// 429 alone, which would make no sense without them.
pub(crate) fn answer(headers: &mut HeaderMap, keep_limits: bool) {
    let connection = Connection::of(headers);
    let hides = |name: &HeaderName| is_hidden(name.as_str(), keep_limits) || connection.names(name);
    let hidden: Vec<HeaderName> = headers.keys().filter(|name| hides(name)).cloned().collect();
    for name in hidden {
        headers.remove(name);
    }
}

/// Headers of a request that are for the gateway alone.
fn stays_here(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(
            name,
            "host"
                | "content-length"
                | "expect"
                | "accept-encoding"
                | "authorization"
                | "x-api-key"
                | "api-key"
                | "x-goog-api-key"
                | "cookie"
                | "origin"
                | "referer"
                | "openai-organization"
                | "openai-project"
                | "forwarded"
                | "x-real-ip"
                | "via"
                | "cdn-loop"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "x-attempts-left"
                | "x-request-timeout-ms"
                | "x-request-id"
        )
        || ["x-forwarded-", "x-openwebui-user-", "x-proxyxai-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        // Some servers read `_` as `-`: such a name could pass for one that stays here.
        || name.contains('_')
}

fn is_hidden(name: &str, keep_limits: bool) -> bool {
    let limits = name.starts_with("x-ratelimit-") || name.starts_with("anthropic-ratelimit-");
    is_hop_by_hop(name)
        || (limits && !keep_limits)
        || matches!(
            name,
            "set-cookie"
                | "alt-svc"
                | "strict-transport-security"
                | "server"
                | "openai-organization"
                | "openai-project"
                | "anthropic-organization-id"
                | "anthropic-workspace-id"
                | "report-to"
                | "nel"
        )
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The headers that `Connection` names. Ordinary messages have `keep-alive` there or nothing, and pay one look per message.
struct Connection<'a>(Option<&'a HeaderMap>);

impl<'a> Connection<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let usual = |value: &HeaderValue| {
            let text = value.as_bytes();
            text.eq_ignore_ascii_case(b"keep-alive") || text.eq_ignore_ascii_case(b"close")
        };
        let unusual = !headers.get_all(CONNECTION).iter().all(usual);
        Self(unusual.then_some(headers))
    }

    fn names(&self, name: &HeaderName) -> bool {
        self.0.is_some_and(|headers| {
            let mut values = headers.get_all(CONNECTION).iter();
            values.any(|value| {
                let mut tokens = value.as_bytes().split(|b| *b == b',');
                tokens.any(|token| {
                    token
                        .trim_ascii()
                        .eq_ignore_ascii_case(name.as_str().as_bytes())
                })
            })
        })
    }
}

/// The length that a message announces.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
