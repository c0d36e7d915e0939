//! [`Worker`]: a forked worker's own view. It reports to its master and receives commands.
//!
//! Commands arrive as signals from anywhere, and over the control channel from the master. If the channel is closed,
//! the master has stopped enforcing timeouts, so the worker must stop. However many sources say "drain", the worker
//! receives one command.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::Signal;

use crate::control_channel::{ChannelEvent, ChannelToMaster, ToMaster, ToWorker};
use crate::signal_queue::SignalQueue;

/// A command to a worker. `Drain` may follow `HandOver`, and `Stop` may follow either. Nothing follows `Stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerCommand {
    /// Reopen log files. Sent on USR1 to the worker or its master.
    ReopenLogs,
    /// Read again what the master has published. Sent if [`Delegate::refresh`](crate::Delegate::refresh) returns true.
    Refresh,
    /// For a nested master ([`crate::supervise_nested`]): run one more worker.
    IncreaseWorkers,
    /// For a nested master: run one worker fewer.
    DecreaseWorkers,
    /// Like `Drain`, while other workers keep serving: a replacement, a new generation, or the rest of the current one.
    /// Idle connections can be handed over to them.
    HandOver,
    /// Accept no new work, finish what is running, then return from `run_worker`. No other worker is known to keep
    /// serving. Sent on TERM, and when the master shuts down.
    Drain,
    /// Return from `run_worker` immediately. Sent on INT and QUIT, and when the master is gone.
    Stop,
}

impl WorkerCommand {
    /// Commands to exit are delivered only if they are stronger than the previous one.
    fn supersedes(self, previous: Option<WorkerCommand>) -> bool {
        !self.is_exit() || Some(self) > previous
    }

    fn is_exit(self) -> bool {
        self >= WorkerCommand::HandOver
    }
}

/// What a signal tells a worker. The other signals are meant for the master, and were sent to the whole process group.
fn command_for_signal(signal: Signal) -> Option<WorkerCommand> {
    match signal {
        Signal::TERM => Some(WorkerCommand::Drain),
        Signal::INT | Signal::QUIT => Some(WorkerCommand::Stop),
        Signal::USR1 => Some(WorkerCommand::ReopenLogs),
        _ => None,
    }
}

impl From<ChannelEvent<ToWorker>> for WorkerCommand {
    fn from(received: ChannelEvent<ToWorker>) -> WorkerCommand {
        match received {
            ChannelEvent::Message(ToWorker::ReopenLogs) => WorkerCommand::ReopenLogs,
            ChannelEvent::Message(ToWorker::Refresh) => WorkerCommand::Refresh,
            ChannelEvent::Message(ToWorker::IncreaseWorkers) => WorkerCommand::IncreaseWorkers,
            ChannelEvent::Message(ToWorker::DecreaseWorkers) => WorkerCommand::DecreaseWorkers,
            ChannelEvent::Message(ToWorker::HandOver) => WorkerCommand::HandOver,
            ChannelEvent::Message(ToWorker::Drain) => WorkerCommand::Drain,
            ChannelEvent::Closed => WorkerCommand::Stop,
        }
    }
}

/// A forked worker. Once it is dropped, TERM and INT have no effect on the process any more, and QUIT kills it.
pub struct Worker {
    /// Its slot among the workers, from 0. Its replacement has the same number.
    pub number: usize,
    /// How many workers the master has forked so far, including this one.
    pub age: u64,
    signals: SignalQueue,
    channel: ChannelToMaster,
    is_ready: bool,
    last_exit_command: Option<WorkerCommand>,
}

/// Sends requests to the master, from any thread of a worker.
#[derive(Debug)]
pub struct MasterNotifier(ChannelToMaster);

impl MasterNotifier {
    /// Requests the replacement of this worker. It keeps serving until the replacement is ready and it receives
    /// `Drain`.
    pub fn request_recycle(&self) {
        self.0.send(ToMaster::RequestRecycle);
    }

