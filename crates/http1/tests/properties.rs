//! What must hold for all bytes, not only for those somebody thought of.
//!
//! The one thing to know: most inputs here are good requests with something done to them, as bytes without any
//! sense in them are refused at the first.

mod support;

use mlws_http1::{Asked, Error, Limits, ResponseHead, Tolerance, Version, percent_decode};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use support::{End, read};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_cut_never_changes_the_answer(bytes in traffic(), cuts in cuts(), limits in limits()) {
        let whole = read(&limits, [&bytes[..]]);
        prop_assert_eq!(&read(&limits, pieces(&bytes, &cuts)), &whole);
        prop_assert_eq!(&read(&limits, bytes.chunks(1)), &whole);
    }

    #[test]
    fn what_follows_never_changes_what_came_before(bytes in traffic(), more in traffic(), limits in limits()) {
        let alone = read(&limits, [&bytes[..]]);
        let both = read(&limits, [&[&bytes[..], &more[..]].concat()[..]]);
        match alone.end {
            End::Error(_) | End::Closed => prop_assert_eq!(both, alone),
            End::BetweenRequests => prop_assert_eq!(&both.messages[..alone.messages.len()], &alone.messages[..]),
            End::Incomplete => prop_assert!(both.messages.len() >= alone.messages.len()),
        }
    }

    #[test]
    fn bytes_without_sense_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cuts in cuts(),
        tolerance in tolerance(),
    ) {
        let limits = Limits { tolerance, ..Limits::default() };
        let whole = read(&limits, [&bytes[..]]);
        prop_assert_eq!(read(&limits, pieces(&bytes, &cuts)), whole);
    }

    #[test]
    fn tolerance_changes_only_what_was_refused(bytes in traffic()) {
        let limits = |tolerance| Limits { tolerance, ..Limits::default() };
        let strict = read(&limits(Tolerance::Strict), [&bytes[..]]);
        let gunicorn = read(&limits(Tolerance::Gunicorn), [&bytes[..]]);
        let is_settled = matches!(strict.end, End::BetweenRequests | End::Closed);
        if is_settled && !matches!(gunicorn.end, End::Error(Error::Method | Error::MethodTooLong)) {
            prop_assert_eq!(gunicorn, strict);
        }
    }

    #[test]
    fn a_message_consumes_exactly_its_bytes(
        request in request(),
        more in prop::collection::vec(any::<u8>(), 0..50),
        cuts in cuts(),
        tolerance in tolerance(),
    ) {
        let limits = Limits { tolerance, ..Limits::default() };
        let bytes = [&request.bytes[..], &more[..]].concat();
        let reading = read(&limits, pieces(&bytes, &cuts));
        let first = &reading.messages[0];
        prop_assert!(first.is_complete);
        prop_assert_eq!(&first.body, &request.body);
        prop_assert_eq!(&first.target, &request.target);
        let one = read(&limits, [&request.bytes[..]]);
        prop_assert_eq!(one.consumed, request.bytes.len());
    }

    #[test]
    fn no_field_of_an_answer_can_start_another(
        name in prop::collection::vec(text_byte(), 0..8),
        value in prop::collection::vec(text_byte(), 0..8),
    ) {
        let mut head = ResponseHead::new(200, b"OK").unwrap();
        let answer = head.field(&name, &value);
        let asked = Asked { is_head: false, version: Version::Http11, keep_alive: true };
        let bytes = head.finish(&asked, Some(0), DATE, "s").bytes;
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut fields);
        prop_assert_eq!(parsed.parse(&bytes), Ok(httparse::Status::Complete(bytes.len())));
        let ours = parsed.headers.iter().filter(|field| ["Date", "Server", "Content-Length"].contains(&field.name));
        prop_assert_eq!(ours.count(), 3);
        prop_assert_eq!(parsed.headers.len(), 3 + usize::from(answer.is_ok() && !is_te(&name)));
    }

    #[test]
    fn a_chunked_answer_reads_back_as_its_body(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
        let asked = Asked { is_head: false, version: Version::Http11, keep_alive: true };
        let mut framing = ResponseHead::new(200, b"").unwrap().finish(&asked, None, DATE, "s").framing;
        let mut wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for bytes in &pieces {
            let piece = framing.piece(bytes.len());
            wire.extend_from_slice(&[&piece.prefix, &bytes[..piece.take], piece.suffix].concat());
        }
        wire.extend_from_slice(framing.end().unwrap());
        let reading = read(&Limits::default(), [&wire[..]]);
        prop_assert_eq!(&reading.end, &End::BetweenRequests);
        prop_assert_eq!(&reading.messages[0].body, &pieces.concat());
    }

    #[test]
    fn what_was_encoded_decodes_to_itself(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let encoded = bytes.iter().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"));
        let mut decoded = b"before".to_vec();
        percent_decode(encoded.as_bytes(), &mut decoded);
        prop_assert_eq!(decoded, [b"before", &bytes[..]].concat());
    }
}

/// More cases than proptest's own number, which `PROPTEST_CASES` sets. A failure prints its input; no file is kept.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.saturating_mul(4), failure_persistence: None, ..default }
}

const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";

fn is_te(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"te")
}

/// A good request, and what has to be read from it.
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

/// Requests behind each other, most often with something done to them.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::collection::vec(request(), 0..3);
    let changes =
        prop::collection::vec((any::<Index>(), 0usize..4, select(ODD.to_vec()), any::<Index>()), 0..3);
    (requests, changes).prop_map(|(requests, changes)| {
        let mut bytes: Vec<u8> = requests.into_iter().flat_map(|request| request.bytes).collect();
        for (at, what, odd, other) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + 1 + other.index(4)).min(bytes.len());
            match what {
                0 => drop(bytes.splice(at..at, odd.bytes())),
                1 => drop(bytes.splice(at..end, odd.bytes())),
                2 => drop(bytes.drain(at..end)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// What has made parsers stumble.
const ODD: [&str; 36] = [
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

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..6)
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect()
}

/// The default ones, or so small ones that they are met.
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
    (sizes, tolerance()).prop_map(|(sizes, tolerance)| Limits { tolerance, ..sizes })
}

fn tolerance() -> impl Strategy<Value = Tolerance> {
    select(vec![Tolerance::Strict, Tolerance::Gunicorn])
}
