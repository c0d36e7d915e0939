//! `--fork`: each request in its own process.
//!
//! The event loop stays in the parent and owns every connection. A complete request forks a child, which runs the
//! application, writes the response to the socket and calls `_exit`. The parent has one thread.
//!
//! | module | content |
//! |---|---|
//! | this one | the parent's side: children are started, timed out and reaped |
//! | [`child`] | the child's side: one request, from the fork to the exit |
//! | [`process`] | the fork itself |
//! | [`progress`] | what children report through shared memory |
//! | [`control`] | messages of children to their parent |
//! | [`parent_link`] | a child's access to both |
//! | [`relay`] | the parent's end of a response whose client is slower than the child |
//! | [`relay_channel`] | the packets of a relay, and the child's end |
//! | [`outcome`] | the consequence of a child's end for its connection |
//! | [`warmup`] | the request before the first fork |
//!
//! The parent learns a child's end from a pidfd in its poll set. It reaps that pid and no other, because the
//! application has children of its own. Shared memory shows how far the response was: a child that died before it sent
//! anything becomes a 500 or 504, one that died in the middle a reset connection.

mod child;
mod control;
pub(crate) mod outcome;
pub(crate) mod parent_link;
mod process;
pub(crate) mod progress;
pub(crate) mod relay;
pub(crate) mod relay_channel;
mod warmup;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use mlws_sys::{self as sys, Fork};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};
use slab::Slab;

pub use self::warmup::run_in_discarded_process;
pub(crate) use self::warmup::run_warmup_request;
use self::{
    control::{ChildChannel, ChildEvent},
    outcome::ChildOutcome,
    parent_link::ParentLink,
    process::fork_for_request,
    progress::{CallState, ProgressTable, ResponseProgress},
};
use crate::{App, clock, connection::Connection, event_loop_thread, watchdog};

/// How long a child may take to log its stacks before it is killed.
const STACK_DUMP_GRACE: Duration = Duration::from_millis(300);

/// What a running child reports about the connection with this token.
pub(crate) enum Report {
    /// The response is complete.
    Complete { connection: usize, outcome: ChildOutcome },
    /// The rest of the response comes through this socket. `None` if this process had no descriptor left for it.
    RelayStarted { connection: usize, socket: Option<OwnedFd> },
}

/// The running children.
pub(crate) struct Children {
    limit: usize,
    timeout: Option<Duration>,
    running: Slab<Child>,
    progress: Arc<ProgressTable>,
    control: Arc<ChildChannel>,
    /// Children that were reaped and not yet reported to the app. `None` if the app does not want reports.
    exited: Option<Vec<Pid>>,
    first_token: usize,
}

struct Child {
    pid: Pid,
    /// `None` if no pidfd was available. The child is polled by its pid then.
    pidfd: Option<OwnedFd>,
    phase: ChildPhase,
    /// Its request is logged, and SIGURG was sent for its stacks.
    timed_out: bool,
}

enum ChildPhase {
    /// It answers the request of the connection with this token.
    Responding { connection: usize },
    /// The connection is released. Threads that the request started may run until the deadline.
    Background { deadline: Option<Instant> },
}

impl Children {
    /// At most `limit` children. None of their calls may take longer than `timeout`.
    pub(crate) fn new(limit: usize, timeout: Option<Duration>, first_token: usize) -> io::Result<Self> {
        Ok(Self {
            limit,
            timeout,
            running: Slab::with_capacity(limit),
            progress: Arc::new(ProgressTable::new(limit)?),
            control: Arc::new(ChildChannel::new()?),
            exited: None,
            first_token,
        })
    }

    /// From now on, [`take_exited`](Self::take_exited) returns the children that were reaped.
    pub(crate) fn record_exits(&mut self) {
        self.exited.get_or_insert_default();
    }

