//! Finds the frames in a stream of bytes, without decoding their payload.

use crate::frame_header::FrameHeader;

/// The position in a stream of frames. The bytes may arrive in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct FrameScanner {
    header: [u8; FrameHeader::LEN],
    /// How many bytes of the header have arrived.
    filled: usize,
    /// How many bytes of the payload have not arrived.
    remaining: usize,
}

impl FrameScanner {
    /// Consumes the rest of a header. `None` if more input is needed.
    ///
    /// Invariant: called only between frames, until it returns a header.
    pub(crate) fn header(&mut self, input: &mut &[u8]) -> Option<FrameHeader> {
        let part = input.split_off(..input.len().min(FrameHeader::LEN - self.filled)).unwrap_or_default();
        self.header[self.filled..self.filled + part.len()].copy_from_slice(part);
        self.filled += part.len();
        if self.filled < FrameHeader::LEN {
            return None;
        }
        let header = FrameHeader::parse(self.header);
        self.remaining = header.length as usize;
        Some(header)
    }

    /// The bytes of the header that was returned last.
    pub(crate) fn header_bytes(&self) -> &[u8] {
        &self.header
    }

    /// Consumes and returns the part of the payload that is in `input`.
    pub(crate) fn payload<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let part = input.split_off(..input.len().min(self.remaining)).unwrap_or_default();
        self.remaining -= part.len();
        part
    }

    /// Whether the frame is complete. If so, the next one may begin.
    pub(crate) fn finish_frame(&mut self) -> bool {
        let is_complete = self.remaining == 0;
        if is_complete {
            self.filled = 0;
        }
        is_complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_split() {
        let bytes =
            [&[0, 0, 3, 0, 1, 0, 0, 0, 1][..], b"abc", &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 1]].concat();
        for size in 1..=bytes.len() {
            let mut scanner = FrameScanner::default();
            let mut found = Vec::new();
            let mut current = None;
            for mut piece in bytes.chunks(size) {
                while current.is_some() || !piece.is_empty() {
                    if current.is_none() {
                        current = scanner.header(&mut piece).map(|header| (header, Vec::new()));
                    }
                    let Some((_, payload)) = &mut current else { break };
                    payload.extend_from_slice(scanner.payload(&mut piece));
                    if !scanner.finish_frame() {
                        break;
                    }
                    found.extend(current.take());
                }
            }
            let lengths: Vec<_> = found.iter().map(|(header, payload)| (header.kind, &payload[..])).collect();
            assert_eq!(lengths, [(0, &b"abc"[..]), (4, b"")], "pieces of {size}");
        }
    }
}
