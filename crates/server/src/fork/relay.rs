//! The relay: what a child's client does not read at once goes through the parent, so that the child need not wait for it.
//!
//! A child sends its response to the client's socket itself. When the socket is full, the child makes a pair of sockets, sends one of them
//! to its parent over the control channel, and writes the rest of the response there: framed bytes, or files as descriptors. The
//! parent buffers it within the bounds for unsent responses and sends it from its event loop. The child exits when its part is done.
//!
//! Each message is one packet. Nothing marks the end: it is reached when the child is known to be done and the relay is empty. (A process
//! that the application left behind may hold the sending end open.)

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
    relay_channel::{DATA_PACKET, FILE_PACKET, MAX_PAYLOAD, take_descriptor},
};
use crate::{
    connection::response_writer::{Progress, ResponseWriter, Spool},
    connection::socket::ClientSocket,
    connection::writer::MAX_BYTES_PER_TURN,
};

/// With less than this many bytes, writing to the temporary file waits for more.
const MIN_SPILL: usize = 64 * 1024;
/// Payload of a packet that passes a file: its offset and its length.
const FILE_PAYLOAD: usize = 16;

/// The parent's end, for as long as its connection needs it.
pub(crate) struct Relay {
    socket: OwnedFd,
    registry: Arc<Registry>,
    spool: Option<Spool>,
    /// There may be more to receive.
    pub(crate) is_readable: bool,
    /// The child has written all that it will write, and this is what it means for the connection.
    pub(crate) outcome: Option<ChildOutcome>,
    /// When the time that the child's present call takes is to be checked.
    pub(crate) next_check: Option<Instant>,
    /// Nothing more will come.
    is_finished: bool,
    /// The response does not fit into its bounds: what is there has to be sent first.
    is_full: bool,
}

enum Packet {
    Data(Vec<u8>),
    File {
        file: File,
        offset: u64,
        length: u64,
    },
    /// There is none at present.
    None,
    /// The other end is closed.
    End,
}

impl Relay {
    /// Takes the parent's end and watches it in the poll set, under this token.
    pub(crate) fn new(socket: OwnedFd, registry: &Arc<Registry>, token: Token) -> io::Result<Self> {
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self {
            socket,
            registry: Arc::clone(registry),
            spool: None,
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

    /// Whether the response is complete as far as the child made it, and sent.
    pub(crate) fn finished(&self, output: &ResponseWriter) -> Option<ChildOutcome> {
        self.outcome.filter(|_| self.is_finished && output.is_empty())
    }

    /// Whether there may be more to receive, and room for it.
    pub(crate) fn can_receive(&self) -> bool {
        self.is_readable && !self.is_full && !self.is_finished
    }

    /// Moves what has come to `output`, and from there to the client, as far as the bounds allow and others can wait. `is_writable` says
    /// whether the socket may take more; `on_sent` is called if it did. An error where the response cannot be completed.
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
        send(output)?; // first, so that there is room
        self.store(output, socket);
        if self.can_receive() {
            self.receive(output)?;
            send(output)?;
            self.store(output, socket);
        }
        Ok(())
    }

    fn receive(&mut self, output: &mut ResponseWriter) -> io::Result<()> {
        let mut received = 0;
        while received < MAX_BYTES_PER_TURN && self.can_receive() {
            match self.next_packet()? {
                Packet::Data(bytes) => {
                    received += bytes.len();
                    output.push_framed(bytes);
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

    /// Keeps `output` within the bounds.
    fn store(&mut self, output: &mut ResponseWriter, socket: &ClientSocket) {
        let context = &socket.context;
        if output.spooled() == 0 {
            self.spool = None; // all of it is sent, so its space is given back
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
            FILE_PACKET => file(&payload, &mut rights),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A copy of the descriptor may live in a younger child, so it has to leave the poll set before it is closed.
        let _ = self.registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
    }
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
    fn a_packet_takes_a_part_of_what_is_large() {
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