    /// The children that were reaped since the last call.
    pub(crate) fn take_exited(&mut self) -> Vec<Pid> {
        self.exited.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// After [`kill_all`](Self::kill_all): waits for the children, if their exits are recorded.
    pub(crate) fn wait_for_killed(&mut self) {
        let Some(exited) = &mut self.exited else { return };
        for child in self.running.drain() {
            // An error means that the application has reaped it.
            let _ =
                rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child.pid), WaitOptions::empty()));
            exited.push(child.pid);
        }
    }

    pub(crate) fn has_capacity(&self) -> bool {
        self.running.len() < self.limit
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The descriptor that is readable when children have sent messages.
    pub(crate) fn control_descriptor(&self) -> RawFd {
        self.control.parent_end()
    }

    /// Whether a child has no pidfd and must be polled.
    pub(crate) fn needs_polling(&self) -> bool {
        self.running.iter().any(|(_, child)| child.pidfd.is_none())
    }

    /// Forks a child for `connection`'s request. `others` are descriptors that the child must close.
    pub(crate) fn start(
        &mut self,
        connection: &mut Connection,
        app: &dyn App,
        registry: &Registry,
        others: &mut dyn Iterator<Item = RawFd>,
    ) -> io::Result<()> {
        let entry = self.running.vacant_entry();
        let progress = ProgressTable::start(&self.progress, entry.key());
        let token = Token(self.first_token + entry.key());
        clock::date(); // formatted here once per second, not by every child
        match fork_for_request(app)? {
            Fork::Child => {
                event_loop_thread::set(false);
                let mut others = others.chain(std::iter::once(self.control.parent_end()));
                let link = ParentLink::new(progress, &self.control);
                child::answer_and_exit(connection, app, link, &mut others)
            }
            Fork::Parent { child: pid } => {
                let watch = |pidfd: &OwnedFd| {
                    registry.register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE)
                };
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
                let pidfd = pidfd.filter(|pidfd| watch(pidfd).is_ok());
                let phase = ChildPhase::Responding { connection: connection.token };
                entry.insert(Child { pid, pidfd, phase, timed_out: false });
                // On a shared core, children that run one after the other cost less than many that take turns.
                std::thread::yield_now();
                Ok(())
            }
        }
    }

    /// Checks the child that answers this connection. If its current call exceeds the timeout, the request is logged,
    /// and the child gets SIGURG, whose handler logs its stacks. The next check kills it.
    /// Returns when to check again. Its end is handled like any other.
    pub(crate) fn check_timeout(&mut self, connection: &Connection, now: Instant) -> Option<Instant> {
        let timeout = self.timeout?;
        let mut running = self.running.iter_mut();
        let (index, child) = running.find(|(_, child)| child.answers(connection.token))?;
        if child.timed_out {
            child.kill();
            return None;
        }
        let CallState::Since(since) = self.progress.call(index) else { return Some(now + timeout) };
        if now < since + timeout {
            return Some(since + timeout);
        }
        child.timed_out = true;
        let line = watchdog::request_line_for_log(&connection.request);
        watchdog::log_timeout(line, &connection.socket().peer, now.saturating_duration_since(since));
        child.request_stacks();
        Some(now + STACK_DUMP_GRACE)
    }

    /// The client of this connection no longer waits. Only for HTTP/2, where the child cannot know.
    pub(crate) fn on_client_gone(&self, connection: usize) {
        if let Some((index, _)) = self.running.iter().find(|(_, child)| child.answers(connection)) {
            self.progress.store_client_gone(index, true);
        }
    }

    /// When [`check_background`](Self::check_background) has something to do.
    pub(crate) fn next_background_deadline(&self) -> Option<Instant> {
        self.running.iter().filter_map(|(_, child)| child.background_deadline()).min()
    }

    /// Ends children whose threads run too long after the response: first logs their stacks, then kills them, as in
    /// [`check_timeout`](Self::check_timeout).
    pub(crate) fn check_background(&mut self, now: Instant) {
        let expired = |child: &Child| child.background_deadline().is_some_and(|deadline| deadline <= now);
        for (_, child) in self.running.iter_mut().filter(|(_, child)| expired(child)) {
            let mut deadline = None;
            if child.timed_out {
                child.kill();
            } else {
                child.timed_out = true;
                log::error!(
                    "background threads of child {} have run past the timeout after the response; killing it, stacks follow",
                    child.pid.as_raw_nonzero()
                );
                child.request_stacks();
                deadline = Some(now + STACK_DUMP_GRACE);
            }
            child.phase = ChildPhase::Background { deadline };
        }
    }

    /// Kills all children.
    pub(crate) fn kill_all(&mut self) {
        self.running.iter().for_each(|(_, child)| child.kill());
    }

    /// The indices of children that have not been reaped.
    pub(crate) fn indices(&self) -> Vec<usize> {
        self.running.iter().map(|(index, _)| index).collect()
    }

    /// The next report of a child about its connection.
    pub(crate) fn next_report(&mut self, now: Instant) -> Option<Report> {
        loop {
            let (message, descriptor) = self.control.receive()?;
            // If the child has ended meanwhile, it was reaped and its connection returned.
            let child = self.running.get_mut(message.index).filter(|child| child.pid == message.pid);
            let Some(child) = child else { continue };
            let ChildPhase::Responding { connection } = child.phase else { continue };
            if message.event == ChildEvent::RelayStarted {
                return Some(Report::RelayStarted { connection, socket: descriptor });
            }
            let Some(outcome) = ChildOutcome::of(self.progress.response(message.index)) else { continue };
            child.phase = ChildPhase::Background { deadline: self.timeout.map(|timeout| now + timeout) };
            return Some(Report::Complete { connection, outcome });
        }
    }

    /// Whether this child sends its response through the parent; then [`next_report`](Self::next_report) must come before
    /// [`reap`](Self::reap).
    pub(crate) fn is_relayed(&self, index: usize) -> bool {
        self.progress.is_relayed(index)
    }

    /// Reaps this child if it has ended. Returns the connection that it answered and the consequence. `None` also for a
    /// child that had released its connection.
    pub(crate) fn reap(&mut self, index: usize, registry: &Registry) -> Option<(usize, ChildOutcome)> {
        let child = self.running.get(index)?;
        let status = match rustix::process::waitpid(Some(child.pid), WaitOptions::NOHANG) {
            Ok(None) | Err(rustix::io::Errno::INTR) => return None,
            Ok(Some((_, status))) => Some(status),
            // Reaped by the application, which waited for any child. Shared memory still shows how far the response
            // was.
            Err(_) => None,
        };
        let child = self.running.remove(index);
        if let Some(exited) = &mut self.exited {
            exited.push(child.pid);
        }
        if let Some(pidfd) = &child.pidfd {
            // A younger child may have a copy of the descriptor, so it must leave the poll set before it is closed.
            let _ = registry.deregister(&mut SourceFd(&pidfd.as_raw_fd()));
        }
        let ChildPhase::Responding { connection } = child.phase else {
            child.log_background_exit(status);
            return None;
        };
        let progress = self.progress.response(index);
        let outcome = ChildOutcome::of(progress).unwrap_or_else(|| {
            child.log_exit(status, "before its response was complete");
            match progress {
                ResponseProgress::Started => ChildOutcome::Truncated,
                _ if child.timed_out => {
                    ChildOutcome::NoResponse { status: 504, why: "the request took too long" }
                }
                _ => ChildOutcome::NoResponse { status: 500, why: "the request's process died" },
            }
        });
        Some((connection, outcome))
    }
}

