//! The output of a response over HTTP/2: the session of the connection gets head, body and end.

use std::io;

use super::{Progress, ResponseWriter, StreamFraming, segment::Segment};
use crate::connection::socket::ClientSocket;

impl ResponseWriter {
    /// Queues the head of a response over HTTP/2 that another process has created.
    pub(crate) fn push_stream_head(&mut self, status: u16, head: Vec<u8>) {
        self.status = status;
        self.stream = Some(StreamFraming { head: head.len(), ..StreamFraming::default() });
        (self.front, self.front_sent) = (head, 0);
    }

    /// The end of a response over HTTP/2, unless bytes of its body are missing.
    pub(crate) fn push_stream_end(&mut self) {
        let is_incomplete = self.is_incomplete();
        if let Some(stream) = &mut self.stream {
            stream.is_complete = !is_incomplete;
        }
    }

    /// [`write`](Self::write) for HTTP/2.
    pub(super) fn write_stream(&mut self, socket: &ClientSocket, limit: usize) -> io::Result<Progress> {
        let mut sent = 0;
        while !self.is_empty() {
            if sent >= limit {
                return Ok(Progress::Paused);
            }
            let has_body = self.has_body();
            let Some(stream) = &mut self.stream else { break };
            let is_complete = stream.is_complete;
            let head = std::mem::take(&mut stream.head);
            if head > 0 {
                stream.has_ended = is_complete && !has_body;
                let is_end = stream.has_ended;
                self.front_sent = head;
                socket.send_head(self.status, &self.front[..head], is_end)?;
                continue;
            }
            match self.write_stream_part(socket, is_complete) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(error) => return Err(error),
            }
            let has_body = self.has_body();
            if let Some(stream) = &mut self.stream {
                stream.has_ended = is_complete && !has_body;
            }
        }
        Ok(Progress::Sent)
    }

    /// Sends the first part of the queue, or the end of the body.
    fn write_stream_part(&mut self, socket: &ClientSocket, is_complete: bool) -> io::Result<usize> {
        let front = &self.front[self.front_sent..];
        let is_last = is_complete && self.queue.len() <= usize::from(front.is_empty());
        let count = match self.queue.front_mut() {
            Some(Segment::Bytes { bytes, sent, end }) if front.is_empty() => {
                socket.send_data(&bytes.as_ref()[*sent..*end], is_last)?
            }
            Some(Segment::File(range)) if front.is_empty() => range.send_to_stream(socket, is_last)?,
            _ => socket.send_data(front, is_last)?,
        };
        self.advance(count);
        Ok(count)
    }
}
