//! Why a request is rejected, and the status of the response.
//!
//! Invariant: every error is final. The server responds with [`Error::status`] and closes the connection.

use std::fmt;

/// What is wrong with the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// LF without a preceding CR, or CR without a following LF.
    LineEnd,
    /// The method is not a token, or violates the rule of [`ParserMode::Gunicorn`](crate::ParserMode::Gunicorn).
    Method,
    /// The method is longer than 32 bytes, or 20 in [`ParserMode::Gunicorn`](crate::ParserMode::Gunicorn).
    MethodTooLong,
    /// CONNECT, which requests a tunnel.
    Connect,
    /// The request line is not "method SP target SP version".
    RequestLine,
    /// The request line exceeds [`Limits::request_line`](crate::Limits::request_line).
    RequestLineTooLong,
    /// The target contains a byte that is not allowed, or has a form that the method does not allow.
    Target,
    /// An HTTP version other than 1.0 and 1.1.
    Version,
    /// A field line without a colon, or whose name is not a token. White space before the name or the colon is
    /// such a case.
    FieldName,
    /// A field value contains a control character.
    FieldValue,
    /// A field line exceeds [`Limits::field_size`](crate::Limits::field_size).
    FieldTooLong,
    /// More field lines than [`Limits::fields`](crate::Limits::fields).
    TooManyFields,
    /// The head exceeds [`Limits::head`](crate::Limits::head).
    HeadTooLong,
    /// HTTP/1.1 without a Host field.
    HostMissing,
    /// More than one Host field.
    HostRepeated,
    /// A Host field, or an authority in the target, that is not a host with an optional port.
    Host,
    /// More than one Content-Type field.
    ContentTypeRepeated,
    /// A Content-Length that is not a decimal number below 2^64.
    ContentLength,
    /// More than one Content-Length field.
    ContentLengthRepeated,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndCoding,
    /// More than one Transfer-Encoding field.
    TransferEncodingRepeated,
    /// Transfer-Encoding in an HTTP/1.0 request.
    TransferEncodingVersion,
    /// A transfer coding other than `chunked` that the [`ParserMode`](crate::ParserMode) does not allow.
    TransferCoding,
    /// The last transfer coding is not `chunked`, or `chunked` is repeated.
    ChunkedNotLast,
    /// An expectation other than `100-continue`.
    Expectation,
    /// The body exceeds [`Limits::body`](crate::Limits::body).
    BodyTooLarge,
    /// A chunk size that is not 1 to 16 hexadecimal digits.
    ChunkSize,
    /// A chunk extension that violates its grammar.
    ChunkExtension,
    /// Chunk extensions exceed [`Limits::chunk_extensions`](crate::Limits::chunk_extensions).
    ChunkExtensionsTooLong,
    /// Chunk data not followed by CRLF.
    ChunkEnd,
    /// A trailer line that is not a field line.
    Trailer,
    /// A trailer field that would change the framing or the host of the request.
    TrailerForbidden,
    /// Trailers exceed [`Limits::trailers`](crate::Limits::trailers).
    TrailersTooLong,
}

impl Error {
    /// The status of the response.
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
            Error::LineEnd => "invalid line ending: expected CR LF",
            Error::Method => "invalid method",
            Error::MethodTooLong => "method too long",
            Error::Connect => "CONNECT is not supported: this server is not a proxy",
            Error::RequestLine => "invalid request line: expected method, target and version",
            Error::RequestLineTooLong => "request line too long",
            Error::Target => "invalid request target for this method",
            Error::Version => "unsupported HTTP version: expected HTTP/1.0 or HTTP/1.1",
            Error::FieldName => "invalid header line: expected a name followed by a colon",
            Error::FieldValue => "invalid header value: control character",
            Error::FieldTooLong => "header line too long",
            Error::TooManyFields => "too many headers",
            Error::HeadTooLong => "request line and headers too long",
            Error::HostMissing => "missing Host header: required in HTTP/1.1",
            Error::HostRepeated => "more than one Host header",
            Error::Host => "invalid host: expected a host name or address with an optional port",
            Error::ContentTypeRepeated => "more than one Content-Type header",
            Error::ContentLength => "invalid Content-Length: expected a decimal number",
            Error::ContentLengthRepeated => "more than one Content-Length header",
            Error::LengthAndCoding => "both Content-Length and Transfer-Encoding are present",
            Error::TransferEncodingRepeated => "more than one Transfer-Encoding header",
            Error::TransferEncodingVersion => "Transfer-Encoding is not allowed in HTTP/1.0",
            Error::TransferCoding => "unsupported transfer coding: expected chunked",
            Error::ChunkedNotLast => "invalid Transfer-Encoding: chunked must come last and only once",
            Error::Expectation => "unsupported expectation: expected 100-continue",
            Error::BodyTooLarge => "request body too large",
            Error::ChunkSize => "invalid chunk size: expected a hexadecimal number",
            Error::ChunkExtension => "invalid chunk extension",
            Error::ChunkExtensionsTooLong => "chunk extensions too long",
            Error::ChunkEnd => "invalid chunk: expected CR LF after the data",
            Error::Trailer => "invalid trailer line: expected a name, a colon and a value",
            Error::TrailerForbidden => "trailer not allowed: it would change the framing or the host",
            Error::TrailersTooLong => "trailers too long",
        })
    }
}

impl std::error::Error for Error {}
