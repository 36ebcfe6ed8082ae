//! What gateways tell each other in headers: read from a child, written to a parent, and taken from its answer.
//!
//! Invariants: what a request says of attempts, time and its name is believed from an account of a gateway alone, and told to gateways
//! alone; the way that a request came is told to everybody but the providers themselves, and is believed from anyone. What is decided
//! about it stands in `core::route::cascade`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::VIA};
use proxyxai_core::{
    route::{
        cascade::{self, Allowance, Used},
        provider::ProviderKind,
    },
    snapshot::Provider,
};

use crate::{
    attempt::Call,
    headers::{self, X_REQUEST_ID},
    request_id::RequestId,
    respond::Failure,
    upstream::Head,
};

/// The gateways that a request came through (RFC 8586).
pub(crate) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const X_ATTEMPTS_LEFT: HeaderName = HeaderName::from_static("x-attempts-left");
const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// How many calls to providers an answer took.
pub(crate) const X_UPSTREAM_ATTEMPTS: HeaderName = HeaderName::from_static("x-upstream-attempts");
pub(crate) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Which gateway of several an error is of.
pub(crate) const X_PROXYXAI_DEPLOYMENT: HeaderName =
    HeaderName::from_static("x-proxyxai-deployment");

/// The deployment that this node is of, as others are told of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Deployment {
    id: Box<str>,
    /// The header for a request that came through no other gateway.
    way: Box<[u8]>,
}

impl Deployment {
    /// `None` for an id that cannot stand in a header, an empty one above all.
    pub(crate) fn new(id: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        (!id.is_empty() && id.bytes().all(plain)).then(|| Self {
            id: id.into(),
            way: format!("{CDN_LOOP}: {id}\r\n").into_bytes().into(),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// Refuses a request that was here before, or came through too many gateways.
pub(crate) fn check_way(
    deployment: Option<&Deployment>,
    headers: &HeaderMap,
) -> Result<(), Failure> {
    let values = headers.get_all(CDN_LOOP).into_iter();
    let own = deployment.map(Deployment::id);
    Ok(cascade::check_way(own, values.map(HeaderValue::as_bytes))?)
}

/// What a child gateway says of its request.
pub(crate) struct Child {
    pub(crate) allowance: Allowance,
    /// From the arrival of the request to the first byte of its answer.
    pub(crate) time: Duration,
    pub(crate) request_id: Option<RequestId>,
}

impl Child {
    /// To be asked only about a request of a gateway's account.
    pub(crate) fn of(headers: &HeaderMap, own_limit: Duration) -> Self {
        let said = |name| headers.get(name).map(HeaderValue::as_bytes);
        Self {
            allowance: Allowance::of_child(said(X_ATTEMPTS_LEFT)),
            time: cascade::time_of_child(own_limit, said(X_REQUEST_TIMEOUT_MS)),
            request_id: said(X_REQUEST_ID).and_then(RequestId::read),
        }
    }
}

/// What a parent is told of one attempt.
#[derive(Clone, Copy)]
pub(crate) struct Handed {
    /// How many calls to providers it may take.
    pub(crate) attempts: usize,
    pub(crate) time_ms: u64,
}

/// Writes the headers that only those have a use for who may be, or have behind them, a gateway.
pub(crate) fn write(out: &mut Vec<u8>, call: &Call, provider: &Provider, handed: Option<Handed>) {
    let deployment = call.pinned.deployment.as_deref();
    if call.bounds.came_through {
        let own = deployment.map(Deployment::id);
        write_joined(out, &CDN_LOOP, &call.headers, own.unwrap_or_default());
    } else if let Some(deployment) = deployment {
        out.extend_from_slice(&deployment.way);
    }
    if let (ProviderKind::Gateway, Some(handed)) = (provider.kind, handed) {
        let own = deployment.map(|own| format!("1.1 {}", own.id()));
        write_joined(out, &VIA, &call.headers, &own.unwrap_or_default());
        headers::write(out, X_REQUEST_ID, call.facts.request_id.as_str().as_bytes());
        headers::write(out, X_ATTEMPTS_LEFT, handed.attempts.to_string().as_bytes());
        headers::write(
            out,
            X_REQUEST_TIMEOUT_MS,
            handed.time_ms.to_string().as_bytes(),
        );
    }
}

/// Writes what came in a list, and one's own entry behind it.
fn write_joined(out: &mut Vec<u8>, name: &HeaderName, headers: &HeaderMap, own: &str) {
    let came = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let all: Vec<&[u8]> = came
        .chain([own.as_bytes()])
        .filter(|entry| !entry.is_empty())
        .collect();
    if !all.is_empty() {
        headers::write(out, name, &all.join(&b", "[..]));
    }
}

/// What a parent says of its answer, which is not for the client.
#[derive(Default)]
pub(crate) struct Said {
    used: Option<HeaderValue>,
    pub(crate) should_retry: Option<HeaderValue>,
    /// Whether the answer is an error of a gateway, in words that are fit to be passed on.
    pub(crate) of_a_gateway: bool,
    status: u16,
}

impl Said {
    pub(crate) fn take(head: &mut Head) -> Self {
        let headers = &mut head.headers;
        Self {
            status: head.status.as_u16(),
            used: headers.remove(X_UPSTREAM_ATTEMPTS),
            should_retry: headers.get(X_SHOULD_RETRY).cloned(),
            of_a_gateway: headers.contains_key(X_PROXYXAI_DEPLOYMENT),
        }
    }

    /// A gateway that bids to try again, or refuses whoever asks, sent nothing to anybody.
    pub(crate) fn used(&self) -> Used<'_> {
        let again = |said: &HeaderValue| said.as_bytes().eq_ignore_ascii_case(b"true");
        match &self.used {
            Some(used) => Used::Said(used.as_bytes()),
            None => {
                let refused = (400..500).contains(&self.status);
                let nothing = refused || self.should_retry.as_ref().is_some_and(again);
                if self.of_a_gateway && nothing {
                    Used::Nothing
                } else {
                    Used::NotSaid
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Deployment;

    #[test]
    fn an_id_that_cannot_stand_in_a_list_is_none() {
        for (id, fits) in [
            ("a1B2c3D4e5F6", true),
            ("", false),
            ("a,b", false),
            ("a;b", false),
            ("a\r\nx: y", false),
        ] {
            assert_eq!(Deployment::new(id).is_some(), fits, "{id:?}");
        }
        let deployment = Deployment::new("d1").unwrap();
        assert_eq!(&*deployment.way, b"cdn-loop: d1\r\n");
    }
}
