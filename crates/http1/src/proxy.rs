//! The PROXY protocol, versions 1 and 2: the header with which a proxy begins a connection, and says whose it is.
//! (The text is `proxy-protocol.txt` of `HAProxy`; sections 2.1 and 2.2 are the two grammars.)
//!
//! The one thing to know: the answer depends on the bytes of the header alone, so it is the same however they arrive, and a header
//! that can no longer become a good one is an error at once. Nothing is guessed: no header where one has to be is an error, too.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use memchr::memchr;

use crate::grammar::decimal;

const MARK_1: &[u8] = b"PROXY ";
const MARK_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CRLF.
const LONGEST_1: usize = 107;
/// The longest header of version 2 taken. The format allows 64 KiB of extensions, no proxy sends more than some hundred bytes.
const LONGEST_2: usize = 4096;

/// Which versions are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersions {
    /// The line of text.
    One,
    /// The binary header.
    Two,
    /// Either; they differ in their first byte.
    Both,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The proxy's own: a health check.
    Local,
    /// Somebody's whose address the proxy does not know, or cannot say here (a datagram, a Unix socket).
    Unknown,
    /// A client's, by TCP. Both addresses are of one family.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// What the client has connected to.
        destination: SocketAddr,
    },
}

/// Why a header is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The bytes are the beginning of something else.
    Missing,
    /// Against the grammar.
    Malformed,
    /// Over 107 bytes in version 1, over 4096 in version 2.
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyError::Missing => "the connection does not begin with a PROXY header",
            ProxyError::Malformed => "the PROXY header is not valid",
            ProxyError::TooLong => "the PROXY header is too long",
        })
    }
}

impl std::error::Error for ProxyError {}

