//! One stream of an HTTP/2 connection, as a socket: what its client has sent, and how the response is sent.
//!
//! The event loop stores what arrives. The owner of the stream reads it: the event loop, or the thread that runs the request.

use std::{
    io::{self, ErrorKind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use mlws_http2::{Reason, ResponseHead, StreamId};
use mlws_sys::ReadBuffer;

use super::{shared_session::SharedSession, transport::Transport};
use crate::memory::MemoryBudget;

#[derive(Debug)]
pub(crate) struct StreamSocket {
    session: Arc<SharedSession>,
    id: StreamId,
    received: Mutex<ReceiveBuffer>,
    /// For threads that wait for the client.
    changed: Condvar,
}

/// What has arrived and was not read. The flow-control windows bound its size.
#[derive(Debug, Default)]
struct ReceiveBuffer {
    bytes: Vec<u8>,
    read: usize,
    /// The client has sent all of the request.
    is_complete: bool,
    /// The client has reset the stream, or the connection has ended.
    is_reset: bool,
    /// More of the response can be sent.
    is_writable: bool,
    /// The number of threads that wait for a change.
    waiting: usize,
}

impl StreamSocket {
    pub(crate) fn new(session: Arc<SharedSession>, id: StreamId) -> Self {
        Self { session, id, received: Mutex::default(), changed: Condvar::new() }
    }

    pub(crate) fn session(&self) -> &Arc<SharedSession> {
        &self.session
    }

    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.session.transport
    }

    pub(crate) fn body_memory(&self) -> &Arc<MemoryBudget> {
        &self.session.body_memory
    }

    /// The client has sent a part of the body.
    pub(crate) fn on_data(&self, bytes: &[u8]) {
        self.change(|received| received.bytes.extend_from_slice(bytes));
    }

    /// The client has sent the end of the request.
    pub(crate) fn on_end(&self) {
        self.change(|received| received.is_complete = true);
    }

    /// The stream no longer exists.
    pub(crate) fn on_reset(&self) {
        self.change(|received| received.is_reset = true);
    }

    /// More of the response can be sent.
    pub(crate) fn on_writable(&self) {
        self.change(|received| received.is_writable = true);
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.lock().is_reset
    }

    /// The number of bytes that have arrived and were not read.
    pub(crate) fn available(&self) -> usize {
        let received = self.lock();
        received.bytes.len() - received.read
    }

    /// Appends received bytes to `into`, up to its spare capacity. 0 means the end of the request. Also returns whether there may be
    /// more without an event.
    pub(crate) fn read(&self, into: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        let limit = into.capacity() - into.len();
        self.read_with(limit, |bytes| into.extend_from_slice(bytes))
    }

    /// Reads at most `limit` bytes for a thread, and lets the client send as many more.
    pub(crate) fn read_limited(&self, into: &mut ReadBuffer<'_>, limit: usize) -> io::Result<usize> {
        let limit = limit.min(into.remaining());
        let (count, _) = self.read_with(limit, |bytes| {
            into.append(bytes);
        })?;
        self.session.flush();
        Ok(count)
    }

    fn read_with(&self, limit: usize, sink: impl FnOnce(&[u8])) -> io::Result<(usize, bool)> {
        let mut received = self.lock();
        let available = &received.bytes[received.read..];
        let count = available.len().min(limit);
        if count == 0 {
            return match &*received {
                received if received.is_reset => Err(ErrorKind::ConnectionReset.into()),
                received if received.is_complete => Ok((0, true)),
                _ => Err(ErrorKind::WouldBlock.into()),
            };
        }
        sink(&available[..count]);
        received.read += count;
        let is_empty = received.read == received.bytes.len();
        if is_empty {
            (received.bytes, received.read) = (Vec::new(), 0);
        } else if received.read > received.bytes.len() / 2 {
            let read = std::mem::take(&mut received.read);
            received.bytes.drain(..read); // a reader that never catches up must not let the buffer grow
        }
        let has_more = !is_empty || received.is_complete || received.is_reset;
        drop(received);
        self.session.release(self.id, count);
        Ok((count, has_more))
    }

    /// Sends a head in the format of HTTP/1: a status line, which is ignored, and fields. An interim response is sent immediately.
    pub(crate) fn send_head(&self, status: u16, head: &[u8], end: bool) -> io::Result<()> {
        let is_interim = status < 200;
        let new = if is_interim { ResponseHead::interim } else { ResponseHead::new };
        let invalid = |error| io::Error::new(ErrorKind::InvalidData, error);
        let mut converted = new(status).map_err(invalid)?;
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                converted.field(&line[..colon], &line[colon + 1..]).map_err(invalid)?;
            }
        }
        self.session.respond(self.id, converted, end)?;
        if is_interim {
            self.session.flush();
        }
        Ok(())
    }

    /// Sends a part of the body. Returns how many bytes were accepted. If all were, `end` ends the response.
    pub(crate) fn send_data(&self, bytes: &[u8], end: bool) -> io::Result<usize> {
        self.lock().is_writable = false;
        self.session.data(self.id, bytes, end)
    }

    /// Sends everything that was queued.
    pub(crate) fn flush(&self) {
        self.session.flush();
    }

    /// Ends the stream before its response is complete. Does nothing if the stream has ended.
    pub(crate) fn reset(&self, reason: Reason) {
        self.flush(); // what was sent before would be discarded
        self.session.reset(self.id, reason);
        self.flush();
    }

    /// The stream ends now. If the response is incomplete, the client sees an error.
    pub(crate) fn abandon(&self) {
        self.session.reset(self.id, Reason::INTERNAL_ERROR);
    }

    /// No thread reads or waits from now on.
    pub(crate) fn close(&self) {
        self.on_reset();
    }

    /// Blocks until there are bytes to read, or the end of the request. `TimedOut` after `deadline`.
    pub(crate) fn wait_readable(&self, deadline: Instant) -> io::Result<()> {
        self.wait(deadline, |received| received.read < received.bytes.len() || received.is_complete)
    }

    /// Blocks until more of the response can be sent. `TimedOut` after `deadline`.
    pub(crate) fn wait_writable(&self, deadline: Instant) -> io::Result<()> {
        self.wait(deadline, |received| received.is_writable)
    }

    fn wait(&self, deadline: Instant, is_ready: impl Fn(&ReceiveBuffer) -> bool) -> io::Result<()> {
        let mut received = self.lock();
        while !is_ready(&received) && !received.is_reset {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            received.waiting += 1;
            received = self.changed.wait_timeout(received, left).unwrap_or_else(PoisonError::into_inner).0;
            received.waiting -= 1;
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut ReceiveBuffer)) {
        let mut received = self.lock();
        change(&mut received);
        // Notifying costs a system call even if no thread waits.
        if received.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ReceiveBuffer> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::Arc};

    use mlws_http2::Limits;

    use super::*;

    fn stream() -> StreamSocket {
        let (ours, _) = UnixStream::pair().unwrap();
        let (limits, memory) = (Arc::new(Limits::default()), MemoryBudget::new(0));
        let session = SharedSession::new(Transport::new(ours.into()), 0, limits, memory, Instant::now());
        StreamSocket::new(Arc::new(session), 1)
    }

    #[test]
    fn a_reader_that_never_catches_up_does_not_let_the_buffer_grow() {
        let stream = stream();
        let mut received = Vec::with_capacity(1000);
        stream.on_data(&[1; 1500]);
        for _ in 0..1000 {
            received.clear();
            assert!(matches!(stream.read(&mut received), Ok((1000, true))));
            stream.on_data(&[2; 1000]);
        }
        assert!(stream.lock().bytes.capacity() < 8000);
    }

    #[test]
    fn data_is_read_before_the_end_and_before_a_reset() {
        let stream = stream();
        let mut received = Vec::with_capacity(4);
        assert_eq!(stream.read(&mut received).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.on_data(b"data");
        stream.on_end();
        assert_eq!((stream.read(&mut received).unwrap(), &received[..]), ((4, true), &b"data"[..]));
        received.clear();
        assert_eq!(stream.read(&mut received).unwrap(), (0, true));
        stream.on_reset();
        assert_eq!(stream.read(&mut received).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(stream.wait_readable(Instant::now()).is_ok());
    }
}
