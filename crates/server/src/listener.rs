//! Listening sockets: TCP, Unix, or an inherited descriptor.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use crate::peer::Peer;

/// The port of an address without one.
const DEFAULT_PORT: u16 = 8000;

/// An address to listen on: `HOST:PORT`, `HOST`, `[IPV6]:PORT`, `unix:PATH` or `fd://N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and a port.
    Tcp {
        /// A host name or IP address. An IPv6 address has no brackets here.
        host: String,
        /// 0 selects a free port.
        port: u16,
    },
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// An inherited descriptor that is already bound.
    Descriptor(RawFd),
}

/// An invalid address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid address '{}': expected HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER", self.0)
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(invalid()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return number.parse().map(Self::Descriptor).map_err(|_| invalid());
        }
        let text = text.strip_prefix("tcp://").unwrap_or(text);
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| invalid())?),
            _ if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) => return Err(invalid()),
            _ => (text, DEFAULT_PORT),
        };
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(host)) => host,
            None if !host.contains([':', ']', '/']) => host,
            _ => return Err(invalid()),
        };
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Descriptor(number) => write!(f, "fd://{number}"),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    local: Local,
}

#[derive(Debug, Clone)]
enum Local {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listener {
    /// Binds and listens. Replaces a stale Unix socket file on which no process listens.
    pub fn bind(address: &Address, backlog: i32) -> io::Result<Self> {
        Self::bind_as(address, backlog, false)
    }

    /// Like [`bind`](Self::bind), but other processes may listen on the same TCP address (`SO_REUSEPORT`).
    pub fn bind_as(address: &Address, backlog: i32, reuse_port: bool) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp { host, port } => {
                let mut found = (host.as_str(), *port).to_socket_addrs()?;
                let address = found.next().ok_or_else(|| io::Error::other("the host name has no address"))?;
                let socket =
                    new_socket(if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 })?;
                sockopt::set_socket_reuseaddr(&socket, true)?;
                if reuse_port {
                    sockopt::set_socket_reuseport(&socket, true)?;
                }
                rustix::net::bind(&socket, &address)?;
                socket
            }
            Address::Unix(path) => return bind_unix(path, backlog),
            Address::Descriptor(number) => mlws_sys::from_inherited_fd(*number)?,
        };
        rustix::net::listen(&socket, backlog)?;
        Self::from_socket(socket)
    }

    /// Wraps a socket that already listens.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
        let local = match SocketAddr::try_from(rustix::net::getsockname(&socket)?) {
            Ok(address) => {
                // Accepted sockets inherit it. Without it, small responses would wait for acknowledgements.
                sockopt::set_tcp_nodelay(&socket, true)?;
                Local::Tcp(address)
            }
            Err(_) => Local::Unix(unix_path(rustix::net::getsockname(&socket)?)),
        };
        Ok(Self { socket, local })
    }

    /// Sets the path at which clients find the socket.
    #[must_use]
    pub fn at_path(self, path: &Path) -> Self {
        Self { local: Local::Unix(path.to_owned()), ..self }
    }

    /// The file of a Unix socket, if it still exists.
    pub fn file(&self) -> io::Result<Option<SocketFile>> {
        match &self.local {
            Local::Unix(path) => SocketFile::open(path).map(Some),
            Local::Tcp(_) => Ok(None),
        }
    }

    /// Duplicates the handle.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, local: self.local.clone() })
    }

    /// The URL with the actual port: `http://127.0.0.1:8080` or `unix:/run/app.sock`.
    pub fn url(&self) -> String {
        match &self.local {
            Local::Tcp(address) => format!("http://{address}"),
            Local::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The bound address. `None` for a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.local {
            Local::Tcp(address) => Some(*address),
            Local::Unix(_) => None,
        }
    }

    /// `SERVER_NAME` and `SERVER_PORT` of WSGI and CGI. `localhost` and 80 for a Unix socket.
    pub fn server_name_and_port(&self) -> (String, u16) {
        match &self.local {
            Local::Tcp(address) => (address.ip().to_string(), address.port()),
            Local::Unix(_) => ("localhost".into(), 80),
        }
    }

    /// Whether a connection is waiting.
    pub(crate) fn has_client(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Accepts a connection. `WouldBlock` if none is waiting.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, address) = rustix::net::acceptfrom_with(&self.socket, flags)?;
        let peer = match address.map(SocketAddr::try_from) {
            Some(Ok(address)) => Peer::new(Some(address.ip()), address.port()),
            _ => Peer::default(),
        };
        Ok((socket, peer))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Binds to a temporary name and renames the socket when it listens. Until then a stale socket keeps its name, so that
/// clients always find one.
fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
    check_not_in_use(path)?;
    let socket = new_socket(AddressFamily::UNIX)?;
    let temporary = temporary_name(path);
    let own_name = SocketAddrUnix::new(path)?;
    let Ok(temporary_address) = SocketAddrUnix::new(temporary.as_path()) else {
        // The temporary name may be too long for a socket.
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(path)?;
        }
        rustix::net::bind(&socket, &own_name)?;
        rustix::net::listen(&socket, backlog)?;
        return Ok(Listener::from_socket(socket)?.at_path(path));
    };
    let _ = std::fs::remove_file(&temporary); // left by a process with the same pid that was killed
    rustix::net::bind(&socket, &temporary_address)?;
    let listening = rustix::net::listen(&socket, backlog).map_err(io::Error::from);
    listening
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    Ok(Listener::from_socket(socket)?.at_path(path))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

fn check_not_in_use(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"))
        }
        Ok(_) if is_listened_on(path)? => Err(io::ErrorKind::AddrInUse.into()),
        _ => Ok(()),
    }
}

/// Whether a process listens on a Unix socket. It may be too busy to accept.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = rustix::net::connect(&client, &SocketAddrUnix::new(path)?);
    Ok(matches!(connected, Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS)))
}

/// The file of a Unix socket, which outlives its process. It is kept open, so that its inode cannot be reused.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    file: OwnedFd,
}

impl SocketFile {
    fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless it is gone or has been replaced.
    pub fn remove(&self) -> io::Result<()> {
        let own = rustix::fs::fstat(&self.file)?;
        match rustix::fs::lstat(&self.path) {
            Ok(found) if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) => {
                std::fs::remove_file(&self.path)
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn unix_path(address: SocketAddrAny) -> PathBuf {
    let address = SocketAddrUnix::try_from(address).ok();
    let path = address.as_ref().and_then(SocketAddrUnix::path_bytes).unwrap_or_default();
    std::ffi::OsStr::from_bytes(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_formatted_alike() {
        for text in ["127.0.0.1:8000", "localhost:0", "[::1]:80", "unix:/run/a b.sock", "fd://3"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(":8000".parse::<Address>().unwrap().to_string(), "0.0.0.0:8000");
        assert_eq!("127.0.0.1".parse::<Address>().unwrap().to_string(), "127.0.0.1:8000");
        assert_eq!("tcp://[::1]".parse::<Address>().unwrap().to_string(), "[::1]:8000");
        assert_eq!("unix:///run/x".parse::<Address>().unwrap(), Address::Unix("/run/x".into()));
    }

    #[test]
    fn an_invalid_address_is_an_error_that_says_what_was_expected() {
        for text in ["", "8000", "host:port", "host:70000", "::1:80", "[::1", "a/b", "unix:", "fd://x"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("HOST:PORT"), "{text}: {error}");
        }
    }
}
