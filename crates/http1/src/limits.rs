//! How much of everything is taken from a peer before the request is refused.
//!
//! The one thing to know: a limit is checked while bytes arrive, so nothing over it is ever waited for.

/// Bounds on what one request may hold. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The request line without its CRLF. Longer: 414.
    pub request_line: usize,
    /// How many field lines a head may have. More: 431.
    pub fields: usize,
    /// One field line: name, colon and value, without its CRLF. Longer: 431.
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
        }
    }
}
