//! What is taken from a peer before the request is refused: how much of everything, and how loosely written.
//!
//! The one thing to know: a limit is checked while bytes arrive, so nothing over it is ever waited for.

/// Bounds on what one request may hold. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The request line without its CRLF. Longer: 414.
    pub request_line: usize,
    /// How many field lines a head may have. More: 431.
    pub fields: usize,
    /// One field line: name, colon, value and its CRLF. Longer: 431.
    pub field_size: usize,
    /// The whole head, from its first byte to its blank line. Longer: 431.
    pub head: usize,
    /// The body after decoding; `u64::MAX` means no limit. Larger: 413, at once for a `Content-Length`, and
    /// for a chunked body as soon as a chunk would exceed it.
    pub body: u64,
    /// All chunk extensions of one body together. More: 400.
    pub chunk_extensions: usize,
    /// All trailers of one body together, with the CRLF of each. More: 431.
    pub trailers: usize,
    /// How loosely a head may be written.
    pub tolerance: Tolerance,
}

/// Whose idea of a good head is followed. What both take, both read in the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tolerance {
    /// Our own: what could be read in two ways is refused.
    #[default]
    Strict,
    /// Gunicorn's, for whoever comes from there with clients that need it:
    ///
    /// - HTTP/1.1 may come without Host.
    /// - Transfer-Encoding may name identity, gzip, compress and deflate before its one `chunked`, also in fields
    ///   of their own. The chunks are undone, the rest is left to the app, and the connection closes behind it.
    /// - The authority of an absolute target may have userinfo, which [`Head::host`](crate::Head::host) leaves out.
    /// - CONNECT may name a host with a port, which is then target, path and host; the connection closes behind it.
    /// - Chunk extensions may have quoted values, and white space before their names (RFC 9112, section 7.1.1).
    /// - A method has 3 to 20 bytes, none of them a lowercase letter or `#`.
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
            tolerance: Tolerance::Strict,
        }
    }
}
