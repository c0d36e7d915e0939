//! The PROXY protocol, versions 1 and 2: a header in front of the first request that carries the client's address.
//! Sections below are those of `HAProxy`'s `proxy-protocol.txt`.
//!
//! Invariant: the result depends only on the bytes of the header, not on how they are split, and input that cannot
//! become a valid header is rejected immediately. A missing header is an error.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use memchr::memchr;

use crate::grammar::decimal;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The maximum length of a version 1 header, including its CRLF (section 2.1).
const MAX_LENGTH_V1: usize = 107;
/// The maximum length of a version 2 header. The format allows 64 KiB of extensions; proxies send a few hundred bytes.
const MAX_LENGTH_V2: usize = 4096;

/// Which versions are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersions {
    /// Version 1, a line of text.
    One,
    /// Version 2, a binary header.
    Two,
    /// Either version. They differ in their first byte.
    Both,
}

/// The origin of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The proxy itself, for example for a health check.
    Local,
    /// A client whose address is unknown or not a TCP address (datagram, Unix socket).
    Unknown,
    /// A TCP client. Both addresses belong to the same family.
    Tcp {
        /// The address of the client.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}

/// Why a header is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The connection starts with something else.
    Missing,
    /// The header violates the grammar.
    Malformed,
    /// Longer than 107 bytes in version 1, or 4096 in version 2.
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyError::Missing => "missing PROXY header at the start of the connection",
            ProxyError::Malformed => "invalid PROXY header",
            ProxyError::TooLong => "PROXY header too long",
        })
    }
}

impl std::error::Error for ProxyError {}

impl ProxyHeader {
    /// Parses the header at the start of the input. Returns it with its length in bytes, or `None` if more input is
    /// needed. `input` is everything received on the connection.
    ///
    /// # Errors
    ///
    /// See [`ProxyError`].
    pub fn parse(input: &[u8], versions: ProxyVersions) -> Result<Option<(Self, usize)>, ProxyError> {
        let may_start_with =
            |signature: &[u8]| input.iter().zip(signature).all(|(byte, expected)| byte == expected);
        if versions != ProxyVersions::Two && may_start_with(SIGNATURE_V1) {
            parse_v1(input)
        } else if versions != ProxyVersions::One && may_start_with(SIGNATURE_V2) {
            parse_v2(input)
        } else {
            Err(ProxyError::Missing)
        }
    }
}

/// Version 1 (section 2.1): `PROXY TCP4 192.0.2.1 192.0.2.2 4711 80` CRLF.
fn parse_v1(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let window = &input[..input.len().min(MAX_LENGTH_V1)];
    let Some(line_feed) = memchr(b'\n', window) else {
        return if window.len() < MAX_LENGTH_V1 { Ok(None) } else { Err(ProxyError::TooLong) };
    };
    let line = window[..line_feed].strip_suffix(b"\r").and_then(|line| line.strip_prefix(SIGNATURE_V1));
    let header = line.and_then(parse_line).ok_or(ProxyError::Malformed)?;
    Ok(Some((header, line_feed + 1)))
}

fn parse_line(line: &[u8]) -> Option<ProxyHeader> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(ProxyHeader::Unknown); // the rest of the line must be ignored (section 2.1)
    }
    let mut address = || match family {
        "TCP4" => words.next()?.parse().ok().map(IpAddr::V4),
        "TCP6" => words.next()?.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(parse_port);
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then_some(ProxyHeader::Tcp {
        source: (source, source_port).into(),
        destination: (destination, destination_port).into(),
    })
}

/// Leading zeros are not allowed: other parsers might read an octal number.
fn parse_port(text: &str) -> Option<u16> {
    let has_no_leading_zero = text == "0" || !text.starts_with('0');
    decimal(text.as_bytes()).filter(|_| has_no_leading_zero).and_then(|port| port.try_into().ok())
}

