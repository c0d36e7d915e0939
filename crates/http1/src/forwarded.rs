//! The fields in which proxies describe the original request: `Forwarded` (RFC 7239) and its predecessors, the
//! `X-Forwarded-*` fields.
//!
//! Invariant: only values added by trusted proxies are used. Each proxy appends its values at the right, after those
//! received from its client. Values are therefore evaluated from the right, until one names a client that is not a
//! trusted proxy. Everything to its left is controlled by that client.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::grammar::{is_text_byte, is_token_byte, list, trim};
use crate::node::{Node, parse_port};
use crate::uri::is_host;

/// A forwarding field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedField {
    /// `X-Forwarded-For`: addresses, starting with that of the client.
    For,
    /// `X-Forwarded-Proto`: `http` or `https`.
    Proto,
    /// `X-Forwarded-Host`: the original host, with an optional port.
    Host,
    /// `X-Forwarded-Port`: the port that the client connected to.
    Port,
    /// `X-Forwarded-Prefix`: the prefix that the proxy removed from the path.
    Prefix,
    /// `Forwarded`: client, scheme and host, for each proxy.
    Forwarded,
}

impl ForwardedField {
    /// All fields with their names in lower case.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::For, "x-forwarded-for"),
        (Self::Proto, "x-forwarded-proto"),
        (Self::Host, "x-forwarded-host"),
        (Self::Port, "x-forwarded-port"),
        (Self::Prefix, "x-forwarded-prefix"),
        (Self::Forwarded, "forwarded"),
    ];

    /// The field with this name, compared without case. An underscore equals a dash, as in the WSGI environ.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let normalize = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        let is = |known: &str| name.iter().map(normalize).eq(known.bytes());
        Self::ALL.into_iter().find(|(_, known)| is(known)).map(|(field, _)| field)
    }
}

/// The combined content of the forwarding fields of one request. `None` if no field carries the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// The client.
    pub client: Option<Node>,
    /// Whether the client used `https`.
    pub https: Option<bool>,
    /// The original host, with an optional port.
    pub host: Option<Cow<'a, [u8]>>,
    /// The port that the client connected to.
    pub port: Option<u16>,
    /// The prefix removed from the path. Empty, or starts with exactly one slash and does not end with one.
    pub prefix: Option<&'a [u8]>,
}

/// A value violates its grammar, or two fields conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedError;

impl fmt::Display for ForwardedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid or conflicting forwarding headers")
    }
}

impl std::error::Error for ForwardedError {}

