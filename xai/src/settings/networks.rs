//! The value of settings that list networks.

use std::{fmt, net::IpAddr, str::FromStr};

use proxyxai_core::account::network::{InvalidNetwork, NetworkList};

/// Networks, with commas between; nothing is in an empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    given: Vec<String>,
    list: NetworkList,
}

impl Networks {
    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        !self.given.is_empty() && self.list.permits(address)
    }

    /// All of them; `None` when there are none.
    pub fn list(&self) -> Option<NetworkList> {
        (!self.given.is_empty()).then(|| self.list.clone())
    }
}

impl FromStr for Networks {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let given = text.split(',').map(str::trim);
        let given: Vec<String> = given
            .filter(|one| !one.is_empty())
            .map(str::to_owned)
            .collect();
        let list = NetworkList::parse(&given)?;
        Ok(Self { given, list })
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::Networks;

    #[test]
    fn nobody_is_in_no_network() {
        let check = |text: &str, address: &str, inside: bool| {
            let networks: Networks = text.parse().unwrap();
            assert_eq!(networks.contain(address.parse().unwrap()), inside, "{text}");
        };
        check("", "10.0.0.1", false);
        check("10.0.0.0/8, 172.16.0.0/12", "172.20.0.3", true);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        assert!("10.0.0.1/8".parse::<Networks>().is_err());
    }
}
