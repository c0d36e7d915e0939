//! A response on its way out: what is framed and not yet sent, and where the rest will come from.
//!
//! Small pieces are joined into one buffer and leave in one system call; a large piece is sent from where it lies.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use mlws_http1::{Asked, Framing, ResponseHead};

use crate::{
    Aborted, Body, Bytes, Response, Stream, clock, response::Start, settings::House, unsent::Lender,
    wire::Wire,
};

/// Pieces up to this many bytes are copied behind the head rather than sent from where they lie.
const COPIED: usize = 16 * 1024;

/// With so many bytes framed, no further piece is waited for.
const GATHERED: usize = 8 * 1024;

#[derive(Default)]
pub(crate) struct Output {
    buffer: Vec<u8>,
    at: usize,
    piece: Option<Piece>,
    file: Option<Range>,
    stream: Option<Box<dyn Stream>>,
    framing: Option<Framing>,
    /// A copy of the head, where the log wants one.
    pub(crate) head: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) keep_alive: bool,
    /// Body bytes framed so far.
    pub(crate) sent: u64,
    /// The app gave more than its Content-Length promised.
    pub(crate) overlong: bool,
}

struct Piece {
    bytes: Bytes,
    at: usize,
    end: usize,
    suffix: &'static [u8],
}

struct Range {
    file: File,
    offset: u64,
    left: u64,
}

/// How far [`Output::write`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything framed is sent.
    Sent,
    /// The socket takes no more for now.
    Blocked,
}

impl Output {
    /// Starts a response: its head is ready to be sent.
    pub(crate) fn begin(&mut self, head: ResponseHead, asked: Asked, length: Option<u64>, house: &House) {
        self.status = head.status();
        let finished = head.finish(&asked, length, &clock::date(), &house.settings.server_name);
        if house.wants_head {
            self.head.clone_from(&finished.bytes);
        }
        (self.buffer, self.at, self.sent, self.overlong) = (finished.bytes, 0, 0, false);
        self.keep_alive = finished.keep_alive;
        self.framing = Some(finished.framing);
    }

    /// Takes the body. A stream stays to be pulled; anything else is framed to its end.
    pub(crate) fn take(&mut self, body: Body) {
        match body {
            Body::Empty => self.end(),
            Body::Bytes(bytes) => {
                self.frame(bytes);
                self.end();
            }
            Body::File { file, offset, length } => {
                let left = self.frame_range(length);
                self.file = (left > 0).then_some(Range { file, offset, left });
                self.end();
            }
            Body::Stream { stream, .. } => self.stream = Some(stream),
        }
    }

    /// The bytes of a small response of the server's own.
    pub(crate) fn framed(response: Response, asked: Asked, house: &House) -> Vec<u8> {
        let mut output = Self::default();
        if let Start::Head(head) = response.head {
            output.begin(head, asked, response.body.length(), house);
            output.take(response.body);
        }
        output.buffer
    }

    /// Frames one piece. The piece before it must have been sent.
    pub(crate) fn frame(&mut self, bytes: Bytes) {
        let length = bytes.as_ref().len();
        let Some(framing) = &mut self.framing else { return };
        if !framing.wants_body() {
            return;
        }
        let frame = framing.piece(length);
        self.overlong |= frame.take < length;
        self.sent += frame.take as u64;
        self.buffer.extend_from_slice(&frame.prefix);
        if frame.take <= COPIED {
            self.buffer.extend_from_slice(&bytes.as_ref()[..frame.take]);
            self.buffer.extend_from_slice(frame.suffix);
        } else {
            self.piece = Some(Piece { bytes, at: 0, end: frame.take, suffix: frame.suffix });
        }
    }

    /// Pulls and frames the next piece of a stream; at its end frames the end. Runs app code; a panic there is an abort. With a
    /// `lender`, what is framed and unsent is lent meanwhile.
    pub(crate) fn pull(&mut self, wire: &Arc<Wire>, lender: Option<&Lender<'_>>) -> Result<(), Aborted> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let wants_body = self.framing.as_ref().is_none_or(Framing::wants_body);
        let next = || {
            let pulled = catch_unwind(AssertUnwindSafe(|| {
                let piece = if wants_body { stream.next()? } else { None };
                Ok(piece.map(|piece| (piece, stream)))
            }));
            pulled.unwrap_or(Err(Aborted))
        };
        let pulled = match lender {
            Some(lender) => lender.lend(wire, &mut self.buffer, next),
            None => next(),
        };
        if let Some((piece, stream)) = pulled? {
            self.frame(piece);
            self.stream = Some(stream).filter(|_| !self.overlong);
        }
        if self.stream.is_none() {
            self.end();
        }
        Ok(())
    }

