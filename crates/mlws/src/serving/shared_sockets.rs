//! Connections that the application has open when processes are about to be forked from this one. All of them would share each
//! connection, and one request could receive what was meant for another.

use std::{collections::HashSet, fs, os::fd::OwnedFd};

use pyo3::prelude::*;
use rustix::{
    fs::fstat,
    net::{SocketAddrAny, SocketAddrUnix, SocketType, getpeername, sockopt},
};

use mlws_wsgi::ffi;

/// Connected sockets that were seen already, by inode: the server's own, and those that a warning has named.
#[derive(Debug, Default)]
pub(crate) struct KnownSockets(HashSet<u64>);

impl KnownSockets {
    /// The sockets of this process so far.
    pub(crate) fn new(py: Python<'_>) -> Self {
        let mut known = Self::default();
        known.new_peers(py);
        known
    }

    /// The peers of sockets that are connected and were not at the last call. Datagram sockets are left out, as they carry no
    /// conversation, and so are socket pairs, whose peers have no names.
    pub(crate) fn new_peers(&mut self, py: Python<'_>) -> Vec<String> {
        let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
        let descriptors: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        // A descriptor that is gone by now, such as the one that read the directory, is no socket.
        let sockets = descriptors.into_iter().filter_map(|number| ffi::duplicate(py, number).ok());
        let mut peers: Vec<_> = sockets.filter_map(|socket| self.new_peer(&socket)).collect();
        peers.sort();
        peers.dedup();
        peers
    }

    fn new_peer(&mut self, socket: &OwnedFd) -> Option<String> {
        let kind = sockopt::socket_type(socket).ok()?;
        if ![SocketType::STREAM, SocketType::SEQPACKET].contains(&kind) {
            return None;
        }
        let peer = name(&getpeername(socket).ok()??)?;
        self.0.insert(fstat(socket).ok()?.st_ino).then_some(peer)
    }
}

fn name(peer: &SocketAddrAny) -> Option<String> {
    if let Ok(address) = std::net::SocketAddr::try_from(peer.clone()) {
        return Some(address.to_string());
    }
    let address = SocketAddrUnix::try_from(peer.clone()).ok()?;
    let path = address.path().map(|path| path.to_string_lossy().into_owned());
    let name = path.or_else(|| {
        #[cfg(target_os = "linux")]
        let name = address.abstract_name().map(|name| format!("@{}", String::from_utf8_lossy(name)));
        #[cfg(not(target_os = "linux"))]
        let name = None;
        name
    });
    name.filter(|name| !name.is_empty() && name != "@").map(|name| format!("unix:{name}"))
}
