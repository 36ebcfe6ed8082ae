//! Which headers pass: of a request to the provider, of an answer to the client.
//!
//! Invariants: no credential, cookie, organisation or address of a client reaches a provider; no hop-by-hop header passes either way
//! (RFC 9110 §7.6.1), those that `Connection` names included; what is not listed passes, in order.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST,
        USER_AGENT,
    },
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

/// Writes the headers of one attempt.
pub(crate) fn write_upstream(
    out: &mut Vec<u8>,
    client: &HeaderMap,
    kind: ProviderKind,
    credential: &UpstreamCredential,
) {
    write(out, HOST, credential.host.as_bytes());
    let connection = Connection::of(client);
    for (name, value) in client {
        let stays = match *name {
            // Nearly every request has these.
            ACCEPT | CONTENT_TYPE | USER_AGENT => false,
            AUTHORIZATION | CONTENT_LENGTH | HOST => true,
            _ => stays_here(name.as_str()),
        };
        if !stays && !connection.names(name) {
            write(out, name, value.as_bytes());
        }
    }
    // Usage is read from the answer as it passes, so it must not be compressed.
    write(out, ACCEPT_ENCODING, b"identity");
    match kind {
        ProviderKind::Anthropic => write(out, X_API_KEY, credential.raw.as_bytes()),
        ProviderKind::Openai | ProviderKind::OpenaiCompatible | ProviderKind::Gateway => {
            write(out, AUTHORIZATION, credential.bearer.as_bytes());
        }
    }
}

/// Writes one header.
pub(crate) fn write(out: &mut Vec<u8>, name: impl AsRef<str>, value: &[u8]) {
    out.extend_from_slice(name.as_ref().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes how long the body is, without a value of its own on the heap.
pub(crate) fn write_length(out: &mut Vec<u8>, length: usize) {
    let (mut digits, mut first, mut left) = ([0; 20], 0, length);
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0'.wrapping_add(u8::try_from(left % 10).unwrap_or_default());
        (first, left) = (place, left / 10);
        if left == 0 {
            break;
        }
    }
    write(out, CONTENT_LENGTH, digits.get(first..).unwrap_or_default());
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
                | "x-upstream-attempts"
                | "x-request-timeout-ms"
                | "x-request-id"
                // The gateway writes its own, where they are wanted.
                | "traceparent"
                | "tracestate"
                | "baggage"
        )
        || ["x-forwarded-", "x-openwebui-user-", "x-proxyxai-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        // Some servers read `_` as `-`: such a name could pass for one that stays here.
        || name.contains('_')
}

/// Whether a header of an answer says how much of its upstream key's rate is left.
pub(crate) fn is_limit(name: &str) -> bool {
    name.starts_with("x-ratelimit-") || name.starts_with("anthropic-ratelimit-")
}

/// Whether a client may see this header of an answer.
pub(crate) fn passes_back(name: &str) -> bool {
    !is_hop_by_hop(name)
        && !matches!(
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
        self.0
            .is_some_and(|headers| connection_says(headers, name.as_str()))
    }
}

/// Whether a token stands in a `Connection` header.
fn connection_says(headers: &HeaderMap, token: &str) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| {
        let mut tokens = value.as_bytes().split(|b| *b == b',');
        tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn lengths_are_written_in_decimal() {
        for length in [0, 9, 10, 1_507, usize::MAX] {
            let mut out = Vec::new();
            super::write_length(&mut out, length);
            assert_eq!(out, format!("content-length: {length}\r\n").into_bytes());
        }
    }
}