impl ProxyHeader {
    /// The header that the input begins with, and its length, or `None` if it is not complete yet. `input` is all that was received on
    /// the connection.
    pub fn read(input: &[u8], versions: ProxyVersions) -> Result<Option<(Self, usize)>, ProxyError> {
        let begins = |mark: &[u8]| input.iter().zip(mark).all(|(byte, wanted)| byte == wanted);
        if versions != ProxyVersions::Two && begins(MARK_1) {
            one(input)
        } else if versions != ProxyVersions::One && begins(MARK_2) {
            two(input)
        } else {
            Err(ProxyError::Missing)
        }
    }
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 4711 80` and CRLF.
fn one(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let window = &input[..input.len().min(LONGEST_1)];
    let Some(feed) = memchr(b'\n', window) else {
        return if window.len() < LONGEST_1 { Ok(None) } else { Err(ProxyError::TooLong) };
    };
    let line = window[..feed].strip_suffix(b"\r").and_then(|line| line.strip_prefix(MARK_1));
    let header = line.and_then(of_line).ok_or(ProxyError::Malformed)?;
    Ok(Some((header, feed + 1)))
}

fn of_line(line: &[u8]) -> Option<ProxyHeader> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(ProxyHeader::Unknown); // whatever follows is to be ignored
    }
    let mut address = || match family {
        "TCP4" => words.next()?.parse().ok().map(IpAddr::V4),
        "TCP6" => words.next()?.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(port_of);
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then_some(ProxyHeader::Tcp {
        source: (source, source_port).into(),
        destination: (destination, destination_port).into(),
    })
}

/// Zeros in front are not permitted: somebody might take them for an octal number.
fn port_of(text: &str) -> Option<u16> {
    let is_plain = text == "0" || !text.starts_with('0');
    decimal(text.as_bytes()).filter(|_| is_plain).and_then(|port| port.try_into().ok())
}

/// The mark, a byte each for version with command and for family with protocol, the length of what follows, addresses, extensions.
fn two(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let Some(&[command, family, high, low]) = input.get(MARK_2.len()..).and_then(<[u8]>::first_chunk) else {
        return Ok(None);
    };
    let start = MARK_2.len() + 4;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let of_addresses = match (command, family) {
        (0x21, 0x11) => 2 * (4 + 2),
        (0x21, 0x21) => 2 * (16 + 2),
        // The proxy's own; or what may be said, but means nothing here and counts as unknown (section 2.2).
        (0x20, _) | (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => 0,
        _ => return Err(ProxyError::Malformed),
    };
    if length < of_addresses {
        return Err(ProxyError::Malformed);
    }
    if start + length > LONGEST_2 {
        return Err(ProxyError::TooLong);
    }
    let Some(block) = input.get(start..start + length) else { return Ok(None) };
    let header = match (command, family) {
        (0x20, _) => Some(ProxyHeader::Local),
        (_, 0x11) => of_block::<4>(block),
        (_, 0x21) => of_block::<16>(block),
        _ => Some(ProxyHeader::Unknown),
    };
    header.map(|header| Some((header, start + length))).ok_or(ProxyError::Malformed)
}

/// Two addresses, then two ports; extensions follow, which are skipped.
fn of_block<const SIZE: usize>(block: &[u8]) -> Option<ProxyHeader>
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

    fn read(input: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
        ProxyHeader::read(input, ProxyVersions::Both)
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [MARK_2, &[command, family], &length, block].concat()
    }

    fn tcp(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn a_line_tells_both_addresses() {
        for (line, told) in [
            ("TCP4 192.0.2.1 192.0.2.2 4711 80", tcp("192.0.2.1:4711", "192.0.2.2:80")),
            ("TCP4 0.0.0.0 255.255.255.255 0 65535", tcp("0.0.0.0:0", "255.255.255.255:65535")),
            ("TCP6 2001:db8::1 ::1 1 2", tcp("[2001:db8::1]:1", "[::1]:2")),
            ("UNKNOWN", ProxyHeader::Unknown),
            ("UNKNOWN whatever 1 2 3 4 5", ProxyHeader::Unknown),
        ] {
            let header = format!("PROXY {line}\r\n");
            let input = [header.as_bytes(), b"GET"].concat();
            assert_eq!(read(&input), Ok(Some((told, header.len()))), "{line}");
        }
    }

    #[test]
    fn a_line_against_the_grammar_is_malformed() {
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
            assert_eq!(read(format!("PROXY {line}\r\n").as_bytes()), Err(ProxyError::Malformed), "{line:?}");
        }
        assert_eq!(read(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n"), Err(ProxyError::Malformed));
    }

    #[test]
    fn a_line_is_waited_for_up_to_107_bytes() {
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
        assert_eq!(read(&line(107)), Ok(Some((ProxyHeader::Unknown, 107))));
        assert_eq!(read(&line(108)), Err(ProxyError::TooLong));
        assert_eq!(read(&line(108)[..106]), Ok(None));
        assert_eq!(read(&line(108)[..107]), Err(ProxyError::TooLong));
    }

    #[test]
    fn a_binary_header_tells_both_addresses_and_its_extensions_are_skipped() {
        let four = [1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x67, 0, 80];
        let extended = [&four[..], &[0x04, 0, 1, 0xff]].concat();
        assert_eq!(read(&binary(0x21, 0x11, &four)), Ok(Some((tcp("1.2.3.4:4711", "5.6.7.8:80"), 28))));
        assert_eq!(read(&binary(0x21, 0x11, &extended)), Ok(Some((tcp("1.2.3.4:4711", "5.6.7.8:80"), 32))));
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
        assert_eq!(read(&binary(0x21, 0x21, &six)), Ok(Some((tcp("[::1]:3", "[::2]:4"), 52))));
    }

    #[test]
    fn a_binary_header_may_tell_no_address() {
        for (command, family, told) in [
            (0x20, 0x00, ProxyHeader::Local),
            (0x20, 0xff, ProxyHeader::Local),
            (0x21, 0x00, ProxyHeader::Unknown),
            (0x21, 0x12, ProxyHeader::Unknown),
            (0x21, 0x31, ProxyHeader::Unknown),
        ] {
            for block in [&[][..], &[0; 216]] {
                assert_eq!(read(&binary(command, family, block)), Ok(Some((told, 16 + block.len()))));
            }
        }
    }

    #[test]
    fn a_binary_header_against_the_format_is_refused_before_its_end() {
        for (command, family) in
            [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x21, 0x13), (0x21, 0x41), (0x21, 0x10)]
        {
            let header = binary(command, family, &[0; 12]);
            assert_eq!(read(&header[..16]), Err(ProxyError::Malformed), "{command:x} {family:x}");
        }
        assert_eq!(read(&binary(0x21, 0x11, &[0; 11])), Err(ProxyError::Malformed));
        assert_eq!(read(&binary(0x21, 0x21, &[0; 35])), Err(ProxyError::Malformed));
        assert_eq!(read(&binary(0x21, 0x11, &[0; 4080])).unwrap().unwrap().1, 4096);
        assert_eq!(read(&binary(0x21, 0x11, &[0; 4081])[..16]), Err(ProxyError::TooLong));
    }

    #[test]
    fn only_the_versions_asked_for_are_taken_and_nothing_else() {
        let (line, block) = (&b"PROXY UNKNOWN\r\n"[..], &binary(0x20, 0, &[])[..]);
        assert_eq!(ProxyHeader::read(line, ProxyVersions::Two), Err(ProxyError::Missing));
        assert_eq!(ProxyHeader::read(block, ProxyVersions::One), Err(ProxyError::Missing));
        for other in
            ["GET / HTTP/1.1\r\n", "PROXZ", "PROXY\t", "proxy ", "POST", "\r\nGET", "\r\n\r\n\r", "\0", " "]
        {
            assert_eq!(read(other.as_bytes()), Err(ProxyError::Missing), "{other:?}");
        }
        for begun in [&line[..0], &line[..1], &line[..6], &block[..1], &block[..12], &block[..15]] {
            assert_eq!(read(begun), Ok(None), "{begun:?}");
        }
    }
}
