//! Measures the time per message: `cargo run --release -p mlws-http1 --example latency`.
//!
//! Each number is the minimum over several rounds, because disturbances only ever make a round slower.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use mlws_http1::{Event, Head, Limits, Parser, RequestInfo, ResponseHead, Version};

const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost:8000\r\n\r\n";
const BROWSER: &[u8] = b"GET /search?q=web+server&l=en HTTP/1.1\r\nHost: localhost:8000\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nReferer: http://localhost:8000/\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n\r\n";
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: localhost:8000\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";

fn main() {
    println!("{:>6} ns  request: curl", requests(SMALL));
    println!("{:>6} ns  request: browser", requests(BROWSER));
    println!("{:>6} ns  request: two small chunks", requests(CHUNKED));
    println!("{:>6} ns  response head", responses());
}

fn requests(bytes: &[u8]) -> u128 {
    let mut parser = Parser::new(Arc::new(Limits::default()));
    let mut head = Head::default();
    fastest_round(|| {
        let mut input = black_box(bytes);
        while let Ok(Some(event)) = parser.next(input, &mut head) {
            let consumed = match event {
                Event::Head => head.len,
                Event::Data { consumed, .. } | Event::End { consumed } => consumed,
            };
            input = &input[consumed..];
        }
        black_box(&head);
    })
}

fn responses() -> u128 {
    let request = RequestInfo { is_head: false, version: Version::Http11, keep_alive: true };
    let mut buffer = Vec::new();
    fastest_round(|| {
        let mut head =
            ResponseHead::with_buffer(std::mem::take(&mut buffer), 200, b"OK").expect("a valid status");
        head.field(b"Content-Type", black_box(b"text/plain; charset=utf-8")).expect("a valid field");
        head.field(b"Content-Length", black_box(b"13")).expect("a valid length");
        buffer =
            black_box(head.finish(&request, None, b"Thu, 01 Jan 1970 00:00:00 GMT", "mylittlewebserver"))
                .bytes;
    })
}

fn fastest_round(mut run: impl FnMut()) -> u128 {
    const ITERATIONS: u32 = 100_000;
    let mut round = || {
        let start = Instant::now();
        (0..ITERATIONS).for_each(|_| run());
        start.elapsed().as_nanos() / u128::from(ITERATIONS)
    };
    (0..20).map(|_| round()).min().unwrap_or_default()
}
