//! Pseudorandom decisions derived from an input: where to split it, and with which limits to parse it.
//!
//! Invariant: the same input always gives the same decisions, so every failure is reproducible.

use mlws_http1::{Limits, ParserMode};

/// A pseudorandom number generator (xorshift) seeded with a hash of the input (FNV-1a).
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// Creates a generator seeded with this input.
    pub fn from_input(input: &[u8]) -> Self {
        let hash = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Rng(input.iter().fold(0xcbf2_9ce4_8422_2325, hash) | 1)
    }

    /// A number from 0 through `max`.
    pub fn at_most(&mut self, max: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % (max + 1)
    }

    /// Splits the input into one to eight segments, some of which may be empty.
    pub fn split<'a>(&mut self, input: &'a [u8]) -> Vec<&'a [u8]> {
        let mut ends: Vec<usize> = (0..self.at_most(7)).map(|_| self.at_most(input.len())).collect();
        ends.push(input.len());
        ends.sort_unstable();
        let mut start = 0;
        ends.into_iter().map(|end| &input[std::mem::replace(&mut start, end)..end]).collect()
    }

    /// The default limits, the same in gunicorn mode, and small ones.
    pub fn limits(&mut self) -> [Limits; 3] {
        let gunicorn = Limits { mode: ParserMode::Gunicorn, ..Limits::default() };
        [Limits::default(), gunicorn, self.small_limits()]
    }

    /// Limits so small that inputs exceed them.
    pub fn small_limits(&mut self) -> Limits {
        Limits {
            request_line: 1 + self.at_most(60),
            fields: self.at_most(6),
            field_size: 1 + self.at_most(50),
            head: 1 + self.at_most(200),
            body: self.at_most(30) as u64,
            chunk_extensions: self.at_most(12),
            trailers: self.at_most(24),
            mode: [ParserMode::Strict, ParserMode::Gunicorn][self.at_most(1)],
        }
    }
}
