//! The control channel: messages of children to their parent.
//!
//! All children share one socket pair. Each message is one packet, so those of several children do not mix. Most
//! children never send one: the parent learns their end from the kernel, and the state of their response from
//! [`progress`](super::progress).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use rustix::{
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketFlags, SocketType,
    },
    process::Pid,
};

use super::relay_channel::take_descriptor;

/// A message with the child that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildMessage {
    /// The index of the child.
    pub(crate) index: usize,
    /// The index alone does not identify a child: another one may have it by the time the message is read.
    pub(crate) pid: Pid,
    pub(crate) event: ChildEvent,
}

/// What a child reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ChildEvent {
    /// The response is complete. The child has released the connection and keeps running for its threads.
    ResponseComplete = 1,
    /// The rest of the response comes through the relay whose descriptor is attached to this message.
    RelayStarted = 2,
}

const LENGTH: usize = 9;

impl ChildMessage {
    fn encode(self) -> io::Result<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        let index = u32::try_from(self.index).map_err(|_| io::ErrorKind::InvalidInput)?;
        bytes[..4].copy_from_slice(&index.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.pid.as_raw_pid().to_ne_bytes());
        bytes[8] = self.event as u8;
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (index, rest) = bytes.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let event = match rest {
            [1] => ChildEvent::ResponseComplete,
            [2] => ChildEvent::RelayStarted,
            _ => return None,
        };
        let index = usize::try_from(u32::from_ne_bytes(*index)).ok()?;
        Some(Self { index, pid: Pid::from_raw(i32::from_ne_bytes(*pid))?, event })
    }
}

/// Both ends of the channel. The parent keeps the children's end for children that it forks later.
#[derive(Debug)]
pub(crate) struct ChildChannel {
    parent: OwnedFd,
    children: OwnedFd,
}

impl ChildChannel {
    pub(crate) fn new() -> io::Result<Self> {
        let (parent, children) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Only the parent must not block. A child may wait for a busy parent.
        rustix::io::ioctl_fionbio(&parent, true)?;
        Ok(Self { parent, children })
    }

    /// The descriptor that becomes readable in the parent. Children close it.
    pub(crate) fn parent_end(&self) -> RawFd {
        self.parent.as_raw_fd()
    }

    /// In a child: sends a message, optionally with a descriptor.
    pub(crate) fn send(
        &self,
        index: usize,
        event: ChildEvent,
        descriptor: Option<&OwnedFd>,
    ) -> io::Result<()> {
        let bytes = ChildMessage { index, pid: rustix::process::getpid(), event }.encode()?;
        let descriptors = descriptor.map(|descriptor| [descriptor.as_fd()]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if let Some(descriptors) = &descriptors {
            rights.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let bytes = [IoSlice::new(&bytes)];
        let send = || rustix::net::sendmsg(&self.children, &bytes, &mut rights, SendFlags::NOSIGNAL);
        rustix::io::retry_on_intr(send)?;
        Ok(())
    }

    /// In the parent: returns the next message with its descriptor. Invalid messages are dropped. (There is no end of
    /// file, because the parent holds the other end, too.)
    pub(crate) fn receive(&self) -> Option<(ChildMessage, Option<OwnedFd>)> {
        loop {
            let mut bytes = [0; LENGTH + 1];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let received = {
                let mut slices = [IoSliceMut::new(&mut bytes)];
                rustix::io::retry_on_intr(|| {
                    rustix::net::recvmsg(&self.parent, &mut slices, &mut rights, RecvFlags::CMSG_CLOEXEC)
                })
            };
            let length = received.ok()?.bytes;
            let descriptor = take_descriptor(&mut rights);
            match ChildMessage::decode(&bytes[..length]) {
                Some(message) => return Some((message, descriptor)),
                None => log::warn!("a child sent a malformed message to its worker"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order_and_whole() {
        let channel = ChildChannel::new().unwrap();
        assert!(channel.receive().is_none());
        for index in [0, 7, 65_535] {
            channel.send(index, ChildEvent::ResponseComplete, None).unwrap();
        }
        let pid = rustix::process::getpid();
        for index in [0, 7, 65_535] {
            let event = ChildEvent::ResponseComplete;
            assert_eq!(channel.receive().unwrap().0, ChildMessage { index, pid, event });
        }
        assert!(channel.receive().is_none());
    }

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let channel = ChildChannel::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        channel.send(0, ChildEvent::ResponseComplete, None).unwrap();
        channel.send(1, ChildEvent::RelayStarted, Some(&writer.into())).unwrap();
        assert!(channel.receive().unwrap().1.is_none());
        let (message, descriptor) = channel.receive().unwrap();
        assert_eq!((message.index, message.event), (1, ChildEvent::RelayStarted));
        rustix::io::write(descriptor.unwrap(), b"x").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "x");
    }

    #[test]
    fn invalid_messages_are_dropped() {
        let channel = ChildChannel::new().unwrap();
        for junk in [&b""[..], b"x", b"too long for a message of this channel", &[0; LENGTH], &[255; LENGTH]]
        {
            rustix::net::send(&channel.children, junk, SendFlags::empty()).unwrap();
        }
        channel.send(3, ChildEvent::ResponseComplete, None).unwrap();
        assert_eq!(channel.receive().unwrap().0.index, 3);
        assert!(channel.receive().is_none());
    }
}
