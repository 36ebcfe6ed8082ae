//! Which network addresses an upstream must not have unless its provider allows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the address is loopback, private, link-local (cloud metadata among them), shared, multicast, reserved or unspecified,
/// also when it is written as IPv6 (RFC 6890, RFC 4291, RFC 6052).
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(a: Ipv4Addr) -> bool {
    let [first, second, third, _] = a.octets();
    a.is_loopback()
        || a.is_private()
        || a.is_link_local()
        || a.is_multicast()
        || a.is_broadcast()
        || a.is_documentation()
        || first == 0
        || first >= 240
        || (first == 100 && (64..128).contains(&second))
        || (first == 192 && second == 0 && third == 0)
        || (first == 198 && (18..20).contains(&second))
}

fn is_private_v6(a: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(a) {
        return is_private_v4(inner);
    }
    let [first, second, ..] = a.segments();
    a.is_loopback()
        || a.is_unspecified()
        || a.is_multicast()
        || (first & 0xfe00) == 0xfc00
        || (first & 0xffc0) == 0xfe80
        || (first & 0xffc0) == 0xfec0
        || (first == 0x2001 && second == 0x0db8)
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 one.
fn embedded_v4(a: Ipv6Addr) -> Option<Ipv4Addr> {
    let low = |hi: u16, lo: u16| {
        let ([a, b], [c, d]) = (hi.to_be_bytes(), lo.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match a.segments() {
        [0, 0, 0, 0, 0, 0xffff, hi, lo] | [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => Some(low(hi, lo)),
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 || lo > 1 => Some(low(hi, lo)),
        [0x2002, hi, lo, ..] => Some(low(hi, lo)),
        _ => None,
    }
}
