//! The queue through which workers hand over idle connections.
//!
//! A message is one connection: its descriptor (`SCM_RIGHTS`) and its state, as text.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    str::FromStr,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

use crate::peer::Peer;

/// The maximum length of a message in bytes. The path of a Unix socket has at most 108.
const MAX_MESSAGE: usize = 512;
/// In place of the address of a peer on a Unix socket that other users cannot connect to.
const PRIVATE_SOCKET: &str = "private";
/// The requested capacity of the queue in bytes. The kernel grants less and counts its own overhead: a few hundred messages.
const QUEUE_CAPACITY: usize = 1 << 20;

/// The queue between workers that stop and workers that keep serving. It is created before the workers are forked, and all share it.
#[derive(Debug)]
pub struct HandoverQueue {
    sending: OwnedFd,
    receiving: OwnedFd,
}

/// A connection that was accepted by this worker, or by the one that handed it over.
pub(crate) struct Arrival {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) listener: usize,
    pub(crate) handed_over: Option<HandedOver>,
}

/// What a connection that was handed over sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaits {
    ProxyHeader,
    FirstRequest,
    NextRequest,
}

impl Awaits {
    fn word(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy",
            Self::FirstRequest => "first",
            Self::NextRequest => "next",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::ProxyHeader, Self::FirstRequest, Self::NextRequest]
            .into_iter()
            .find(|awaits| awaits.word() == word)
    }
}

/// The state of a connection that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HandedOver {
    pub(crate) awaits: Awaits,
    /// A PROXY header declared the client unknown, so nothing that it sends is trusted.
    pub(crate) is_distrusted: bool,
    /// A reload has removed its listener.
    pub(crate) is_listener_gone: bool,
    /// Its listener required TLS.
    pub(crate) is_secure: bool,
}

impl HandoverQueue {
    /// Creates an empty queue.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (sending, receiving) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        sockopt::set_socket_send_buffer_size(&sending, QUEUE_CAPACITY)?;
        Ok(Self { sending, receiving })
    }

    /// Both ends, for children to close.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.sending.as_raw_fd(), self.receiving.as_raw_fd()]
    }

    /// What to poll for space in the queue.
    pub(crate) fn sending_end(&self) -> RawFd {
        self.sending.as_raw_fd()
    }

    /// Sends a connection. `WouldBlock` if the queue is full.
    pub(crate) fn send(
        &self,
        socket: BorrowedFd<'_>,
        peer: &Peer,
        listener: &str,
        state: HandedOver,
    ) -> io::Result<()> {
        let message = encode(peer, listener, state);
        if message.len() > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
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

    /// Receives the next connection. `WouldBlock` if there is none. `listeners` are the URLs of this worker's listeners.
    pub(crate) fn receive(&self, listeners: &[String]) -> io::Result<Arrival> {
        loop {
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.receiving, &mut [0; 1], RecvFlags::PEEK))?;
            // Without a free descriptor the kernel would remove the message and close the connection.
            drop(self.receiving.try_clone()?);
            let mut bytes = [0; MAX_MESSAGE];
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

/// Readable if the queue has connections.
impl AsFd for HandoverQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiving.as_fd()
    }
}

/// Six words. Only the last one, the URL of the listener, may contain spaces.
fn encode(peer: &Peer, listener: &str, state: HandedOver) -> String {
    format!(
        "{} {} {} {} {} {listener}",
        state.awaits.word(),
        if state.is_distrusted { "distrusted" } else { "-" },
        match peer.ip {
            Some(ip) => ip.to_string(),
            None if peer.is_on_private_socket => PRIVATE_SOCKET.into(),
            None => "-".into(),
        },
        peer.port,
        peer.destination.map_or_else(|| "-".into(), |destination| destination.to_string()),
    )
}

fn decode(message: &str, listeners: &[String]) -> Option<(Peer, usize, HandedOver)> {
    let mut words = message.splitn(6, ' ');
    let awaits = Awaits::from_word(words.next()?)?;
    let is_distrusted = match words.next()? {
        "distrusted" => true,
        "-" => false,
        _ => return None,
    };
    let (ip, is_on_private_socket) = match words.next()? {
        PRIVATE_SOCKET => (None, true),
        word => (optional::<IpAddr>(word)?, false),
    };
    let port = words.next()?.parse().ok()?;
    let destination = optional::<SocketAddr>(words.next()?)?;
    let url = words.next()?;
    let found = listeners.iter().position(|listener| listener == url);
    let is_secure = url.starts_with("https:");
    let state = HandedOver { awaits, is_distrusted, is_listener_gone: found.is_none(), is_secure };
    let peer = Peer { is_on_private_socket, destination, ..Peer::new(ip, port) };
    Some((peer, found.unwrap_or(0), state))
}

/// `Some(None)` if the value is absent.
#[expect(clippy::option_option, reason = "an invalid value differs from an absent one")]
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
    fn a_message_describes_a_connection_completely() {
        let message = "next distrusted 2001:db8::1 4711 [::1]:443 unix:/run/a b.sock";
        let (peer, listener, state) = decode(message, &listeners()).unwrap();
        assert_eq!((peer.address.as_str(), peer.port), ("2001:db8::1", 4711));
        assert_eq!(peer.destination, Some("[::1]:443".parse().unwrap()));
        assert_eq!(listener, 1);
        let expected = HandedOver {
            awaits: Awaits::NextRequest,
            is_distrusted: true,
            is_listener_gone: false,
            is_secure: false,
        };
        assert_eq!(state, expected);
        assert_eq!(encode(&peer, &listeners()[1], state), message);
    }

    #[test]
    fn a_connection_of_a_removed_listener_belongs_to_the_first() {
        let (peer, listener, state) = decode("proxy - - 0 - unix:/gone", &listeners()).unwrap();
        assert_eq!((peer.ip, peer.port, peer.destination), (None, 0, None));
        assert_eq!((state.awaits, state.is_listener_gone), (Awaits::ProxyHeader, true));
        assert_eq!(listener, 0);
    }

    #[test]
    fn a_private_socket_stays_private() {
        for (message, is_private) in
            [("next - private 0 - unix:/run/a b.sock", true), ("next - - 0 - unix:/run/a b.sock", false)]
        {
            let (peer, _, state) = decode(message, &listeners()).unwrap();
            assert_eq!((peer.ip, peer.is_on_private_socket), (None, is_private), "{message}");
            assert_eq!(encode(&peer, &listeners()[1], state), message);
        }
    }

    #[test]
    fn an_invalid_message_is_not_decoded() {
        for message in ["", "next", "next - x 1 - unix:/", "busy - - 1 - unix:/", "next - - 70000 - unix:/"] {
            assert!(decode(message, &listeners()).is_none(), "{message}");
        }
    }
}
