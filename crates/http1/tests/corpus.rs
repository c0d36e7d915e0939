//! Parses every case in `tests/corpus/`, with its input split in many ways. All must have the expected result.
//!
//! A case looks like this (`tests/corpus/README.md` documents the format):
//!
//! ```text
//! # description
//! limits: body=10
//! expect: POST /x HTTP/1.1 body=hello
//! expect: 400 ChunkSize
//! ---
//! POST /x HTTP/1.1\r\n
//! ```

mod support;

use std::fs;
use std::path::Path;

use mlws_http1::{Limits, ParserMode, percent_decode};
use support::{End, Message, Transcript, parse};

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// Above this size only some split positions are tested.
const LONG: usize = 4096;

struct Case {
    name: String,
    limits: Limits,
    expect: Vec<String>,
    bytes: Vec<u8>,
}

#[test]
fn every_case_has_its_expected_result() {
    for case in cases() {
        let transcript = parse(&case.limits, [&case.bytes[..]]);
        check(&case, &transcript);
    }
}

#[test]
fn parsing_byte_by_byte_gives_the_same_result() {
    for case in cases() {
        let whole = parse(&case.limits, [&case.bytes[..]]);
        assert_eq!(parse(&case.limits, case.bytes.chunks(1)), whole, "{}", case.name);
    }
}

#[test]
fn splitting_the_input_at_any_position_gives_the_same_result() {
    for case in cases() {
        let whole = parse(&case.limits, [&case.bytes[..]]);
        let step = if case.bytes.len() > LONG { 211 } else { 1 };
        for split in (0..case.bytes.len()).step_by(step) {
            let (first, second) = case.bytes.split_at(split);
            assert_eq!(parse(&case.limits, [first, second]), whole, "{} split at {split}", case.name);
        }
    }
}

#[test]
fn a_following_request_does_not_change_the_result() {
    for case in cases() {
        let alone = parse(&case.limits, [&case.bytes[..]]);
        let both = parse(&case.limits, [&[&case.bytes[..], NEXT].concat()[..]]);
        match alone.end {
            End::Incomplete => {}
            End::BetweenRequests => {
                let (last, before) = both.messages.split_last().unwrap();
                assert_eq!((before, &both.end), (&alone.messages[..], &alone.end), "{}", case.name);
                assert_eq!(last.target, "/next", "{}", case.name);
            }
            End::Closed | End::Error(_) => assert_eq!(both, alone, "{}", case.name),
        }
    }
}

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let cases: Vec<Case> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .map(|path| load(&path))
        .collect();
    assert!(cases.len() > 100, "the corpus is incomplete");
    cases
}

fn load(path: &Path) -> Case {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).unwrap();
    let (top, bytes) = text.split_once("\n---\n").unwrap_or_else(|| panic!("{name}: missing line '---'"));
    let mut case = Case { name, limits: Limits::default(), expect: Vec::new(), bytes: unescape(bytes) };
    for line in top.lines() {
        match line.split_once(' ') {
            Some(("#", _)) => {}
            Some(("expect:", what)) => case.expect.push(what.to_owned()),
            Some(("limits:", limits)) => limits.split(' ').for_each(|limit| set(&mut case.limits, limit)),
            Some(("mode:", "gunicorn")) => case.limits.mode = ParserMode::Gunicorn,
            _ => panic!("{}: invalid line '{line}'", case.name),
        }
    }
    case
}

fn set(limits: &mut Limits, limit: &str) {
    let (name, number) = limit.split_once('=').unwrap();
    let number = number.parse().unwrap();
    match name {
        "request_line" => limits.request_line = number,
        "fields" => limits.fields = number,
        "field_size" => limits.field_size = number,
        "head" => limits.head = number,
        "body" => limits.body = number as u64,
        "chunk_extensions" => limits.chunk_extensions = number,
        "trailers" => limits.trailers = number,
        _ => panic!("unknown limit '{name}'"),
    }
}

/// Decodes the input of a case. Line breaks of the file are ignored; other special bytes are written as escapes.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[1..];
        match character {
            '\n' => continue,
            '\\' => {}
            plain => {
                assert!(plain.is_ascii(), "{plain} must be escaped");
                bytes.push(plain as u8);
                continue;
            }
        }
        let (escape, after) = rest.split_at(1);
        rest = after;
        match escape {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            "{" => {
                let (repeat, after) = rest.split_once('}').unwrap();
                let (times, what) = repeat.split_once(' ').unwrap();
                bytes.extend(unescape(what).repeat(times.parse().unwrap()));
                rest = after;
            }
            other => panic!("unknown escape '{other}'"),
        }
    }
    bytes
}

fn check(case: &Case, transcript: &Transcript) {
    let mut messages = transcript.messages.iter();
    let mut end = End::BetweenRequests;
    for expect in &case.expect {
        let words: Vec<&str> = expect.split(' ').collect();
        match words[..] {
            ["incomplete"] => end = End::Incomplete,
            ["closed"] => end = End::Closed,
            [status, error] if status.parse::<u16>().is_ok() => {
                let End::Error(found) = transcript.end else {
                    panic!("{}: expected an error, got {transcript:?}", case.name)
                };
                assert_eq!(
                    format!("{} {found:?}", found.status()),
                    format!("{status} {error}"),
                    "{}",
                    case.name
                );
                end = End::Error(found);
            }
            [method, target, version, ref more @ ..] => {
                let message =
                    messages.next().unwrap_or_else(|| panic!("{}: missing message {expect}", case.name));
                let found = (&message.method[..], &message.target[..], message.version.as_str());
                assert_eq!(found, (method, target, version), "{}", case.name);
                check_message(&case.name, message, more);
            }
            _ => panic!("{}: invalid expectation '{expect}'", case.name),
        }
    }
    assert_eq!(transcript.end, end, "{}", case.name);
    let rest: Vec<&Message> = messages.filter(|message| message.is_complete).collect();
    assert!(rest.is_empty(), "{}: unexpected messages {rest:?}", case.name);
}

fn check_message(name: &str, message: &Message, expectations: &[&str]) {
    assert!(message.is_complete, "{name}: {} is incomplete", message.target);
    let mut body = Vec::new();
    let mut keep_alive = true;
    let mut expect_continue = false;
    for expectation in expectations {
        let (key, value) = expectation.split_once('=').unwrap_or((expectation, ""));
        let value = unescape(value);
        match key {
            "body" => body = value,
            "close" => keep_alive = false,
            "continue" => expect_continue = true,
            "path" => assert_eq!(message.path, value, "{name}: path"),
            "query" => assert_eq!(message.query, value, "{name}: query"),
            "host" => assert_eq!(message.host.as_deref(), Some(&value[..]), "{name}: host"),
            "decoded" => {
                let mut decoded = Vec::new();
                percent_decode(&message.path, &mut decoded);
                assert_eq!(decoded, value, "{name}: decoded path");
            }
            "field" => {
                let at = value.iter().position(|&byte| byte == b':').unwrap();
                let field = (value[..at].to_vec(), value[at + 1..].to_vec());
                assert!(message.fields.contains(&field), "{name}: no {expectation} in {:?}", message.fields);
            }
            _ => panic!("{name}: invalid expectation '{expectation}'"),
        }
    }
    assert_eq!(message.body, body, "{name}: body of {}", message.target);
    assert_eq!(message.keep_alive, keep_alive, "{name}: keep-alive of {}", message.target);
    assert_eq!(message.expect_continue, expect_continue, "{name}: expectation of {}", message.target);
}
