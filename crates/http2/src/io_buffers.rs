//! The transport that `h2` reads from and writes to: two buffers in memory.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frame_header::{FrameHeader, kind};
use crate::frame_scanner::FrameScanner;

/// A frame in the output that the session takes into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentFrame {
    Headers { stream: u32 },
    Reset { stream: u32, code: u32 },
}

/// Both buffers.
#[derive(Debug)]
pub(crate) struct IoBuffers {
    /// What `h2` reads next.
    pub(crate) input: Vec<u8>,
    /// How much of it has been read.
    read: usize,
    /// What `h2` has written.
    pub(crate) output: Vec<u8>,
    max_output: usize,
    sent: SentFrames,
}

impl IoBuffers {
    fn new(max_output: usize) -> Self {
        IoBuffers { input: Vec::new(), read: 0, output: Vec::new(), max_output, sent: SentFrames::default() }
    }

    /// Whether `h2` has read all input.
    pub(crate) fn is_input_read(&self) -> bool {
        self.input.len() == self.read
    }

    /// How much more can be written.
    pub(crate) fn output_capacity(&self) -> usize {
        self.max_output.saturating_sub(self.output.len())
    }

    /// Removes and returns the frames sent since the last call.
    pub(crate) fn take_sent(&mut self) -> Vec<SentFrame> {
        std::mem::take(&mut self.sent.frames)
    }

    fn read_into(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unread = &self.input[self.read..];
        if unread.is_empty() {
            return Poll::Pending;
        }
        let part = &unread[..unread.len().min(buffer.remaining())];
        buffer.put_slice(part);
        self.read += part.len();
        if self.is_input_read() {
            self.input.clear();
            self.read = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let part = &bytes[..bytes.len().min(self.output_capacity())];
        self.output.extend_from_slice(part);
        self.sent.scan(part);
        part.len()
    }
}

/// Finds the frames of [`SentFrame`] in the output.
#[derive(Debug, Default)]
struct SentFrames {
    scanner: FrameScanner,
    current: Option<FrameHeader>,
    /// The last four bytes of the payload of `current`: the error code, if it resets a stream.
    code: u32,
    frames: Vec<SentFrame>,
}

impl SentFrames {
    fn scan(&mut self, mut bytes: &[u8]) {
        while self.current.is_some() || !bytes.is_empty() {
            if self.current.is_none() {
                self.current = self.scanner.header(&mut bytes);
            }
            let Some(FrameHeader { kind, stream, .. }) = self.current else { return };
            let payload = self.scanner.payload(&mut bytes);
            if kind == kind::RST_STREAM {
                self.code = payload.iter().fold(self.code, |code, &byte| code << 8 | u32::from(byte));
            }
            if !self.scanner.finish_frame() {
                return;
            }
            self.current = None;
            match kind {
                kind::HEADERS => self.frames.push(SentFrame::Headers { stream }),
                kind::RST_STREAM => self.frames.push(SentFrame::Reset { stream, code: self.code }),
                _ => {}
            }
        }
    }
}

/// The end of the buffers that `h2` owns, or the one that the session owns.
///
/// Reading and writing never block and never fail: without input, or beyond the maximum output, they are pending.
#[derive(Clone, Debug)]
pub(crate) struct Transport(Arc<Mutex<IoBuffers>>);

impl Transport {
    pub(crate) fn new(max_output: usize) -> Self {
        Transport(Arc::new(Mutex::new(IoBuffers::new(max_output))))
    }

    /// The buffers. The lock is never contended, because the session that owns both ends is used by one thread at a
    /// time.
    pub(crate) fn buffers(&self) -> MutexGuard<'_, IoBuffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.buffers().read_into(buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.buffers();
        let written = slices.iter().map(|slice| buffers.write(slice)).sum();
        let is_empty = slices.iter().all(|slice| slice.is_empty());
        if written == 0 && !is_empty { Poll::Pending } else { Poll::Ready(Ok(written)) }
    }

    fn is_write_vectored(&self) -> bool {
        true // large data is then copied once instead of twice
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: [u8; 36] = [
        0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88, // HEADERS
        0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8, // RST_STREAM(CANCEL)
        0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 1, 2, // RST_STREAM of an unknown code
    ];

    #[test]
    fn sent_frames_are_found_however_they_are_written() {
        for size in 1..=FRAMES.len() {
            let mut buffers = IoBuffers::new(1000);
            for piece in FRAMES.chunks(size) {
                assert_eq!(buffers.write(piece), piece.len());
            }
            let sent = [
                SentFrame::Headers { stream: 1 },
                SentFrame::Reset { stream: 1, code: 8 },
                SentFrame::Reset { stream: 3, code: 0x102 },
            ];
            assert_eq!(buffers.take_sent(), sent, "pieces of {size}");
        }
    }

    #[test]
    fn output_is_bounded() {
        let mut buffers = IoBuffers::new(12);
        assert_eq!(buffers.write(&[0; 9]), 9);
        assert_eq!(buffers.write(&[0; 9]), 3);
        assert_eq!(buffers.write(&[0; 9]), 0);
        assert_eq!(buffers.output.len(), 12);
    }

    #[test]
    fn input_is_read_in_parts() {
        let mut buffers = IoBuffers::new(0);
        buffers.input.extend_from_slice(b"abc");
        let mut bytes = [0; 2];
        assert!(buffers.read_into(&mut ReadBuf::new(&mut bytes)).is_ready());
        assert_eq!((&bytes, buffers.is_input_read()), (b"ab", false));
        assert!(buffers.read_into(&mut ReadBuf::new(&mut bytes)).is_ready());
        assert!(buffers.is_input_read());
        assert!(buffers.read_into(&mut ReadBuf::new(&mut bytes)).is_pending());
    }
}
