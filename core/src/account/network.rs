//! Networks that calls may come from, as CIDR blocks.
//!
//! Invariant: an IPv4 client of a socket that speaks both protocols counts as what it is, not as `::ffff:a.b.c.d`.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks of which one must hold the address; an empty list permits every address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct NetworkList {
    given: Box<[IpNet]>,
    /// The same addresses in the fewest networks, so that one network lies in all of them together only when it lies in one.
    joined: Box<[IpNet]>,
}

impl NetworkList {
    /// Reads each text.
    ///
    /// # Errors
    /// The first text that names no network.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, InvalidNetwork> {
        let given = texts
            .iter()
            .map(|text| parse_one(text.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            joined: IpNet::aggregate(&given).into(),
            given: given.into(),
        })
    }

    /// Whether a call may come from here.
    pub fn permits(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.joined.is_empty() || self.joined.iter().any(|network| network.contains(&from))
    }

    /// The first network that is not wholly in the list above.
    pub fn beyond(&self, above: &Self) -> Option<String> {
        let inside = |network: &IpNet| above.joined.iter().any(|outer| outer.contains(network));
        self.given
            .iter()
            .find(|network| !above.joined.is_empty() && !inside(network))
            .map(ToString::to_string)
    }
}

fn parse_one(text: &str) -> Result<IpNet, InvalidNetwork> {
    let network = match text.parse::<IpAddr>() {
        Ok(one) => IpNet::from(one),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| InvalidNetwork::Form(text.chars().take(64).collect()))?,
    };
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(InvalidNetwork::Mapped(network));
    }
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(InvalidNetwork::HostBits {
            given: network,
            meant: network.trunc(),
        })
    }
}

/// Why a text names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Neither an address nor a block.
    #[error(
        "`{0}` is no network; write an address such as 192.0.2.7, or a block such as 192.0.2.0/24 or 2001:db8::/32"
    )]
    Form(String),
    /// A block whose address lies inside of it.
    #[error("`{given}` has bits beyond its prefix; write {meant}, or the address alone")]
    HostBits {
        /// As it was written.
        given: IpNet,
        /// The block that holds it.
        meant: IpNet,
    },
    /// IPv4 written as IPv6.
    #[error("`{0}` is an IPv4 network in IPv6 form; write it as IPv4")]
    Mapped(IpNet),
}
