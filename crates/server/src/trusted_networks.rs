//! Networks of trusted peers, such as proxies.
//!
//! A peer on a Unix socket has no address. The mode of the socket's file controls who may connect, so by default a peer is
//! trusted if that mode excludes other users.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

/// The length of the prefix `::ffff:0:0/96`, under which IPv6 writes IPv4 addresses (RFC 4291, section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// A list of networks. Written as `127.0.0.1,10.0.0.0/8,2001:db8::/32`, with `unix:` for the peers on all Unix sockets and
/// `*` for all peers. An empty list contains none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedNetworks {
    any: bool,
    unix: bool,
    /// Invariant: all host bits are zero, and an IPv4 network is never written as IPv6.
    list: Vec<IpNet>,
}

/// An invalid network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError(String);

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid network '{}': expected an address, unix:, or a network such as 10.0.0.0/8, whose bits after the 8th are 0",
            self.0
        )
    }
}

impl std::error::Error for NetworkError {}

impl TrustedNetworks {
    /// The loopback addresses 127.0.0.1 and `::1`.
    pub fn loopback() -> Self {
        let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        Self { list: addresses.map(IpNet::from).into(), ..Self::default() }
    }

    /// Whether the peer with this address is trusted.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.any || self.contains_explicitly(address)
    }

    /// Whether peers on a Unix socket are trusted. `is_private` is whether other users cannot connect to it.
    pub fn contains_unix(&self, is_private: bool) -> bool {
        self.any || self.unix || (is_private && !self.list.is_empty())
    }

    /// Whether no peer is trusted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the list contains this address explicitly, not by `*`.
    pub fn contains_explicitly(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.list.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for TrustedNetworks {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let mut networks = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "*" => networks.any = true,
                "unix:" => networks.unix = true,
                _ => networks.list.push(parse(word).ok_or_else(|| NetworkError(word.to_owned()))?),
            }
        }
        Ok(networks)
    }
}

/// An IPv4 network that is written as IPv6, such as `::ffff:10.0.0.0/104`, becomes one of IPv4. (`IpNet` itself parses
/// octets with leading zeros, which other programs read as octal.)
fn parse(text: &str) -> Option<IpNet> {
    let network = match text.split_once('/') {
        Some((address, prefix)) => IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()?,
        None => text.parse::<IpAddr>().ok()?.into(),
    };
    if network.addr() != network.network() {
        return None;
    }
    match (network, network.addr().to_canonical()) {
        (IpNet::V6(network), IpAddr::V4(address)) => {
            Some(Ipv4Net::new(address, network.prefix_len().checked_sub(MAPPED_PREFIX)?).ok()?.into())
        }
        _ => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(networks: &str, address: &str) -> bool {
        networks.parse::<TrustedNetworks>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        for (networks, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("10.0.0.0/8, 192.168.0.0/16", "192.168.255.255"),
            ("0.0.0.0/0", "8.8.8.8"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("::/0", "2001:db8::1"),
            ("*", "6.6.6.6"),
            ("unix:,10.0.0.0/8", "10.0.0.1"),
        ] {
            assert!(contains(networks, address), "{networks} {address}");
        }
        for (networks, address) in [
            ("", "127.0.0.1"),
            ("unix:", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.2"),
            ("10.0.0.0/8", "11.0.0.0"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "127.0.0.1"),
            ("127.0.0.1,::1", "::2"),
            ("2001:db8::/32", "2001:db9::"),
        ] {
            assert!(!contains(networks, address), "{networks} {address}");
        }
    }

    #[test]
    fn peers_on_a_unix_socket_are_trusted_if_it_is_private_or_if_the_list_says_so() {
        for (networks, private, open) in [
            ("127.0.0.1,::1", true, false),
            ("10.0.0.0/8", true, false),
            ("127.0.0.1, unix:", true, true),
            ("unix:", true, true),
            ("*", true, true),
            ("", false, false),
        ] {
            let networks: TrustedNetworks = networks.parse().unwrap();
            let found = (networks.contains_unix(true), networks.contains_unix(false));
            assert_eq!(found, (private, open), "{networks:?}");
        }
        assert!("".parse::<TrustedNetworks>().unwrap().is_empty());
        assert!(!"unix:".parse::<TrustedNetworks>().unwrap().is_empty());
    }

    #[test]
    fn a_star_contains_no_address_explicitly() {
        let any: TrustedNetworks = "*,10.0.0.0/8".parse().unwrap();
        assert!(
            any.contains_explicitly([10, 0, 0, 1].into()) && !any.contains_explicitly([6, 6, 6, 6].into())
        );
        assert_eq!("127.0.0.1,::1".parse(), Ok(TrustedNetworks::loopback()));
    }

    #[test]
    fn an_invalid_network_is_an_error_that_names_it() {
        for text in [
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/4294967295",
            "010.0.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::1/129",
            "::/4294967295",
            "::/340282366920938463463374607431768211456",
            "10.0.0",
            "[::1]",
            "1.2.3.4:80",
            "unix",
            "unix:/run/shop.sock",
        ] {
            let error = text.parse::<TrustedNetworks>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
