//! The events that the parser returns.

use std::ops::Range;

/// A parsed part of the input. Each message is one `Head`, any number of `Data` and one `End`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A complete head, which consumes [`Head::len`](crate::Head::len) bytes.
    Head,
    /// Body data, never empty.
    Data {
        /// The decoded data as a range of the input.
        payload: Range<usize>,
        /// The number of input bytes consumed; at least `payload.end`.
        consumed: usize,
    },
    /// The message is complete.
    End {
        /// The number of input bytes consumed: the last chunk and the trailers, which are discarded.
        consumed: usize,
    },
}
