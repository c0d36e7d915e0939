//! The atoms of access log formats, as in gunicorn.
//!
//! Invariant: everything that a client or the application can influence is escaped, so that it cannot end a line, start
//! a line, or leave the quotes around it.

use std::{cell::RefCell, io::Write, time::SystemTime};

use jiff::{Timestamp, tz::TimeZone};
use mlws_server::Record;

use super::environ_values::EnvironValues;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Atom {
    Client,
    User,
    Date,
    RequestLine,
    Method,
    Path,
    Query,
    Protocol,
    Status,
    Sent,
    Referer,
    UserAgent,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    Process,
    RequestField(String),
    ResponseField(String),
    /// The index in the list of variables that the format uses.
    Environ(usize),
}

impl Atom {
    /// The atoms with one letter, except `l`, which is always `-`.
    pub const ATOMS: [(&'static str, Self); 18] = [
        ("h", Self::Client),
        ("u", Self::User),
        ("t", Self::Date),
        ("r", Self::RequestLine),
        ("m", Self::Method),
        ("U", Self::Path),
        ("q", Self::Query),
        ("H", Self::Protocol),
        ("s", Self::Status),
        ("b", Self::Sent),
        ("B", Self::Sent),
        ("f", Self::Referer),
        ("a", Self::UserAgent),
        ("T", Self::Seconds),
        ("M", Self::Milliseconds),
        ("D", Self::Microseconds),
        ("L", Self::DecimalSeconds),
        ("p", Self::Process),
    ];

    /// Whether `%d` can format it.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Status | Self::Sent | Self::Seconds | Self::Milliseconds | Self::Microseconds)
    }

    /// Appends the value of this atom.
    pub fn write(&self, line: &mut Vec<u8>, record: &Record<'_>, zone: &TimeZone) {
        let request = record.request;
        let field = |name| request.field(name).unwrap_or(b"-");
        let written = match self {
            Self::Client => write!(line, "{}", client(record).unwrap_or("-")),
            Self::Date => return date(line, record.at, zone),
            Self::RequestLine if request.method().is_empty() => write!(line, "-"),
            Self::RequestLine => {
                escape(line, request.method().as_bytes());
                line.push(b' ');
                escape(line, request.target().as_bytes());
                write!(line, " {}", request.version().as_str())
            }
            Self::Protocol => write!(line, "{}", request.version().as_str()),
            Self::Status => write!(line, "{}", record.status),
            Self::Sent => write!(line, "{}", record.sent),
            Self::Seconds => write!(line, "{}", record.took.as_secs()),
            Self::Milliseconds => write!(line, "{}", record.took.as_millis()),
            Self::Microseconds => write!(line, "{}", record.took.as_micros()),
            Self::DecimalSeconds => write!(line, "{:.6}", record.took.as_secs_f64()),
            Self::Process => write!(line, "<{}>", std::process::id()),
            Self::User => return escape(line, user(record).as_deref().unwrap_or(b"-")),
            Self::Method => return escape(line, request.method().as_bytes()),
            Self::Path => return escape(line, &path(record)),
            Self::Query => return escape(line, request.query()),
            Self::Referer => return escape(line, field("Referer")),
            Self::UserAgent => return escape(line, field("User-Agent")),
            Self::RequestField(name) => {
                let found = request.fields().filter(|field| field.0.eq_ignore_ascii_case(name.as_bytes()));
                return escape(line, found.last().map_or(b"-", |field| field.1));
            }
            Self::ResponseField(name) => {
                let found = fields(record.head).filter(|field| field.0.eq_ignore_ascii_case(name.as_bytes()));
                return escape(line, found.last().map_or(b"-", |field| field.1));
            }
            Self::Environ(place) => {
                let value = EnvironValues::of(record).and_then(|values| values.get(*place));
                return escape(line, value.unwrap_or("-").as_bytes());
            }
        };
        debug_assert!(written.is_ok(), "memory takes what is written");
    }
}

/// Appends `text` with everything but printable ASCII as `\xNN`.
pub fn escape(line: &mut Vec<u8>, mut text: &[u8]) {
    let is_harmless = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    while let Some(at) = text.iter().position(|byte| !is_harmless(byte)) {
        let digit = |nibble| b"0123456789abcdef"[usize::from(nibble & 15)];
        line.extend_from_slice(&text[..at]);
        line.extend_from_slice(&[b'\\', b'x', digit(text[at] >> 4), digit(text[at])]);
        text = &text[at + 1..];
    }
    line.extend_from_slice(text);
}

/// The address of the client, if it has one.
pub(crate) fn client<'a>(record: &Record<'a>) -> Option<&'a str> {
    Some(record.request.peer_address()).filter(|address| !address.is_empty())
}

/// The path as the application saw it.
pub(crate) fn path(record: &Record<'_>) -> Vec<u8> {
    let mut path = Vec::new();
    mlws_http1::percent_decode(record.request.path(), &mut path);
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// The user name of HTTP Basic authentication (RFC 7617). Not verified.
pub(crate) fn user(record: &Record<'_>) -> Option<Vec<u8>> {
    let (scheme, credentials) = record.request.field("Authorization")?.split_at_checked(6)?;
    let credentials = credentials.trim_ascii();
    let mut user = if scheme.eq_ignore_ascii_case(b"basic ") { base64(credentials)? } else { return None };
    user.truncate(user.iter().position(|byte| *byte == b':').unwrap_or(user.len()));
    Some(user).filter(|user| !user.is_empty() && std::str::from_utf8(user).is_ok())
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text {
        let value = DIGITS.iter().position(|other| other == digit)?;
        (bits, count) = (bits << 6 | value as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// The header fields in the head of a response.
pub fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Appends a date such as `[22/Nov/2026:20:34:20 +0000]`. Requests in the same second share the formatted text.
fn date(line: &mut Vec<u8>, at: SystemTime, zone: &TimeZone) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let second = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second || text.is_empty() {
            let at = Timestamp::try_from(at).unwrap_or_default().to_zoned(zone.clone());
            *text = jiff::fmt::strtime::format("[%d/%b/%Y:%H:%M:%S %z]", &at).unwrap_or_default();
            *last = second;
        }
        line.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_forge_lines_or_close_quotes() {
        let mut line = Vec::new();
        escape(&mut line, b"a b\r\n\"\\\x7f\x1b[31m\xc3\xa9\t");
        assert_eq!(line, br"a b\x0d\x0a\x22\x5c\x7f\x1b[31m\xc3\xa9\x09");
    }

    #[test]
    fn invalid_base64_is_rejected() {
        for (text, bytes) in
            [("", ""), ("YQ==", "a"), ("YQ", "a"), ("YWI=", "ab"), ("YWxhZGRpbjpvcGVu", "aladdin:open")]
        {
            assert_eq!(base64(text.as_bytes()).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64(b"a b"), None);
    }

    #[test]
    fn fields_of_a_head_are_found() {
        let head = b"HTTP/1.1 200 OK\r\nA: 1\r\nB-c:  2:3 \r\n\r\n";
        let found: Vec<_> = fields(head).collect();
        assert_eq!(found, [(&b"A"[..], &b"1"[..]), (b"B-c", b"2:3")]);
    }
}
