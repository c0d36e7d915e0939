//! A worker's side of things: tell the master that it is ready, and hear what it is ordered to do.
//!
//! The one thing to know: orders come by signals from anybody, and by the line to the master. A byte on it means that the
//! master wants this worker to drain; its end means that nobody is left to bound the time of what runs, so that this
//! worker is to stop. However many of them say "drain", it is told once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use log::warn;
use rustix::io::{Errno, FdFlags, dup2, fcntl_setfd, read, retry_on_intr, write};
use rustix::process::Signal;

use crate::signals::Signals;

/// What a worker is told to do. A `Drain` may be followed by a `Stop`; nothing follows a `Stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Take no new work, finish what runs, then return from `work`. On the first TERM or INT, and when the master
    /// wants the worker gone.
    Drain,
    /// Return from `work` at once. On QUIT, on the second of any TERMs and INTs, and when the master is gone.
    Stop,
}

/// What a forked worker is and can do. Once it is dropped, TERM and INT do nothing to the process any more, and QUIT
/// kills it.
pub struct Worker {
    /// Its place among the workers, from 0 up to (not including) `Settings::workers`. Its successor has the same.
    pub number: usize,
    /// How many workers the master had forked when it had forked this one: 1 for the first.
    pub age: u64,
    signals: Signals,
    line: OwnedFd,
    line_ended: bool,
    said_ready: bool,
    signalled: bool,
    last_order: Option<Order>,
}

impl Worker {
    pub(crate) fn new(number: usize, age: u64, line: OwnedFd, signals: Signals) -> Worker {
        Worker {
            number,
            age,
            signals,
            line,
            line_ended: false,
            said_ready: false,
            signalled: false,
            last_order: None,
        }
    }

    /// Tells the master that this worker does its work now. Only the first call does anything.
    pub fn ready(&mut self) {
        if self.said_ready || self.line_ended {
            return;
        }
        self.said_ready = true;
        // A master that is gone is heard of by `next_order`.
        match retry_on_intr(|| write(&self.line, b"!")) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => warn!("worker {} could not say that it is ready: {error}", std::process::id()),
        }
    }

    /// Two descriptors, for reading only through `next_order`: if either is readable, there may be an order. They stay
    /// the same ones for as long as the worker lives, and serve level- and edge-triggered polls alike, provided that
    /// `next_order` is called until it returns `None`.
    pub fn orders(&self) -> [BorrowedFd<'_>; 2] {
        [self.signals.as_fd(), self.line.as_fd()]
    }

    /// The next order, if there is one. Never blocks.
    pub fn next_order(&mut self) -> Option<Order> {
        while let Some(signal) = self.signals.next() {
            let again = std::mem::replace(&mut self.signalled, true);
            let order = if again || signal == Signal::QUIT { Order::Stop } else { Order::Drain };
            if Some(order) > self.last_order {
                self.last_order = Some(order);
                return Some(order);
            }
        }
        while let Some(order) = self.hears_from_master() {
            if Some(order) > self.last_order {
                self.last_order = Some(order);
                return Some(order);
            }
        }
        None
    }

    /// What the line has said since it was last asked.
    fn hears_from_master(&mut self) -> Option<Order> {
        if self.line_ended {
            return None;
        }
        match retry_on_intr(|| read(&self.line, &mut [0; 1])) {
            Ok(1) => Some(Order::Drain),
            Err(Errno::AGAIN) => None,
            Ok(_) | Err(_) => {
                self.let_go_of_line();
                Some(Order::Stop)
            }
        }
    }

    fn let_go_of_line(&mut self) {
        self.line_ended = true;
        // An ended line is readable for ever, and whoever polls it would spin. From now on it shows the signals too.
        let moved =
            dup2(&self.signals, &mut self.line).and_then(|()| fcntl_setfd(&self.line, FdFlags::CLOEXEC));
        if let Err(error) = moved {
            warn!("worker {} could not let go of its line to the master: {error}", std::process::id());
        }
    }
}
