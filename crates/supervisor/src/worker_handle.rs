//! [`WorkerHandle`]: a worker process as its master sees it. It is not the worker itself, which is [`crate::Worker`].
//!
//! A worker is starting until it reports that it is ready, then running, and stopping once it has received a command to
//! exit. Starting and stopping have a deadline. Running has none.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::control_channel::{ChannelEvent, ChannelToWorker, ToMaster, ToWorker};
use crate::exit_status::ExitStatus;
use crate::messages;

/// The time between ABRT, on which a worker dumps its stacks, and KILL.
const STACK_DUMP_GRACE: Duration = Duration::from_secs(1);

/// What workers request from their master.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) reload: bool,
    /// Signals that nested masters have received.
    pub(crate) signals: Vec<Signal>,
}

pub(crate) struct WorkerHandle {
    pub(crate) pid: Pid,
    /// `None` once either side has closed it. Closing it tells the worker to stop immediately.
    channel: Option<ChannelToWorker>,
    state: WorkerState,
    /// The worker has requested its replacement.
    pub(crate) recycle_requested: bool,
}

/// `deadline: None` means no limit, or for a stopping worker that it was killed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerState {
    Starting { deadline: Option<Instant> },
    Running { since: Instant },
    Stopping { deadline: Option<Instant> },
}

impl WorkerState {
    fn deadline(self) -> Option<Instant> {
        match self {
            WorkerState::Starting { deadline } | WorkerState::Stopping { deadline } => deadline,
            WorkerState::Running { .. } => None,
        }
    }

    /// The signal for a worker that has missed its deadline, and its next state.
    fn on_timeout(self, now: Instant) -> Option<(Signal, WorkerState)> {
        self.deadline().filter(|deadline| *deadline <= now)?;
        Some(match self {
            WorkerState::Starting { .. } => {
                (Signal::ABORT, WorkerState::Stopping { deadline: Some(now + STACK_DUMP_GRACE) })
            }
            WorkerState::Running { .. } | WorkerState::Stopping { .. } => {
                (Signal::KILL, WorkerState::Stopping { deadline: None })
            }
        })
    }

    /// The state of a worker that must stop immediately. An earlier deadline for stopping is kept.
    fn terminated(self, deadline: Instant) -> WorkerState {
        let earlier = match self {
            WorkerState::Stopping { deadline } => deadline,
            WorkerState::Starting { .. } | WorkerState::Running { .. } => None,
        };
        WorkerState::Stopping { deadline: Some(earlier.map_or(deadline, |earlier| earlier.min(deadline))) }
    }
}

impl WorkerHandle {
    /// A process that was just forked and must be ready before `deadline`.
    pub(crate) fn new(pid: Pid, channel: ChannelToWorker, deadline: Option<Instant>) -> WorkerHandle {
        let state = WorkerState::Starting { deadline };
        WorkerHandle { pid, channel: Some(channel), state, recycle_requested: false }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, WorkerState::Running { .. })
    }

    /// How long the worker has been running. `None` if it is not running.
    pub(crate) fn uptime(&self) -> Option<Duration> {
        match self.state {
            WorkerState::Running { since } => Some(since.elapsed()),
            WorkerState::Starting { .. } | WorkerState::Stopping { .. } => None,
        }
    }

    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().and_then(ChannelToWorker::poll_fd)
    }

    /// Reads the worker's pending messages. Adds those that concern the master to `requests`.
    pub(crate) fn read_messages(&mut self, requests: &mut Requests) {
        while let Some(received) = self.channel.as_mut().and_then(ChannelToWorker::recv) {
            match received {
                ChannelEvent::Message(ToMaster::Ready) => {
                    if matches!(self.state, WorkerState::Starting { .. }) {
                        self.state = WorkerState::Running { since: Instant::now() };
                        messages::worker_ready(self.pid);
                    }
                }
                ChannelEvent::Message(ToMaster::RequestRecycle) => self.recycle_requested = true,
                ChannelEvent::Message(ToMaster::RequestReload) => requests.reload = true,
                ChannelEvent::Message(message) => requests.signals.extend(message.forwarded_signal()),
                ChannelEvent::Closed => self.channel = None,
            }
        }
    }

    /// Sends a message. A worker that cannot receive it has exited, or will be killed at its deadline.
    pub(crate) fn send(&self, message: ToWorker) {
        if let Some(channel) = &self.channel {
            channel.send(message);
        }
    }

    /// Tells the worker to finish its requests and exit. The channel stays open, because closing it means "stop
    /// immediately".
    pub(crate) fn drain(&mut self, drain: Drain, timeout: Duration) {
        self.send(drain.message());
        self.state = WorkerState::Stopping { deadline: Instant::now().checked_add(timeout) };
    }

    /// Tells the worker to stop immediately.
    pub(crate) fn terminate(&mut self, timeout: Duration) {
        self.channel = None;
        self.signal(Signal::QUIT);
        self.state = self.state.terminated(Instant::now() + timeout);
    }

    /// Aborts a worker that has not become ready in time, so that it dumps its stacks. Kills one that has not stopped
    /// in time.
    pub(crate) fn enforce_timeout(&mut self, now: Instant) {
        let Some((signal, state)) = self.state.on_timeout(now) else { return };
        match signal {
            Signal::ABORT => messages::worker_boot_timeout(self.pid),
            _ => messages::worker_stop_timeout(self.pid),
        }
        self.signal(signal);
        self.state = state;
    }

    /// When `enforce_timeout` has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.state.deadline()
    }

    /// Reaps the process if it has exited.
    pub(crate) fn reap(&self) -> Option<ExitStatus> {
        ExitStatus::reap(self.pid)
    }

    fn signal(&self, signal: Signal) {
        // The process is a child that was not reaped yet, so the pid is still its own. If it is a zombie, nothing
        // happens.
        let _ = kill_process(self.pid, signal);
    }
}

/// How workers finish their requests and exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// No worker keeps serving.
    Final,
    /// Other workers serve on, and idle connections are handed over to them.
    HandOver,
}

impl Drain {
    fn message(self) -> ToWorker {
        match self {
            Drain::Final => ToWorker::Drain,
            Drain::HandOver => ToWorker::HandOver,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WorkerState::{Running, Starting, Stopping};

    #[test]
    fn a_worker_that_misses_its_deadline_is_aborted_while_it_starts_and_killed_while_it_stops() {
        let now = Instant::now();
        let (past, future) = (Some(now), Some(now + Duration::from_secs(1)));
        for (state, expected) in [
            (Starting { deadline: None }, None),
            (Starting { deadline: future }, None),
            (Starting { deadline: past }, Some((Signal::ABORT, Stopping { deadline: future }))),
            (Running { since: now }, None),
            (Stopping { deadline: None }, None),
            (Stopping { deadline: future }, None),
            (Stopping { deadline: past }, Some((Signal::KILL, Stopping { deadline: None }))),
        ] {
            assert_eq!(state.on_timeout(now), expected, "{state:?}");
        }
    }

    #[test]
    fn an_immediate_stop_keeps_an_earlier_deadline() {
        let now = Instant::now();
        let [sooner, soon, later] = [1, 2, 3].map(|seconds| now + Duration::from_secs(seconds));
        for (state, expected) in [
            (Starting { deadline: Some(sooner) }, soon),
            (Running { since: now }, soon),
            (Stopping { deadline: None }, soon),
            (Stopping { deadline: Some(later) }, soon),
            (Stopping { deadline: Some(sooner) }, sooner),
        ] {
            assert_eq!(state.terminated(soon), Stopping { deadline: Some(expected) }, "{state:?}");
        }
    }
}
