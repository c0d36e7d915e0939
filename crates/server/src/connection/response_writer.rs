//! The output of a connection: a queue of framed segments.
//!
//! Invariant: prefix, body and suffix of a chunk enter the queue together, whether the body consists of bytes or a
//! range of a file. So no body can leave without its framing, and none can overtake another.
//!
//! Small bodies are copied behind the head and leave in one system call. Large ones are sent from where they are.
//!
//! With HTTP/2 the session of the connection frames the response. It gets the head, the bytes of the body, and the end (see
//! [`StreamFraming`]).

mod memory;
mod segment;
mod stream;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice},
    sync::{Arc, atomic::Ordering},
};

use mlws_http1::{Framing, RequestInfo, ResponseHead, Version};

pub(crate) use self::segment::Spool;
use self::segment::{FileRange, Segment};
use crate::{
    Body, Bytes, clock,
    connection::{encoded_response::EncodedResponse, socket::ClientSocket},
    context::ServerContext,
    memory::Reservation,
};

/// Bodies up to this size are copied into the queue. Larger ones are kept by reference. In bytes.
const COPY_LIMIT: usize = 16 * 1024;
/// The maximum size of a segment of copied bytes.
const SEGMENT_SIZE: usize = 64 * 1024;
/// A response with fewer bytes than this may wait briefly for more bytes or for other responses.
const COALESCE_LIMIT: usize = 8 * 1024;
/// The most segments that one system call sends.
const MAX_SEGMENTS_PER_WRITE: usize = 16;

#[derive(Default)]
pub(crate) struct ResponseWriter {
    /// The front of the queue: the head and small bytes after it.
    front: Vec<u8>,
    front_sent: usize,
    queue: VecDeque<Segment>,
    /// Memory held by the segments in `queue`, in bytes.
    queued: usize,
    /// Memory reserved for the unsent response. `None` while the socket accepts everything.
    reservation: Option<Reservation>,
    framing: Option<Framing>,
    /// With HTTP/2: what is sent beside the queue.
    stream: Option<StreamFraming>,
    /// A copy of the head, if the access log needs it.
    pub(crate) head: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) keep_alive: bool,
    /// Body bytes framed so far, without framing.
    framed: u64,
    /// The same with the framing.
    body_size: u64,
    /// The application produced more bytes than its Content-Length.
    pub(crate) exceeds_content_length: bool,
    /// The application failed before the end of its body, so the client must see an unclean end.
    pub(crate) is_truncated: bool,
}

/// What is sent with HTTP/2 beside the body.
#[derive(Default)]
struct StreamFraming {
    /// The size of the head, in the format of HTTP/1, at the beginning of `front`. 0 when it is sent. It leaves with the first bytes
    /// of the body, or with its end.
    head: usize,
    /// All of the body is queued.
    is_complete: bool,
    /// The end is sent.
    has_ended: bool,
}

/// How far [`ResponseWriter::write`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The queue is empty.
    Sent,
    /// The socket is full.
    Blocked,
    /// The limit of this call is reached. The socket may accept more.
    Paused,
}

impl ResponseWriter {
    /// Starts a response: queues its head.
    pub(crate) fn begin(
        &mut self,
        head: ResponseHead,
        info: RequestInfo,
        length: Option<u64>,
        context: &ServerContext,
    ) {
        self.status = head.status();
        let finished = head.finish(&info, length, &clock::date(), &context.settings.server_name);
        if context.wants_head.load(Ordering::Relaxed) {
            self.head.clone_from(&finished.bytes);
        }
        (self.body_size, self.framed) = (0, 0);
        (self.front, self.front_sent) = (finished.bytes, 0);
        let head = self.front.len();
        let is_stream = info.version == Version::Http2;
        self.stream = is_stream.then(|| StreamFraming { head, ..StreamFraming::default() });
        (self.exceeds_content_length, self.is_truncated) = (false, false);
        self.keep_alive = finished.keep_alive;
        self.framing = Some(finished.framing);
    }

    /// Queues a whole body and its end. Does nothing for a stream.
    pub(crate) fn push_body(&mut self, body: Body) {
        match body {
            Body::Empty => {}
            Body::Bytes(bytes) => self.push(bytes),
            Body::File { file, offset, length } => self.push_file(file, offset, length),
            Body::Stream { .. } => return,
        }
        self.push_end();
    }

