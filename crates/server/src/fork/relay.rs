//! The relay: if a client reads slowly, its child sends the response through the parent and need not wait.
//!
//! A child sends its response to the client's socket itself. When the socket is full, the child creates a socket pair,
//! sends one end to its parent over the control channel, and writes the rest of the response there: framed bytes, or
//! descriptors of files. The parent buffers it within the limits for unsent responses and sends it from its event loop.
//! The child exits when its part is done.
//!
//! Each message is one packet. There is no end marker: the response ends when the child is known to be done and the
//! relay is empty. (A process that the application left behind may hold the sending end open.)

use std::{
    fs::File,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
    time::Instant,
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::net::{RecvAncillaryBuffer, RecvFlags};

use super::{
    outcome::ChildOutcome,
    relay_channel::{DATA_PACKET, FILE_PACKET, HEAD_PACKET, HEAD_PART_PACKET, MAX_PAYLOAD, take_descriptor},
};
use crate::{
    connection::response_writer::{Progress, ResponseWriter, Spool},
    connection::socket::ClientSocket,
    connection::writer::MAX_BYTES_PER_TURN,
};

/// Fewer bytes than this are not written to the temporary file; more may follow. In bytes.
const MIN_SPILL: usize = 64 * 1024;
/// The payload of a packet that passes a file: offset and length.
const FILE_PAYLOAD: usize = 16;

/// The parent's end of a relay.
pub(crate) struct Relay {
    socket: OwnedFd,
    registry: Arc<Registry>,
    spool: Option<Spool>,
    /// The parts of a head of which more will follow.
    head: Vec<u8>,
    /// There may be packets to receive.
    pub(crate) is_readable: bool,
    /// The child has written everything, and this is the consequence for the connection.
    pub(crate) outcome: Option<ChildOutcome>,
    /// When the time of the child's current call must be checked.
    pub(crate) next_check: Option<Instant>,
    /// No packets will follow.
    is_finished: bool,
    /// The limits are reached: queued bytes must be sent before more are received.
    is_full: bool,
}

enum Packet {
    Data(Vec<u8>),
    HeadPart(Vec<u8>),
    Head {
        status: u16,
        head: Vec<u8>,
    },
    File {
        file: File,
        offset: u64,
        length: u64,
    },
    /// None at present.
    None,
    /// The other end is closed.
    End,
}

impl Relay {
    /// Registers the parent's end in the poll set.
    pub(crate) fn new(socket: OwnedFd, registry: &Arc<Registry>, token: Token) -> io::Result<Self> {
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self {
            socket,
            registry: Arc::clone(registry),
            spool: None,
            head: Vec::new(),
            is_readable: true,
            outcome: None,
            next_check: None,
            is_finished: false,
            is_full: false,
        })
    }

    /// The descriptor, for children to close.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The child's outcome, once everything it produced is sent.
    pub(crate) fn finished(&self, output: &ResponseWriter) -> Option<ChildOutcome> {
        self.outcome.filter(|_| self.is_finished && output.is_empty())
    }

    /// Whether there may be packets to receive, and space for them.
    pub(crate) fn can_receive(&self) -> bool {
        self.is_readable && !self.is_full && !self.is_finished
    }

    /// Moves bytes from the child to `output`, and from there to the client, until the limits are reached or other
    /// connections need their turn. `is_writable` says whether the socket may accept more; `on_sent` is called if it
    /// did. Fails if the response cannot be completed.
    pub(crate) fn advance(
        &mut self,
        output: &mut ResponseWriter,
        socket: &ClientSocket,
        is_writable: &mut bool,
        mut on_sent: impl FnMut(),
    ) -> io::Result<()> {
        let mut send = |output: &mut ResponseWriter| -> io::Result<()> {
            if *is_writable && !output.is_empty() {
                *is_writable = output.write(socket, MAX_BYTES_PER_TURN)? != Progress::Blocked;
                output.release_memory();
                on_sent();
            }
            Ok(())
        };
        send(output)?; // first, so that there is space
        self.store(output, socket);
        if self.can_receive() {
            self.receive(output, socket)?;
        }
        if self.is_finished && matches!(self.outcome, Some(ChildOutcome::KeepAlive | ChildOutcome::Close)) {
            output.push_stream_end();
        }
        send(output)?;
        self.store(output, socket);
        Ok(())
    }

    fn receive(&mut self, output: &mut ResponseWriter, socket: &ClientSocket) -> io::Result<()> {
        let mut received = 0;
        while received < MAX_BYTES_PER_TURN && self.can_receive() {
            match self.next_packet()? {
                Packet::Data(bytes) => {
                    received += bytes.len();
                    output.push_framed(bytes);
                }
                Packet::HeadPart(part) => self.head.extend_from_slice(&part),
                Packet::Head { status: status @ 100..200, head } => {
                    if socket.is_writable() {
                        socket.send_all_interim(status, &head)?;
                    }
                }
                Packet::Head { status, head } => {
                    let mut whole = std::mem::take(&mut self.head);
                    whole.extend_from_slice(&head);
                    output.push_stream_head(status, whole);
                }
                Packet::File { file, offset, length } => output.push_framed_file(file, offset, length),
                Packet::None => {
                    self.is_readable = false;
                    self.is_finished = self.outcome.is_some();
                }
                Packet::End => self.is_finished = true,
            }
        }
        Ok(())
    }

    /// Keeps `output` within the limits.
    fn store(&mut self, output: &mut ResponseWriter, socket: &ClientSocket) {
        let context = &socket.context;
        if output.spooled() == 0 {
            self.spool = None; // all of it is sent, so its space can be returned
        }
        self.is_full = false;
        if output.is_empty() || output.reserve_memory(&context.response_memory) || output.held() < MIN_SPILL {
            return;
        }
        let size = self.spool.as_ref().map_or(0, Spool::size);
        self.is_full = size + output.held() as u64 > context.settings.response_spool;
        if self.is_full {
            return;
        }
        let spilled = match &mut self.spool {
            Some(spool) => output.spill(spool),
            none => {
                Spool::create(&context.settings.temporary).and_then(|spool| output.spill(none.insert(spool)))
            }
        };
        if let Err(error) = spilled {
            log::warn!("spooling a response failed, so its process waits for its client: {error}");
            self.is_full = true;
        }
    }

    fn next_packet(&self) -> io::Result<Packet> {
        let mut header = [0];
        let mut payload = vec![0; MAX_PAYLOAD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let received = {
            let mut slices = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut payload)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            rustix::io::retry_on_intr(|| rustix::net::recvmsg(&self.socket, &mut slices, &mut rights, flags))
        };
        let length = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(Packet::None),
            Err(error) => return Err(error.into()),
        };
        let Some(length) = length.checked_sub(1) else { return Ok(Packet::End) };
        payload.truncate(length);
        match header[0] {
            DATA_PACKET => Ok(Packet::Data(payload)),
            HEAD_PACKET => head(&payload).map(|(status, head)| Packet::Head { status, head }),
            HEAD_PART_PACKET => head(&payload).map(|(_, head)| Packet::HeadPart(head)),
            FILE_PACKET => file(&payload, &mut rights),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A younger child may have a copy of the descriptor, so it must leave the poll set before it is closed.
        let _ = self.registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
    }
}

