//! The TLS layer between a connection and its socket.
//!
//! Invariant: bytes count as sent only when all of their records have left. [`TlsTransport::send`] may encrypt bytes and then fail with
//! `WouldBlock`. The caller still has them at the front of its queue and calls again with the same bytes, as with OpenSSL's
//! `SSL_write`; they are counted when their records are gone. So an empty queue means that the client's kernel has everything.
//!
//! A child of `--fork` never uses a session: both processes would encrypt different bytes with the same keys and sequence numbers. It
//! sends through a [relay](crate::fork::relay), and its parent receives request bodies for it.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Write},
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use mlws_tls::{Session, SessionError, SessionFacts, TlsConfig};
use rustix::{
    buffer::spare_capacity,
    net::{SendAncillaryBuffer, SendFlags},
};

/// The size of one read from the socket.
const RECEIVE_SIZE: usize = 64 * 1024;
/// The most bytes of a file that are encrypted at a time.
const FILE_CHUNK: usize = 64 * 1024;
/// The first byte of a TLS record with a handshake message (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

thread_local! {
    /// The buffer for received records. A session takes it if it cannot process all of them at once.
    static RECEIVE_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static FILE_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub(crate) struct TlsTransport {
    state: Mutex<State>,
    facts: OnceLock<SessionFacts>,
}

#[derive(Debug)]
struct State {
    session: Session,
    /// Received bytes, from `processed` on not yet processed.
    received: Vec<u8>,
    processed: usize,
    /// The socket is at its end.
    is_at_end: bool,
    /// The client has sent something.
    has_begun: bool,
    /// Plaintext bytes that are encrypted and whose records have not all been sent.
    in_flight: usize,
}

/// How far a handshake is.
pub(crate) enum Handshake {
    Complete,
    /// The socket is empty or full.
    InProgress,
    /// The client has closed the connection.
    Ended,
    /// These bytes are not TLS.
    NotTls(Vec<u8>),
}

impl TlsTransport {
    pub(crate) fn new(config: &TlsConfig) -> io::Result<Self> {
        let state = State {
            session: Session::new(config).map_err(io::Error::other)?,
            received: Vec::new(),
            processed: 0,
            is_at_end: false,
            has_begun: false,
            in_flight: 0,
        };
        Ok(Self { state: Mutex::new(state), facts: OnceLock::new() })
    }

    /// What was negotiated. `None` before the end of the handshake.
    pub(crate) fn facts(&self) -> Option<&SessionFacts> {
        self.facts.get()
    }

    /// Whether the client has chosen HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.facts().is_some_and(|facts| facts.is_http2)
    }

    /// Whether the client has sent nothing yet.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.lock().has_begun
    }

    /// Adds bytes that were received before the TLS layer existed: what follows a PROXY header.
    pub(crate) fn unread(&self, bytes: Vec<u8>) {
        let mut state = self.lock();
        (state.received, state.processed) = (bytes, 0);
    }

    /// Advances the handshake as far as the socket allows.
    pub(crate) fn handshake(&self, socket: &OwnedFd) -> io::Result<Handshake> {
        let mut state = self.lock();
        loop {
            if state.is_processed() {
                match state.receive(socket) {
                    Ok(0) => return Ok(Handshake::Ended),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        state.flush_or_wait(socket)?;
                        return Ok(Handshake::InProgress);
                    }
                    Err(error) => return Err(error),
                }
            }
            if !state.has_begun && state.received.get(state.processed) != Some(&HANDSHAKE_RECORD) {
                let at = std::mem::take(&mut state.processed);
                return Ok(Handshake::NotTls(std::mem::take(&mut state.received).split_off(at)));
            }
            state.has_begun = true;
            state.process(socket)?;
            state.flush_or_wait(socket)?;
            if !state.session.is_handshaking() {
                self.facts.get_or_init(|| state.session.facts());
                return Ok(Handshake::Complete);
            }
            if state.session.peer_has_closed() {
                return Ok(Handshake::Ended);
            }
        }
    }

    /// Passes at most `limit` decrypted bytes to `sink`, which returns how many it takes. Returns their number, and whether there may
    /// be more without an event of the socket. 0 means the end of the input.
    pub(crate) fn read(
        &self,
        socket: &OwnedFd,
        limit: usize,
        mut sink: impl FnMut(&[u8]) -> usize,
    ) -> io::Result<(usize, bool)> {
        let mut state = self.lock();
        let mut count = 0;
        // The result of an earlier read says nothing about the socket: an event may have come since.
        let mut is_socket_empty = false;
        loop {
            let plaintext = state.session.plaintext();
            if !plaintext.is_empty() {
                let offered = plaintext.len().min(limit - count);
                let taken = if offered == 0 { 0 } else { sink(&plaintext[..offered]) };
                state.session.consume(taken);
                count += taken;
                if taken < offered || count == limit {
                    return Ok((count, true));
                }
            } else if !state.is_processed() {
                state.process(socket)?;
                // The answer to a request of the client to update keys. It need not leave now.
                state.flush_or_wait(socket)?;
            } else if state.is_at_end || state.session.peer_has_closed() {
                return Ok((count, true));
            } else if count > 0 && is_socket_empty {
                return Ok((count, false));
            } else {
                match state.receive(socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && count > 0 => {
                        return Ok((count, false));
                    }
                    received => is_socket_empty = received? < RECEIVE_SIZE,
                }
            }
        }
    }

    /// Encrypts and sends bytes (see the invariant of this module).
    pub(crate) fn send(&self, socket: &OwnedFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.lock();
        if let Some(sent) = state.finish_in_flight(socket)? {
            return Ok(sent);
        }
        state.in_flight = state.session.encrypt(slices);
        Ok(state.finish_in_flight(socket)?.unwrap_or(0))
    }

    /// Encrypts and sends bytes of a file from `offset` on, at most `limit`.
    pub(crate) fn send_file(
        &self,
        socket: &OwnedFd,
        file: BorrowedFd<'_>,
        offset: u64,
        limit: usize,
    ) -> io::Result<usize> {
        let mut state = self.lock();
        if let Some(sent) = state.finish_in_flight(socket)? {
            return Ok(sent);
        }
        FILE_BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.reserve(FILE_CHUNK);
            let limit = limit.min(FILE_CHUNK);
            rustix::io::retry_on_intr(|| rustix::io::pread(file, spare_capacity(buffer), offset))?;
            buffer.truncate(limit);
            state.in_flight = state.session.encrypt(&[IoSlice::new(buffer)]);
            Ok(state.finish_in_flight(socket)?.unwrap_or(0))
        })
    }

    /// Sends records that could not be sent before.
    pub(crate) fn flush(&self, socket: &OwnedFd) -> io::Result<()> {
        self.lock().flush_or_wait(socket)
    }

    /// Announces the end of the data (`close_notify`, RFC 8446, section 6.1), if the socket accepts it.
    pub(crate) fn close(&self, socket: &OwnedFd) {
        let mut state = self.lock();
        if state.has_begun {
            state.session.close();
            let _ = state.flush(socket); // the connection ends in any case
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_processed(&self) -> bool {
        self.processed == self.received.len()
    }

    /// Reads from the socket. All bytes received before must be processed.
    fn receive(&mut self, socket: &OwnedFd) -> io::Result<usize> {
        let mut buffer = RECEIVE_BUFFER.take();
        buffer.clear();
        buffer.reserve(RECEIVE_SIZE);
        let received = rustix::io::retry_on_intr(|| rustix::io::read(socket, spare_capacity(&mut buffer)));
        self.is_at_end = received == Ok(0);
        if received.is_ok_and(|count| count > 0) {
            (self.received, self.processed) = (buffer, 0);
        } else {
            RECEIVE_BUFFER.set(buffer);
        }
        Ok(received?)
    }

    /// Processes received bytes until there is plaintext. An error ends the session; the client gets an alert.
    fn process(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let mut rest = &self.received[self.processed..];
        let processed = self.session.feed(&mut rest);
        self.processed = self.received.len() - rest.len();
        if self.is_processed() {
            self.processed = 0;
            let mut buffer = std::mem::take(&mut self.received);
            buffer.clear();
            RECEIVE_BUFFER.set(buffer);
        }
        processed.map_err(|error| {
            let _ = self.flush(socket); // best effort: the connection is closed in any case
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }

    /// Sends records. `WouldBlock` if the socket does not accept all of them.
    fn flush(&mut self, socket: &OwnedFd) -> io::Result<()> {
        while self.session.has_records() {
            self.session.write_records(&mut SocketWriter(socket))?;
        }
        Ok(())
    }

    /// Like [`flush`](Self::flush), but a full socket is no error: its next event, or the next response, sends the rest.
    fn flush_or_wait(&mut self, socket: &OwnedFd) -> io::Result<()> {
        match self.flush(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            flushed => flushed,
        }
    }

    /// Sends what was encrypted before. Returns the number of plaintext bytes that have been sent by this, if there were any.
    fn finish_in_flight(&mut self, socket: &OwnedFd) -> io::Result<Option<usize>> {
        self.flush(socket)?;
        Ok(Some(std::mem::take(&mut self.in_flight)).filter(|count| *count > 0))
    }
}

/// Whether an error is the end of a session because of its client's certificate.
pub(crate) fn concerns_client_certificate(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<SessionError>());
    error.is_some_and(SessionError::concerns_client_certificate)
}

struct SocketWriter<'a>(&'a OwnedFd);

impl Write for SocketWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL))?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [bytes] = slices {
            return self.write(bytes);
        }
        let none = &mut SendAncillaryBuffer::default();
        Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(self.0, slices, none, SendFlags::NOSIGNAL))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
