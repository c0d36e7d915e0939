//! Children of `--fork`: their start, messages, relays and end.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use mio::Token;
use rustix::process::Pid;

use super::{EventLoop, RELAYS, Slot};
use crate::{
    App, Command,
    connection::{Connection, Next},
    fork::{Report, outcome::ChildOutcome, relay::Relay},
};

impl EventLoop {
    /// Forks a child for the request of this connection.
    pub(crate) fn start_child(&mut self, mut connection: Box<Connection>, app: &dyn App) {
        let now = Instant::now();
        let Some(children) = &mut self.children else { return };
        let own = connection.token;
        let slots = || self.slots.iter().filter(|(token, _)| *token != own).map(|(_, slot)| slot);
        let connections = slots().filter_map(Slot::descriptor);
        let relays =
            slots().filter_map(Slot::connection).filter_map(|other| other.relay().map(Relay::descriptor));
        let waiting = self.ready_for_app.iter().filter_map(|connection| connection.socket().descriptor());
        let waiting = waiting.map(|socket| socket.as_raw_fd());
        let acceptor = self.acceptor.descriptors();
        let command_sources = self.command_sources.iter().map(|source| source.descriptor.as_raw_fd());
        let poll = [self.poll.as_raw_fd(), self.registry.as_raw_fd()];
        let handover = self.context.settings.handover.iter().flat_map(|queue| queue.descriptors());
        let mut others = connections
            .chain(relays)
            .chain(waiting)
            .chain(acceptor)
            .chain(handover)
            .chain(command_sources)
            .chain(poll);
        let started = children.start(&mut connection, app, self.poll.registry(), &mut others);
        drop(others);
        let next = match started {
            Ok(()) => connection.enter_child(now),
            Err(error) => {
                log::error!("forking a process for a request failed: {error}");
                connection.reject(503, "no process is available for this request", now)
            }
        };
        self.apply(connection, next);
    }

    pub(super) fn reap(&mut self, index: usize, now: Instant) {
        let Some(children) = &mut self.children else { return };
        if children.is_relayed(index) {
            self.read_control_channel(now); // the message that starts the relay may still be unread
        }
        let Some(children) = &mut self.children else { return };
        if let Some((token, outcome)) = children.reap(index, self.poll.registry()) {
            self.take_back_from_child(token, outcome, now);
        }
    }

    pub(super) fn read_control_channel(&mut self, now: Instant) {
        while let Some(report) = self.children.as_mut().and_then(|children| children.next_report(now)) {
            match report {
                Report::Complete { connection, outcome } => {
                    self.take_back_from_child(connection, outcome, now);
                }
                Report::RelayStarted { connection, socket } => self.start_relay(connection, socket, now),
            }
        }
    }

    pub(super) fn start_relay(&mut self, token: usize, socket: Option<OwnedFd>, now: Instant) {
        let Some(mut connection) = self.slots.get_mut(token).and_then(Slot::take) else {
            return;
        };
        let socket = socket.ok_or_else(|| io::Error::other("no file descriptor was free for its socket"));
        let relay = socket.and_then(|socket| Relay::new(socket, &self.registry, Token(RELAYS + token)));
        let next = match relay {
            Ok(mut relay) => {
                relay.next_check = connection.deadline();
                connection.start_relay(relay, now)
            }
            Err(error) => {
                log::error!(
                    "resetting a connection: receiving the rest of its response from its process failed: {error}"
                );
                connection.socket().reset();
                Next::Wait
            }
        };
        self.apply(connection, next);
    }

    pub(super) fn record_relay_readiness(&mut self, token: usize, now: Instant) {
        let connection = self.slots.get_mut(token).and_then(Slot::connection_mut);
        if let Some(relay) = connection.and_then(Connection::relay_mut) {
            relay.is_readable = true;
            self.advance(token, now);
        }
    }

    pub(super) fn take_back_from_child(&mut self, token: usize, outcome: ChildOutcome, now: Instant) {
        let connection = self.slots.get_mut(token).and_then(Slot::take);
        if let Some(mut connection) = connection {
            let next = connection.after_child(outcome, now);
            self.apply(connection, next);
        }
    }

    /// From now on, [`take_exited_children`](Self::take_exited_children) returns the children that were reaped.
    pub(crate) fn record_child_exits(&mut self) {
        if let Some(children) = &mut self.children {
            children.record_exits();
        }
    }

    /// The children that were reaped since the last call. After [`Command::Stop`] all of them, because they were killed.
    pub(crate) fn take_exited_children(&mut self) -> Vec<Pid> {
        let Some(children) = &mut self.children else { return Vec::new() };
        if self.command == Some(Command::Stop) {
            children.wait_for_killed();
        }
        children.take_exited()
    }

    pub(super) fn check_children(&mut self, now: Instant) {
        let Some(children) = &mut self.children else { return };
        children.check_background(now);
        if children.needs_polling() {
            for index in children.indices() {
                self.reap(index, now);
            }
        }
    }
}
