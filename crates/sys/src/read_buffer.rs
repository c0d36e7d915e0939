use std::{io, mem::MaybeUninit, os::fd::AsFd};

/// A borrowed buffer with a filled part, like the unstable `std::io::BorrowedBuf`.
///
/// Invariant: the first `filled` bytes are initialized.
pub struct ReadBuffer<'a> {
    bytes: &'a mut [MaybeUninit<u8>],
    filled: usize,
}

impl<'a> ReadBuffer<'a> {
    /// Wraps a buffer whose content is ignored.
    pub fn new(bytes: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { bytes, filled: 0 }
    }

    /// The filled part.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: the invariant.
        unsafe { &*(&raw const self.bytes[..self.filled] as *const [u8]) }
    }

    /// The number of bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// Copies as much of `from` as fits. Returns how much that was.
    pub fn append(&mut self, from: &[u8]) -> usize {
        let count = from.len().min(self.remaining());
        for (to, from) in self.bytes[self.filled..].iter_mut().zip(&from[..count]) {
            to.write(*from);
        }
        self.filled += count;
        count
    }

    /// Reads at most `limit` bytes from a descriptor with one system call. 0 means the end of the input, unless the
    /// buffer is full.
    pub fn read_from(&mut self, descriptor: impl AsFd, limit: usize) -> io::Result<usize> {
        let end = self.bytes.len().min(self.filled.saturating_add(limit));
        let (read, _) = rustix::io::read(descriptor, &mut self.bytes[self.filled..end])?;
        let count = read.len();
        self.filled += count;
        Ok(count)
    }
}

/// Appends to a vector what `read` puts into at most `limit` bytes after its end.
///
/// # Panics
///
/// If `read` replaces the buffer by another one.
pub fn append_to<R>(vector: &mut Vec<u8>, limit: usize, read: impl FnOnce(&mut ReadBuffer<'_>) -> R) -> R {
    vector.reserve(limit);
    let start = vector.len();
    let mut buffer = ReadBuffer::new(&mut vector.spare_capacity_mut()[..limit]);
    let first = buffer.bytes.as_ptr();
    let result = read(&mut buffer);
    assert!(std::ptr::eq(first, buffer.bytes.as_ptr()), "the buffer was exchanged");
    let filled = buffer.filled;
    // SAFETY: it is the same buffer, after the vector's end and within its capacity, and this many bytes of it are
    // initialized.
    unsafe { vector.set_len(start + filled) };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_grows_by_what_was_read() {
        let mut vector = b"ab".to_vec();
        let count = append_to(&mut vector, 3, |buffer| buffer.append(b"cdefg"));
        assert_eq!((count, vector.as_slice()), (3, &b"abcde"[..]));
        append_to(&mut vector, 10, |buffer| {
            buffer.append(b"f");
            buffer.append(b"g");
            assert_eq!((buffer.filled(), buffer.remaining()), (&b"fg"[..], 8));
        });
        assert_eq!(vector, b"abcdefg");
    }

    #[test]
    fn a_descriptor_is_read_up_to_the_limit() {
        let mut vector = Vec::new();
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        append_to(&mut vector, 100, |buffer| buffer.read_from(&zeros, 7)).unwrap();
        assert_eq!(vector, [0; 7]);
    }
}
