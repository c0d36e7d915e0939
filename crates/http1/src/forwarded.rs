//! What proxies say of the request that they pass on: `Forwarded` (RFC 7239), and the `X-Forwarded-` fields that it was made to replace.
//!
//! The one thing to know: each proxy appends what it knows at the right, behind whatever its client sent. So all is read from the right,
//! and only as far as proxies are known that may be believed; what stands further left is a client's tale.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::grammar::{decimal, is_text_byte, is_token_byte, list, trim};
use crate::target::is_host;

/// A field in which proxies say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedField {
    /// `X-Forwarded-For`: addresses, the client's first.
    For,
    /// `X-Forwarded-Proto`: `http` or `https`.
    Proto,
    /// `X-Forwarded-Host`: what the client has asked for, with or without a port.
    Host,
    /// `X-Forwarded-Port`: where it has asked.
    Port,
    /// `X-Forwarded-Prefix`: what was cut off the path.
    Prefix,
    /// `Forwarded`: all but the last two of these, for each proxy.
    Forwarded,
}

impl ForwardedField {
    /// Each with its name.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::For, "x-forwarded-for"),
        (Self::Proto, "x-forwarded-proto"),
        (Self::Host, "x-forwarded-host"),
        (Self::Port, "x-forwarded-port"),
        (Self::Prefix, "x-forwarded-prefix"),
        (Self::Forwarded, "forwarded"),
    ];

    /// The field of this name in any case. An underscore counts as a dash, because it does to applications.
    pub fn named(name: &[u8]) -> Option<Self> {
        let dashed = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        let is = |known: &str| name.iter().map(dashed).eq(known.bytes());
        Self::ALL.into_iter().find(|(_, known)| is(known)).map(|(field, _)| field)
    }
}

/// What the fields of one request say. Nothing where they are silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// The client.
    pub client: Option<Node>,
    /// Whether it came by `https`.
    pub https: Option<bool>,
    /// The host that it asked for, with its port if it has one.
    pub host: Option<Cow<'a, [u8]>>,
    /// The port that it came to.
    pub port: Option<u16>,
    /// What was cut off the path: begins with one slash, and ends with none. Empty if nothing was.
    pub prefix: Option<&'a [u8]>,
}

/// One end of a connection. Who does not want to be known, or is not known, has no address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Never an IPv4 address in the guise of an IPv6 one.
    pub address: Option<IpAddr>,
    /// The port, if it was told.
    pub port: Option<u16>,
}

/// A value is against its grammar, or two fields disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedError;

impl fmt::Display for ForwardedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the proxy says of the request is not valid or contradicts itself")
    }
}

impl std::error::Error for ForwardedError {}