fn head(payload: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let (status, head) = payload.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
    Ok((u16::from_ne_bytes(*status), head.to_vec()))
}

fn file(payload: &[u8], rights: &mut RecvAncillaryBuffer<'_>) -> io::Result<Packet> {
    let descriptor = take_descriptor(rights);
    let file = descriptor.ok_or_else(|| io::Error::other("no descriptor is left for a file to be sent"))?;
    let payload: &[u8; FILE_PAYLOAD] = payload.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let number = |at: usize| payload[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    Ok(Packet::File { file: file.into(), offset: number(0), length: number(8) })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{IoSlice, Write as _},
        os::fd::AsFd,
    };

    use super::*;
    use crate::fork::relay_channel::{RelaySender, pair};

    fn relay() -> (RelaySender, Relay) {
        let (sender, receiver) = pair().unwrap();
        let registry = mio::Poll::new().unwrap().registry().try_clone().unwrap();
        (sender, Relay::new(receiver, &Arc::new(registry), Token(1)).unwrap())
    }

    #[test]
    fn bytes_and_files_arrive_in_order() {
        let (sender, relay) = relay();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(sender.send(&[IoSlice::new(b"first"), IoSlice::new(b" part")]).unwrap(), 10);
        assert_eq!(sender.send_file(file.as_fd(), 2, 5).unwrap(), 5);
        sender.send(&[IoSlice::new(b"last")]).unwrap();
        assert!(matches!(relay.next_packet().unwrap(), Packet::Data(bytes) if bytes == b"first part"));
        assert!(matches!(relay.next_packet().unwrap(), Packet::File { offset: 2, length: 5, .. }));
        assert!(matches!(relay.next_packet().unwrap(), Packet::Data(bytes) if bytes == b"last"));
        assert!(matches!(relay.next_packet().unwrap(), Packet::None));
        drop(sender);
        assert!(matches!(relay.next_packet().unwrap(), Packet::End));
    }

    #[test]
    fn a_packet_holds_a_part_of_large_data() {
        let (sender, relay) = relay();
        let large = vec![7; 3 * MAX_PAYLOAD];
        assert_eq!(sender.send(&[IoSlice::new(b"x"), IoSlice::new(&large)]).unwrap(), MAX_PAYLOAD);
        assert!(matches!(relay.next_packet().unwrap(), Packet::Data(bytes) if bytes.len() == MAX_PAYLOAD));
    }

    #[test]
    fn a_full_relay_would_block_and_a_closed_one_fails() {
        let (sender, relay) = relay();
        let large = vec![7; MAX_PAYLOAD];
        let full = loop {
            if let Err(error) = sender.send(&[IoSlice::new(&large)]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(relay);
        let broken = sender.send(&[IoSlice::new(b"x")]).unwrap_err().kind();
        assert!([io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset].contains(&broken), "{broken}");
    }
}
