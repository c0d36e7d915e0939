//! The packets of a relay, and the child's end of it (see [`relay`](super::relay)).

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// The largest payload of one packet, in bytes.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024;
/// The first byte of a packet: framed bytes of the response follow.
pub(super) const DATA_PACKET: u8 = 1;
/// The first byte of a packet: an offset and a length follow, and the descriptor of the file comes with them.
pub(super) const FILE_PACKET: u8 = 2;

/// The first byte of a packet: a status and the head of a response over HTTP/2 follow, in the format of HTTP/1. It may be interim.
pub(super) const HEAD_PACKET: u8 = 3;
/// The same, but more of the head follows in the next packet.
pub(super) const HEAD_PART_PACKET: u8 = 4;

/// Creates a relay: the child's end, and the parent's.
pub(super) fn pair() -> io::Result<(RelaySender, OwnedFd)> {
    let (child, parent) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((RelaySender { socket: child }, parent))
}

/// The child's end. It behaves like a socket that never blocks.
#[derive(Debug)]
pub(crate) struct RelaySender {
    socket: OwnedFd,
}

impl RelaySender {
    /// Sends as many bytes as fit into one packet.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let header = [DATA_PACKET];
        let mut packet = Vec::with_capacity(slices.len() + 1);
        packet.push(IoSlice::new(&header));
        let mut left = MAX_PAYLOAD;
        for slice in slices {
            let part = &slice[..left.min(slice.len())];
            packet.push(IoSlice::new(part));
            left -= part.len();
        }
        self.send_packet(&packet, &mut SendAncillaryBuffer::default())?;
        Ok(MAX_PAYLOAD - left)
    }

    /// Sends a range of a file, as a whole.
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: u64, count: u64) -> io::Result<usize> {
        let descriptors = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        let (from, length) = (offset.to_ne_bytes(), count.to_ne_bytes());
        let packet = [IoSlice::new(&[FILE_PACKET]), IoSlice::new(&from), IoSlice::new(&length)];
        self.send_packet(&packet, &mut rights)?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Sends the head of a response over HTTP/2, as a whole. Blocks if the relay is full.
    pub(crate) fn send_head(&self, status: u16, head: &[u8]) -> io::Result<()> {
        let status = status.to_ne_bytes();
        let mut parts = head.chunks(MAX_PAYLOAD - status.len()).peekable();
        while let Some(part) = parts.next() {
            let kind = if parts.peek().is_some() { HEAD_PART_PACKET } else { HEAD_PACKET };
            let kind = [kind];
            let packet = [IoSlice::new(&kind), IoSlice::new(&status), IoSlice::new(part)];
            while let Err(error) = self.send_packet(&packet, &mut SendAncillaryBuffer::default()) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Err(error);
                }
                let mut sockets = [PollFd::new(&self.socket, PollFlags::OUT)];
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut sockets, None))?;
            }
        }
        Ok(())
    }

    fn send_packet(
        &self,
        packet: &[IoSlice<'_>],
        rights: &mut SendAncillaryBuffer<'_, '_, '_>,
    ) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.socket, packet, rights, flags))?;
        Ok(())
    }
}

impl AsFd for RelaySender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The descriptor that came with a message. Further ones are closed.
pub(super) fn take_descriptor(rights: &mut RecvAncillaryBuffer<'_>) -> Option<OwnedFd> {
    rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}