impl<'a> Forwarded<'a> {
    /// Reads the fields in the order sent, all from a proxy that is believed. `is_proxy` tells which others are; the client is the last
    /// one named that is none, or the first of all. Of several values where there should be one, the last is from the nearest proxy.
    pub fn read(
        fields: &[(ForwardedField, &'a [u8])],
        is_proxy: impl Fn(IpAddr) -> bool,
    ) -> Result<Self, ForwardedError> {
        let mut said = Self::default();
        let (mut hops, mut elements) = (Vec::new(), Vec::new());
        for &(field, value) in fields {
            let last = list(value).last().unwrap_or_default();
            let is_good = match field {
                ForwardedField::For => {
                    hops.extend(list(value));
                    true
                }
                ForwardedField::Forwarded => read_elements(value, &mut elements).is_some(),
                ForwardedField::Proto => set(&mut said.https, is_https(last)),
                ForwardedField::Host => set(&mut said.host, is_host(last).then_some(Cow::Borrowed(last))),
                ForwardedField::Port => set(&mut said.port, port(last)),
                ForwardedField::Prefix => set(&mut said.prefix, prefix(last)),
            };
            if !is_good {
                return Err(ForwardedError);
            }
        }
        for hop in hops.into_iter().rev() {
            let node = Node::of_hop(hop).ok_or(ForwardedError)?;
            said.client = Some(node);
            if !node.address.is_some_and(&is_proxy) {
                break;
            }
        }
        let is_of_client = |element: &Element<'_>| {
            element.client.and_then(|node| node.address).is_none_or(|address| !is_proxy(address))
        };
        let at = elements.iter().rposition(is_of_client).unwrap_or(0);
        match elements.into_iter().nth(at) {
            Some(element) => said.agree(element),
            None => Ok(said),
        }
    }

    /// Who lists fields of both kinds has a proxy that sets both; a client that could set one of them must not get through with it.
    fn agree(mut self, element: Element<'a>) -> Result<Self, ForwardedError> {
        let same_client = match (self.client, element.client) {
            (Some(one), Some(other)) => one.address == other.address,
            _ => true,
        };
        let same_scheme = self.https.is_none_or(|https| element.https.is_none_or(|other| https == other));
        let same_host = match (&self.host, &element.host) {
            (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
            _ => true,
        };
        self.client = self.client.filter(|node| node.port.is_some()).or(element.client).or(self.client);
        self.https = self.https.or(element.https);
        self.host = self.host.or(element.host);
        if same_client && same_scheme && same_host { Ok(self) } else { Err(ForwardedError) }
    }
}

/// Takes a value in place of the one before it, and says whether it is one.
fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

fn is_https(value: &[u8]) -> Option<bool> {
    let is = |scheme: &[u8]| value.eq_ignore_ascii_case(scheme);
    (is(b"https") || is(b"http")).then(|| is(b"https"))
}

fn port(value: &[u8]) -> Option<u16> {
    decimal(value).filter(|_| value.len() <= 5).and_then(|port| port.try_into().ok())
}

/// Two slashes at its start would be another host to whoever builds a URL with it.
fn prefix(value: &[u8]) -> Option<&[u8]> {
    let is_good = value.starts_with(b"/") && !value.starts_with(b"//");
    let is_path_byte = |byte: &u8| byte.is_ascii_graphic() && !b"?#\\\"<>^`{|}".contains(byte);
    let end = value.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    (is_good && value.iter().all(is_path_byte)).then_some(&value[..end])
}

impl Node {
    /// A value of `X-Forwarded-For`, where an IPv6 address needs no brackets.
    fn of_hop(bytes: &[u8]) -> Option<Self> {
        let bare = str::from_utf8(bytes).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        match bare {
            Some(address) => Some(Self { address: Some(IpAddr::V6(address).to_canonical()), port: None }),
            None => Self::parse(bytes),
        }
    }

    /// `nodename [ ":" node-port ]` (RFC 7239, section 6).
    fn parse(bytes: &[u8]) -> Option<Self> {
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
            Some(digits) => Some(port(digits.as_bytes())?),
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

/// What one proxy says in `Forwarded`: who its client is, and what that client asked for.
#[derive(Debug, Default)]
struct Element<'a> {
    client: Option<Node>,
    https: Option<bool>,
    host: Option<Cow<'a, [u8]>>,
}

impl<'a> Element<'a> {
    /// A parameter that comes twice could be read in two ways. Those that are not known are skipped.
    fn note(&mut self, name: &[u8], value: Cow<'a, [u8]>) -> Option<()> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let is_again = if is(b"for") {
            self.client.replace(Node::parse(&value)?).is_some()
        } else if is(b"proto") {
            self.https.replace(is_https(&value)?).is_some()
        } else if is(b"host") {
            is_host(&value).then(|| self.host.replace(value).is_some())?
        } else {
            false
        };
        (!is_again).then_some(())
    }
}

/// `1#( [ pair ] *( ";" [ pair ] ) )` (RFC 7239, section 4).
fn read_elements<'a>(value: &'a [u8], into: &mut Vec<Element<'a>>) -> Option<()> {
    let mut rest = trim(value);
    let before = into.len();
    loop {
        let mut element = None;
        loop {
            let (name, after) = rest.split_at(rest.iter().take_while(|byte| is_token_byte(**byte)).count());
            rest = after;
            if !name.is_empty() {
                let (value, after) = read_value(rest.strip_prefix(b"=")?)?;
                element.get_or_insert_with(Element::default).note(name, value)?;
                rest = after;
            }
            let Some(after) = rest.strip_prefix(b";") else { break };
            rest = after;
        }
        into.extend(element);
        rest = match trim(rest) {
            [] => return (into.len() > before).then_some(()),
            [b',', after @ ..] => trim(after),
            _ => return None,
        }
    }
}

/// `token / quoted-string`, and what follows it.
fn read_value(input: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = input.strip_prefix(b"\"") else {
        let length = input.iter().take_while(|byte| is_token_byte(**byte)).count();
        return (length > 0).then(|| (Cow::Borrowed(&input[..length]), &input[length..]));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some((Cow::Owned(value), bytes.as_slice())),
            b'\\' => value.extend(bytes.next().filter(|byte| is_text_byte(**byte))),
            byte if is_text_byte(*byte) => value.push(*byte),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Name: value` lines, from a proxy; others are in 10.0.0.0/8.
    fn read<'a>(lines: &[&'a str]) -> Result<Forwarded<'a>, ForwardedError> {
        let fields: Vec<_> = lines
            .iter()
            .map(|line| line.split_once(": ").expect("a field"))
            .map(|(name, value)| (ForwardedField::named(name.as_bytes()).expect("a name"), value.as_bytes()))
            .collect();
        Forwarded::read(&fields, |address| matches!(address, IpAddr::V4(four) if four.octets()[0] == 10))
    }

    fn client(line: &str) -> Option<String> {
        let Node { address, port } = read(&[line]).ok()?.client.unwrap_or_default();
        let address = address.map_or("nobody".into(), |address| address.to_string());
        Some(port.map_or(address.clone(), |port| format!("{address} {port}")))
    }

    #[test]
    fn names_go_by_what_an_application_would_see() {
        for name in ["X-Forwarded-For", "x_forwarded-FOR", "X_FORWARDED_FOR"] {
            assert_eq!(ForwardedField::named(name.as_bytes()), Some(ForwardedField::For), "{name}");
        }
        for name in ["X-Forwarded-Fo", "X-Forwarded-Forr", "X.Forwarded.For", "", "X-Forwarded-Server"] {
            assert_eq!(ForwardedField::named(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_client_is_the_last_that_is_no_proxy() {
        for (list, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("6.6.6.6,192.0.2.1 ,\t10.0.0.1, 10.1.1.1", "192.0.2.1"),
            ("10.6.6.6, 10.0.0.1", "10.6.6.6"),
            ("rubbish, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1 4711"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1 80"),
            ("6.6.6.6, ::ffff:10.0.0.1", "6.6.6.6"),
            ("6.6.6.6, unknown", "nobody"),
        ] {
            assert_eq!(client(&format!("X-Forwarded-For: {list}")).as_deref(), Some(expected), "{list}");
        }
        let two = read(&["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1, 10.0.0.1"]).unwrap();
        assert_eq!(two.client.unwrap().address, Some([192, 0, 2, 1].into()));
    }

    #[test]
    fn an_element_of_forwarded_tells_all_of_its_client() {
        let said = read(&[
            "Forwarded: for=6.6.6.6;proto=http;host=evil",
            "Forwarded: For=\"[2001:db8::1]:4711\";PROTO=HTTPS;host=\"a\\.b:81\";;secret=\"\\\",\" ,, for=10.0.0.1;host=in",
        ]);
        let said = said.unwrap();
        assert_eq!(
            said.client,
            Some(Node { address: Some("2001:db8::1".parse().unwrap()), port: Some(4711) })
        );
        assert_eq!((said.https, said.host.as_deref()), (Some(true), Some(&b"a.b:81"[..])));
    }

    #[test]
    fn who_is_not_known_has_no_address() {
        for name in ["unknown", "_hidden", "\"_SEVKISEK:_p\"", "\"unknown:80\"", "UNKNOWN"] {
            assert!(client(&format!("Forwarded: for={name}")).unwrap().starts_with("nobody"), "{name}");
        }
        assert_eq!(read(&["Forwarded: proto=https"]).unwrap().client, None);
    }

    #[test]
    fn what_is_against_the_grammar_is_an_error() {
        for line in [
            "X-Forwarded-For: ",
            "X-Forwarded-For: localhost",
            "X-Forwarded-For: 1.2.3",
            "X-Forwarded-For: 1.2.3.4:",
            "X-Forwarded-For: 1.2.3.4:65536",
            "X-Forwarded-For: 1.2.3.4 5.6.7.8",
            "X-Forwarded-For: 1.2.3.4,",
            "X-Forwarded-For: rubbish, 10.0.0.1",
            "X-Forwarded-For: [::1",
            "X-Forwarded-For: [1.2.3.4]",
            "X-Forwarded-For: fe80::1%eth0",
            "X-Forwarded-Proto: ftp",
            "X-Forwarded-Proto: https,",
            "X-Forwarded-Host: a b",
            "X-Forwarded-Host: a/b",
            "X-Forwarded-Host: user@a",
            "X-Forwarded-Port: 65536",
            "X-Forwarded-Port: +1",
            "X-Forwarded-Port: 000080",
            "X-Forwarded-Prefix: shop",
            "X-Forwarded-Prefix: //evil.example",
            "X-Forwarded-Prefix: /\\evil.example",
            "X-Forwarded-Prefix: /a?b",
            "Forwarded: ",
            "Forwarded: ,",
            "Forwarded: for",
            "Forwarded: for=",
            "Forwarded: for =1.2.3.4",
            "Forwarded: for=1.2.3.4:80",
            "Forwarded: for=\"::1\"",
            "Forwarded: for=[::1]",
            "Forwarded: for=\"1.2.3.4",
            "Forwarded: for=1.2.3.4;for=1.2.3.4",
            "Forwarded: for=1.2.3.4;proto=ftp",
            "Forwarded: for=1.2.3.4;host=\"a/b\"",
            "Forwarded: for=_",
            "Forwarded: for=\"\\",
            "Forwarded: for=1.2.3.4 proto=https",
            "Forwarded: for=\"6.6.6.6, for=1.2.3.4;proto=https",
            "Forwarded: x=\", for=\"[::1]\"",
        ] {
            assert_eq!(read(&[line]), Err(ForwardedError), "{line}");
        }
    }

    #[test]
    fn of_several_values_the_last_counts() {
        let said = read(&[
            "X-Forwarded-Proto: http",
            "X-Forwarded-Proto: ftp, HTTPS",
            "X-Forwarded-Host: evil, shop.example:81",
            "X-Forwarded-Port: 1, 8443",
            "X-Forwarded-Prefix: evil, /shop//",
        ])
        .unwrap();
        assert_eq!((said.https, said.port, said.prefix), (Some(true), Some(8443), Some(&b"/shop"[..])));
        assert_eq!(said.host.as_deref(), Some(&b"shop.example:81"[..]));
        assert_eq!(read(&["X-Forwarded-Prefix: /"]).unwrap().prefix, Some(&b""[..]));
    }

    #[test]
    fn both_kinds_of_fields_have_to_agree() {
        let x = ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: a"];
        let with = |forwarded: &str| Some(read(&[x[0], x[1], x[2], forwarded]).ok()?.client?.port);
        assert_eq!(with("Forwarded: for=\"1.2.3.4:80\";proto=https;host=A"), Some(Some(80)));
        for forwarded in ["for=6.6.6.6", "for=unknown", "proto=http", "host=b"] {
            assert_eq!(with(&format!("Forwarded: {forwarded}")), None, "{forwarded}");
        }
    }
}
