//! The fork floor: each request in a process of its own.
//!
//! The loop stays in the parent and owns every connection. A complete request forks a child, which runs the app, writes the
//! response to the socket and leaves by `_exit`. The parent hears of its end by a pidfd in its own poll set, reaps that one pid and
//! no other (the app's own children are not ours), and reads in a shared byte how far the child came: a child that died
//! silent becomes a 500 or 504, one that died midway a cut connection. The parent has one thread.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};
use slab::Slab;

use crate::{
    App, clock,
    connection::{Connection, Next},
    note::{Came, Note, Notes},
    sys::{self, Forked},
    thread_pool, watchdog,
};

/// How long a child that is about to be killed may take to say where it is.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// How soon a child's deadline is looked at again if it waits for its client.
const SOON: Duration = Duration::from_secs(1);

/// How a child ended, for the connection it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The response is sent and the connection may live on.
    KeptAlive,
    /// The response is sent and the connection is to be closed.
    Closed,
    /// It died before it sent anything.
    Silent { status: u16, why: &'static str },
    /// It died in the middle of the response.
    Cut,
}

/// The children that run now.
pub(crate) struct Children {
    bound: usize,
    running: Slab<Child>,
    notes: Arc<Notes>,
    first_token: usize,
}

struct Child {
    pid: Pid,
    /// None where the system has none left; then the child is asked after by its pid now and then.
    pidfd: Option<OwnedFd>,
    connection: usize,
    timed_out: bool,
}

impl Children {
    pub(crate) fn new(bound: usize, first_token: usize) -> io::Result<Self> {
        let notes = Arc::new(Notes::new(bound)?);
        Ok(Self { bound, running: Slab::with_capacity(bound), notes, first_token })
    }

    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < self.bound
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether some child can only be asked after, because the system has no pidfd.
    pub(crate) fn must_be_asked_after(&self) -> bool {
        self.running.iter().any(|(_, child)| child.pidfd.is_none())
    }