impl Child {
    fn answers(&self, token: usize) -> bool {
        matches!(self.phase, ChildPhase::Responding { connection } if connection == token)
    }

    fn background_deadline(&self) -> Option<Instant> {
        match self.phase {
            ChildPhase::Background { deadline } => deadline,
            ChildPhase::Responding { .. } => None,
        }
    }

    fn request_stacks(&self) {
        self.signal(Signal::URG);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// The application may have reaped the child, and another process may have its pid by now. The pidfd still refers to
    /// the child. A failure means that it has ended.
    fn signal(&self, signal: Signal) {
        let _ = match &self.pidfd {
            Some(pidfd) => rustix::process::pidfd_send_signal(pidfd, signal),
            None => rustix::process::kill_process(self.pid, signal),
        };
    }

    fn log_exit(&self, status: Option<WaitStatus>, when: &str) {
        let how = match status.and_then(WaitStatus::terminating_signal) {
            _ if self.timed_out => "was killed at the timeout".to_owned(),
            Some(signal) => format!("was killed by SIG{}", sys::signal_name(signal)),
            None => "exited by itself".to_owned(),
        };
        // A timeout has logged its error already.
        let level = if self.timed_out { log::Level::Warn } else { log::Level::Error };
        log::log!(level, "child {} {how} {when}", self.pid.as_raw_nonzero());
    }

    fn log_background_exit(&self, status: Option<WaitStatus>) {
        if status.is_some_and(|status| status.exit_status() != Some(0)) {
            self.log_exit(status, "while its background threads ran");
        }
    }
}
