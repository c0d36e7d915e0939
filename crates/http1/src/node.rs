//! Nodes: the ends of a connection as named in forwarding fields (RFC 7239, section 6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::grammar::decimal;

/// One end of a connection (RFC 7239, section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `None` if unknown or obfuscated. IPv4-mapped IPv6 addresses are converted to IPv4.
    pub address: Option<IpAddr>,
    /// The port, if present and not obfuscated.
    pub port: Option<u16>,
}

impl Node {
    /// An element of `X-Forwarded-For`, where IPv6 addresses need no brackets.
    pub(crate) fn parse_hop(bytes: &[u8]) -> Option<Self> {
        let ipv6 = str::from_utf8(bytes).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        match ipv6 {
            Some(address) => Some(Self { address: Some(IpAddr::V6(address).to_canonical()), port: None }),
            None => Self::parse(bytes),
        }
    }

    /// `nodename [ ":" node-port ]` (RFC 7239, section 6).
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let end = text.find(']').map(|at| at + 1).or_else(|| text.find(':')).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let address = match name.strip_prefix('[') {
            Some(address) => Some(IpAddr::V6(address.strip_suffix(']')?.parse().ok()?).to_canonical()),
            None if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) => None,
            None => Some(IpAddr::V4(name.parse::<Ipv4Addr>().ok()?)),
        };
        let port = match rest.strip_prefix(':') {
            Some(name) if is_obfuscated(name) => None,
            Some(digits) => Some(parse_port(digits.as_bytes())?),
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self { address, port })
    }
}

/// `"_" 1*( ALPHA / DIGIT / "." / "_" / "-" )` (RFC 7239, section 6.3).
fn is_obfuscated(name: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() > 1 && name.starts_with('_') && name.bytes().all(is_byte)
}

/// A decimal port of at most five digits.
pub(crate) fn parse_port(value: &[u8]) -> Option<u16> {
    decimal(value).filter(|_| value.len() <= 5).and_then(|port| port.try_into().ok())
}
