//! The master's loop: take one queued signal, reap the dead, top up, time out the stopping, sleep until something is due.
//!
//! The one thing to know: [`Master::run`] is left in two ways, by the master at the very end and by every worker right
//! after its fork. The worker leaves the master's lines to the other workers behind it, closed, by just returning.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::process::{Pid, Signal, kill_process};

use crate::ending::Ending;
use crate::signals::{Pipe, Signals};
use crate::sys::{self, Blocked, Fork};
use crate::worker::Worker;
use crate::{ForkHooks, News, Settings};

/// A worker that dies before it is ready, or within this time after, is part of a crash loop.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The pause before a place is filled again after one short life in it; it doubles with each further one in a row...
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// ...up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long workers may take to obey QUIT before they are killed.
const FAST_TIMEOUT: Duration = Duration::from_secs(1);

/// How [`Master::run`] ends.
pub(crate) enum End {
    /// In the master: all workers are gone, and this is the exit code.
    Stopped(i32),
    /// In a worker that was just forked.
    Forked(Worker),
}

pub(crate) struct Master<'a> {
    settings: &'a Settings,
    hooks: &'a dyn ForkHooks,
    announce: &'a mut dyn FnMut(News),
    /// Whether that was announced.
    all_were_ready: bool,
    signals: Signals,
    slots: Vec<Slot>,
    phase: Phase,
    forks: u64,
}

enum Phase {
    /// No worker has ever been ready: the first that ends now ends the whole.
    Starting,
    Serving,
    /// `kill_at` is when patience ends; `None` if that has passed, or never comes.
    Stopping {
        code: i32,
        kill_at: Option<Instant>,
    },
}

/// The place of one worker and its successors.
struct Slot {
    state: State,
    /// How many short lives in a row there were here.
    failures: u32,
}

enum State {
    Vacant { until: Instant },
    Taken(Process),
}

/// A running worker as its master sees it.
struct Process {
    pid: Pid,
    /// A byte on it tells the worker to drain, its end to stop. `None` if either side has closed it.
    line: Option<UnixStream>,
    ready_at: Option<Instant>,
}

/// What a worker has of its own right after the fork.
struct Newborn {
    number: usize,
    line: UnixStream,
}

