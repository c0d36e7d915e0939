//! The connection to a client: its socket, and the TLS layer above it if there is one.
//!
//! The socket never blocks. Nothing here knows HTTP.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::atomic::{AtomicBool, Ordering},
};

use mlws_sys::ReadBuffer;
use mlws_tls::TlsConfig;
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec},
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown},
};

use super::tls_transport::{Handshake, TlsTransport, concerns_client_certificate};
use crate::peer::Peer;

/// What the peer has done with its side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    Open,
    /// It sends no more. It may still read: TCP does not say.
    HalfClosed,
    /// It has reset the connection, or closed a Unix socket.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Transport {
    socket: OwnedFd,
    /// The TLS session. `None` if bytes are sent as they are.
    tls: Option<Box<TlsTransport>>,
    /// The client must not take the end of the connection for a proper one.
    was_reset: AtomicBool,
}

impl Transport {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, tls: None, was_reset: AtomicBool::new(false) }
    }

    /// Bytes are encrypted from now on, by a session that begins with its handshake.
    pub(crate) fn start_tls(&mut self, config: &TlsConfig) -> io::Result<()> {
        self.tls = Some(Box::new(TlsTransport::new(config)?));
        Ok(())
    }

    /// Bytes are sent as they are from now on.
    pub(crate) fn abandon_tls(&mut self) {
        self.tls = None;
    }

    pub(crate) fn tls(&self) -> Option<&TlsTransport> {
        self.tls.as_deref()
    }

    /// Advances the TLS handshake as far as the socket allows.
    pub(crate) fn handshake(&self) -> io::Result<Handshake> {
        self.tls.as_ref().map_or(Ok(Handshake::Complete), |tls| tls.handshake(&self.socket))
    }

    /// Sends TLS records that the socket did not accept before.
    pub(crate) fn flush_records(&self) -> io::Result<()> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.flush(&self.socket))
    }

    /// Appends available bytes to `into`, up to its spare capacity. 0 means the end of the input. Also returns whether there may be
    /// more without an event of the socket.
    pub(crate) fn read(&self, into: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        let Some(tls) = &self.tls else { return Ok((self.read_raw(into)?, false)) };
        let limit = into.capacity() - into.len();
        tls.read(&self.socket, limit, |bytes| {
            into.extend_from_slice(bytes);
            bytes.len()
        })
    }

    /// The same for bytes before the TLS session.
    pub(crate) fn read_raw(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, spare_capacity(into)))?)
    }

    /// Reads at most `limit` bytes.
    pub(crate) fn read_limited(&self, into: &mut ReadBuffer<'_>, limit: usize) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => {
                let limit = limit.min(into.remaining());
                Ok(tls.read(&self.socket, limit, |bytes| into.append(bytes))?.0)
            }
            None => into.read_from(&self.socket, limit),
        }
    }

    /// Reads available bytes, up to the length of `scratch`, and discards them.
    pub(crate) fn discard(&self, scratch: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => Ok(tls.read(&self.socket, scratch.len(), <[u8]>::len)?.0),
            None => self.discard_raw(scratch),
        }
    }

    /// The same for bytes of a connection that has ended, without decrypting them.
    pub(crate) fn discard_raw(&self, scratch: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.socket, scratch, RecvFlags::empty())?.0)
    }

    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => tls.send(&self.socket, &[IoSlice::new(bytes)]),
            None => Ok(rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, bytes, flags(more)))?),
        }
    }

    /// The same for several slices. `more` announces that a file follows immediately.
    pub(crate) fn send_vectored(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let none = &mut SendAncillaryBuffer::default();
        match &self.tls {
            Some(tls) => tls.send(&self.socket, slices),
            None => Ok(rustix::io::retry_on_intr(|| {
                rustix::net::sendmsg(&self.socket, slices, none, flags(more))
            })?),
        }
    }

    /// Sends a part of a file from `offset` on: with sendfile(2), or encrypted.
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: u64, limit: usize) -> io::Result<usize> {
        let mut at = offset;
        match &self.tls {
            Some(tls) => tls.send_file(&self.socket, file, offset, limit),
            None => Ok(rustix::io::retry_on_intr(|| {
                rustix::fs::sendfile(&self.socket, file, Some(&mut at), limit)
            })?),
        }
    }

    /// What the peer has done with its side, as far as the kernel knows.
    pub(crate) fn peer_state(&self) -> PeerState {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let polled =
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut sockets, Some(&Timespec::default())));
        let events = sockets[0].revents();
        if polled.is_err() || events.intersects(PollFlags::HUP | PollFlags::ERR) {
            PeerState::Closed
        } else if events.contains(PollFlags::RDHUP) {
            PeerState::HalfClosed
        } else {
            PeerState::Open
        }
    }

    /// In a forked child: replaces the socket, which belongs to the parent from now on, by a closed one.
    pub(crate) fn release(&self) -> io::Result<()> {
        let (closed, _) = UnixStream::pair()?;
        mlws_sys::replace_descriptor(&self.socket, &closed)
    }

    /// Tells the peer that the connection ends properly, before it is closed. Does nothing after a reset.
    pub(crate) fn close_tls(&self) {
        if let Some(tls) = self.tls.as_ref().filter(|_| !self.was_reset.load(Ordering::Relaxed)) {
            tls.close(&self.socket);
        }
    }

    /// Tells the peer that no more bytes follow.
    pub(crate) fn shutdown_write(&self) {
        self.close_tls();
        self.shutdown_write_raw();
    }

    /// The same below TLS.
    pub(crate) fn shutdown_write_raw(&self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }

    /// Closes the connection for the peer, even if another process holds a copy of the socket.
    pub(crate) fn shutdown(&self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    /// Resets the connection, so that the peer can tell this from a clean end, even if another process holds a copy of the socket.
    pub(crate) fn reset(&self) {
        self.was_reset.store(true, Ordering::Relaxed);
        // Connecting to AF_UNSPEC resets a TCP connection (connect(2)). Unix sockets have no reset.
        let _ = rustix::net::connect_unspec(&self.socket);
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn flags(more: bool) -> SendFlags {
    if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL }
}

/// Logs why a TLS session has ended.
pub(crate) fn log_tls_error(error: &io::Error, peer: &Peer) {
    let level = if concerns_client_certificate(error) { log::Level::Info } else { log::Level::Debug };
    log::log!(level, "TLS connection from {} failed: {error}", peer.name());
}

/// The same if TLS is the reason of a failed read.
pub(crate) fn log_read_error(error: &io::Error, peer: &Peer) {
    if error.kind() == io::ErrorKind::InvalidData {
        log_tls_error(error, peer);
    }
}
