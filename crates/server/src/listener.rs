//! [`Listener`]: a listening socket for TCP or Unix connections, or an inherited one.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::Errno,
    net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use crate::{Address, SocketFile, peer::Peer};

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    local: Local,
    /// The scheme of its URL.
    scheme: Scheme,
    /// The mode of the file of a Unix socket. `None` if it has no file, or an unknown one.
    mode: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    /// Plain HTTP although TLS is enabled.
    Insecure,
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
        Ok(Self { socket, mode: local.mode(), local, scheme: Scheme::Http })
    }

    /// Serves plain HTTP even if [`Settings::tls`](crate::Settings::tls) is set.
    #[must_use]
    pub fn insecure(self) -> Self {
        Self { scheme: Scheme::Insecure, ..self }
    }

    /// Sets whether TLS is enabled, for the [URL](Self::url).
    pub fn set_tls(&mut self, is_enabled: bool) {
        if self.scheme != Scheme::Insecure {
            self.scheme = if is_enabled { Scheme::Https } else { Scheme::Http };
        }
    }

    /// Whether it serves plain HTTP in any case.
    pub fn is_insecure(&self) -> bool {
        self.scheme == Scheme::Insecure
    }

    /// Sets the path at which clients find the socket.
    #[must_use]
    pub fn at_path(self, path: &Path) -> Self {
        let local = Local::Unix(path.to_owned());
        Self { mode: local.mode(), local, ..self }
    }

    /// Reads the mode of the file of a Unix socket again, which may have changed.
    pub fn read_mode(&mut self) {
        self.mode = self.local.mode();
    }

    /// The mode of the file of a Unix socket, when it was last read. `None` if it has no file, or an unknown one.
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }

    /// Whether it is a Unix socket that only its owner and group can connect to, by its [mode](Self::mode).
    pub fn is_private(&self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o002 == 0)
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
        Ok(Self {
            socket: self.socket.try_clone()?,
            local: self.local.clone(),
            mode: self.mode,
            scheme: self.scheme,
        })
    }

    /// The URL with the actual port: `http://127.0.0.1:8080` or `unix:/run/app.sock`.
    pub fn url(&self) -> String {
        match &self.local {
            Local::Tcp(address) if self.scheme == Scheme::Https => format!("https://{address}"),
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
            _ => Peer::unix(self.is_private()),
        };
        Ok((socket, peer))
    }
}

impl Local {
    fn mode(&self) -> Option<u32> {
        let Self::Unix(path) = self else { return None };
        let found = path.metadata().ok()?;
        found.file_type().is_socket().then(|| found.mode() & 0o777)
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

fn unix_path(address: SocketAddrAny) -> PathBuf {
    let address = SocketAddrUnix::try_from(address).ok();
    let path = address.as_ref().and_then(SocketAddrUnix::path_bytes).unwrap_or_default();
    std::ffi::OsStr::from_bytes(path).into()
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn a_unix_socket_is_private_if_its_file_excludes_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut listener = Listener::bind(&Address::Unix(path.clone()), 8).unwrap();
        for (mode, is_private) in
            [(0o777, false), (0o775, true), (0o770, true), (0o722, false), (0o600, true)]
        {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            listener.read_mode();
            assert_eq!((listener.mode(), listener.is_private()), (Some(mode), is_private));
        }
        let inherited = Listener::from_socket(listener.socket.try_clone().unwrap()).unwrap();
        assert!(!inherited.is_private(), "its name in the kernel is the temporary one");
        assert!(inherited.at_path(&path).is_private());
        std::fs::remove_file(&path).unwrap();
        listener.read_mode();
        assert_eq!((listener.mode(), listener.is_private()), (None, false));
    }

    #[test]
    fn everybody_can_connect_to_an_abstract_socket() {
        let socket = new_socket(AddressFamily::UNIX).unwrap();
        let name = format!("mlws-test-{}", std::process::id());
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
        rustix::net::listen(&socket, 8).unwrap();
        assert!(!Listener::from_socket(socket).unwrap().is_private());
        let tcp = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 8).unwrap();
        assert_eq!((tcp.mode(), tcp.is_private()), (None, false));
    }

    #[test]
    fn programs_started_by_the_app_do_not_inherit_listeners_and_connections() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_address().unwrap()).unwrap();
        let copy = listener.try_clone().unwrap();
        let mut polled = [PollFd::new(&copy, PollFlags::IN)];
        poll(&mut polled, None).unwrap();
        let (connection, _) = copy.accept().unwrap();
        for descriptor in [listener.as_fd(), copy.as_fd(), connection.as_fd()] {
            assert_eq!(fcntl_getfd(descriptor).unwrap(), FdFlags::CLOEXEC);
        }
    }
}
