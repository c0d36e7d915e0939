//! Property tests: invariants that hold for every input.
//!
//! Most inputs are mutated valid requests, because random bytes fail at the first one.

mod support;

use mlws_http1::{Error, Limits, ParserMode, RequestInfo, ResponseHead, Version, percent_decode};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use support::{End, parse};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_result_does_not_depend_on_how_the_input_is_split(bytes in traffic(), splits in splits(), limits in limits()) {
        let whole = parse(&limits, [&bytes[..]]);
        prop_assert_eq!(&parse(&limits, split(&bytes, &splits)), &whole);
        prop_assert_eq!(&parse(&limits, bytes.chunks(1)), &whole);
    }

    #[test]
    fn later_input_does_not_change_earlier_results(bytes in traffic(), more in traffic(), limits in limits()) {
        let alone = parse(&limits, [&bytes[..]]);
        let both = parse(&limits, [&[&bytes[..], &more[..]].concat()[..]]);
        match alone.end {
            End::Error(_) | End::Closed => prop_assert_eq!(both, alone),
            End::BetweenRequests => prop_assert_eq!(&both.messages[..alone.messages.len()], &alone.messages[..]),
            End::Incomplete => prop_assert!(both.messages.len() >= alone.messages.len()),
        }
    }

    #[test]
    fn random_bytes_are_parsed_the_same_however_they_are_split(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        splits in splits(),
        mode in mode(),
    ) {
        let limits = Limits { mode, ..Limits::default() };
        let whole = parse(&limits, [&bytes[..]]);
        prop_assert_eq!(parse(&limits, split(&bytes, &splits)), whole);
    }

    #[test]
    fn gunicorn_mode_only_changes_requests_that_strict_mode_rejects(bytes in traffic()) {
        let limits = |mode| Limits { mode, ..Limits::default() };
        let strict = parse(&limits(ParserMode::Strict), [&bytes[..]]);
        let gunicorn = parse(&limits(ParserMode::Gunicorn), [&bytes[..]]);
        let is_accepted = matches!(strict.end, End::BetweenRequests | End::Closed);
        if is_accepted && !matches!(gunicorn.end, End::Error(Error::Method | Error::MethodTooLong)) {
            prop_assert_eq!(gunicorn, strict);
        }
    }

    #[test]
    fn a_message_consumes_exactly_its_own_bytes(
        request in request(),
        more in prop::collection::vec(any::<u8>(), 0..50),
        splits in splits(),
        mode in mode(),
    ) {
        let limits = Limits { mode, ..Limits::default() };
        let bytes = [&request.bytes[..], &more[..]].concat();
        let transcript = parse(&limits, split(&bytes, &splits));
        let first = &transcript.messages[0];
        prop_assert!(first.is_complete);
        prop_assert_eq!(&first.body, &request.body);
        prop_assert_eq!(&first.target, &request.target);
        let alone = parse(&limits, [&request.bytes[..]]);
        prop_assert_eq!(alone.extents[0].all.end, request.bytes.len());
    }

    #[test]
    fn a_response_field_cannot_inject_another_field(
        name in prop::collection::vec(text_byte(), 0..8),
        value in prop::collection::vec(text_byte(), 0..8),
    ) {
        let mut head = ResponseHead::new(200, b"OK").unwrap();
        let result = head.field(&name, &value);
        let request = RequestInfo { is_head: false, version: Version::Http11, keep_alive: true };
        let bytes = head.finish(&request, Some(0), DATE, "s").bytes;
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut fields);
        prop_assert_eq!(parsed.parse(&bytes), Ok(httparse::Status::Complete(bytes.len())));
        let default_fields = parsed.headers.iter().filter(|field| ["Date", "Server", "Content-Length"].contains(&field.name));
        prop_assert_eq!(default_fields.count(), 3);
        prop_assert_eq!(parsed.headers.len(), 3 + usize::from(result.is_ok() && !is_te(&name)));
    }

    #[test]
    fn a_chunked_response_body_decodes_to_itself(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
        let request = RequestInfo { is_head: false, version: Version::Http11, keep_alive: true };
        let mut framing = ResponseHead::new(200, b"").unwrap().finish(&request, None, DATE, "s").framing;
        let mut encoded = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for bytes in &chunks {
            let chunk = framing.encode(bytes.len());
            encoded.extend_from_slice(&[&chunk.prefix, &bytes[..chunk.len], chunk.suffix].concat());
        }
        encoded.extend_from_slice(framing.end().unwrap());
        let transcript = parse(&Limits::default(), [&encoded[..]]);
        prop_assert_eq!(&transcript.end, &End::BetweenRequests);
        prop_assert_eq!(&transcript.messages[0].body, &chunks.concat());
    }

    #[test]
    fn percent_encoded_bytes_decode_to_themselves(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let encoded = bytes.iter().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"));
        let mut decoded = b"before".to_vec();
        percent_decode(encoded.as_bytes(), &mut decoded);
        prop_assert_eq!(decoded, [b"before", &bytes[..]].concat());
    }
}