/// Version 2 (section 2.2): signature, version and command, address family and protocol, length of the rest, addresses,
/// extensions.
fn parse_v2(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let Some(&[command, family, high, low]) = input.get(SIGNATURE_V2.len()..).and_then(<[u8]>::first_chunk)
    else {
        return Ok(None);
    };
    let start = SIGNATURE_V2.len() + 4;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let addresses_length = match (command, family) {
        (0x21, 0x11) => 2 * (4 + 2),
        (0x21, 0x21) => 2 * (16 + 2),
        // LOCAL, or valid families and protocols that are not TCP and count as unknown.
        (0x20, _) | (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => 0,
        _ => return Err(ProxyError::Malformed),
    };
    if length < addresses_length {
        return Err(ProxyError::Malformed);
    }
    if start + length > MAX_LENGTH_V2 {
        return Err(ProxyError::TooLong);
    }
    let Some(block) = input.get(start..start + length) else { return Ok(None) };
    let header = match (command, family) {
        (0x20, _) => Some(ProxyHeader::Local),
        (_, 0x11) => parse_addresses::<4>(block),
        (_, 0x21) => parse_addresses::<16>(block),
        _ => Some(ProxyHeader::Unknown),
    };
    header.map(|header| Some((header, start + length))).ok_or(ProxyError::Malformed)
}

/// Two addresses, then two ports. Extensions may follow and are ignored.
fn parse_addresses<const SIZE: usize>(block: &[u8]) -> Option<ProxyHeader>
where
    IpAddr: From<[u8; SIZE]>,
{
    let (&source, rest) = block.split_first_chunk::<SIZE>()?;
    let (&destination, rest) = rest.split_first_chunk::<SIZE>()?;
    let (&source_port, rest) = rest.split_first_chunk()?;
    let (&destination_port, _) = rest.split_first_chunk()?;
    Some(ProxyHeader::Tcp {
        source: (IpAddr::from(source), u16::from_be_bytes(source_port)).into(),
        destination: (IpAddr::from(destination), u16::from_be_bytes(destination_port)).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
        ProxyHeader::parse(input, ProxyVersions::Both)
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE_V2, &[command, family], &length, block].concat()
    }

    fn tcp(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn a_v1_header_carries_both_addresses() {
        for (line, expected) in [
            ("TCP4 192.0.2.1 192.0.2.2 4711 80", tcp("192.0.2.1:4711", "192.0.2.2:80")),
            ("TCP4 0.0.0.0 255.255.255.255 0 65535", tcp("0.0.0.0:0", "255.255.255.255:65535")),
            ("TCP6 2001:db8::1 ::1 1 2", tcp("[2001:db8::1]:1", "[::1]:2")),
            ("UNKNOWN", ProxyHeader::Unknown),
            ("UNKNOWN whatever 1 2 3 4 5", ProxyHeader::Unknown),
        ] {
            let header = format!("PROXY {line}\r\n");
            let input = [header.as_bytes(), b"GET"].concat();
            assert_eq!(parse(&input), Ok(Some((expected, header.len()))), "{line}");
        }
    }

    #[test]
    fn an_invalid_v1_header_is_malformed() {
        for line in [
            "",
            " TCP4 1.1.1.1 2.2.2.2 1 2",
            "TCP4 1.1.1.1 2.2.2.2 1",
            "TCP4 1.1.1.1 2.2.2.2 1 2 ",
            "TCP4 1.1.1.1 2.2.2.2 1 2 3",
            "TCP4  1.1.1.1 2.2.2.2 1 2",
            "TCP4\t1.1.1.1 2.2.2.2 1 2",
            "TCP4 1.1.1 2.2.2.2 1 2",
            "TCP4 01.1.1.1 2.2.2.2 1 2",
            "TCP4 ::1 2.2.2.2 1 2",
            "TCP6 1.1.1.1 2.2.2.2 1 2",
            "TCP6 fe80::1%eth0 ::1 1 2",
            "TCP6 [::1] ::1 1 2",
            "TCP4 1.1.1.1 2.2.2.2 -1 2",
            "TCP4 1.1.1.1 2.2.2.2 +1 2",
            "TCP4 1.1.1.1 2.2.2.2 1 65536",
            "TCP4 1.1.1.1 2.2.2.2 01 2",
            "TCP4 1.1.1.1 2.2.2.2 1 2\r",
            "tcp4 1.1.1.1 2.2.2.2 1 2",
            "UDP4 1.1.1.1 2.2.2.2 1 2",
            "UNKNOWNS",
            "UNKNOWN \u{e9}\n",
        ] {
            assert_eq!(parse(format!("PROXY {line}\r\n").as_bytes()), Err(ProxyError::Malformed), "{line:?}");
        }
        assert_eq!(parse(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n"), Err(ProxyError::Malformed));
    }

    #[test]
    fn a_v1_header_has_at_most_107_bytes() {
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
        assert_eq!(parse(&line(107)), Ok(Some((ProxyHeader::Unknown, 107))));
        assert_eq!(parse(&line(108)), Err(ProxyError::TooLong));
        assert_eq!(parse(&line(108)[..106]), Ok(None));
        assert_eq!(parse(&line(108)[..107]), Err(ProxyError::TooLong));
    }

    #[test]
    fn a_v2_header_carries_both_addresses_and_its_extensions_are_ignored() {
        let four = [1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x67, 0, 80];
        let extended = [&four[..], &[0x04, 0, 1, 0xff]].concat();
        assert_eq!(parse(&binary(0x21, 0x11, &four)), Ok(Some((tcp("1.2.3.4:4711", "5.6.7.8:80"), 28))));
        assert_eq!(parse(&binary(0x21, 0x11, &extended)), Ok(Some((tcp("1.2.3.4:4711", "5.6.7.8:80"), 32))));
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
        assert_eq!(parse(&binary(0x21, 0x21, &six)), Ok(Some((tcp("[::1]:3", "[::2]:4"), 52))));
    }

    #[test]
    fn a_v2_header_may_carry_no_address() {
        for (command, family, expected) in [
            (0x20, 0x00, ProxyHeader::Local),
            (0x20, 0xff, ProxyHeader::Local),
            (0x21, 0x00, ProxyHeader::Unknown),
            (0x21, 0x12, ProxyHeader::Unknown),
            (0x21, 0x31, ProxyHeader::Unknown),
        ] {
            for block in [&[][..], &[0; 216]] {
                assert_eq!(parse(&binary(command, family, block)), Ok(Some((expected, 16 + block.len()))));
            }
        }
    }

    #[test]
    fn an_invalid_v2_header_is_rejected_before_its_end() {
        for (command, family) in
            [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x21, 0x13), (0x21, 0x41), (0x21, 0x10)]
        {
            let header = binary(command, family, &[0; 12]);
            assert_eq!(parse(&header[..16]), Err(ProxyError::Malformed), "{command:x} {family:x}");
        }
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 11])), Err(ProxyError::Malformed));
        assert_eq!(parse(&binary(0x21, 0x21, &[0; 35])), Err(ProxyError::Malformed));
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 4080])).unwrap().unwrap().1, 4096);
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 4081])[..16]), Err(ProxyError::TooLong));
    }

    #[test]
    fn only_the_given_versions_are_accepted() {
        let (line, block) = (&b"PROXY UNKNOWN\r\n"[..], &binary(0x20, 0, &[])[..]);
        assert_eq!(ProxyHeader::parse(line, ProxyVersions::Two), Err(ProxyError::Missing));
        assert_eq!(ProxyHeader::parse(block, ProxyVersions::One), Err(ProxyError::Missing));
        for other in
            ["GET / HTTP/1.1\r\n", "PROXZ", "PROXY\t", "proxy ", "POST", "\r\nGET", "\r\n\r\n\r", "\0", " "]
        {
            assert_eq!(parse(other.as_bytes()), Err(ProxyError::Missing), "{other:?}");
        }
        for prefix in [&line[..0], &line[..1], &line[..6], &block[..1], &block[..12], &block[..15]] {
            assert_eq!(parse(prefix), Ok(None), "{prefix:?}");
        }
    }
}
