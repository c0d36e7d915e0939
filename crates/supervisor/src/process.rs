//! One worker as its master sees it: a pid, a line to talk over, and how long it may still take.
//!
//! The one thing to know: a process is in one of three ages. It *starts* until it says that it is ready, then *serves*,
//! and from the day it is told to go it *leaves*. Starting and leaving have a deadline; serving has none.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use log::{error, warn};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::process::{Pid, Signal, kill_process};

use crate::ending::Ending;
use crate::worker::{ASKS_FOR_RELOAD, IS_READY, IS_WORN};

/// How long a process that was told to show its stacks has for it, before it is killed.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// A byte on it is an order, its end means "stop". `None` if either side has closed it.
    line: Option<UnixStream>,
    age: Age,
    /// When patience with this age ends; `None` if it never does, or has.
    deadline: Option<Instant>,
    /// It wants to be replaced.
    pub(crate) worn: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Starts,
    Serves { since: Instant },
    Leaves,
}

impl Process {
    /// A process that was just forked and has to be ready before `deadline`.
    pub(crate) fn new(pid: Pid, line: UnixStream, deadline: Option<Instant>) -> Process {
        Process { pid, line: Some(line), age: Age::Starts, deadline, worn: false }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.age, Age::Serves { .. })
    }

    /// How long it has served; `None` if it was never ready.
    pub(crate) fn served(&self) -> Option<Duration> {
        match self.age {
            Age::Serves { since } => Some(since.elapsed()),
            Age::Starts | Age::Leaves => None,
        }
    }

    pub(crate) fn line(&self) -> Option<&UnixStream> {
        self.line.as_ref()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes what the worker has said since this was last called. True if it asks for a reload.
    pub(crate) fn listen(&mut self) -> bool {
        let mut asks_for_reload = false;
        while let Some(line) = &self.line {
            let mut word = [0];
            match retry_on_intr(|| read(line, &mut word)) {
                Ok(1) if word == IS_READY && self.age == Age::Starts => {
                    (self.age, self.deadline) = (Age::Serves { since: Instant::now() }, None);
                }
                Ok(1) if word == IS_WORN => self.worn = true,
                Ok(1) => asks_for_reload |= word == ASKS_FOR_RELOAD,
                Err(Errno::AGAIN) => break,
                Ok(_) | Err(_) => self.line = None, // a line that has ended would keep us awake
            }
        }
        asks_for_reload
    }

    /// Gives an order. One that cannot be told has ended already, or soon will be killed.
    pub(crate) fn order(&self, word: [u8; 1]) {
        if let Some(line) = &self.line {
            let _ = retry_on_intr(|| write(line, &word));
        }
    }

    /// It is to finish what it runs and go, by this order: `DRAIN` or `HAND_OVER`. The line stays open: its end would say
    /// that the master is gone.
    pub(crate) fn retire(&mut self, order: [u8; 1], patience: Duration) {
        self.order(order);
        (self.age, self.deadline) = (Age::Leaves, Instant::now().checked_add(patience));
    }

    /// It is to stop at once.
    pub(crate) fn dismiss(&mut self, patience: Duration) {
        self.line = None;
        self.signal(Signal::QUIT);
        let soon = Instant::now() + patience;
        let deadline = self.deadline.filter(|_| self.age == Age::Leaves);
        (self.age, self.deadline) = (Age::Leaves, Some(deadline.map_or(soon, |deadline| deadline.min(soon))));
    }

    /// Ends it if its deadline has passed: a start that hangs shows first where it does.
    pub(crate) fn lose_patience(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.age {
            Age::Starts => {
                error!("worker {} was not ready in time and is aborted", self.pid);
                self.signal(Signal::ABORT);
                (self.age, self.deadline) = (Age::Leaves, Some(now + LAST_WORDS));
            }
            Age::Serves { .. } | Age::Leaves => {
                warn!("worker {} has not stopped in time and is killed", self.pid);
                self.signal(Signal::KILL);
                self.deadline = None;
            }
        }
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        Ending::of(self.pid)
    }

    fn signal(&self, signal: Signal) {
        // The process is ours and not waited for yet, so its pid is still its own; at worst it is dead already.
        let _ = kill_process(self.pid, signal);
    }
}
