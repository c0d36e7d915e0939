//! A socket to a collector: syslog or statsd.
//!
//! Invariant: nothing here waits after startup. What cannot be sent at once is dropped. A lost connection is
//! reestablished at most once a second.

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

/// The address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Udp(String, u16),
    Tcp(String, u16),
    /// A Unix socket. The types are tried in this order.
    Unix(PathBuf, &'static [SocketType]),
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(host, port) => write!(to, "udp://{host}:{port}"),
            Self::Tcp(host, port) => write!(to, "tcp://{host}:{port}"),
            Self::Unix(path, _) => write!(to, "unix://{}", path.display()),
        }
    }
}

impl Address {
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
    sink: Option<LogWriter>,
    /// No connection attempt before this time.
    pause: Option<Instant>,
}

impl Remote {
    /// Resolves the host name, once. The collector does not have to be running yet.
    pub fn new(address: &Address) -> io::Result<Self> {
        let resolve = |kind, host: &str, port| -> io::Result<Vec<_>> {
            let mut found: Vec<_> = (host, port).to_socket_addrs()?.collect();
            found.sort_by_key(std::net::SocketAddr::is_ipv6); // `localhost` has both; IPv4 is more common among collectors
            Ok(found.into_iter().map(|address| (kind, address.into())).collect())
        };
        let addresses = match address {
            Address::Udp(host, port) => resolve(SocketType::DGRAM, host, *port)?,
            Address::Tcp(host, port) => resolve(SocketType::STREAM, host, *port)?,
            Address::Unix(path, kinds) => {
                let address = SocketAddrUnix::new(path)?;
                kinds.iter().map(|kind| (*kind, address.clone().into())).collect()
            }
        };
        let remote = Self { addresses, link: Mutex::default() };
        let sink =
            remote.connect().inspect_err(|error| log::warn!("connecting to {address} failed: {error}"));
        if let Ok(sink) = sink {
            // Wait for the first connection, so that the records of startup are not lost.
            let mut asked = [PollFd::new(&sink, PollFlags::OUT)];
            let _ = poll(&mut asked, Timespec::try_from(PAUSE).ok().as_ref());
            remote.link.lock().unwrap_or_else(PoisonError::into_inner).sink = Some(sink);
        }
        Ok(remote)
    }

    fn connect(&self) -> io::Result<LogWriter> {
        let mut last = Errno::NOENT;
        for (kind, address) in &self.addresses {
            let family: AddressFamily = address.address_family();
            let socket = socket_with(family, *kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
            match connect(&socket, address) {
                Ok(()) | Err(Errno::INPROGRESS) => return Ok(LogWriter::of_socket(socket)),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Sends a record, or drops it. Returns whether it was sent.
    pub fn send(&self, record: &[u8]) -> bool {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = &link.sink {
            match sink.write(record) {
                WriteResult::Broken => link.sink = None,
                outcome => return outcome == WriteResult::Written,
            }
        }
        let now = Instant::now();
        if link.pause.is_some_and(|pause| now < pause) {
            return false;
        }
        (link.pause, link.sink) = (Some(now + PAUSE), self.connect().ok());
        link.sink.as_ref().is_some_and(|sink| sink.write(record) == WriteResult::Written)
    }
}
