use super::*;

const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";
const GET: RequestInfo = RequestInfo { is_head: false, version: Version::Http11, keep_alive: true };
const HEAD: RequestInfo = RequestInfo { is_head: true, ..GET };
const GET_HTTP10: RequestInfo = RequestInfo { version: Version::Http10, ..GET };

/// Completes a head and returns its lines, without Date and Server, and the encoded head.
fn finish(
    status: u16,
    fields: &[(&str, &str)],
    request: RequestInfo,
    body: Option<u64>,
) -> (Vec<String>, EncodedHead) {
    let mut head = ResponseHead::new(status, b"").expect("a valid status");
    for (name, value) in fields {
        head.field(name.as_bytes(), value.as_bytes()).expect("a valid field");
    }
    let encoded = head.finish(&request, body, DATE, "s");
    let text = String::from_utf8(encoded.bytes.clone()).expect("text");
    let (lines, rest) = text.split_once("\r\n\r\n").expect("a blank line");
    assert_eq!(rest, "");
    let is_default = |line: &&str| *line == "Server: s" || line.starts_with("Date: Thu, 01");
    let lines = lines.split("\r\n").skip(1).filter(|line| !is_default(line)).map(str::to_owned).collect();
    (lines, encoded)
}

#[test]
fn a_head_is_encoded_with_the_fields_of_the_server_at_the_end() {
    let mut head = ResponseHead::with_buffer(b"old".to_vec(), 200, b"OK").expect("a valid status");
    head.field(b"Content-Length", b"5").expect("a valid field");
    head.field(b"X-Text", b"\xe9\t").expect("a valid field");
    assert_eq!((head.status(), head.content_length()), (200, Some(5)));
    let encoded = head.finish(&GET, None, DATE, "mylittlewebserver");
    let expected = b"HTTP/1.1 200 OK\r\nX-Text: \xe9\t\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
        Server: mylittlewebserver\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(encoded.bytes, expected);
    assert!(encoded.keep_alive);
    assert_eq!(encoded.framing.remaining(), Some(5));
}

#[test]
fn control_characters_and_invalid_names_are_rejected() {
    for byte in ["\r", "\n", "\0", "\x07", "\x7f"] {
        let mut head = ResponseHead::new(200, b"").expect("a valid status");
        let value = format!("a{byte}b");
        assert_eq!(head.field(b"A", value.as_bytes()), Err(ResponseError::FieldValue("A".to_owned())));
        assert!(matches!(head.field(value.as_bytes(), b"a"), Err(ResponseError::FieldName(_))));
        assert_eq!(ResponseHead::new(200, value.as_bytes()).err(), Some(ResponseError::Reason));
        assert_eq!(
            head.field(b"Connection", value.as_bytes()),
            Err(ResponseError::FieldValue("Connection".to_owned()))
        );
        assert_eq!(head.bytes, b"HTTP/1.1 200 \r\n");
    }
    for name in ["", "a b", "a:", "\u{e9}"] {
        let mut head = ResponseHead::new(200, b"").expect("a valid status");
        assert!(matches!(head.field(name.as_bytes(), b"a"), Err(ResponseError::FieldName(_))), "{name}");
    }
}

#[test]
fn only_final_statuses_are_accepted() {
    for status in [0, 99, 100, 101, 199, 1000, u16::MAX] {
        assert_eq!(ResponseHead::new(status, b"").err(), Some(ResponseError::Status(status)));
    }
    for status in [200, 599, 600, 999] {
        assert!(ResponseHead::new(status, b"").is_ok(), "{status}");
    }
}

#[test]
fn content_length_must_be_a_decimal_number_and_must_not_conflict() {
    let mut head = ResponseHead::new(200, b"").expect("a valid status");
    for value in ["", " ", "+5", "-5", "5\u{a0}", "5 5", "5, 5", "0x5", "18446744073709551616"] {
        let error = ResponseError::ContentLength(value.as_bytes().escape_ascii().to_string());
        assert_eq!(head.field(b"content-length", value.as_bytes()), Err(error));
    }
    assert_eq!(head.field(b"Content-Length", b"5"), Ok(()));
    assert_eq!(head.field(b"Content-Length", b" 5\t"), Ok(()));
    assert_eq!(head.field(b"Content-Length", b"6"), Err(ResponseError::ContentLengths(5, 6)));
}

