//! Hand-over: a worker that drains passes its idle connections to the workers that go on, so that clients notice nothing.
//!
//! All workers of all generations share one queue, a pair of sockets that the master makes before it forks the first of them. A
//! message is one connection: its descriptor (`SCM_RIGHTS`) and what the server knows of it. Whoever serves takes connections from
//! the queue as it accepts them from a listener ([`crate::acceptor`]), by the same rules for an even load.
//!
//! Nothing blocks and nothing is lost. What finds no room in the queue stays with its worker and is served there. A message that
//! nobody has read yet outlives its sender. Invariant: a worker sends only after [`Command::HandOver`](crate::Command::HandOver), which
//! says that others receive; and if [`Command::Drain`](crate::Command::Drain) follows, it takes back what is still in the queue.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    str::FromStr,
    sync::{Arc, atomic::Ordering},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

use crate::{
    connection::socket::{ClientSocket, Peer},
    connection::{Connection, Phase},
    context::ServerContext,
};

/// The longest message: a path of a Unix socket has 108 bytes at most.
const LONGEST: usize = 512;
/// How many bytes of messages may wait in the queue. The system grants less, and counts its own bookkeeping: some hundred messages.
const QUEUE_BYTES: usize = 1 << 20;

/// The queue between workers that leave and workers that go on. Made before they are forked, and shared by all of them.
#[derive(Debug)]
pub struct HandoverQueue {
    sending: OwnedFd,
    receiving: OwnedFd,
}

/// A connection that was accepted, here or by the worker that has handed it over.
pub(crate) struct Arrival {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) listener: usize,
    pub(crate) handed_over: Option<HandedOver>,
}

/// What is special about a connection that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HandedOver {
    /// `Idle` or, before its first request, `Head`.
    phase: Phase,
    awaits_proxy: bool,
    /// A PROXY header has said that its client is unknown, so that nothing it sends is trusted.
    is_distrusted: bool,
    /// A reload has removed its listener.
    listener_is_gone: bool,
}

impl HandoverQueue {
    /// An empty queue.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (sending, receiving) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        sockopt::set_socket_send_buffer_size(&sending, QUEUE_BYTES)?;
        Ok(Self { sending, receiving })
    }

    /// Both ends, for a child that has no use for them.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.sending.as_raw_fd(), self.receiving.as_raw_fd()]
    }

    fn send(&self, socket: BorrowedFd<'_>, message: &str) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket];
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let message = [IoSlice::new(message.as_bytes())];
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.sending, &message, &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// The next connection; `WouldBlock` where there is none. `listeners` are the URLs of this worker's.
    pub(crate) fn receive(&self, listeners: &[String]) -> io::Result<Arrival> {
        loop {
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.receiving, &mut [0; 1], RecvFlags::PEEK))?;
            // Without a free descriptor the system would take the message and close the connection.
            drop(self.receiving.try_clone()?);
            let mut bytes = [0; LONGEST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::io::retry_on_intr(|| {
                let mut buffers = [IoSliceMut::new(&mut bytes)];
                rustix::net::recvmsg(&self.receiving, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
            })?;
            let mut sockets = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                _ => None,
            });
            let Some(socket) = sockets.next() else {
                log::error!(
                    "hand-over: a connection was lost, no descriptor was free (truncated: {})",
                    received.flags.contains(ReturnFlags::CTRUNC)
                );
                continue;
            };
            let message = bytes.get(..received.bytes).and_then(|bytes| std::str::from_utf8(bytes).ok());
            match message.and_then(|message| decode(message, listeners)) {
                Some((peer, listener, handed_over)) => {
                    return Ok(Arrival { socket, peer, listener, handed_over: Some(handed_over) });
                }
                None => log::error!("hand-over: invalid message {message:?}, its connection is closed"),
            }
        }
    }
}

/// What is polled: readable if there are connections to take.
impl AsFd for HandoverQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiving.as_fd()
    }
}

impl Arrival {
    /// The connection's socket as this server sees it, and what its [`Connection`] has to know.
    pub(crate) fn into_wire(self, context: &Arc<ServerContext>) -> (ClientSocket, Option<HandedOver>) {
        let mut socket = ClientSocket::new(self.socket, self.peer, self.listener, Arc::clone(context));
        if let Some(handed_over) = self.handed_over {
            socket.peer.is_trusted &= !handed_over.is_distrusted;
            socket.closes = handed_over.listener_is_gone;
        }
        (socket, self.handed_over)
    }
}

impl HandedOver {
    /// Puts a new connection into the state in which it left the other worker.
    pub(crate) fn restore(self, connection: &mut Connection) {
        (connection.phase, connection.awaits_proxy) = (self.phase, self.awaits_proxy);
    }
}

/// The sending side, in a worker that leaves.
pub(crate) struct Handover {
    queue: Arc<HandoverQueue>,
    /// The URLs of this worker's listeners.
    listeners: Arc<[String]>,
    /// There was no room for the last connection, and the queue has not shrunk since.
    is_full: bool,
    passed: usize,
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.passed > 0 {
            log::info!("idle connections handed over to other workers: {}", self.passed);
        }
    }
}

impl Handover {
    pub(crate) fn new(queue: Arc<HandoverQueue>, listeners: Arc<[String]>) -> Self {
        Self { queue, listeners, is_full: false, passed: 0 }
    }