    /// Asks the master to reload, as HUP does.
    pub fn request_reload(&self) {
        self.0.send(ToMaster::RequestReload);
    }
}

impl Worker {
    pub(crate) fn new(number: usize, age: u64, channel: ChannelToMaster, signals: SignalQueue) -> Worker {
        Worker { number, age, signals, channel, is_ready: false, last_exit_command: None }
    }

    /// Reports to the master that this worker serves. Only the first call has an effect.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.channel.send(ToMaster::Ready);
        }
    }

    /// Creates a notifier. It stays usable after the worker is dropped. Fails if no descriptor is available.
    pub fn notifier(&self) -> io::Result<MasterNotifier> {
        self.channel.try_clone().map(MasterNotifier)
    }

    /// Two descriptors to poll. If either is readable, `next_command` may return a command; nothing else may read from
    /// them. They stay the same while the worker lives. Both level-triggered and edge-triggered polling work, if
    /// `next_command` is called until it returns `None`.
    pub fn command_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.signals.as_fd(), self.channel.fd()]
    }

    /// Returns the next command, if there is one. Never blocks.
    pub fn next_command(&mut self) -> Option<WorkerCommand> {
        while let Some(signal) = self.signals.next() {
            if let Some(command) = command_for_signal(signal).and_then(|command| self.deliver(command)) {
                return Some(command);
            }
        }
        while let Some(received) = self.channel.recv() {
            if received == ChannelEvent::Closed {
                self.channel.replace_fd(&self.signals);
            }
            if let Some(command) = self.deliver(received.into()) {
                return Some(command);
            }
        }
        None
    }

    /// The parts that a nested master needs.
    pub(crate) fn into_parts(self) -> (ChannelToMaster, SignalQueue) {
        (self.channel, self.signals)
    }

    /// The command, unless it repeats or weakens the last command to exit.
    fn deliver(&mut self, command: WorkerCommand) -> Option<WorkerCommand> {
        let is_new = command.supersedes(self.last_exit_command);
        if is_new && command.is_exit() {
            self.last_exit_command = Some(command);
        }
        is_new.then_some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WorkerCommand::{DecreaseWorkers, Drain, HandOver, IncreaseWorkers, Refresh, ReopenLogs, Stop};

    #[test]
    fn a_command_to_exit_is_delivered_only_if_it_is_stronger_than_the_last_one() {
        for (previous, delivered) in [
            (None, vec![ReopenLogs, Refresh, IncreaseWorkers, DecreaseWorkers, HandOver, Drain, Stop]),
            (Some(HandOver), vec![ReopenLogs, Refresh, IncreaseWorkers, DecreaseWorkers, Drain, Stop]),
            (Some(Drain), vec![ReopenLogs, Refresh, IncreaseWorkers, DecreaseWorkers, Stop]),
            (Some(Stop), vec![ReopenLogs, Refresh, IncreaseWorkers, DecreaseWorkers]),
        ] {
            for command in [ReopenLogs, Refresh, IncreaseWorkers, DecreaseWorkers, HandOver, Drain, Stop] {
                assert_eq!(
                    command.supersedes(previous),
                    delivered.contains(&command),
                    "{command:?} after {previous:?}"
                );
            }
        }
    }

    #[test]
    fn signals_meant_for_the_master_are_no_commands_to_a_worker() {
        for (signal, command) in [
            (Signal::TERM, Some(Drain)),
            (Signal::INT, Some(Stop)),
            (Signal::QUIT, Some(Stop)),
            (Signal::USR1, Some(ReopenLogs)),
            (Signal::HUP, None),
            (Signal::USR2, None),
            (Signal::TTIN, None),
            (Signal::TTOU, None),
            (Signal::WINCH, None),
        ] {
            assert_eq!(command_for_signal(signal), command, "{signal:?}");
        }
    }
}
