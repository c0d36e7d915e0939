//! Why a connection is closed.

use std::fmt;

use h2::Reason;

/// Why a connection was closed with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The connection does not start with the client preface and a SETTINGS frame (RFC 9113, section 3.4).
    Preface,
    /// More resets than [`Limits::resets`](crate::Limits::resets).
    TooManyResets,
    /// More frames without progress than [`Limits::control_frames`](crate::Limits::control_frames).
    TooManyControlFrames,
    /// A header block whose encoded size exceeds [`Limits::header_list_size`](crate::Limits::header_list_size) by more
    /// than a frame.
    HeaderBlockTooLong,
    /// The peer violated the protocol, or exceeded a limit that `h2` enforces. Holds the code of the GOAWAY sent.
    Connection(Reason),
    /// The peer closed the connection with this code.
    ClosedByPeer(Reason),
}

impl Error {
    /// The error code of the GOAWAY frame that is sent (RFC 9113, section 7).
    pub fn reason(self) -> Reason {
        match self {
            Error::Preface => Reason::PROTOCOL_ERROR,
            Error::TooManyResets | Error::TooManyControlFrames | Error::HeaderBlockTooLong => {
                Reason::ENHANCE_YOUR_CALM
            }
            Error::Connection(reason) => reason,
            Error::ClosedByPeer(_) => Reason::NO_ERROR,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Preface => f.write_str("invalid connection preface: expected the preface and SETTINGS"),
            Error::TooManyResets => f.write_str("too many reset streams"),
            Error::TooManyControlFrames => f.write_str("too many control frames"),
            Error::HeaderBlockTooLong => f.write_str("header block too long"),
            Error::Connection(reason) => write!(f, "connection error: {reason}"),
            Error::ClosedByPeer(reason) => write!(f, "closed by the peer: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// The stream has ended or has been reset. It no longer accepts anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamClosed;

impl fmt::Display for StreamClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream closed")
    }
}

impl std::error::Error for StreamClosed {}