    /// Passes a connection on, if it can be: then it only has to be forgotten here.
    pub(crate) fn pass_on(&mut self, connection: &Connection) -> bool {
        let (socket, context) = (connection.socket(), connection.context());
        if self.is_full && connection.is_idle() {
            // Others do not take them: from a certain time on each response is the last.
            context.draining.fetch_or(context.must_close_connections(), Ordering::Relaxed);
        }
        if self.is_full || !is_transferable(connection) {
            return false;
        }
        let Some(message) = encode(connection, &self.listeners) else { return false };
        match self.queue.send(socket.as_fd(), &message) {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.is_full = true;
                if error.kind() != io::ErrorKind::WouldBlock {
                    log::warn!("hand-over: idle connections stay with this worker for now: {error}");
                }
            }
        }
        !self.is_full
    }

    /// Whether it makes sense to try more.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_full
    }

    /// The queue has shrunk.
    pub(crate) fn try_again(&mut self) {
        self.is_full = false;
    }

    /// What to poll for room.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.queue.sending.as_raw_fd()
    }

    /// Nobody receives any more: the next connection that is still in the queue.
    pub(crate) fn take_back(&self) -> Option<Arrival> {
        match self.queue.receive(&self.listeners) {
            Ok(arrival) => Some(arrival),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                log::error!("hand-over: connections in the queue are closed: {error}");
                None
            }
        }
    }
}

/// Nothing of a request is here, and nothing of a response is left to do.
fn is_transferable(connection: &Connection) -> bool {
    connection.is_idle()
        && !connection.readable
        && !connection.peer_done
        && !connection.socket().closes
        && !connection.socket().is_forfeited()
}

/// In words, the last of which may contain spaces.
fn encode(connection: &Connection, listeners: &[String]) -> Option<String> {
    let socket = connection.socket();
    let peer = &socket.peer;
    let is_distrusted = !peer.is_trusted && socket.context.settings.trusted.include(peer.ip);
    let text = format!(
        "{} {} {} {} {} {} {}",
        if connection.phase == Phase::Idle { "idle" } else { "new" },
        if connection.awaits_proxy { "proxy" } else { "-" },
        if is_distrusted { "distrusted" } else { "-" },
        peer.ip.map_or_else(|| "-".into(), |ip| ip.to_string()),
        peer.port,
        peer.destination.map_or_else(|| "-".into(), |destination| destination.to_string()),
        listeners.get(socket.listener)?,
    );
    (text.len() <= LONGEST).then_some(text)
}

fn decode(message: &str, listeners: &[String]) -> Option<(Peer, usize, HandedOver)> {
    let mut words = message.splitn(7, ' ');
    let phase = if flag(words.next()?, "idle", "new")? { Phase::Idle } else { Phase::Head };
    let awaits_proxy = flag(words.next()?, "proxy", "-")?;
    let is_distrusted = flag(words.next()?, "distrusted", "-")?;
    let ip = optional::<IpAddr>(words.next()?)?;
    let port = words.next()?.parse().ok()?;
    let destination = optional::<SocketAddr>(words.next()?)?;
    let url = words.next()?;
    let found = listeners.iter().position(|listener| listener == url);
    let handed_over = HandedOver { phase, awaits_proxy, is_distrusted, listener_is_gone: found.is_none() };
    Some((Peer { destination, ..Peer::new(ip, port) }, found.unwrap_or(0), handed_over))
}

fn flag(word: &str, yes: &str, no: &str) -> Option<bool> {
    (word == yes || word == no).then_some(word == yes)
}

/// `Some(None)` for a value that is absent.
#[expect(clippy::option_option, reason = "a word that is wrong is not one that says nothing")]
fn optional<T: FromStr>(word: &str) -> Option<Option<T>> {
    if word == "-" { Some(None) } else { word.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners() -> Vec<String> {
        ["http://127.0.0.1:80", "unix:/run/a b.sock"].map(String::from).into()
    }

    #[test]
    fn a_message_says_all_that_a_worker_knows_of_a_connection() {
        let message = "idle - distrusted 2001:db8::1 4711 [::1]:443 unix:/run/a b.sock";
        let (peer, listener, handed_over) = decode(message, &listeners()).unwrap();
        assert_eq!((peer.address.as_str(), peer.port), ("2001:db8::1", 4711));
        assert_eq!(peer.destination, Some("[::1]:443".parse().unwrap()));
        assert_eq!(listener, 1);
        let HandedOver { phase, awaits_proxy, is_distrusted, listener_is_gone } = handed_over;
        assert_eq!((phase, awaits_proxy), (Phase::Idle, false));
        assert_eq!((is_distrusted, listener_is_gone), (true, false));
    }

    #[test]
    fn a_connection_of_a_listener_that_is_gone_comes_to_the_first() {
        let (peer, listener, handed_over) = decode("new proxy - - 0 - unix:/gone", &listeners()).unwrap();
        assert_eq!((peer.ip, peer.port, peer.destination), (None, 0, None));
        assert_eq!((handed_over.phase, handed_over.awaits_proxy), (Phase::Head, true));
        assert!(handed_over.listener_is_gone);
        assert_eq!(listener, 0);
    }

    #[test]
    fn what_is_no_message_is_none() {
        for message in
            ["", "idle", "idle - - x 1 - unix:/", "busy - - - 1 - unix:/", "idle - - - 70000 - unix:/"]
        {
            assert!(decode(message, &listeners()).is_none(), "{message}");
        }
    }
}