impl<'a> Forwarded<'a> {
    /// Evaluates the fields of a request from a trusted proxy, in the order received. `is_proxy` returns whether an
    /// address is another trusted proxy. The client is the last address that is not, or the first of all. If a field
    /// that should have one value has several, the last one is used: it comes from the nearest proxy.
    ///
    /// # Errors
    ///
    /// A value that is evaluated violates its grammar, or `Forwarded` conflicts with an `X-Forwarded-*` field.
    pub fn parse(
        fields: &[(ForwardedField, &'a [u8])],
        is_proxy: impl Fn(IpAddr) -> bool,
    ) -> Result<Self, ForwardedError> {
        let mut forwarded = Self::default();
        let (mut hops, mut elements) = (Vec::new(), Vec::new());
        for &(field, value) in fields {
            let last = list(value).last().unwrap_or_default();
            let is_valid = match field {
                ForwardedField::For => {
                    // Empty elements are ignored (RFC 9110, section 5.6.1.2).
                    hops.extend(list(value).filter(|hop| !hop.is_empty()));
                    true
                }
                ForwardedField::Forwarded => parse_elements(value, &mut elements).is_some(),
                ForwardedField::Proto => store(&mut forwarded.https, parse_scheme(last)),
                ForwardedField::Host => {
                    store(&mut forwarded.host, is_host(last).then_some(Cow::Borrowed(last)))
                }
                ForwardedField::Port => store(&mut forwarded.port, parse_port(last)),
                ForwardedField::Prefix => store(&mut forwarded.prefix, parse_prefix(last)),
            };
            if !is_valid {
                return Err(ForwardedError);
            }
        }
        for hop in hops.into_iter().rev() {
            let node = Node::parse_hop(hop).ok_or(ForwardedError)?;
            forwarded.client = Some(node);
            if !node.address.is_some_and(&is_proxy) {
                break;
            }
        }
        let names_client = |element: &Element<'_>| {
            element.client.and_then(|node| node.address).is_none_or(|address| !is_proxy(address))
        };
        let at = elements.iter().rposition(names_client).unwrap_or(0);
        match elements.into_iter().nth(at) {
            Some(element) => forwarded.merge(element),
            None => Ok(forwarded),
        }
    }

    /// Merges `Forwarded` into the `X-Forwarded-*` fields. If both kinds are trusted, the proxy sets both, so a conflict
    /// means that a client sent one of them.
    fn merge(mut self, element: Element<'a>) -> Result<Self, ForwardedError> {
        let same_client = match (self.client, element.client) {
            (Some(first), Some(second)) => first.address == second.address,
            _ => true,
        };
        let same_scheme = self.https.is_none_or(|https| element.https.is_none_or(|second| https == second));
        let same_host = match (&self.host, &element.host) {
            (Some(first), Some(second)) => first.eq_ignore_ascii_case(second),
            _ => true,
        };
        self.client = self.client.filter(|node| node.port.is_some()).or(element.client).or(self.client);
        self.https = self.https.or(element.https);
        self.host = self.host.or(element.host);
        if same_client && same_scheme && same_host { Ok(self) } else { Err(ForwardedError) }
    }
}

/// Replaces the stored value. Returns false if the new one is invalid.
fn store<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

/// Whether the scheme is `https`; `None` unless it is `http` or `https`.
fn parse_scheme(value: &[u8]) -> Option<bool> {
    let is = |scheme: &[u8]| value.eq_ignore_ascii_case(scheme);
    (is(b"https") || is(b"http")).then(|| is(b"https"))
}

/// Two leading slashes are not allowed: a URL built from them would name another host.
fn parse_prefix(value: &[u8]) -> Option<&[u8]> {
    let is_valid = value.starts_with(b"/") && !value.starts_with(b"//");
    let is_path_byte = |byte: &u8| byte.is_ascii_graphic() && !b"?#\\\"<>^`{|}".contains(byte);
    let end = value.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    (is_valid && value.iter().all(is_path_byte)).then_some(&value[..end])
}

/// A `forwarded-element`, added by one proxy: its client, and the scheme and host that the client requested.
#[derive(Debug, Default)]
struct Element<'a> {
    client: Option<Node>,
    https: Option<bool>,
    host: Option<Cow<'a, [u8]>>,
}

impl<'a> Element<'a> {
    /// Sets a parameter. Fails if it is repeated, which would be ambiguous. Unknown parameters are ignored.
    fn set(&mut self, name: &[u8], value: Cow<'a, [u8]>) -> Option<()> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let is_repeated = if is(b"for") {
            self.client.replace(Node::parse(&value)?).is_some()
        } else if is(b"proto") {
            self.https.replace(parse_scheme(&value)?).is_some()
        } else if is(b"host") {
            is_host(&value).then(|| self.host.replace(value).is_some())?
        } else {
            false
        };
        (!is_repeated).then_some(())
    }
}

/// `forwarded-element` list: `1#( [ pair ] *( ";" [ pair ] ) )` (RFC 7239, section 4).
fn parse_elements<'a>(value: &'a [u8], elements: &mut Vec<Element<'a>>) -> Option<()> {
    let mut rest = trim(value);
    let before = elements.len();
    loop {
        let mut element = None;
        loop {
            let (name, after) = rest.split_at(rest.iter().take_while(|byte| is_token_byte(**byte)).count());
            rest = after;
            if !name.is_empty() {
                let (value, after) = parse_value(rest.strip_prefix(b"=")?)?;
                element.get_or_insert_with(Element::default).set(name, value)?;
                rest = after;
            }
            let Some(after) = rest.strip_prefix(b";") else { break };
            rest = after;
        }
        elements.extend(element);
        rest = match trim(rest) {
            [] => return (elements.len() > before).then_some(()),
            [b',', after @ ..] => trim(after),
            _ => return None,
        }
    }
}

