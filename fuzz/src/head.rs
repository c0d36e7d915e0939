//! Target `head`: the first request head.
//!
//! In addition to the checks of [`machine`](crate::machine), an accepted head is checked against a direct
//! transcription of RFC 9112, sections 2 to 5.

use mlws_http1::{Length, Limits, ParserMode, Version};

use crate::poisoned;
use crate::rng::Rng;
use crate::transcript::{End, Message, Transcript, parse};

/// Checks one input, with each of the [limits](Rng::limits).
pub fn check(bytes: &[u8]) {
    let mut rng = Rng::from_input(bytes);
    for limits in rng.limits() {
        let whole = parse(&limits, [bytes]);
        let (bytes, whole) = match whole.extents.first() {
            Some(extent) => (&bytes[..extent.body], parse(&limits, [&bytes[..extent.body]])),
            None => (bytes, whole),
        };
        assert_eq!(parse(&limits, bytes.chunks(1)), whole, "parsing byte by byte gave another result");
        assert_eq!(parse(&limits, rng.split(bytes)), whole, "splitting the input gave another result");
        poisoned::check(&limits, bytes, &whole);
        if let Some(message) = whole.messages.first() {
            check_accepted(bytes, message, limits.mode);
            check_reencoded(&limits, &whole);
            assert_eq!(parse(&limits, [&bytes[..bytes.len() - 1]]).end, End::Incomplete);
        }
    }
}

fn check_reencoded(limits: &Limits, whole: &Transcript) {
    let mut message = whole.messages[0].clone();
    message.body.clear();
    if !message.is_complete && message.length == Length::Chunked {
        return; // `encode` would add the end of the body
    }
    let again = parse(limits, [&message.encode()[..]]);
    assert_eq!(again.messages, whole.messages, "re-encoded, it is parsed differently");
}

fn check_accepted(bytes: &[u8], message: &Message, mode: ParserMode) {
    let head = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.strip_suffix("\r\n\r\n").expect("missing blank line").split("\r\n");
    let first = lines.next().expect("missing request line");
    assert_eq!(first, format!("{} {} {}", message.method, message.target, message.version.as_str()));
    let fields: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').expect("missing colon"))
        .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        .collect();
    assert_eq!(fields.len(), message.fields.len());
    for ((name, value), (parsed_name, parsed_value)) in fields.iter().zip(&message.fields) {
        assert!(!name.is_empty() && name.chars().all(is_token), "{name} is not a token");
        assert!(
            !value.contains(|byte: char| byte.is_ascii_control() && byte != '\t'),
            "{value} contains a control character"
        );
        assert_eq!(&name.bytes().collect::<Vec<u8>>(), parsed_name);
        assert_eq!(&value.chars().map(|byte| byte as u8).collect::<Vec<u8>>(), parsed_value);
    }
    assert!(message.method.chars().all(is_token));
    match mode {
        ParserMode::Strict => assert_ne!(message.method, "CONNECT"),
        ParserMode::Gunicorn => {
            assert!((3..=20).contains(&message.method.len()), "{}", message.method);
            assert!(!message.method.contains(|byte: char| byte.is_ascii_lowercase() || byte == '#'));
        }
    }
    assert!(message.target.chars().all(|byte| byte.is_ascii_graphic() && byte != '#'));
    let fields = Fields(fields);
    check_framing(&fields, message, mode);
    check_connection(&fields, message);
    let hosts = fields.all("host").len();
    let is_optional = (message.version, mode) != (Version::Http11, ParserMode::Strict);
    assert!(hosts == 1 || (hosts == 0 && is_optional));
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn all(&self, wanted: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| &value[..]).collect()
    }

    /// The combined list elements of all fields with this name, in lower case.
    fn members(&self, wanted: &str) -> Vec<String> {
        let joined = self.all(wanted).join(",");
        joined.split(',').map(|member| member.trim_matches([' ', '\t']).to_lowercase()).collect()
    }
}

/// RFC 9112, section 6.3. In addition, framing fields must not be repeated, except in gunicorn mode.
fn check_framing(fields: &Fields, message: &Message, mode: ParserMode) {
    match (&fields.all("transfer-encoding")[..], &fields.all("content-length")[..]) {
        ([], []) => assert_eq!(message.length, Length::Known(0)),
        ([], [length]) => {
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()));
            assert_eq!(Ok(message.length), length.parse().map(Length::Known));
        }
        (codings, []) => {
            assert_eq!((message.length, message.version), (Length::Chunked, Version::Http11));
            let mut members = fields.members("transfer-encoding");
            assert_eq!(members.pop().as_deref(), Some("chunked"));
            let others = ["identity", "gzip", "compress", "deflate"];
            assert!(members.iter().all(|member| others.contains(&&member[..])));
            assert!(
                members.is_empty() || !message.keep_alive,
                "ambiguous framing on a persistent connection"
            );
            assert!(mode == ParserMode::Gunicorn || (members.is_empty() && codings.len() == 1));
        }
        (codings, lengths) => panic!("{codings:?} and {lengths:?} were accepted"),
    }
}

/// RFC 9112, section 9.3.
fn check_connection(fields: &Fields, message: &Message) {
    let options = fields.members("connection");
    let lists = |option: &str| options.iter().any(|it| it == option);
    let persists = (message.version == Version::Http11 || lists("keep-alive")) && !lists("close");
    let must_close = message.method == "CONNECT" || fields.members("transfer-encoding").len() > 1;
    assert_eq!(message.keep_alive, persists && !must_close);
}

fn is_token(byte: char) -> bool {
    byte.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(byte)
}
