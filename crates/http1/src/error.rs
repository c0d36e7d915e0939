//! Why a request is refused.
//!
//! The one thing to know: every error ends its connection, and carries the status to answer with before that.

use std::fmt;

/// What is wrong with the bytes received. The sentence is for a person, the status for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A line feed without a carriage return before it, or the other way round.
    LineEnd,
    /// The method is no token, or against the rule of [`Tolerance::Gunicorn`](crate::Tolerance::Gunicorn).
    Method,
    /// The method is longer than any this server knows.
    MethodTooLong,
    /// CONNECT asks for a tunnel.
    Connect,
    /// Not "method, space, target, space, version".
    RequestLine,
    /// The request line is over [`Limits::request_line`](crate::Limits::request_line).
    RequestLineTooLong,
    /// The target has a byte that none may have, or is in no form that the method allows.
    Target,
    /// A version of HTTP, but neither 1.0 nor 1.1.
    Version,
    /// A field line without a colon, or whose name is no token (white space before it or the colon included).
    FieldName,
    /// A control character in a field's value.
    FieldValue,
    /// One field line is over [`Limits::field_size`](crate::Limits::field_size).
    FieldTooLong,
    /// More field lines than [`Limits::fields`](crate::Limits::fields).
    TooManyFields,
    /// The head is over [`Limits::head`](crate::Limits::head).
    HeadTooLong,
    /// HTTP/1.1 without a Host field.
    HostMissing,
    /// More than one Host field.
    HostRepeated,
    /// A Host field, or an authority in the target, that is no host with an optional port.
    Host,
    /// More than one Content-Type field.
    ContentTypeRepeated,
    /// A Content-Length that is no plain decimal number below 2^64.
    ContentLength,
    /// More than one Content-Length field.
    ContentLengthRepeated,
    /// Content-Length and Transfer-Encoding in one head.
    LengthAndCoding,
    /// More than one Transfer-Encoding field.
    TransferEncodingRepeated,
    /// Transfer-Encoding in an HTTP/1.0 request.
    TransferEncodingVersion,
    /// A transfer coding other than `chunked` and what [`Tolerance`](crate::Tolerance) allows before it.
    TransferCoding,
    /// Of several transfer codings, the last is not `chunked`, or another one is.
    ChunkedNotLast,
    /// An expectation other than `100-continue`.
    Expectation,
    /// The body is over [`Limits::body`](crate::Limits::body).
    BodyTooLarge,
    /// A chunk size that is not 1 to 16 hexadecimal digits.
    ChunkSize,
    /// A chunk extension against its grammar.
    ChunkExtension,
    /// Chunk extensions over [`Limits::chunk_extensions`](crate::Limits::chunk_extensions).
    ChunkExtensionsTooLong,
    /// A chunk's data is not followed by CRLF.
    ChunkEnd,
    /// A trailer line that is no field.
    Trailer,
    /// A field among the trailers that would change what the message is.
    TrailerForbidden,
    /// Trailers over [`Limits::trailers`](crate::Limits::trailers).
    TrailersTooLong,
}

impl Error {
    /// The status of the answer this error deserves.
    pub fn status(self) -> u16 {
        match self {
            Error::BodyTooLarge => 413,
            Error::RequestLineTooLong => 414,
            Error::Expectation => 417,
            Error::FieldTooLong | Error::TooManyFields | Error::HeadTooLong | Error::TrailersTooLong => 431,
            Error::MethodTooLong | Error::Connect | Error::TransferCoding => 501,
            Error::Version => 505,
            _ => 400,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::LineEnd => "a line does not end with CR LF",
            Error::Method => "the method is not valid",
            Error::MethodTooLong => "the method is longer than any this server knows",
            Error::Connect => "CONNECT is not supported: this server is not a proxy",
            Error::RequestLine => "the request line is not a method, a target and a version",
            Error::RequestLineTooLong => "the request line is too long",
            Error::Target => "the request target is not valid for this method",
            Error::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Error::FieldName => "a header line has no valid name before its colon",
            Error::FieldValue => "a header value has a control character",
            Error::FieldTooLong => "a header line is too long",
            Error::TooManyFields => "there are too many headers",
            Error::HeadTooLong => "the request line and headers together are too long",
            Error::HostMissing => "an HTTP/1.1 request needs a Host header",
            Error::HostRepeated => "there is more than one Host header",
            Error::Host => "the host asked for is not a valid host and port",
            Error::ContentTypeRepeated => "there is more than one Content-Type header",
            Error::ContentLength => "the Content-Length is not a plain decimal number",
            Error::ContentLengthRepeated => "there is more than one Content-Length header",
            Error::LengthAndCoding => "there are both a Content-Length and a Transfer-Encoding",
            Error::TransferEncodingRepeated => "there is more than one Transfer-Encoding header",
            Error::TransferEncodingVersion => "HTTP/1.0 has no Transfer-Encoding",
            Error::TransferCoding => "the only transfer coding supported is chunked",
            Error::ChunkedNotLast => "chunked is not the last transfer coding, or is not the only chunked",
            Error::Expectation => "the only expectation supported is 100-continue",
            Error::BodyTooLarge => "the request body is too large",
            Error::ChunkSize => "a chunk size is not a hexadecimal number",
            Error::ChunkExtension => "a chunk extension is not valid",
            Error::ChunkExtensionsTooLong => "the chunk extensions are too long",
            Error::ChunkEnd => "the data of a chunk does not end with CR LF",
            Error::Trailer => "a trailer line is not a valid header",
            Error::TrailerForbidden => "a trailer would change the framing or the host of its request",
            Error::TrailersTooLong => "the trailers are too long",
        })
    }
}

impl std::error::Error for Error {}
