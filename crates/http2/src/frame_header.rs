//! The header of a frame (RFC 9113, section 4.1).

/// The types of frames (RFC 9113, section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

const END_STREAM_OR_ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// The length of the payload.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHeader {
    pub(crate) const LEN: usize = 9;

    pub(crate) fn parse(bytes: [u8; Self::LEN]) -> Self {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = bytes;
        FrameHeader {
            length: u32::from_be_bytes([0, l2, l1, l0]),
            kind,
            flags,
            stream: u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]), // the first bit is reserved
        }
    }

    pub(crate) fn is_ack(self) -> bool {
        self.flags & END_STREAM_OR_ACK != 0
    }

    /// Whether the type permits a payload of this length.
    pub(crate) fn has_valid_length(self) -> bool {
        match self.kind {
            kind::PRIORITY => self.length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => self.length == 4,
            kind::SETTINGS if self.is_ack() => self.length == 0,
            kind::SETTINGS => self.length.is_multiple_of(6),
            kind::PING => self.length == 8,
            _ => true,
        }
    }

    pub(crate) fn ends_stream(self) -> bool {
        self.flags & END_STREAM_OR_ACK != 0
    }

    pub(crate) fn ends_headers(self) -> bool {
        self.flags & END_HEADERS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_parsed_without_its_reserved_bit() {
        let header = FrameHeader::parse([1, 2, 3, 1, 5, 0xff, 0, 0, 9]);
        assert_eq!(header, FrameHeader { length: 0x01_02_03, kind: 1, flags: 5, stream: 0x7f00_0009 });
        assert!(header.ends_stream() && header.ends_headers());
    }
}
