//! Where a request comes from when load balancers stand between: `X-Forwarded-For`, as far as those who wrote it are trusted.
//!
//! Invariant: what is not written by a trusted proxy counts for nothing, so nobody can claim another address than the one that the first
//! trusted proxy saw.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use proxyxai_core::account::network::NetworkList;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client behind `peer`. Without trusted proxies that is the peer itself.
pub(crate) fn client(trusted: Option<&NetworkList>, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    match trusted {
        Some(trusted) => behind(trusted, peer, headers),
        None => peer,
    }
}

#[cold]
fn behind(trusted: &NetworkList, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut nearest = peer;
    let lines: Vec<&[u8]> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .map(|value| value.as_bytes())
        .collect();
    let hops = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops {
        if !trusted.permits(nearest) {
            break;
        }
        match address(hop) {
            Some(next) => nearest = next,
            None => break,
        }
    }
    nearest
}

/// An address, with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|at: SocketAddr| at.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let check = |trusted: &[&str], lines: &[&str], want: &str| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, line.parse().unwrap());
            }
            let trusted = NetworkList::parse(trusted).unwrap();
            let found = client(Some(&trusted), "10.0.0.1".parse().unwrap(), &headers);
            assert_eq!(found.to_string(), want, "{lines:?}");
            let alone = client(None, "10.0.0.1".parse().unwrap(), &headers);
            assert_eq!(alone.to_string(), "10.0.0.1");
        };
        let inner = &["10.0.0.0/8"];
        check(inner, &[], "10.0.0.1");
        check(inner, &["203.0.113.9"], "203.0.113.9");
        check(inner, &["1.1.1.1, 203.0.113.9"], "203.0.113.9");
        check(inner, &["203.0.113.9, 10.0.0.2"], "203.0.113.9");
        check(inner, &["203.0.113.9", "10.0.0.2"], "203.0.113.9");
        check(inner, &["203.0.113.9:4711"], "203.0.113.9");
        check(inner, &["[2001:db8::1]:4711"], "2001:db8::1");
        check(inner, &["::ffff:203.0.113.9"], "203.0.113.9");
        check(inner, &["203.0.113.9, nobody"], "10.0.0.1");
        check(&["192.0.2.0/24"], &["203.0.113.9"], "10.0.0.1");
    }
}
