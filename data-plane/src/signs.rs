//! The headers of a request that decide something on its way, found in one pass over all of them: each look-up in the map would hash.

use http::{HeaderMap, HeaderValue, header};

use crate::{
    cascade::CDN_LOOP,
    headers::X_API_KEY,
    trace::{TRACEPARENT, TRACESTATE},
};

/// What the head of a request says. Of a header that stands several times this is the first, as in a look-up.
#[derive(Default)]
pub(crate) struct Signs<'a> {
    pub(crate) host: Option<&'a HeaderValue>,
    /// How often `Host` stands there.
    pub(crate) hosts: usize,
    pub(crate) transfer_encoding: Option<&'a HeaderValue>,
    pub(crate) content_encoding: Option<&'a HeaderValue>,
    pub(crate) upgrade: Option<&'a HeaderValue>,
    pub(crate) authorization: Option<&'a HeaderValue>,
    pub(crate) x_api_key: Option<&'a HeaderValue>,
    pub(crate) cdn_loop: Option<&'a HeaderValue>,
    pub(crate) traceparent: Option<&'a HeaderValue>,
    pub(crate) tracestate: Option<&'a HeaderValue>,
}

impl<'a> Signs<'a> {
    /// Looks at all headers.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut signs = Self::default();
        for (name, value) in headers {
            let place = match *name {
                header::HOST => {
                    signs.hosts = signs.hosts.saturating_add(1);
                    &mut signs.host
                }
                header::TRANSFER_ENCODING => &mut signs.transfer_encoding,
                header::CONTENT_ENCODING => &mut signs.content_encoding,
                header::UPGRADE => &mut signs.upgrade,
                header::AUTHORIZATION => &mut signs.authorization,
                _ if *name == X_API_KEY => &mut signs.x_api_key,
                _ if *name == CDN_LOOP => &mut signs.cdn_loop,
                _ if *name == TRACEPARENT => &mut signs.traceparent,
                _ if *name == TRACESTATE => &mut signs.tracestate,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        signs
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn what_is_found_is_what_a_look_up_finds() {
        let check = |lines: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let signs = Signs::of(&headers);
            assert_eq!(signs.hosts, headers.get_all(header::HOST).iter().count());
            for (found, name) in [
                (signs.host, header::HOST),
                (signs.transfer_encoding, header::TRANSFER_ENCODING),
                (signs.content_encoding, header::CONTENT_ENCODING),
                (signs.upgrade, header::UPGRADE),
                (signs.authorization, header::AUTHORIZATION),
                (signs.x_api_key, X_API_KEY),
                (signs.cdn_loop, CDN_LOOP),
                (signs.traceparent, TRACEPARENT),
                (signs.tracestate, TRACESTATE),
            ] {
                assert_eq!(found, headers.get(&name), "{name} in {lines:?}");
            }
        };
        check(&[]);
        check(&[("Host", "a"), ("X-API-Key", "k"), ("x", "y")]);
        check(&[("CDN-Loop", "a"), ("cdn-loop", "b")]);
        check(&[
            ("TraceParent", "a"),
            ("tracestate", "b"),
            ("traceparent", "c"),
        ]);
        check(&[("host", "a"), ("authorization", "b"), ("Host", "c")]);
        check(&[
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-encoding", "gzip"),
            ("content-encoding", "identity"),
        ]);
    }
}