impl<'a> Master<'a> {
    pub(crate) fn new(
        settings: &'a Settings,
        hooks: &'a dyn ForkHooks,
        announce: &'a mut dyn FnMut(News),
    ) -> io::Result<Master<'a>> {
        let vacant = || Slot { state: State::Vacant { until: Instant::now() }, failures: 0 };
        Ok(Master {
            settings,
            hooks,
            announce,
            all_were_ready: false,
            signals: Signals::catch()?,
            slots: (0..settings.workers.max(1)).map(|_| vacant()).collect(),
            phase: Phase::Starting,
            forks: 0,
        })
    }

    pub(crate) fn run(mut self) -> End {
        loop {
            // Before reaping: once a CHLD is taken, nothing else would wake us for that death.
            if let Some(signal) = self.signals.next() {
                self.obey(signal);
            }
            self.reap();
            if let Some(Newborn { number, line }) = self.top_up() {
                return End::Forked(Worker::new(number, self.forks, OwnedFd::from(line), self.signals));
            }
            if let Some(code) = self.kill_or_finish() {
                return End::Stopped(code);
            }
            self.sleep();
        }
    }

    /// Hears which workers are ready and which have ended.
    fn reap(&mut self) {
        for number in 0..self.slots.len() {
            let State::Taken(process) = &mut self.slots[number].state else { continue };
            // In this order: all that a dead worker ever said is in its line by now.
            let ending = Ending::of(process.pid);
            if process.becomes_ready() {
                info!("worker {} is up", process.pid);
                if matches!(self.phase, Phase::Starting) {
                    self.phase = Phase::Serving;
                }
            }
            if let Some(ending) = ending {
                self.bury(number, ending);
            }
        }
        if matches!(self.phase, Phase::Serving)
            && !self.all_were_ready
            && self.slots.iter().all(Slot::is_ready)
        {
            self.all_were_ready = true;
            (self.announce)(News::Ready);
        }
    }

    /// Empties the slot of a worker that has ended, and decides what follows from its end.
    fn bury(&mut self, number: usize, ending: Ending) {
        let now = Instant::now();
        let slot = &mut self.slots[number];
        let State::Taken(dead) = std::mem::replace(&mut slot.state, State::Vacant { until: now }) else {
            return;
        };
        let pid = dead.pid;
        match self.phase {
            Phase::Stopping { .. } if ending == Ending::Exited(0) => info!("worker {pid} has ended"),
            Phase::Stopping { .. } => warn!("worker {pid} {ending} while stopping"),
            Phase::Starting => {
                error!("worker {pid} {ending} before it was ready, so there is nothing to run");
                self.stop_fast(ending.code());
            }
            Phase::Serving if dead.ready_at.is_some_and(|ready_at| now - ready_at >= SHORT_LIFE) => {
                slot.failures = 0;
                error!("worker {pid} {ending}; a new one starts at once");
            }
            Phase::Serving if dead.ready_at.is_some() => {
                slot.put_off(now, &format!("worker {pid} {ending} as soon as it was up"));
            }
            Phase::Serving => slot.put_off(now, &format!("worker {pid} {ending} before it was ready")),
        }
    }

    fn obey(&mut self, signal: Signal) {
        match (signal, &self.phase) {
            (Signal::CHILD, _) => {} // `reap` is next
            (Signal::QUIT, Phase::Starting | Phase::Serving) => self.stop_fast(0),
            (_, Phase::Stopping { code, .. }) => self.stop_fast(*code),
            (_, Phase::Starting | Phase::Serving) => self.stop_gracefully(),
        }
    }

    fn stop_gracefully(&mut self) {
        let timeout = self.settings.graceful_timeout;
        info!("stopping: the workers may finish what they run, for at most {timeout:?}");
        self.end(0, Instant::now().checked_add(timeout));
        for process in self.processes() {
            process.retire();
        }
    }

    /// Tells all workers to stop at once, and will kill them soon.
    fn stop_fast(&mut self, code: i32) {
        info!("stopping at once");
        let mut kill_at = Instant::now() + FAST_TIMEOUT;
        if let Phase::Stopping { kill_at: Some(earlier), .. } = self.phase {
            kill_at = kill_at.min(earlier);
        }
        self.end(code, Some(kill_at));
        for process in self.processes() {
            process.line = None;
            process.signal(Signal::QUIT);
        }
    }

    fn end(&mut self, code: i32, kill_at: Option<Instant>) {
        if !matches!(self.phase, Phase::Stopping { .. }) {
            (self.announce)(News::Ending);
        }
        self.phase = Phase::Stopping { code, kill_at };
    }

    /// Kills those that have not stopped in time. The exit code, once all are gone.
    fn kill_or_finish(&mut self) -> Option<i32> {
        let Phase::Stopping { code, kill_at } = &mut self.phase else { return None };
        let code = *code;
        if kill_at.is_some_and(|kill_at| kill_at <= Instant::now()) {
            *kill_at = None;
            for process in self.processes() {
                warn!("worker {} has not stopped in time and is killed", process.pid);
                process.signal(Signal::KILL);
            }
        }
        self.processes().next().is_none().then_some(code)
    }

    /// Forks a worker for every vacant slot whose pause is over. Gives a newborn in the worker, nothing in the master.
    fn top_up(&mut self) -> Option<Newborn> {
        if matches!(self.phase, Phase::Stopping { .. }) {
            return None;
        }
        for number in 0..self.slots.len() {
            match self.slots[number].state {
                State::Vacant { until } if until <= Instant::now() => {}
                _ => continue,
            }
            match self.fork(number) {
                Ok(None) => {}
                Ok(newborn) => return newborn,
                Err(error) => {
                    self.slots[number]
                        .put_off(Instant::now(), &format!("no worker could be forked: {error}"));
                }
            }
        }
        None
    }

    /// No signal is lost around the fork: all are blocked until both processes are set up. One sent to the worker
    /// before it has its own queue waits in the kernel; one that the master has in its queue stays the master's.
    fn fork(&mut self, number: usize) -> io::Result<Option<Newborn>> {
        // All that can fail is made here, where there is somebody to tell.
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let pipe = Pipe::new()?;

        self.hooks.before();
        let blocked = Blocked::all();
        let forked = sys::fork();
        if let Ok(Fork::Child) = forked {
            self.forks += 1;
            self.signals.become_workers(pipe);
            drop(blocked);
            self.hooks.after_in_child();
            return Ok(Some(Newborn { number, line: theirs }));
        }
        drop(blocked);
        self.hooks.after_in_parent();
        if let Fork::Parent { child: pid } = forked? {
            self.forks += 1;
            self.slots[number].state = State::Taken(Process { pid, line: Some(ours), ready_at: None });
        }
        Ok(None)
    }

    /// Waits for a signal, for a word from a worker that is not ready yet, or until something is due.
    fn sleep(&self) {
        let due = match self.phase {
            Phase::Stopping { kill_at, .. } => kill_at,
            Phase::Starting | Phase::Serving => self.slots.iter().filter_map(Slot::vacant_until).min(),
        };
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let awaited = self.slots.iter().filter_map(Slot::awaited_line);
        let mut watched: Vec<_> = awaited.map(|line| PollFd::new(line, PollFlags::IN)).collect();
        watched.push(PollFd::new(&self.signals, PollFlags::IN));
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                error!("the master cannot wait for its workers: {error}");
                std::thread::sleep(FIRST_PAUSE);
            }
        }
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.slots.iter_mut().filter_map(|slot| match &mut slot.state {
            State::Taken(process) => Some(process),
            State::Vacant { .. } => None,
        })
    }
}