    /// Whether what is framed and unsent is so little that it might wait for the next piece.
    pub(crate) fn has_little(&self) -> bool {
        (1..GATHERED).contains(&self.buffer.len()) && self.at == 0 && self.piece.is_none()
    }

    /// Whether a stream has more to give.
    pub(crate) fn is_streaming(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether all of it is framed and in memory.
    pub(crate) fn is_whole(&self) -> bool {
        self.stream.is_none() && self.file.is_none()
    }

    pub(crate) fn take_stream(&mut self) -> Option<Box<dyn Stream>> {
        self.stream.take()
    }

    /// Whether the body ended short of its Content-Length, or a stream was cut: the client must see an unclean end.
    pub(crate) fn is_cut(&self) -> bool {
        self.framing.as_ref().is_some_and(|framing| self.stream.is_some() || framing.end().is_err())
    }

    /// Whether only the close of the connection tells the client that the body is complete.
    pub(crate) fn ends_by_close(&self) -> bool {
        self.framing.as_ref().is_some_and(Framing::ends_by_close)
    }

    /// Sends what is framed, as far as the socket takes it.
    pub(crate) fn write(&mut self, wire: &Wire) -> io::Result<Progress> {
        loop {
            let wrote = if let Some(piece) = &self.piece {
                wire.send_vectored(&[
                    IoSlice::new(&self.buffer[self.at..]),
                    IoSlice::new(&piece.bytes.as_ref()[piece.at..piece.end]),
                    IoSlice::new(piece.suffix),
                ])
            } else if self.at < self.buffer.len() {
                wire.send(&self.buffer[self.at..], self.file.is_some())
            } else if let Some(range) = self.file.as_mut().filter(|range| range.left > 0) {
                range.send(wire).map(|()| 0)
            } else {
                return Ok(Progress::Sent);
            };
            match wrote {
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all that is framed, waiting for a slow client within the write timeout.
    pub(crate) fn write_blocking(&mut self, wire: &Wire) -> io::Result<()> {
        while self.write(wire)? == Progress::Blocked {
            wire.wait_writable()?;
        }
        Ok(())
    }

    /// Forgets everything but the buffer, which is handed out for reuse.
    pub(crate) fn reset(&mut self) -> Vec<u8> {
        let buffer = std::mem::take(&mut self.buffer);
        *self = Self::default();
        buffer
    }

    /// How many of `length` bytes of a file are to be sent. A file's length is known, so its framing has no marks between pieces.
    fn frame_range(&mut self, length: u64) -> u64 {
        let Some(framing) = self.framing.as_mut().filter(|framing| framing.wants_body()) else { return 0 };
        let take = framing.piece(usize::try_from(length).unwrap_or(usize::MAX)).take as u64;
        self.sent += take;
        take
    }

    fn end(&mut self) {
        if let Some(Ok(tail)) = self.framing.as_ref().map(Framing::end) {
            self.buffer.extend_from_slice(tail);
        }
    }

    /// Takes note that `count` bytes left, first of the buffer, then of the piece, then of its suffix.
    fn advance(&mut self, count: usize) {
        let of_buffer = count.min(self.buffer.len() - self.at);
        self.at += of_buffer;
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let Some(piece) = &mut self.piece else { return };
        let rest = count - of_buffer;
        let of_piece = rest.min(piece.end - piece.at);
        piece.at += of_piece;
        piece.suffix = &piece.suffix[rest - of_piece..];
        if piece.at == piece.end {
            self.buffer.extend_from_slice(piece.suffix);
            self.piece = None;
        }
    }
}

impl Range {
    /// Nothing sent means that the file shrank under our hands.
    fn send(&mut self, wire: &Wire) -> io::Result<()> {
        match wire.send_file(self.file.as_fd(), &mut self.offset, self.left)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.left -= count as u64;
                Ok(())
            }
        }
    }
}
