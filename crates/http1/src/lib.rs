//! HTTP/1.0 and HTTP/1.1 for servers (RFC 9110, RFC 9112) as a state machine: bytes to messages and back.
//!
//! The crate does no I/O. It owns no socket, file, clock or thread: the caller passes in received bytes and gets
//! events. "Need more data" is `Ok(None)`, never an error.
//!
//! Modules, in the order in which a request passes through them:
//!
//! - [`limits`]: [`Limits`], the maximum size of each part of a request, and [`ParserMode`], how strict parsing is.
//! - [`parser`]: [`Parser`], the entry point. Turns input into [`Event`]s: a head, body data, the end.
//!   - `scan`: finds the end of a head line by line and examines each byte once.
//!   - `request_line`: the request line and the forms of a request target.
//!   - `fields`: the field lines, and what they mean for the body and the connection.
//!   - `chunked`: the decoder for the chunked transfer coding.
//! - [`event`]: [`Event`], what the parser returns.
//! - [`head`]: [`Head`], a parsed request head: spans of the caller's bytes.
//! - [`error`]: [`Error`], why a request is rejected, and with which status.
//! - [`proxy`]: the PROXY protocol; [`forwarded`]: `Forwarded` and the `X-Forwarded-*` fields.
//! - [`response_head`]: [`ResponseHead`] encodes a response head and chooses the framing of the body.
//!   [`response_error`]: [`ResponseError`], why a status or field of the application is rejected.
//! - [`interim_head`]: [`InterimHead`] encodes the head of an interim response.
//! - [`framing`]: [`Framing`] frames the response body chunk by chunk.
//! - `node`: [`Node`], an address in a forwarding field.
//! - `status`: reason phrases.
//! - `uri`: hosts and percent-decoding.
//! - `grammar`: character classes and small productions shared by all of the above.
#![forbid(unsafe_code)]

pub mod error;
pub mod event;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod interim_head;
pub mod limits;
pub mod parser;
pub mod proxy;
pub mod response_error;
pub mod response_head;

mod chunked;
mod fields;
mod grammar;
mod node;
mod request_line;
mod scan;
mod status;
mod uri;

pub use error::Error;
pub use event::Event;
pub use forwarded::{Forwarded, ForwardedError, ForwardedField};
pub use framing::{EncodedChunk, Framing, IncompleteBody, Prefix};
pub use head::{Field, Head, Length, Span, Version};
pub use interim_head::InterimHead;
pub use limits::{Limits, ParserMode};
pub use node::Node;
pub use parser::Parser;
pub use proxy::{ProxyError, ProxyHeader, ProxyVersions};
pub use response_error::ResponseError;
pub use response_head::{CONTINUE, EncodedHead, RequestInfo, ResponseHead};
pub use status::reason;
pub use uri::{is_host, percent_decode};