    /// Frames and queues one chunk of the body. An empty chunk queues nothing.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let length = bytes.as_ref().len();
        let Some(framing) = self.framing.as_mut().filter(|framing| framing.wants_body()) else { return };
        let frame = framing.encode(length);
        self.exceeds_content_length |= frame.len < length;
        self.count(frame.prefix.len() + frame.suffix.len(), frame.len as u64);
        self.push_copy(&frame.prefix);
        if frame.len <= COPY_LIMIT {
            self.push_copy(&bytes.as_ref()[..frame.len]);
        } else {
            self.queued += length;
            self.queue.push_back(Segment::Bytes { bytes, sent: 0, end: frame.len });
        }
        self.push_copy(frame.suffix);
    }

    /// Frames and queues a range of a file as one chunk of the body.
    pub(crate) fn push_file(&mut self, file: File, offset: u64, length: u64) {
        let Some(framing) = self.framing.as_mut().filter(|framing| framing.wants_body()) else { return };
        let frame = framing.encode(usize::try_from(length).unwrap_or(usize::MAX));
        let left = frame.len as u64;
        self.count(frame.prefix.len() + frame.suffix.len(), left);
        self.push_copy(&frame.prefix);
        if left > 0 {
            let range = FileRange { file: Arc::new(file), offset, left, is_spool: false };
            self.queue.push_back(Segment::File(range));
        }
        self.push_copy(frame.suffix);
    }

    /// Queues bytes of a response that another process has framed.
    pub(crate) fn push_framed(&mut self, bytes: Vec<u8>) {
        if bytes.len() <= COPY_LIMIT {
            return self.push_copy(&bytes);
        }
        self.queued += bytes.len();
        let end = bytes.len();
        self.queue.push_back(Segment::Bytes { bytes: bytes.into(), sent: 0, end });
    }

    /// Queues a range of a file that another process has framed.
    pub(crate) fn push_framed_file(&mut self, file: File, offset: u64, length: u64) {
        let range = FileRange { file: Arc::new(file), offset, left: length, is_spool: false };
        self.queue.push_back(Segment::File(range));
    }

    /// Queues the end of the body, if the body is complete.
    pub(crate) fn push_end(&mut self) {
        if let Some(Ok(end)) = self.framing.as_ref().map(Framing::end) {
            if let Some(stream) = &mut self.stream {
                stream.is_complete = true;
                return;
            }
            self.count(end.len(), 0);
            self.push_copy(end);
        }
    }

    /// A small response, all of which is queued.
    pub(crate) fn into_encoded(self) -> EncodedResponse {
        let mut head = self.front;
        let length = self.stream.map_or(head.len(), |stream| stream.head);
        let body = head.split_off(length);
        EncodedResponse { status: self.status, head, body }
    }

    /// Whether the response has a body that may continue.
    pub(crate) fn wants_more(&self) -> bool {
        self.framing.as_ref().is_none_or(Framing::wants_body) && !self.exceeds_content_length
    }

    /// Whether the queue is so small that it may wait briefly for more.
    pub(crate) fn can_coalesce(&self) -> bool {
        self.queue.is_empty() && self.front_sent == 0 && (1..COALESCE_LIMIT).contains(&self.front.len())
    }

    /// Whether the queue is small and in memory, so that it may wait briefly to be sent together with other responses.
    pub(crate) fn can_batch(&self) -> bool {
        self.held() <= SEGMENT_SIZE
            && self.queue.iter().all(|segment| matches!(segment, Segment::Bytes { .. }))
    }

    /// Whether the body ended before its Content-Length, or was truncated, so that the client must see an unclean end.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.is_truncated || self.framing.as_ref().is_some_and(|framing| framing.end().is_err())
    }

    /// Whether the close of the connection marks the end of the body.
    pub(crate) fn ends_by_close(&self) -> bool {
        self.framing.as_ref().is_some_and(Framing::ends_by_close)
    }

    /// Sends until the queue is empty, the socket is full or `limit` bytes are sent. No system call gets more than the
    /// rest of the limit, because a fast reader would accept everything.
    pub(crate) fn write(&mut self, socket: &ClientSocket, limit: usize) -> io::Result<Progress> {
        if self.stream.is_some() {
            return self.write_stream(socket, limit);
        }
        let mut sent = 0;
        loop {
            let wrote = if self.queue.is_empty() {
                if self.front_sent == self.front.len() {
                    return Ok(Progress::Sent);
                }
                socket.send(&self.front[self.front_sent..], false)
            } else {
                self.write_segments(socket, limit - sent)
            };
            match wrote {
                Ok(count) => {
                    self.advance(count);
                    sent += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(error) => return Err(error),
            }
            if sent >= limit {
                return Ok(if self.is_empty() { Progress::Sent } else { Progress::Paused });
            }
        }
    }

    /// Body bytes that the socket has accepted, without framing. Exact unless a chunked response was cut off: then the
    /// bytes of the framing are taken as evenly spread.
    pub(crate) fn body_sent(&self) -> u64 {
        let unsent = self.unsent();
        if unsent == 0 {
            return self.framed;
        }
        let sent = u128::from(self.body_size.saturating_sub(unsent)) * u128::from(self.framed);
        u64::try_from(sent / u128::from(self.body_size.max(1))).unwrap_or(self.framed)
    }

    /// The number of bytes in the queue.
    pub(crate) fn unsent(&self) -> u64 {
        let segments = self.queue.iter().map(|segment| match segment {
            Segment::Bytes { sent, end, .. } => (*end - *sent) as u64,
            Segment::File(range) => range.left,
        });
        (self.front.len() - self.front_sent) as u64 + segments.sum::<u64>()
    }

    /// Body bytes that were framed, sent or not, without framing.
    pub(crate) fn body_framed(&self) -> u64 {
        self.framed
    }

    /// Whether bytes are queued.
    fn has_body(&self) -> bool {
        let head = self.stream.as_ref().map_or(0, |stream| stream.head);
        !self.queue.is_empty() || self.front_sent.max(head) < self.front.len()
    }

    /// Whether there is nothing to send. With HTTP/2 a head alone is not sent.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_body() && self.stream.as_ref().is_none_or(|stream| stream.has_ended || !stream.is_complete)
    }

    /// Resets everything. Returns the buffer of the head for reuse.
    pub(crate) fn reset(&mut self) -> Vec<u8> {
        let front = std::mem::take(&mut self.front);
        *self = Self::default();
        front
    }

    fn count(&mut self, framing: usize, length: u64) {
        self.framed += length;
        self.body_size += framing as u64 + length;
    }

    fn push_copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.queue.is_empty() {
            return self.front.extend_from_slice(bytes);
        }
        self.queued += bytes.len();
        if let Some(Segment::Bytes { bytes: Bytes::Owned(last), end, .. }) = self.queue.back_mut()
            && last.len() == *end
            && last.len() + bytes.len() <= SEGMENT_SIZE
        {
            last.extend_from_slice(bytes);
            *end = last.len();
        } else {
            let end = bytes.len();
            self.queue.push_back(Segment::Bytes { bytes: Bytes::Owned(bytes.to_vec()), sent: 0, end });
        }
    }

    /// Sends the first segments in one system call: bytes together, a file range alone.
    fn write_segments(&mut self, socket: &ClientSocket, limit: usize) -> io::Result<usize> {
        let front = &self.front[self.front_sent..];
        if let (true, Some(Segment::File(range))) = (front.is_empty(), self.queue.front_mut()) {
            return range.send(socket, limit as u64);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let (mut count, mut left) = (0, limit);
        let mut precedes_file = false;
        let queued = self.queue.iter().map(|segment| match segment {
            Segment::Bytes { bytes, sent, end } => Some(&bytes.as_ref()[*sent..*end]),
            Segment::File(_) => None,
        });
        for slice in std::iter::once(Some(front)).chain(queued).take(MAX_SEGMENTS_PER_WRITE) {
            let Some(slice) = slice else {
                precedes_file = true;
                break;
            };
            let slice = &slice[..slice.len().min(left)];
            slices[count] = IoSlice::new(slice);
            (count, left) = (count + 1, left - slice.len());
        }
        socket.send_vectored(&slices[..count], precedes_file)
    }

    /// Removes `count` sent bytes from the front of the queue.
    fn advance(&mut self, mut count: usize) {
        let from_front = count.min(self.front.len() - self.front_sent);
        self.front_sent += from_front;
        if self.front_sent == self.front.len() {
            self.front.clear();
            self.front_sent = 0;
        }
        count -= from_front;
        while let Some(segment) = self.queue.front_mut() {
            match segment {
                Segment::Bytes { bytes, sent, end } => {
                    let taken = count.min(*end - *sent);
                    *sent += taken;
                    count -= taken;
                    if *sent < *end {
                        return;
                    }
                    self.queued -= bytes.as_ref().len();
                }
                // A file range keeps its own count.
                Segment::File(range) if range.left > 0 => return,
                Segment::File(_) => count = 0,
            }
            self.queue.pop_front();
        }
    }
}
