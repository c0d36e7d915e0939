//! The control channel between a master and one of its workers: a socket pair that carries messages of one byte.
//!
//! Each direction has its own enum of messages. A closed channel carries information too: a worker stops when its master
//! closes the channel or dies, because nothing enforces the worker's timeouts any more.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, FdFlags, dup2, fcntl_setfd, read, retry_on_intr, write};
use rustix::process::Signal;

use crate::messages;

/// A message that is encoded as one byte.
pub(crate) trait Message: Copy {
    fn to_byte(self) -> u8;
    fn from_byte(byte: u8) -> Option<Self>;
}

macro_rules! message {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $byte:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $name {
            $($variant = $byte,)*
        }

        impl Message for $name {
            fn to_byte(self) -> u8 {
                self as u8
            }

            fn from_byte(byte: u8) -> Option<Self> {
                [$(Self::$variant),*].into_iter().find(|message| *message as u8 == byte)
            }
        }
    };
}

message! {
    /// What a worker reports to its master.
    /// The last ones are signals that a nested master has received.
    ToMaster {
        Ready = b'!',
        RequestRecycle = b'w',
        RequestReload = b'r',
        Hup = b'H',
        Term = b'T',
        Int = b'I',
        Usr1 = b'1',
        Usr2 = b'2',
        TtIn = b'+',
        TtOu = b'-',
    }
}

message! {
    /// What a master orders its workers to do. It orders an immediate stop by closing the channel.
    ToWorker { Drain = b'.', HandOver = b'>', ReopenLogs = b'l', Refresh = b'r', IncreaseWorkers = b'+', DecreaseWorkers = b'-', }
}

const FORWARDED: [(Signal, ToMaster); 7] = [
    (Signal::HUP, ToMaster::Hup),
    (Signal::TERM, ToMaster::Term),
    (Signal::INT, ToMaster::Int),
    (Signal::USR1, ToMaster::Usr1),
    (Signal::USR2, ToMaster::Usr2),
    (Signal::TTIN, ToMaster::TtIn),
    (Signal::TTOU, ToMaster::TtOu),
];

impl ToMaster {
    /// The message by which a nested master forwards a signal to its parent: an application that signals the parent of its worker
    /// means the master. QUIT is not forwarded, because the master itself sends it to stop a nested master.
    pub(crate) fn forwarding(signal: Signal) -> Option<ToMaster> {
        FORWARDED.into_iter().find(|(forwarded, _)| *forwarded == signal).map(|(_, message)| message)
    }

    /// The signal that this message forwards.
    pub(crate) fn forwarded_signal(self) -> Option<Signal> {
        FORWARDED.into_iter().find(|(_, message)| *message == self).map(|(signal, _)| signal)
    }
}

/// The worker's end.
pub(crate) type ChannelToMaster = ControlChannel<ToMaster, ToWorker>;
/// The master's end.
pub(crate) type ChannelToWorker = ControlChannel<ToWorker, ToMaster>;

/// One end of the channel: sends `S` and receives `R`. Never blocks.
#[derive(Debug)]
pub(crate) struct ControlChannel<S, R> {
    socket: OwnedFd,
    is_closed: bool,
    messages: PhantomData<(S, R)>,
}

/// What [`ControlChannel::recv`] returns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChannelEvent<R> {
    Message(R),
    /// The peer has closed its end. Nothing follows.
    Closed,
}

/// Creates a channel.
pub(crate) fn channel() -> io::Result<(ChannelToWorker, ChannelToMaster)> {
    let (master, worker) = UnixStream::pair()?;
    master.set_nonblocking(true)?;
    worker.set_nonblocking(true)?;
    Ok((ControlChannel::new(master.into()), ControlChannel::new(worker.into())))
}

impl<S: Message, R: Message> ControlChannel<S, R> {
    fn new(socket: OwnedFd) -> Self {
        ControlChannel { socket, is_closed: false, messages: PhantomData }
    }

    /// Sends a message, unless the channel is closed or full. A closed channel shows in `recv`. A full one holds unread
    /// messages of the same kinds.
    pub(crate) fn send(&self, message: S) {
        if self.is_closed {
            return;
        }
        match retry_on_intr(|| write(&self.socket, &[message.to_byte()])) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET | Errno::AGAIN) => {}
            Err(error) => messages::channel_write_failed(error),
        }
    }

    /// Returns the next message, if there is one. Reports once that the peer has closed the channel.
    pub(crate) fn recv(&mut self) -> Option<ChannelEvent<R>> {
        while !self.is_closed {
            let mut byte = [0];
            match retry_on_intr(|| read(&self.socket, &mut byte)) {
                Ok(1) => {
                    if let Some(message) = R::from_byte(byte[0]) {
                        return Some(ChannelEvent::Message(message));
                    }
                }
                Err(Errno::AGAIN) => return None,
                Ok(_) | Err(_) => {
                    self.is_closed = true;
                    return Some(ChannelEvent::Closed);
                }
            }
        }
        None
    }

    /// The descriptor to poll for messages. A closed channel would be readable forever, so it has none.
    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_closed).then(|| self.socket.as_fd())
    }

    /// The descriptor of this end, open or closed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A second handle to this end.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.socket.try_clone().map(Self::new)
    }

    /// Makes the descriptor of a closed channel a duplicate of `other`, so that pollers of it do not spin.
    pub(crate) fn replace_fd(&mut self, other: impl AsFd) {
        let replaced =
            dup2(other, &mut self.socket).and_then(|()| fcntl_setfd(&self.socket, FdFlags::CLOEXEC));
        if let Err(error) = replaced {
            messages::channel_detach_failed(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_decoded_to_the_message_that_it_encodes() {
        fn decoded<M: Message>() -> usize {
            let messages = (0..=255).filter_map(|byte| M::from_byte(byte).map(|message| (byte, message)));
            messages.inspect(|(byte, message)| assert_eq!(message.to_byte(), *byte)).count()
        }
        assert_eq!((decoded::<ToMaster>(), decoded::<ToWorker>()), (10, 6));
    }

    #[test]
    fn messages_arrive_in_order_and_a_closed_channel_is_reported_once() {
        let (mut to_worker, mut to_master) = channel().unwrap();
        assert_eq!(to_master.recv(), None);
        to_worker.send(ToWorker::ReopenLogs);
        to_worker.send(ToWorker::Drain);
        assert_eq!(to_master.recv(), Some(ChannelEvent::Message(ToWorker::ReopenLogs)));
        to_master.send(ToMaster::Ready);
        assert_eq!(to_worker.recv(), Some(ChannelEvent::Message(ToMaster::Ready)));
        drop(to_worker);
        assert_eq!(to_master.recv(), Some(ChannelEvent::Message(ToWorker::Drain)));
        assert_eq!(to_master.recv(), Some(ChannelEvent::Closed));
        assert_eq!((to_master.recv(), to_master.poll_fd().is_none()), (None, true));
    }
}
