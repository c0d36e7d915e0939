//! A socket to a collector: syslog or statsd.
//!
//! Invariant: nothing here waits after startup, except a forked process once for its own connection, and briefly. What
//! cannot be sent at once is dropped. A lost connection is reestablished at most once a second.
//!
//! Invariant: processes do not share a stream, because a record that was sent in two parts would mix with those of the
//! other process. They may share a socket for datagrams.

use std::{
    fmt, io,
    net::ToSocketAddrs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use crate::log_writer::{LogWriter, WriteResult};

const PAUSE: Duration = Duration::from_secs(1);
/// How long a forked process waits for its own connection. Its first record would otherwise be lost, and a child that
/// answers one request may write no other.
const WAIT_AFTER_FORK: Duration = Duration::from_millis(100);

/// The address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAddress {
    Udp(String, u16),
    Tcp(String, u16),
    /// A Unix socket. The types are tried in this order.
    Unix(PathBuf, &'static [SocketType]),
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(host, port) => write!(to, "udp://{host}:{port}"),
            Self::Tcp(host, port) => write!(to, "tcp://{host}:{port}"),
            Self::Unix(path, _) => write!(to, "unix://{}", path.display()),
        }
    }
}

impl RemoteAddress {
    /// Parses `HOST:PORT`, `[v6]:PORT` or `HOST`.
    pub fn host_and_port(text: &str, usual: Option<u16>) -> Option<(String, u16)> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(usual, |port| port.parse().ok())?;
        Some((if host.is_empty() { "localhost" } else { host }.to_owned(), port))
    }
}

pub struct Remote {
    addresses: Vec<(SocketType, SocketAddrAny)>,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<RemoteConnection>,
    /// No connection attempt before this time.
    pause: Option<Instant>,
}

struct RemoteConnection {
    sink: LogWriter,
    kind: SocketType,
    /// The process that opened it.
    process: u32,
}

impl RemoteConnection {
    /// Waits until the connection is established.
    fn wait(&self, at_most: Duration) {
        let mut asked = [PollFd::new(&self.sink, PollFlags::OUT)];
        let _ = poll(&mut asked, Timespec::try_from(at_most).ok().as_ref());
    }

    /// Whether it is a stream that another process, from which this one was forked, writes to.
    fn is_inherited_stream(&self) -> bool {
        self.kind == SocketType::STREAM && self.process != std::process::id()
    }
}

impl Remote {
    /// Resolves the host name, once. The collector does not have to be running yet.
    pub fn new(address: &RemoteAddress) -> io::Result<Self> {
        let resolve = |kind, host: &str, port| -> io::Result<Vec<_>> {
            let mut found: Vec<_> = (host, port).to_socket_addrs()?.collect();
            found.sort_by_key(std::net::SocketAddr::is_ipv6); // `localhost` has both; IPv4 is more common among collectors
            Ok(found.into_iter().map(|address| (kind, address.into())).collect())
        };
        let addresses = match address {
            RemoteAddress::Udp(host, port) => resolve(SocketType::DGRAM, host, *port)?,
            RemoteAddress::Tcp(host, port) => resolve(SocketType::STREAM, host, *port)?,
            RemoteAddress::Unix(path, kinds) => {
                let address = SocketAddrUnix::new(path)?;
                kinds.iter().map(|kind| (*kind, address.clone().into())).collect()
            }
        };
        let remote = Self { addresses, link: Mutex::default() };
        let connected =
            remote.connect().inspect_err(|error| log::warn!("connecting to {address} failed: {error}"));
        if let Ok(connection) = connected {
            // Wait for the first connection, so that the records of startup are not lost.
            connection.wait(PAUSE);
            remote.link.lock().unwrap_or_else(PoisonError::into_inner).connection = Some(connection);
        }
        Ok(remote)
    }

    fn connect(&self) -> io::Result<RemoteConnection> {
        let mut last = Errno::NOENT;
        for (kind, address) in &self.addresses {
            let family: AddressFamily = address.address_family();
            let socket = socket_with(family, *kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
            match connect(&socket, address) {
                Ok(()) | Err(Errno::INPROGRESS) => {
                    let sink = LogWriter::of_socket(socket);
                    return Ok(RemoteConnection { sink, kind: *kind, process: std::process::id() });
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Sends a record, or drops it. Returns whether it was sent.
    pub fn send(&self, record: &[u8]) -> bool {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.connection.as_ref().is_some_and(RemoteConnection::is_inherited_stream) {
            link.connection = self.connect().ok(); // this closes only the copy of this process
            link.pause = Some(Instant::now() + PAUSE);
            if let Some(connection) = &link.connection {
                connection.wait(WAIT_AFTER_FORK);
            }
        }
        if let Some(connection) = &link.connection {
            match connection.sink.write(record) {
                WriteResult::Broken => link.connection = None,
                outcome => return outcome == WriteResult::Written,
            }
        }
        let now = Instant::now();
        if link.pause.is_some_and(|pause| now < pause) {
            return false;
        }
        (link.pause, link.connection) = (Some(now + PAUSE), self.connect().ok());
        link.connection
            .as_ref()
            .is_some_and(|connection| connection.sink.write(record) == WriteResult::Written)
    }
}