    /// Forks a child that answers `connection`'s request. `others` are descriptors it has no use for.
    pub(crate) fn start(
        &mut self,
        connection: &mut Connection,
        app: &dyn App,
        registry: &Registry,
        others: &mut dyn Iterator<Item = RawFd>,
    ) -> io::Result<()> {
        let entry = self.running.vacant_entry();
        let index = entry.key();
        let note = Notes::take(&self.notes, index);
        clock::date(); // written here once a second, and not by every child
        app.before_fork();
        let parent = rustix::process::getpid();
        let forked = sys::fork();
        match forked {
            Ok((Forked::Child, held)) => {
                thread_pool::forget_event_loop();
                sys::take_signals_of_child(parent);
                drop(held);
                answer_and_leave(connection, app, &note, others)
            }
            Ok((Forked::Parent(pid), held)) => {
                drop(held);
                app.after_fork_in_parent();
                let token = Token(self.first_token + index);
                let watch = |pidfd: &OwnedFd| {
                    registry.register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE)
                };
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
                let pidfd = pidfd.filter(|pidfd| watch(pidfd).is_ok());
                entry.insert(Child { pid, pidfd, connection: connection.token, timed_out: false });
                // Where they share a core, children that run one after the other cost less than many that take turns.
                std::thread::yield_now();
                Ok(())
            }
            Err(error) => {
                app.after_fork_in_parent();
                Err(error)
            }
        }
    }

    /// The child that answers this connection has taken too long. It is first asked where it is (by URG, which a child that does not
    /// know it ignores), and killed when this is called again, after the time returned. Its end is heard of as any other's. The time
    /// that it has waited for its client to send does not count.
    pub(crate) fn time_out(&mut self, connection: &Connection, now: Instant) -> Option<Duration> {
        let mut running = self.running.iter_mut();
        let (index, child) = running.find(|(_, child)| child.connection == connection.token)?;
        let due = connection.deadline().zip(self.notes.waited(index)).map(|(due, waited)| due + waited);
        if !child.timed_out && due.is_none_or(|due| due > now) {
            return Some(due.map_or(SOON, |due| due - now));
        }
        let again = std::mem::replace(&mut child.timed_out, true);
        if !again {
            let line = watchdog::shown(&connection.request);
            watchdog::tell(line, &connection.wire().peer, now - connection.since);
        }
        let _ = rustix::process::kill_process(child.pid, if again { Signal::KILL } else { Signal::URG });
        (!again).then_some(LAST_WORDS)
    }

    /// Ends them all.
    pub(crate) fn kill_all(&mut self) {
        for (_, child) in &self.running {
            let _ = rustix::process::kill_process(child.pid, Signal::KILL);
        }
    }

    /// The children whose end is not yet known, by index.
    pub(crate) fn indices(&self) -> Vec<usize> {
        self.running.iter().map(|(index, _)| index).collect()
    }

    /// Reaps this child if it has ended: which connection it answered, and how.
    pub(crate) fn reap(&mut self, index: usize, registry: &Registry) -> Option<(usize, Ending)> {
        let child = self.running.get(index)?;
        let status = match rustix::process::waitpid(Some(child.pid), WaitOptions::NOHANG) {
            Ok(None) | Err(rustix::io::Errno::INTR) => return None,
            Ok(Some((_, status))) => Some(status),
            // Somebody else reaped it (an app that waits for any child); the shared byte still tells how far it came.
            Err(_) => None,
        };
        let child = self.running.remove(index);
        if let Some(pidfd) = &child.pidfd {
            // A copy of the descriptor may live in a younger child, so it has to leave the poll set before it is closed.
            let _ = registry.deregister(&mut SourceFd(&pidfd.as_raw_fd()));
        }
        let ending = match self.notes.read(index) {
            Came::KeptAlive => Ending::KeptAlive,
            Came::Closed => Ending::Closed,
            came => {
                child.tell_fate(status);
                match came {
                    Came::Midway => Ending::Cut,
                    _ if child.timed_out => Ending::Silent { status: 504, why: "the request took too long" },
                    _ => Ending::Silent { status: 500, why: "the request's process died" },
                }
            }
        };
        Some((child.connection, ending))
    }
}

impl Child {
    fn tell_fate(&self, status: Option<WaitStatus>) {
        let fate = match status.and_then(WaitStatus::terminating_signal) {
            _ if self.timed_out => "was killed at the timeout".to_owned(),
            Some(signal) => format!("was killed by {}", name_of(signal)),
            None => "left by itself".to_owned(),
        };
        // What has taken too long has had its error.
        let level = if self.timed_out { log::Level::Warn } else { log::Level::Error };
        log::log!(level, "child {} {fate} before its response was complete", self.pid.as_raw_nonzero());
    }
}

fn name_of(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// The whole life of a child.
fn answer_and_leave(
    connection: &mut Connection,
    app: &dyn App,
    note: &Note,
    others: &mut dyn Iterator<Item = RawFd>,
) -> ! {
    let answered = catch_unwind(AssertUnwindSafe(|| {
        app.after_fork_in_child();
        others.for_each(sys::close_copy);
        connection.wire().note_in(note.clone());
        let mut next = Next::Close;
        app.in_request(&mut || next = connection.run_to_the_end(app));
        app.before_exit_of_child();
        next
    }));
    let Ok(next) = answered else { sys::leave(70) };
    let keeps_alive = next == Next::Wait && connection.is_between_requests();
    note.write(if keeps_alive { Came::KeptAlive } else { Came::Closed });
    sys::leave(0)
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_signal_has_the_name_that_people_know() {
        assert_eq!(
            (name_of(11), name_of(9), name_of(40)),
            ("SIGSEGV".into(), "SIGKILL".into(), "signal 40".into())
        );
    }
}
