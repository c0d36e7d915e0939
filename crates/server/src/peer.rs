//! The address of a connection's client.

use std::net::{IpAddr, SocketAddr};

use crate::TrustedNetworks;

/// The client of a connection: the other end of the socket, or the client that a PROXY header names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    pub(crate) ip: Option<IpAddr>,
    /// The IP address as text. Empty for a Unix socket.
    pub(crate) address: String,
    pub(crate) port: u16,
    /// It is on a Unix socket that other users cannot connect to.
    pub(crate) is_on_private_socket: bool,
    /// Whether it is one of [`Settings::trusted`](crate::Settings::trusted).
    pub(crate) is_trusted: bool,
    /// The address that the client connected to, if a PROXY header named it.
    pub(crate) destination: Option<SocketAddr>,
}

impl Peer {
    /// An IPv4-mapped IPv6 address is shown as IPv4.
    pub(crate) fn new(ip: Option<IpAddr>, port: u16) -> Self {
        let ip = ip.map(|ip| ip.to_canonical());
        Self { ip, address: ip.map(|ip| ip.to_string()).unwrap_or_default(), port, ..Self::default() }
    }

    /// A peer on a Unix socket. `is_private` is whether other users cannot connect to that socket.
    pub(crate) fn unix(is_private: bool) -> Self {
        Self { is_on_private_socket: is_private, ..Self::default() }
    }

    /// Whether it is one of `networks`.
    pub(crate) fn is_in(&self, networks: &TrustedNetworks) -> bool {
        match self.ip {
            Some(ip) => networks.contains(ip),
            None => networks.contains_unix(self.is_on_private_socket),
        }
    }

    /// The address for log messages.
    pub(crate) fn name(&self) -> &str {
        if self.address.is_empty() { "a Unix socket" } else { &self.address }
    }
}
