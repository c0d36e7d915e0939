//! [`Slot`]: the entry of a connection in the event loop.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::http2_connection::Http2Connection;
use crate::connection::{Connection, Readiness};

/// Where the connection of a token is.
pub(super) enum Slot {
    /// The loop owns the connection, or the stream.
    Held(Box<Connection>),
    /// A thread owns it. The events of its socket are collected here.
    Out(Readiness),
    /// A connection with streams, each of which has a slot of its own. The loop always owns it.
    Http2(Box<Http2Connection>),
}

impl Slot {
    pub(super) fn connection(&self) -> Option<&Connection> {
        if let Self::Held(connection) = self { Some(connection) } else { None }
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        if let Self::Held(connection) = self { Some(connection) } else { None }
    }

    /// The socket, if the loop owns it.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Held(connection) => connection.socket().descriptor().map(|socket| socket.as_raw_fd()),
            Self::Http2(http2) => Some(http2.session.transport.as_fd().as_raw_fd()),
            Self::Out(_) => None,
        }
    }

    /// Takes the connection, unless a thread owns it.
    pub(super) fn take(&mut self) -> Option<Box<Connection>> {
        let peer_closed = self.connection()?.readiness.peer_closed;
        let out = Self::Out(Readiness { peer_closed, ..Readiness::default() });
        if let Self::Held(connection) = std::mem::replace(self, out) { Some(connection) } else { None }
    }
}
