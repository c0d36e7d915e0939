//! HTTP/2 for servers (RFC 9113) as a state machine: bytes to events, and responses to bytes.
//!
//! The crate does no I/O. It owns no socket, file or thread and reads no clock: the caller passes in received bytes and
//! the time, and gets events and output. It is the counterpart of `mlws-http1` for connections with many streams.
//!
//! # Theory of operation
//!
//! The protocol itself is implemented by the crate `h2`, which is driven from memory buffers and without a runtime. A
//! [`Session`] passes it the input frame by frame:
//!
//! ```text
//! receive() -> FrameScanner -> FrameGuard -> input buffer -> h2 -> events
//! respond(), data(), reset()                              -> h2 -> output buffer -> take_output()
//! ```
//!
//! 1. The scanner finds the header of the next frame. The guard checks it against the limits that `h2` does not have.
//!    If it violates one, the frame does not reach `h2` and the connection is closed.
//! 2. When the frame is complete, `h2` is polled with a waker that does nothing. It can only find a new request, or
//!    change the stream of this frame. The session asks that stream for data, its end or a reset, and queues events.
//!    So the events do not depend on how the input is split, and the other streams cost nothing.
//! 3. Responses are only queued. [`Session::take_output`] polls `h2` once for all of them, so that many small responses
//!    leave in one write.
//! 4. The output buffer is bounded. If it is full, data is not accepted, and `h2` stops reading where it would have to
//!    acknowledge a frame. Frames that `h2` sends by itself are found in the output: resets are counted, and its 431
//!    for an oversized head becomes an event.
//!
//! # Errors
//!
//! A malformed request (RFC 9113, section 8.1.1) resets its stream and causes no event. A request over a limit, or
//! one that the server does not support, is [`Event::Rejected`] with a status. What violates the protocol or a limit of
//! the connection ends it with GOAWAY and [`Event::GoAway`], after an [`Event::Reset`] for each open stream.
//!
//! # Limitations
//!
//! These are consequences of `h2` that cannot be changed from outside:
//!
//! - Some malformed heads close the connection with `PROTOCOL_ERROR` instead of resetting the stream: uppercase or
//!   other invalid bytes in a field name, control characters in a value, a method that is not a token, an unknown
//!   pseudo-header, and a path or authority that is not UTF-8. `h2` finds these while it decompresses the head, and stops
//!   there, so its compression state is lost. RFC 9113, section 5.4.1, permits this.
//! - Errors of HPACK are reported as `PROTOCOL_ERROR`, not `COMPRESSION_ERROR`. A frame for a stream that the client has
//!   closed is mostly a connection error.
//! - A path with `<`, `>`, a backquote, or a quotation mark in its query resets the stream, although the HTTP/1 parser
//!   accepts it. A fragment (`#` and what follows) is removed from the path.
//! - Pseudo-headers in trailers are not detected. All trailers are discarded.
//! - 100 DATA frames without data, or with padding only, that do not end a stream close the connection, however slowly they arrive.
//! - A head in many more CONTINUATION frames than its size requires closes the connection: 16 do, 4 do not.
//! - `h2` keeps the memory for the largest number of concurrent streams, about 0.6 KB each, until the connection ends. An
//!   idle session takes 15 KB, and 33 KB after 32 concurrent requests.
//! - To forget streams that this side has reset, `h2` reads the system's clock.
//!
//! # Modules
//!
//! - [`limits`]: [`Limits`] of a connection and its requests.
//! - [`session`]: [`Session`], the entry point.
//!   - `frame_header`, `frame_scanner`: where frames begin and end.
//!   - `frame_guard`: [`Limits`] that can be checked by the headers of frames; `token_bucket`: a rate.
//!   - `io_buffers`: the transport in memory that `h2` reads and writes.
//!   - `connection`: the connection of `h2` in each of its phases.
//!   - `stream`: the request and response of one stream.
//! - [`event`]: [`Event`], what the session returns.
//! - [`head`]: [`Head`], a checked request head.
//! - [`response_head`]: [`ResponseHead`], the head of a final or interim response.
//! - [`error`]: [`Error`], why a connection is closed.
#![forbid(unsafe_code)]

pub mod error;
pub mod event;
pub mod head;
pub mod limits;
pub mod response_head;
pub mod session;

mod connection;
mod frame_guard;
mod frame_header;
mod frame_scanner;
mod io_buffers;
mod stream;
mod token_bucket;

pub use error::{Error, StreamClosed};
pub use event::{Event, StreamId};
pub use h2::Reason;
pub use head::Head;
pub use limits::{Limits, Rate};
pub use response_head::ResponseHead;
pub use session::{PREFACE, Session};