/// `token / quoted-string`. Returns the value and the rest of the input.
fn parse_value(input: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
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

    /// Parses `Name: value` lines from a proxy. Other trusted proxies are in 10.0.0.0/8.
    fn parse<'a>(lines: &[&'a str]) -> Result<Forwarded<'a>, ForwardedError> {
        let fields: Vec<_> = lines
            .iter()
            .map(|line| line.split_once(": ").expect("a field"))
            .map(|(name, value)| {
                (ForwardedField::from_name(name.as_bytes()).expect("a name"), value.as_bytes())
            })
            .collect();
        Forwarded::parse(&fields, |address| matches!(address, IpAddr::V4(four) if four.octets()[0] == 10))
    }

    fn client(line: &str) -> Option<String> {
        let Node { address, port } = parse(&[line]).ok()?.client.unwrap_or_default();
        let address = address.map_or("unknown".into(), |address| address.to_string());
        Some(port.map_or(address.clone(), |port| format!("{address} {port}")))
    }

    #[test]
    fn field_names_ignore_case_and_treat_underscores_as_dashes() {
        for name in ["X-Forwarded-For", "x_forwarded-FOR", "X_FORWARDED_FOR"] {
            assert_eq!(ForwardedField::from_name(name.as_bytes()), Some(ForwardedField::For), "{name}");
        }
        for name in ["X-Forwarded-Fo", "X-Forwarded-Forr", "X.Forwarded.For", "", "X-Forwarded-Server"] {
            assert_eq!(ForwardedField::from_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_proxy() {
        for (list, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("6.6.6.6,192.0.2.1 ,\t10.0.0.1, 10.1.1.1", "192.0.2.1"),
            ("10.6.6.6, 10.0.0.1", "10.6.6.6"),
            ("rubbish, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, ,,\t", "192.0.2.1"),
            (", 192.0.2.1, , 10.0.0.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1 4711"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1 80"),
            ("6.6.6.6, ::ffff:10.0.0.1", "6.6.6.6"),
            ("6.6.6.6, unknown", "unknown"),
        ] {
            assert_eq!(client(&format!("X-Forwarded-For: {list}")).as_deref(), Some(expected), "{list}");
        }
        let two = parse(&["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1, 10.0.0.1"]).unwrap();
        assert_eq!(two.client.unwrap().address, Some([192, 0, 2, 1].into()));
    }

    #[test]
    fn all_parameters_come_from_the_element_that_names_the_client() {
        let forwarded = parse(&[
            "Forwarded: for=6.6.6.6;proto=http;host=evil",
            "Forwarded: For=\"[2001:db8::1]:4711\";PROTO=HTTPS;host=\"a\\.b:81\";;secret=\"\\\",\" ,, for=10.0.0.1;host=in",
        ]);
        let forwarded = forwarded.unwrap();
        assert_eq!(
            forwarded.client,
            Some(Node { address: Some("2001:db8::1".parse().unwrap()), port: Some(4711) })
        );
        assert_eq!((forwarded.https, forwarded.host.as_deref()), (Some(true), Some(&b"a.b:81"[..])));
    }

    #[test]
    fn unknown_and_obfuscated_nodes_have_no_address() {
        for name in ["unknown", "_hidden", "\"_SEVKISEK:_p\"", "\"unknown:80\"", "UNKNOWN"] {
            assert!(client(&format!("Forwarded: for={name}")).unwrap().starts_with("unknown"), "{name}");
        }
        assert_eq!(parse(&["Forwarded: proto=https"]).unwrap().client, None);
    }

    #[test]
    fn values_that_violate_the_grammar_are_rejected() {
        for line in [
            "X-Forwarded-For: localhost",
            "X-Forwarded-For: 1.2.3",
            "X-Forwarded-For: 1.2.3.4:",
            "X-Forwarded-For: 1.2.3.4:65536",
            "X-Forwarded-For: 1.2.3.4 5.6.7.8",
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
            assert_eq!(parse(&[line]), Err(ForwardedError), "{line}");
        }
    }

    #[test]
    fn the_last_of_several_values_is_used() {
        let forwarded = parse(&[
            "X-Forwarded-Proto: http",
            "X-Forwarded-Proto: ftp, HTTPS",
            "X-Forwarded-Host: evil, shop.example:81",
            "X-Forwarded-Port: 1, 8443",
            "X-Forwarded-Prefix: evil, /shop//",
        ])
        .unwrap();
        assert_eq!(
            (forwarded.https, forwarded.port, forwarded.prefix),
            (Some(true), Some(8443), Some(&b"/shop"[..]))
        );
        assert_eq!(forwarded.host.as_deref(), Some(&b"shop.example:81"[..]));
        assert_eq!(parse(&["X-Forwarded-Prefix: /"]).unwrap().prefix, Some(&b""[..]));
    }

    #[test]
    fn forwarded_must_not_conflict_with_x_forwarded_fields() {
        let x = ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: a"];
        let with = |forwarded: &str| Some(parse(&[x[0], x[1], x[2], forwarded]).ok()?.client?.port);
        assert_eq!(with("Forwarded: for=\"1.2.3.4:80\";proto=https;host=A"), Some(Some(80)));
        for forwarded in ["for=6.6.6.6", "for=unknown", "proto=http", "host=b"] {
            assert_eq!(with(&format!("Forwarded: {forwarded}")), None, "{forwarded}");
        }
    }
}
