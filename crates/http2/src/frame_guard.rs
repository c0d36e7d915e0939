//! Limits on received frames that can be checked by their headers, before `h2` sees them.
//!
//! The header of a frame that is not accepted never reaches `h2`. This covers what `h2` does not limit, or limits for
//! the whole life of a connection instead of per second.

use std::time::Instant;

use h2::Reason;

use crate::error::Error;
use crate::frame_header::{FrameHeader, kind};
use crate::limits::Limits;
use crate::token_bucket::TokenBucket;

/// The state of the checks of one connection.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    resets: TokenBucket,
    control_frames: TokenBucket,
    /// The encoded size of the current header block.
    header_block: u32,
    max_header_block: u32,
    is_in_header_block: bool,
    max_frame: u32,
    has_frames: bool,
    has_acknowledged_settings: bool,
}

/// How many control frames a request or a sent DATA frame adds to those accepted: a `WINDOW_UPDATE` for the stream and
/// one for the connection.
const CONTROL_FRAMES_PER_MESSAGE_FRAME: u32 = 2;

impl FrameGuard {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        FrameGuard {
            resets: TokenBucket::new(limits.resets, now),
            control_frames: TokenBucket::new(limits.control_frames, now),
            header_block: 0,
            // one frame more, so that a head somewhat too long is a 431
            max_header_block: limits.header_list_size.saturating_add(limits.frame_size),
            is_in_header_block: false,
            max_frame: limits.frame_size,
            has_frames: false,
            has_acknowledged_settings: false,
        }
    }

    /// Checks the header of a received frame. After an error, the connection must be closed.
    pub(crate) fn check(&mut self, header: FrameHeader, now: Instant) -> Result<(), Error> {
        let is_first = !std::mem::replace(&mut self.has_frames, true);
        if is_first && (header.kind != kind::SETTINGS || header.is_ack()) {
            return Err(Error::Preface);
        }
        if header.length > self.max_frame || !header.has_valid_length() {
            return Err(Error::Connection(Reason::FRAME_SIZE_ERROR));
        }
        self.is_in_header_block = matches!(header.kind, kind::HEADERS | kind::CONTINUATION);
        match header.kind {
            kind::HEADERS => {
                self.header_block = 0;
                self.extend_header_block(header.length)
            }
            kind::CONTINUATION => self.extend_header_block(header.length),
            kind::RST_STREAM => self.count_reset(now),
            kind::PUSH_PROMISE => Err(Error::Connection(Reason::PROTOCOL_ERROR)), // RFC 9113, section 8.4
            kind::DATA if header.length > 0 || header.ends_stream() => Ok(()),
            _ => {
                self.has_acknowledged_settings |= header.kind == kind::SETTINGS && header.is_ack();
                self.count_control_frame(now)
            }
        }
    }

    /// A frame is complete.
    pub(crate) fn finish_frame(&mut self, header: FrameHeader) {
        self.is_in_header_block &= !header.ends_headers();
    }

    /// Whether the end of a header block has not been received.
    pub(crate) fn is_in_header_block(&self) -> bool {
        self.is_in_header_block
    }

    fn extend_header_block(&mut self, length: u32) -> Result<(), Error> {
        self.header_block = self.header_block.saturating_add(length);
        if self.header_block > self.max_header_block { Err(Error::HeaderBlockTooLong) } else { Ok(()) }
    }

    /// Records that a request was received, or a DATA frame was sent, which the peer may respond to.
    pub(crate) fn message_frame(&mut self) {
        self.control_frames.add(CONTROL_FRAMES_PER_MESSAGE_FRAME);
    }

    /// Records that this side has sent `RST_STREAM` with this code.
    pub(crate) fn sent_reset(&mut self, code: Reason, now: Instant) -> Result<(), Error> {
        match code {
            Reason::PROTOCOL_ERROR
            | Reason::FLOW_CONTROL_ERROR
            | Reason::STREAM_CLOSED
            | Reason::FRAME_SIZE_ERROR
            | Reason::COMPRESSION_ERROR => self.count_reset(now),
            Reason::REFUSED_STREAM if self.has_acknowledged_settings => self.count_reset(now),
            // Until the peer has received the settings, it cannot know how many streams it may open. But it may never
            // acknowledge them.
            Reason::REFUSED_STREAM => self.count_control_frame(now),
            _ => Ok(()), // decided by this side
        }
    }

    fn count_control_frame(&mut self, now: Instant) -> Result<(), Error> {
        self.control_frames.take(now).then_some(()).ok_or(Error::TooManyControlFrames)
    }

    fn count_reset(&mut self, now: Instant) -> Result<(), Error> {
        self.resets.take(now).then_some(()).ok_or(Error::TooManyResets)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::Rate;

    fn header(kind: u8, flags: u8, length: u32) -> FrameHeader {
        FrameHeader { length, kind, flags, stream: 1 }
    }

    fn guard() -> (FrameGuard, Instant) {
        let rate = Rate { burst: 3, per_second: 1 };
        let now = Instant::now();
        let mut guard =
            FrameGuard::new(&Limits { resets: rate, control_frames: rate, ..Limits::default() }, now);
        guard.has_frames = true;
        (guard, now)
    }

    #[test]
    fn the_first_frame_must_be_settings() {
        let now = Instant::now();
        let check = |header| FrameGuard::new(&Limits::default(), now).check(header, now);
        assert_eq!(check(header(kind::SETTINGS, 0, 0)), Ok(()));
        assert_eq!(check(header(kind::SETTINGS, 1, 0)), Err(Error::Preface));
        assert_eq!(check(header(kind::HEADERS, 4, 5)), Err(Error::Preface));
    }

    #[test]
    fn frames_without_progress_are_limited() {
        let frames = [
            (kind::DATA, 0, 0),
            (kind::PRIORITY, 0, 5),
            (kind::SETTINGS, 0, 6),
            (kind::SETTINGS, 1, 0),
            (kind::PING, 0, 8),
            (kind::PING, 1, 8),
            (7, 0, 8), // GOAWAY
            (kind::WINDOW_UPDATE, 0, 4),
            (16, 0, 4), // PRIORITY_UPDATE
            (255, 0, 0),
        ];
        for (kind, flags, length) in frames {
            let (mut guard, now) = guard();
            let mut check = |now| guard.check(header(kind, flags, length), now);
            assert_eq!([check(now), check(now), check(now)], [Ok(()); 3], "frame type {kind}");
            assert_eq!(check(now), Err(Error::TooManyControlFrames), "frame type {kind}");
            assert_eq!(check(now + Duration::from_secs(1)), Ok(()), "frame type {kind}");
        }
    }

    #[test]
    fn frames_with_progress_are_not_limited() {
        for (kind, flags, length) in [(0, 0, 1), (0, 1, 0), (1, 5, 9)] {
            let (mut guard, now) = guard();
            let accepted = (0..100).filter(|_| guard.check(header(kind, flags, length), now).is_ok());
            assert_eq!(accepted.count(), 100, "frame type {kind}");
        }
    }

    #[test]
    fn each_message_frame_allows_two_window_updates() {
        let (mut guard, now) = guard();
        for _ in 0..100 {
            assert_eq!(guard.check(header(kind::WINDOW_UPDATE, 0, 4), now), Ok(()));
            assert_eq!(guard.check(header(kind::WINDOW_UPDATE, 0, 4), now), Ok(()));
            guard.message_frame();
        }
    }

    #[test]
    fn lengths_that_a_type_does_not_permit_are_errors() {
        let frames = [
            (kind::DATA, 0, 16_385),
            (kind::PRIORITY, 0, 4),
            (kind::RST_STREAM, 0, 5),
            (kind::SETTINGS, 0, 5),
            (kind::SETTINGS, 1, 6),
            (kind::PING, 0, 9),
            (kind::WINDOW_UPDATE, 0, 3),
        ];
        for (kind, flags, length) in frames {
            let (mut guard, now) = guard();
            let error = Error::Connection(Reason::FRAME_SIZE_ERROR);
            assert_eq!(guard.check(header(kind, flags, length), now), Err(error), "frame type {kind}");
        }
    }

    #[test]
    fn resets_of_both_sides_share_a_limit() {
        let (mut guard, now) = guard();
        assert_eq!(guard.check(header(kind::RST_STREAM, 0, 4), now), Ok(()));
        assert_eq!(guard.sent_reset(Reason::PROTOCOL_ERROR, now), Ok(()));
        for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM] {
            assert_eq!(
                [guard.sent_reset(reason, now), guard.sent_reset(reason, now)],
                [Ok(()); 2],
                "{reason}"
            );
        }
        assert_eq!(guard.sent_reset(Reason::STREAM_CLOSED, now), Ok(()));
        assert_eq!(guard.sent_reset(Reason::STREAM_CLOSED, now), Err(Error::TooManyResets));
    }

    #[test]
    fn refused_streams_count_as_resets_when_the_settings_are_acknowledged() {
        let (mut guard, now) = guard();
        let refused = [(); 4].map(|()| guard.sent_reset(Reason::REFUSED_STREAM, now));
        assert_eq!(refused, [Ok(()), Ok(()), Ok(()), Err(Error::TooManyControlFrames)]);

        let (mut guard, now) = self::guard();
        guard.check(header(kind::SETTINGS, 1, 0), now).expect("an acknowledgement");
        let accepted = (0..100).filter(|_| guard.sent_reset(Reason::REFUSED_STREAM, now).is_ok());
        assert_eq!(accepted.count(), 3);
    }

    #[test]
    fn a_header_block_is_limited_over_all_its_frames() {
        let (mut guard, now) = guard();
        for _ in 0..10 {
            guard.check(header(kind::HEADERS, 0, 16_384), now).expect("the start of a header block");
            let rest = [guard.check(header(kind::CONTINUATION, 0, 16_384), now); 4];
            assert_eq!(rest, [Ok(()); 4]);
        }
        for _ in 1..4 {
            guard.check(header(kind::CONTINUATION, 0, 16_384), now).expect("within the limit");
        }
        let more = guard.check(header(kind::CONTINUATION, 4, 1), now);
        assert_eq!(more, Err(Error::HeaderBlockTooLong));
    }
}
