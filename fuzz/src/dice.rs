//! Decisions drawn from an input: where it is cut, and which limits it is read with.
//!
//! The one thing to know: the same input always gives the same ones.

use mlws_http1::{Limits, ParserMode};

/// A source of numbers that begins with a hash of the input (FNV-1a, then xorshift).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that this input throws.
    pub fn of(input: &[u8]) -> Self {
        let hash = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Dice(input.iter().fold(0xcbf2_9ce4_8422_2325, hash) | 1)
    }

    /// A number from 0 to `most`.
    pub fn up_to(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % (most + 1)
    }

    /// Up to eight segments that are the input together; some may be empty.
    pub fn cut<'a>(&mut self, input: &'a [u8]) -> Vec<&'a [u8]> {
        let mut ends: Vec<usize> = (0..self.up_to(7)).map(|_| self.up_to(input.len())).collect();
        ends.push(input.len());
        ends.sort_unstable();
        let mut start = 0;
        ends.into_iter().map(|end| &input[std::mem::replace(&mut start, end)..end]).collect()
    }

    /// The default limits, the same for clients of gunicorn, and small ones.
    pub fn limits(&mut self) -> [Limits; 3] {
        let gunicorn = Limits { mode: ParserMode::Gunicorn, ..Limits::default() };
        [Limits::default(), gunicorn, self.small_limits()]
    }

    /// Limits so small that inputs meet them.
    pub fn small_limits(&mut self) -> Limits {
        Limits {
            request_line: 1 + self.up_to(60),
            fields: self.up_to(6),
            field_size: 1 + self.up_to(50),
            head: 1 + self.up_to(200),
            body: self.up_to(30) as u64,
            chunk_extensions: self.up_to(12),
            trailers: self.up_to(24),
            mode: [ParserMode::Strict, ParserMode::Gunicorn][self.up_to(1)],
        }
    }
}