#[test]
fn connection_fields_of_the_application_are_ignored() {
    let ignored = [
        ("Connection", "keep-alive, Upgrade"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "close"),
        ("TE", "trailers"),
        ("Trailer", "X"),
        ("Transfer-Encoding", "gzip"),
        ("UPGRADE", "websocket"),
    ];
    let (lines, encoded) = finish(200, &ignored, GET, Some(0));
    assert_eq!(lines, ["Content-Length: 0"]);
    assert!(encoded.keep_alive);
}

#[test]
fn connection_close_from_the_application_is_honored() {
    let (lines, encoded) = finish(200, &[("connection", "foo, Close")], GET, Some(0));
    assert_eq!(lines, ["Content-Length: 0", "Connection: close"]);
    assert!(!encoded.keep_alive);
}

#[test]
fn date_and_server_of_the_application_take_precedence() {
    let mut head = ResponseHead::new(200, b"").expect("a valid status");
    head.field(b"DATE", b"never").expect("a valid field");
    head.field(b"server", b"theirs").expect("a valid field");
    let bytes = head.finish(&GET, Some(0), DATE, "ours").bytes;
    assert_eq!(bytes, b"HTTP/1.1 200 \r\nDATE: never\r\nserver: theirs\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn an_empty_server_field_is_omitted() {
    let head = ResponseHead::new(204, b"").expect("a valid status");
    let bytes = head.finish(&GET, None, DATE, "").bytes;
    assert_eq!(bytes, b"HTTP/1.1 204 \r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n");
}

#[test]
fn framing_prefers_content_length_then_the_body_length_then_chunked_or_close() {
    let length = [("Content-Length", "5")];
    let (lines, encoded) = finish(200, &length, GET, Some(9));
    assert_eq!((lines, encoded.framing.remaining()), (vec!["Content-Length: 5".to_owned()], Some(5)));
    let (lines, encoded) = finish(200, &[], GET, Some(9));
    assert_eq!((lines, encoded.framing.remaining()), (vec!["Content-Length: 9".to_owned()], Some(9)));
    let (lines, encoded) = finish(200, &[], GET, None);
    assert_eq!(
        (lines, encoded.framing.end()),
        (vec!["Transfer-Encoding: chunked".to_owned()], Ok(&b"0\r\n\r\n"[..]))
    );
    let (lines, encoded) = finish(200, &[], GET_HTTP10, None);
    assert_eq!((lines, encoded.framing.end()), (vec!["Connection: close".to_owned()], Ok(&b""[..])));
    assert!(!encoded.keep_alive && encoded.framing.wants_body());
}

#[test]
fn http10_responses_state_whether_the_connection_persists() {
    let (lines, encoded) = finish(200, &[], GET_HTTP10, Some(0));
    assert_eq!(lines, ["Content-Length: 0", "Connection: keep-alive"]);
    assert!(encoded.keep_alive);
    let (lines, encoded) = finish(200, &[], RequestInfo { keep_alive: false, ..GET_HTTP10 }, Some(0));
    assert_eq!(lines, ["Content-Length: 0", "Connection: close"]);
    assert!(!encoded.keep_alive);
}

#[test]
fn http2_responses_have_neither_a_transfer_coding_nor_a_connection_field() {
    let request = RequestInfo { version: Version::Http2, keep_alive: false, ..GET };
    let (lines, encoded) = finish(200, &[], request, None);
    assert!(lines.is_empty() && encoded.framing.ends_by_close());
    let (lines, encoded) = finish(200, &[], request, Some(9));
    assert_eq!((lines, encoded.framing.remaining()), (vec!["Content-Length: 9".to_owned()], Some(9)));
}

#[test]
fn head_204_and_304_responses_have_no_body() {
    let length = [("Content-Length", "5")];
    let with_length = vec!["Content-Length: 5".to_owned()];
    for (status, fields, request, body, lines) in [
        (200, &length[..], HEAD, None, &with_length),
        (200, &[], HEAD, Some(5), &with_length),
        (200, &[], HEAD, None, &vec![]),
        (204, &length, GET, Some(5), &vec![]),
        (204, &length, HEAD, None, &vec![]),
        (304, &length, GET, Some(0), &with_length),
        (304, &[], GET, Some(0), &vec![]),
    ] {
        let (found, encoded) = finish(status, fields, request, body);
        assert_eq!(&found, lines, "{status}");
        assert!(!encoded.framing.wants_body() && encoded.keep_alive);
    }
}
