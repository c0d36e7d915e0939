//! A request over HTTP/2: one stream of a connection.
//!
//! Its [`Connection`] is created with a complete head and ends with the response. The phases between are those of HTTP/1.

use std::{io, sync::Arc, time::Instant};

use mlws_http1::{Head, Length, Version};
use mlws_http2::Head as StreamHead;

use super::{
    Connection, Next, Phase,
    read::{HttpError, MAX_BYTES_PER_ITERATION},
    shared_session::Permit,
    socket::ClientSocket,
    stream_socket::StreamSocket,
    transport::Transport,
};
use crate::{App, peer::Peer};

impl Connection {
    /// The request of a new stream, whose head is complete.
    pub(crate) fn of_stream(
        token: usize,
        socket: ClientSocket,
        head: StreamHead,
        app: &Arc<dyn App>,
        now: Instant,
    ) -> Self {
        let mut connection = Self::new(token, socket, app, now);
        connection.phase = Phase::Body { received: 0 };
        let StreamHead { bytes, method, target, path, query, host, fields, content_length, .. } = head;
        let request = &mut connection.request;
        request.head = Head {
            method,
            target,
            path,
            query,
            host: Some(host),
            version: Version::Http2,
            fields,
            body: content_length.map_or(Length::Chunked, Length::Known),
            keep_alive: true,
            expect_continue: head.expect_continue,
            len: bytes.len(),
        };
        request.body.bytes = bytes;
        request.body.begin_at(request.head.len);
        request.is_head = request.method() == "HEAD";
        connection.parsed = request.head.len;
        connection.ask_for_body();
        connection
    }

    /// Receives the body until the app can be called, the request must be rejected, or nothing more has arrived.
    pub(super) fn receive_stream(&mut self, now: Instant) -> Next {
        let mut left = MAX_BYTES_PER_ITERATION;
        loop {
            match self.read_stream(now) {
                Ok(Some(count)) if count < left => left -= count,
                Ok(Some(_)) => return Next::Wait,
                Ok(None) => return Next::Run,
                Err(StreamError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness.readable = false;
                    return match self.begin_upload(now) {
                        Ok(true) => Next::Run,
                        Ok(false) => Next::Wait,
                        Err(error) => self.reject(error.status, &error.message, now),
                    };
                }
                Err(StreamError::Io(_)) => return Next::Close,
                Err(StreamError::Http(error)) => return self.reject(error.status, &error.message, now),
            }
        }
    }

    /// Reads a part of the body and returns its size, or `None` if the request is complete.
    fn read_stream(&mut self, now: Instant) -> Result<Option<usize>, StreamError> {
        // Most requests have no body, so no memory is needed for one. Nothing can arrive meanwhile: the event loop runs this.
        let available = self.socket().stream().map_or(0, StreamSocket::available);
        let count = self.read(self.read_size().min(available)).map_err(StreamError::Io)?;
        let end = self.request.body.bytes.len();
        if count == 0 {
            if self.request.body.received() == 0 {
                self.request.head.body = Length::Known(0);
            }
            self.request.body.finish().map_err(HttpError::from)?;
            self.enter(Phase::Complete, now);
            return Ok(None);
        }
        if let Phase::Body { received } = &mut self.phase {
            *received += count as u64;
        }
        self.store_body(end - count, end).map_err(HttpError::from)?;
        self.parsed = end;
        self.compact();
        Ok(Some(count))
    }

    /// Takes the transport out, with the peer and what was received, to continue with HTTP/2.
    pub(crate) fn into_transport(mut self) -> Option<(Transport, Peer, Vec<u8>)> {
        let received = std::mem::take(&mut self.request.body.bytes);
        let socket = Arc::clone(&self.request.socket);
        drop(self);
        let (transport, peer) = Arc::into_inner(socket)?.into_transport()?;
        Some((transport, peer, received))
    }

    /// The right to be queued for the app, which a stream gives back when the app has returned.
    pub(crate) fn set_permit(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Gives that right back.
    pub(crate) fn release_permit(&mut self) {
        self.permit = None;
    }
}

enum StreamError {
    Io(io::Error),
    Http(HttpError),
}

impl From<HttpError> for StreamError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}
