//! [`Slot`]: the entry of a connection in the event loop.

use crate::connection::{Connection, Readiness};

/// Where the connection of a token is.
pub(super) enum Slot {
    /// The loop owns the connection.
    Held(Box<Connection>),
    /// A thread owns it. The events of its socket are collected here.
    Out(Readiness),
}

impl Slot {
    pub(super) fn connection(&self) -> Option<&Connection> {
        if let Self::Held(connection) = self { Some(connection) } else { None }
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        if let Self::Held(connection) = self { Some(connection) } else { None }
    }

    /// Takes the connection, unless a thread owns it.
    pub(super) fn take(&mut self) -> Option<Box<Connection>> {
        let peer_closed = self.connection()?.readiness.peer_closed;
        let out = Self::Out(Readiness { peer_closed, ..Readiness::default() });
        if let Self::Held(connection) = std::mem::replace(self, out) { Some(connection) } else { None }
    }
}
