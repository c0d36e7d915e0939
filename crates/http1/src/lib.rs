//! HTTP/1.0 and HTTP/1.1 as a server speaks them: bytes to messages and back, and nothing else.
//!
//! The crate is a state machine. It owns no socket, file, clock or thread; whoever does feeds it bytes and is
//! told what they mean. "Not enough bytes yet" is `Ok(None)`, never an error.
//!
//! The map, in the order a request meets it:
//!
//! - [`limits`]: how much of everything is taken before a request is refused, and how loosely written.
//! - [`parser`]: [`Parser`], the one way in. Turns input into [`Event`]s: a head, pieces of body, the end.
//!   - `scan`: finds the end of a head, line by line, looking at each byte once.
//!   - `target`: the request line, the forms of a request target, hosts, percent-decoding.
//!   - `fields`: what the fields say about the body and the connection.
//!   - `chunked`: the chunked coding, one byte at a time.
//! - [`head`]: [`Head`], what a parsed head is: spans into the caller's bytes.
//! - [`error`]: [`Error`], why a request is refused, and with which status.
//! - [`proxy`]: what a proxy says before the first request; [`forwarded`]: what it says in each.
//! - [`response`]: [`ResponseHead`] writes a head and decides how the body is framed.
//! - [`framing`]: [`Framing`] then frames the body, piece by piece.
//! - `status`: the reason phrases.
//! - `grammar`: the few character classes all of them share.
#![forbid(unsafe_code)]

pub mod error;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod limits;
pub mod parser;
pub mod proxy;
pub mod response;

mod chunked;
mod fields;
mod grammar;
mod scan;
mod status;
mod target;

pub use error::Error;
pub use forwarded::{Forwarded, ForwardedError, ForwardedField, Node};
pub use framing::{Framing, Piece, Prefix, Short};
pub use head::{Field, Head, Length, Span, Version};
pub use limits::{Limits, Tolerance};
pub use parser::{Event, Parser};
pub use proxy::{ProxyError, ProxyHeader, ProxyVersions};
pub use response::{Asked, CONTINUE, Finished, ResponseError, ResponseHead};
pub use status::reason;
pub use target::percent_decode;
