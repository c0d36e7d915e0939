//! Networks of trusted peers, such as proxies.
//!
//! A peer on a Unix socket has no address and is always trusted, because the mode of the socket's file controls who may
//! connect.

use std::{fmt, net::IpAddr, str::FromStr};

/// A list of networks, or all addresses. Written as `127.0.0.1,10.0.0.0/8,2001:db8::/32` or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedNetworks {
    is_everyone: bool,
    named: Vec<Network>,
}

/// Addresses that begin with so many of these bits. One of IPv4 is written as IPv6 has it, behind 96 bits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    bits: u128,
    prefix: u32,
}

/// An invalid network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError(String);

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is no address and no network such as 10.0.0.0/8, where all bits past the 8th are 0",
            self.0
        )
    }
}

impl std::error::Error for NetworkError {}

impl TrustedNetworks {
    /// The loopback addresses.
    pub fn loopback() -> Self {
        let of = |address: IpAddr| Network { bits: bits(address), prefix: 128 };
        let named = vec![of([127, 0, 0, 1].into()), of(std::net::Ipv6Addr::LOCALHOST.into())];
        Self { is_everyone: false, named }
    }

    /// Whether this peer is trusted. `None` is a Unix socket.
    pub fn include(&self, peer: Option<IpAddr>) -> bool {
        self.is_everyone || peer.is_none_or(|address| self.name(address))
    }

    /// Whether the list contains this address explicitly, not by `*`.
    pub fn name(&self, address: IpAddr) -> bool {
        let (bits, is_v4) = (bits(address), address.to_canonical().is_ipv4());
        // A short prefix of IPv6 says nothing of IPv4, which lies within it only in this way of writing.
        let holds = |network: &Network| {
            (network.bits ^ bits).leading_zeros() >= network.prefix && (!is_v4 || network.prefix >= 96)
        };
        self.named.iter().any(holds)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for TrustedNetworks {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let mut networks = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "*" => networks.is_everyone = true,
                _ => networks.named.push(word.parse().map_err(|()| NetworkError(word.to_owned()))?),
            }
        }
        Ok(networks)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| ())?;
        let network = Self { bits: bits(address), prefix: prefix + 128 - longest };
        let is_whole =
            prefix <= longest && network.bits.checked_shl(network.prefix).is_none_or(|rest| rest == 0);
        is_whole.then_some(network).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(networks: &str, address: &str) -> bool {
        networks.parse::<TrustedNetworks>().unwrap().include(Some(address.parse().unwrap()))
    }

    #[test]
    fn a_network_holds_what_begins_with_its_prefix() {
        for (networks, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("10.0.0.0/8, 192.168.0.0/16", "192.168.255.255"),
            ("0.0.0.0/0", "8.8.8.8"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("::1", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("::/0", "2001:db8::1"),
            ("*", "6.6.6.6"),
        ] {
            assert!(holds(networks, address), "{networks} {address}");
        }
        for (networks, address) in [
            ("", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.2"),
            ("10.0.0.0/8", "11.0.0.0"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "127.0.0.1"),
            ("127.0.0.1,::1", "::2"),
            ("2001:db8::/32", "2001:db9::"),
        ] {
            assert!(!holds(networks, address), "{networks} {address}");
        }
    }

    #[test]
    fn a_unix_socket_is_always_one_of_them_and_everyone_has_no_name() {
        assert!(TrustedNetworks::default().include(None) && TrustedNetworks::loopback().include(None));
        let everyone: TrustedNetworks = "*,10.0.0.0/8".parse().unwrap();
        assert!(everyone.name([10, 0, 0, 1].into()) && !everyone.name([6, 6, 6, 6].into()));
        assert_eq!("127.0.0.1,::1".parse(), Ok(TrustedNetworks::loopback()));
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_sentence() {
        for text in [
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::1/129",
            "10.0.0",
            "[::1]",
            "1.2.3.4:80",
        ] {
            let error = text.parse::<TrustedNetworks>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