impl Slot {
    fn is_ready(&self) -> bool {
        matches!(&self.state, State::Taken(process) if process.ready_at.is_some())
    }

    fn vacant_until(&self) -> Option<Instant> {
        match self.state {
            State::Vacant { until } => Some(until),
            State::Taken(_) => None,
        }
    }

    fn awaited_line(&self) -> Option<&UnixStream> {
        match &self.state {
            State::Taken(Process { line: Some(line), ready_at: None, .. }) => Some(line),
            _ => None,
        }
    }

    /// Leaves the slot vacant for a pause that grows with each failure in a row, and logs why.
    fn put_off(&mut self, now: Instant, what: &str) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Vacant { until: now + pause };
        error!("{what}; a new one starts in {pause:?}");
    }
}

impl Process {
    /// Whether the worker has said that it is ready since this was last asked.
    fn becomes_ready(&mut self) -> bool {
        let (Some(line), None) = (&self.line, self.ready_at) else { return false };
        match retry_on_intr(|| read(line, &mut [0; 1])) {
            Ok(1) => self.ready_at = Some(Instant::now()),
            Err(Errno::AGAIN) => {}
            Ok(_) | Err(_) => self.line = None, // it will never say so; a line that has ended would keep us awake
        }
        self.ready_at.is_some()
    }

    /// Tells the worker to drain. The line stays open: its end would say that the master is gone.
    fn retire(&self) {
        if let Some(line) = &self.line {
            // A worker that cannot be told has ended already.
            let _ = retry_on_intr(|| write(line, b"."));
        }
    }

    fn signal(&self, signal: Signal) {
        // The process is ours and not waited for yet, so its pid is still its own; at worst it is dead already.
        let _ = kill_process(self.pid, signal);
    }
}
