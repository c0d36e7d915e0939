//! How a response is sent, and how a thread waits for its client.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Channel, ClientSocket};
use crate::fork::relay_channel::RelaySender;

impl ClientSocket {
    /// Sends a part of the response. `BrokenPipe` if the watchdog has aborted it.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        self.claim_response()?;
        self.send_or_relay(|| self.transport().send(bytes, more), |relay| relay.send(&[IoSlice::new(bytes)]))
    }

    /// Sends an interim response of the application, in the format of HTTP/1. The response is not claimed. Returns how many bytes were
    /// accepted: all of them with HTTP/2.
    pub(crate) fn send_early(&self, status: u16, bytes: &[u8]) -> io::Result<usize> {
        match &self.channel {
            Channel::Connection(transport) => self
                .send_or_relay(|| transport.send(bytes, false), |relay| relay.send(&[IoSlice::new(bytes)])),
            Channel::Stream(stream) => self.send_or_relay(
                || stream.send_head(status, bytes, false).map(|()| bytes.len()),
                |relay| relay.send_head(status, bytes).map(|()| bytes.len()),
            ),
        }
    }

    /// Sends a part of the response. `more` announces that a file follows immediately.
    pub(crate) fn send_vectored(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        self.claim_response()?;
        self.send_or_relay(|| self.transport().send_vectored(slices, more), |relay| relay.send(slices))
    }

    /// Sends a part of a file as part of the response, by sendfile(2), and advances `offset`.
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: &mut u64, count: u64) -> io::Result<usize> {
        self.claim_response()?;
        let limit = usize::try_from(count).unwrap_or(usize::MAX).min(1 << 30);
        let to_socket = || self.transport().send_file(file, *offset, limit);
        let sent = self.send_or_relay(to_socket, |relay| relay.send_file(file, *offset, count))?;
        *offset += sent as u64;
        Ok(sent)
    }

    /// Starts the response to a request over HTTP/2. `head` is in the format of HTTP/1.
    pub(crate) fn send_head(&self, status: u16, head: &[u8], end: bool) -> io::Result<()> {
        let Some(stream) = self.stream() else { return Err(io::ErrorKind::Unsupported.into()) };
        self.claim_response()?;
        let to_relay = |relay: &RelaySender| relay.send_head(status, head).map(|()| 0);
        self.send_or_relay(|| stream.send_head(status, head, end).map(|()| 0), to_relay).map(drop)
    }

    /// Sends a part of the response to a request over HTTP/2. If all of it is accepted, `end` ends the response.
    pub(crate) fn send_data(&self, bytes: &[u8], end: bool) -> io::Result<usize> {
        let Some(stream) = self.stream() else { return Err(io::ErrorKind::Unsupported.into()) };
        self.claim_response()?;
        // A relay ends when its child is done.
        let to_relay = |relay: &RelaySender| {
            if bytes.is_empty() { Ok(0) } else { relay.send(&[IoSlice::new(bytes)]) }
        };
        self.send_or_relay(|| stream.send_data(bytes, end), to_relay)
    }

    /// Sends what HTTP/2 streams have queued. HTTP/1 queues nothing here.
    pub(crate) fn flush(&self) {
        if let Some(stream) = self.stream().filter(|_| !self.is_in_child()) {
            stream.flush();
        }
    }

    /// Sends to the client. A child whose client reads slowly sends through its parent from then on. With TLS or HTTP/2 a child always
    /// sends through its parent, which has the session.
    fn send_or_relay(
        &self,
        to_socket: impl FnOnce() -> io::Result<usize>,
        to_relay: impl FnOnce(&RelaySender) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(parent) = self.parent.get() else { return to_socket() };
        if let Some(relay) = parent.relay() {
            return to_relay(relay);
        }
        if self.has_session() {
            return to_relay(parent.start_relay()?);
        }
        match to_socket() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match parent.start_relay() {
                Ok(relay) => to_relay(relay),
                Err(failure) => {
                    log::warn!("no relay for a response, so its process waits for its client: {failure}");
                    Err(error)
                }
            },
            sent => sent,
        }
    }

    pub(super) fn relay(&self) -> Option<&RelaySender> {
        self.parent.get().and_then(|parent| parent.relay())
    }

    /// Whether the connection has a state that a child cannot use: that of TLS or HTTP/2.
    pub(crate) fn has_session(&self) -> bool {
        self.stream().is_some() || self.tls().is_some()
    }

    /// Sends `100 Continue`, if that is possible without waiting. Returns how many bytes of it were not sent.
    pub(crate) fn try_send_continue(&self) -> io::Result<usize> {
        let text = mlws_http1::CONTINUE;
        match &self.channel {
            Channel::Connection(transport) => Ok(text.len() - transport.send(text, false)?),
            Channel::Stream(stream) => stream.send_head(100, &[], false).map(|()| 0),
        }
    }

    /// Sends all of an interim response, in the format of HTTP/1. Blocks.
    pub(crate) fn send_all_interim(&self, status: u16, bytes: &[u8]) -> io::Result<()> {
        let transport = match &self.channel {
            Channel::Connection(transport) => transport,
            Channel::Stream(stream) => return stream.send_head(status, bytes, false),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match transport.send(rest, false) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_writable()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Blocks until the socket accepts bytes. `TimedOut` after the write timeout.
    pub(crate) fn wait_writable(&self) -> io::Result<()> {
        let deadline = Instant::now() + self.context.settings.write_timeout;
        self.while_waiting(|| {
            if let Some(stream) = self.stream().filter(|_| !self.is_in_child()) {
                return stream.wait_writable(deadline);
            }
            loop {
                match self.poll(PollFlags::OUT, deadline) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })
    }

    /// Blocks until there are bytes to read, or the end of the input. `TimedOut` after `deadline`, `Interrupted` by a signal.
    pub(crate) fn wait_readable(&self, deadline: Instant) -> io::Result<()> {
        self.while_waiting(|| match &self.channel {
            Channel::Connection(_) => self.poll(PollFlags::IN, deadline),
            Channel::Stream(stream) => stream.wait_readable(deadline),
        })
    }

    /// Runs `wait`, whose time does not count as the app's.
    fn while_waiting(&self, wait: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.timer.exclude(|| match self.parent.get() {
            Some(parent) => parent.progress.while_waiting_for_client(wait),
            None => wait(),
        })
    }

    fn poll(&self, events: PollFlags, deadline: Instant) -> io::Result<()> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(remaining).map_err(|_| io::ErrorKind::InvalidInput)?;
        let relay = self.relay().filter(|_| events == PollFlags::OUT);
        let socket = relay.map_or_else(|| self.transport().as_fd(), AsFd::as_fd);
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(socket, events)], Some(&timeout)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the client reads: more can be sent to it now.
    pub(crate) fn is_writable(&self) -> bool {
        match self.stream().filter(|_| !self.is_in_child()) {
            Some(stream) => stream.session().blocked_since().is_none(),
            None => self.poll(PollFlags::OUT, Instant::now()).is_ok(),
        }
    }
}
