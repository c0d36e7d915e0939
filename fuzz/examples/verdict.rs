//! Prints the parser's result for each input. `differential.py` compares it with the results of other parsers.
//!
//! Reads one line of hexadecimal per input and prints one line of JSON. With the argument `requests` an input is
//! what a client sends; with `responses` it is a script of [`mlws_fuzz::response`]. All text in the JSON is
//! hexadecimal, too.

use std::io::{self, BufRead, Write};

use mlws_fuzz::response::{Exchange, run};
use mlws_fuzz::transcript::{End, Extent, Message, parse};
use mlws_http1::Limits;

fn main() -> io::Result<()> {
    let evaluate: fn(&[u8]) -> String = match std::env::args().nth(1).as_deref() {
        Some("requests") => requests,
        Some("responses") => responses,
        _ => return Err(io::Error::other("missing argument: expected requests or responses")),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        writeln!(out, "{}", evaluate(&bytes(&line?)))?;
    }
    out.flush()
}

fn requests(wire: &[u8]) -> String {
    let transcript = parse(&Limits::default(), [wire]);
    let messages =
        transcript.messages.iter().zip(&transcript.extents).map(|(message, extent)| request(message, extent));
    let end = match transcript.end {
        End::Error(error) => format!("{error:?}"),
        end => format!("{end:?}").to_lowercase(),
    };
    format!(r#"{{"end": "{end}", "messages": [{}]}}"#, join(messages))
}

fn request(message: &Message, extent: &Extent) -> String {
    format!(
        r#"{{"start": {}, "end": {}, "complete": {}, "keep_alive": {}, "method": "{}", "target": "{}", "version": "{}", "fields": [{}], "body": "{}"}}"#,
        extent.all.start,
        extent.all.end,
        message.is_complete,
        message.keep_alive,
        hex(message.method.as_bytes()),
        hex(message.target.as_bytes()),
        &message.version.as_str()["HTTP/".len()..],
        fields(&message.fields),
        hex(&message.body),
    )
}

fn responses(script: &[u8]) -> String {
    format!("[{}]", join(run(script).iter().map(response)))
}

fn response(exchange: &Exchange) -> String {
    format!(
        r#"{{"is_head": {}, "status": {}, "complete": {}, "keep_alive": {}, "sends_close": {}, "body": "{}", "wire": "{}"}}"#,
        exchange.is_head,
        exchange.status,
        exchange.is_complete,
        exchange.keep_alive,
        exchange.sends_close,
        hex(&exchange.body),
        hex(&exchange.wire),
    )
}

fn fields(fields: &[(Vec<u8>, Vec<u8>)]) -> String {
    join(fields.iter().map(|(name, value)| format!(r#"["{}", "{}"]"#, hex(name), hex(value))))
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap_or("?"));
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}
