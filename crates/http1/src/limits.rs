//! Bounds on the size of a request, and how strictly its grammar is enforced.
//!
//! Invariant: limits are checked while bytes arrive. The parser never waits for input that exceeds one.

/// The maximum size of each part of a request. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The request line without its CRLF. Exceeding it is a 414.
    pub request_line: usize,
    /// The number of field lines in a head. Exceeding it is a 431.
    pub fields: usize,
    /// One field line: name, colon, value and CRLF. Exceeding it is a 431.
    pub field_size: usize,
    /// The whole head, from its first byte through its blank line. Exceeding it is a 431.
    pub head: usize,
    /// The decoded body; `u64::MAX` means no limit. Exceeding it is a 413: immediately for a `Content-Length`,
    /// and for a chunked body when the size line of the chunk that exceeds it arrives.
    pub body: u64,
    /// All chunk extensions of one body together. Exceeding it is a 400.
    pub chunk_extensions: usize,
    /// All trailer fields of one body together, including their CRLFs. Exceeding it is a 431.
    pub trailers: usize,
    /// How strictly the grammar is enforced.
    pub mode: ParserMode,
}

/// How strictly the grammar is enforced. A request accepted in both modes is parsed identically in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParserMode {
    /// Rejects everything that two parsers could read differently.
    #[default]
    Strict,
    /// Accepts what gunicorn accepts, for clients that depend on it:
    ///
    /// - HTTP/1.1 without Host, and a Host that is the path of a Unix socket.
    /// - The transfer codings identity, gzip, compress and deflate before a final `chunked`, also in separate
    ///   fields. Only the chunked coding is decoded; the application decodes the others. The connection closes
    ///   after the request.
    /// - Userinfo in the authority of an absolute target. [`Head::host`](crate::Head::host) excludes it.
    /// - CONNECT with a host and port, which become target, path and host. The connection closes after the request.
    ///
    /// In one respect it is stricter: methods have 3 to 20 bytes and contain no lowercase letter and no `#`.
    Gunicorn,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_line: 8190,
            fields: 100,
            field_size: 8190,
            head: 65536,
            body: u64::MAX,
            chunk_extensions: 16384,
            trailers: 16384,
            mode: ParserMode::Strict,
        }
    }
}
