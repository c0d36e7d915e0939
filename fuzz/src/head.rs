//! The first request head.
//!
//! The one thing to know: next to the machine's checks, an accepted head is held against what the RFCs say of its
//! bytes, in the plainest words there are (RFC 9112, sections 2 to 5).

use mlws_http1::{Length, Limits, ParserMode, Version};

use crate::dice::Dice;
use crate::reading::{End, Message, Reading, read};
use crate::spoiled;

/// Checks one input, with each of the [limits](Dice::limits).
pub fn check(bytes: &[u8]) {
    let mut dice = Dice::of(bytes);
    for limits in dice.limits() {
        let whole = read(&limits, [bytes]);
        let (bytes, whole) = match whole.places.first() {
            Some(place) => (&bytes[..place.body], read(&limits, [&bytes[..place.body]])),
            None => (bytes, whole),
        };
        assert_eq!(read(&limits, bytes.chunks(1)), whole, "byte by byte it is another");
        assert_eq!(read(&limits, dice.cut(bytes)), whole, "cut it is another");
        spoiled::check(&limits, bytes, &whole);
        if let Some(message) = whole.messages.first() {
            check_accepted(bytes, message, limits.mode);
            check_rewritten(&limits, &whole);
            assert_eq!(read(&limits, [&bytes[..bytes.len() - 1]]).end, End::Incomplete);
        }
    }
}

fn check_rewritten(limits: &Limits, whole: &Reading) {
    let mut message = whole.messages[0].clone();
    message.body.clear();
    if !message.is_complete && message.length == Length::Chunked {
        return; // then `write` would write its end
    }
    let again = read(limits, [&message.write()[..]]);
    assert_eq!(again.messages, whole.messages, "written again it is another");
}

fn check_accepted(bytes: &[u8], message: &Message, mode: ParserMode) {
    let head = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.strip_suffix("\r\n\r\n").expect("a blank line").split("\r\n");
    let first = lines.next().expect("a request line");
    assert_eq!(first, format!("{} {} {}", message.method, message.target, message.version.as_str()));
    let fields: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').expect("a colon"))
        .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        .collect();
    assert_eq!(fields.len(), message.fields.len());
    for ((name, value), (our_name, our_value)) in fields.iter().zip(&message.fields) {
        assert!(!name.is_empty() && name.chars().all(is_token), "{name} is a token");
        assert!(!value.contains(|byte: char| byte.is_ascii_control() && byte != '\t'), "{value} is text");
        assert_eq!(&name.bytes().collect::<Vec<u8>>(), our_name);
        assert_eq!(&value.chars().map(|byte| byte as u8).collect::<Vec<u8>>(), our_value);
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
    let needs_none = (message.version, mode) != (Version::Http11, ParserMode::Strict);
    assert!(hosts == 1 || (hosts == 0 && needs_none));
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn all(&self, wanted: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| &value[..]).collect()
    }

    /// What the fields of that name list together, in lower case.
    fn members(&self, wanted: &str) -> Vec<String> {
        let joined = self.all(wanted).join(",");
        joined.split(',').map(|member| member.trim_matches([' ', '\t']).to_lowercase()).collect()
    }
}

/// Section 6.3, and our own strictness: no field that frames is there twice, but for the codings that gunicorn takes.
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
                "what was framed twice may be read in two ways"
            );
            assert!(mode == ParserMode::Gunicorn || (members.is_empty() && codings.len() == 1));
        }
        (codings, lengths) => panic!("{codings:?} and {lengths:?} were accepted"),
    }
}

/// Section 9.3.
fn check_connection(fields: &Fields, message: &Message) {
    let options = fields.members("connection");
    let lists = |option: &str| options.iter().any(|it| it == option);
    let stays = (message.version == Version::Http11 || lists("keep-alive")) && !lists("close");
    let is_odd = message.method == "CONNECT" || fields.members("transfer-encoding").len() > 1;
    assert_eq!(message.keep_alive, stays && !is_odd);
}

fn is_token(byte: char) -> bool {
    byte.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(byte)
}
