//! The events that a session returns.

use bytes::Bytes;
use h2::Reason;

use crate::error::Error;
use crate::head::Head;

/// The number of a stream: odd, and increasing in the order of requests.
pub type StreamId = u32;

/// What happened on a connection.
///
/// A stream starts with `Head` or `Rejected`. Any number of `Data` and one `End` follow `Head`. `Reset` and a later
/// `Rejected` end this sequence early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request.
    Head {
        /// The new stream.
        stream: StreamId,
        /// Its request.
        head: Box<Head>,
    },
    /// Body data, never empty. Call [`Session::release`](crate::Session::release) when it has been processed.
    Data {
        /// The stream of the request.
        stream: StreamId,
        /// May share memory with more of the input: copy what is kept.
        data: Bytes,
    },
    /// The request is complete. Trailers are discarded.
    End {
        /// The stream of the request.
        stream: StreamId,
    },
    /// The request exceeds a limit, or is one that the server does not support. The rest of its body is discarded.
    Rejected {
        /// The stream of the request.
        stream: StreamId,
        /// Holds the status to respond with.
        error: mlws_http1::Error,
        /// Whether the response has been sent and the stream is closed. If not, respond to it.
        is_answered: bool,
        /// Whether the method is known to be HEAD. The response must then have no body.
        is_head: bool,
    },
    /// The stream no longer exists: the peer cancelled it, made a mistake in it, or the connection is closed. Nothing
    /// more can be sent on it.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The code of the `RST_STREAM` frame, or of the GOAWAY frame.
        reason: Reason,
    },
    /// More data can be sent, after [`Session::data`](crate::Session::data) did not accept all of it.
    Writable {
        /// The stream.
        stream: StreamId,
    },
    /// The connection is closed: send the remaining output, then close the transport. The last event.
    GoAway {
        /// `None` if neither side made a mistake.
        error: Option<Error>,
    },
}
