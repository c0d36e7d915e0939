//! The end of an event loop: commands, draining, and the hand-over of idle connections.

use std::{sync::atomic::Ordering, time::Instant};

use mio::{Interest, unix::SourceFd};

use super::{EventLoop, HANDOVER, register};
use crate::{Command, fork::Children, handover::Handover};

/// How often [`EventLoop::accept`] is repeated per listener before it closes, while more connections are waiting.
const MAX_ACCEPT_ROUNDS: usize = 256;

impl EventLoop {
    pub(super) fn handle_commands(&mut self, index: usize) {
        while let Some(command) = (self.command_sources[index].receive)() {
            if self.command >= Some(command) {
                continue;
            }
            match command {
                Command::HandOver | Command::Drain => self.drain(command),
                Command::Stop => self.children.as_mut().map_or((), Children::kill_all),
            }
            self.command = Some(command);
        }
    }

    /// Accepts the connections that are already waiting, then no more, and lets all requests finish. Idle connections
    /// are handed over, or may send one more request.
    pub(super) fn drain(&mut self, command: Command) {
        self.begin_drain(command);
        self.acceptor.leave_balancing();
        for index in 0..self.acceptor.len() {
            self.acceptor.mark_readable(index);
            // If this process owns the last copy of the listening socket, clients still in its backlog would be reset.
            // The backlog is smaller than this limit.
            let _ = (0..MAX_ACCEPT_ROUNDS).take_while(|_| self.accept(index, Instant::now())).count();
        }
        self.close_listeners();
    }

    /// From now on idle connections are handed over, if other workers keep serving. Otherwise every response is the
    /// last of its connection.
    pub(super) fn begin_drain(&mut self, command: Command) {
        self.command = Some(command);
        self.context.drain_began.get_or_init(Instant::now);
        let handover = self.handover.take();
        if let Some(handover) = &handover {
            let _ = self.poll.registry().deregister(&mut SourceFd(&handover.descriptor()));
        }
        if let Some(queue) = self.context.settings.handover.clone().filter(|_| command == Command::HandOver) {
            self.acceptor.close_handover(self.poll.registry());
            let handover = Handover::new(queue, self.acceptor.urls());
            match register(self.poll.registry(), handover.descriptor(), HANDOVER, Interest::WRITABLE) {
                Ok(()) => return self.handover = Some(handover),
                Err(error) => log::error!("hand-over: idle connections stay with this worker: {error}"),
            }
        }
        self.context.draining.store(true, Ordering::Relaxed);
        while let Some(arrival) = handover.as_ref().and_then(Handover::take_back) {
            self.register_arrival(arrival, Instant::now());
        }
    }

    /// The hand-over queue has space for connections that could not be sent before.
    pub(super) fn resume_handover(&mut self, now: Instant) {
        if let Some(handover) = &mut self.handover {
            handover.on_space();
        }
        for token in self.tokens() {
            if self.handover.as_ref().is_some_and(Handover::may_have_space) {
                self.advance(token, now);
            }
        }
    }

    /// Stops accepting and lets all requests finish. Idle connections are handed over, or may send one more request.
    pub(crate) fn close_listeners(&mut self) {
        if self.command.is_none() {
            self.begin_drain(Command::HandOver);
        }
        self.acceptor.close(self.poll.registry());
        // Check each idle connection once more: a request may have arrived. And its deadline is earlier now.
        let now = Instant::now();
        for (_, slot) in &mut self.slots {
            if let Some(connection) = slot.connection_mut() {
                connection.readiness.readable |= connection.is_idle();
            }
        }
        for token in self.tokens() {
            self.advance(token, now);
        }
    }

    /// Whether a command has stopped the loop and nothing is left, except connections that the watchdog has ended.
    pub(crate) fn is_finished(&mut self, is_given_up: impl Fn(usize) -> bool) -> bool {
        if self.command == Some(Command::HandOver) && self.has_nothing_left(&is_given_up) {
            // If the receiving workers are stopping, too, a `Drain` has arrived, and the connections sent last must be
            // taken back.
            for index in 0..self.command_sources.len() {
                self.handle_commands(index);
            }
        }
        match self.command {
            None => false,
            Some(Command::Stop) => true,
            Some(Command::HandOver | Command::Drain) => self.has_nothing_left(&is_given_up),
        }
    }

    pub(super) fn has_nothing_left(&self, is_given_up: &impl Fn(usize) -> bool) -> bool {
        let mut slots = self.slots.iter();
        slots.all(|(token, slot)| slot.connection().is_none() && is_given_up(token))
            && self.children.as_ref().is_none_or(Children::is_empty)
    }

    /// The command in effect.
    pub(crate) fn command(&self) -> Option<Command> {
        self.command
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.command.is_some()
    }

    pub(super) fn tokens(&self) -> Vec<usize> {
        self.slots.iter().map(|(token, _)| token).collect()
    }
}