/// Four times the default number of cases, which `PROPTEST_CASES` sets. Failing inputs are printed, not stored.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.saturating_mul(4), failure_persistence: None, ..default }
}

const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";

fn is_te(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"te")
}

/// A valid request and its expected content.
#[derive(Debug, Clone)]
struct Request {
    bytes: Vec<u8>,
    target: String,
    body: Vec<u8>,
}

fn request() -> impl Strategy<Value = Request> {
    let method = select(vec!["GET", "POST", "HEAD", "OPTIONS", "X-Y"]);
    let target = select(vec!["/", "/a?b", "/%00", "http://h:1/a?b", "https://[::1]"]);
    let field = select(vec![
        "A: b",
        "Cookie: c=d",
        "Connection: keep-alive",
        "X_Y:",
        "V:\t\u{e9} ",
        "Expect: 100-continue",
    ]);
    let fields = prop::collection::vec(field, 0..4);
    let body = prop::collection::vec(any::<u8>(), 0..40);
    let chunks = prop::option::of((
        1usize..20,
        select(vec!["", ";a", ";a=b", ";a;b=c"]),
        select(vec!["", "T: u\r\n"]),
    ));
    (any::<bool>(), method, target, fields, body, chunks).prop_map(
        |(empty_line, method, target, fields, body, chunks)| {
            let mut bytes = if empty_line { b"\r\n".to_vec() } else { Vec::new() };
            bytes.extend_from_slice(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n").as_bytes());
            bytes.extend(fields.iter().flat_map(|field| format!("{field}\r\n").into_bytes()));
            if let Some((size, extension, trailer)) = chunks {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(size) {
                    bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(format!("0{extension}\r\n{trailer}\r\n").as_bytes());
            } else {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
            }
            Request { bytes, target: target.to_owned(), body }
        },
    )
}

/// Consecutive requests, usually mutated.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::collection::vec(request(), 0..3);
    let changes =
        prop::collection::vec((any::<Index>(), 0usize..4, select(SPECIAL.to_vec()), any::<Index>()), 0..3);
    (requests, changes).prop_map(|(requests, changes)| {
        let mut bytes: Vec<u8> = requests.into_iter().flat_map(|request| request.bytes).collect();
        for (at, kind, special, length) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + 1 + length.index(4)).min(bytes.len());
            match kind {
                0 => drop(bytes.splice(at..at, special.bytes())),
                1 => drop(bytes.splice(at..end, special.bytes())),
                2 => drop(bytes.drain(at..end)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// Strings that have caused parser bugs.
const SPECIAL: [&str; 36] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "\"",
    "\\",
    "=",
    "#",
    "?",
    "*",
    "/",
    "-",
    "+",
    "_",
    "0",
    "5",
    "F",
    "\u{7f}",
    "\u{e9}",
    "0\r\n\r\n",
    "ffffffffffffffff",
    "Connection: close\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: a\r\n",
    "HTTP/1.0",
    "a:b@",
    "gzip, ",
    "Transfer-Encoding: identity\r\n",
    "CONNECT a:1 HTTP/1.1\r\n\r\n",
];

fn text_byte() -> impl Strategy<Value = u8> {
    prop_oneof![select(b"aTe-: \t\r\n\0\x7f\xe9,".to_vec()), any::<u8>()]
}

fn splits() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..6)
}

fn split<'a>(bytes: &'a [u8], splits: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = splits.iter().map(|split| split.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect()
}

/// The default limits, or limits so small that inputs exceed them.
fn limits() -> impl Strategy<Value = Limits> {
    let small = (1usize..40, 0usize..5, 1usize..30, 1usize..150, 0u64..30, 0usize..12, 0usize..12);
    let small =
        small.prop_map(|(request_line, fields, field_size, head, body, chunk_extensions, trailers)| Limits {
            request_line,
            fields,
            field_size,
            head,
            body,
            chunk_extensions,
            trailers,
            ..Limits::default()
        });
    let sizes = prop_oneof![3 => Just(Limits::default()), 1 => small];
    (sizes, mode()).prop_map(|(sizes, mode)| Limits { mode, ..sizes })
}

fn mode() -> impl Strategy<Value = ParserMode> {
    select(vec![ParserMode::Strict, ParserMode::Gunicorn])
}
