//! A worker's side of things: tell the master how it goes, and hear what it is ordered to do.
//!
//! The one thing to know: orders come by signals from anybody, and by the line to the master. A byte on it is an order of
//! the master; its end means that nobody is left to bound the time of what runs, so that this worker is to stop.
//! However many of them say "drain", it is told once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use log::warn;
use rustix::io::{Errno, FdFlags, dup2, fcntl_setfd, read, retry_on_intr, write};
use rustix::process::Signal;

use crate::signals::Signals;

/// What a worker says to its master...
pub(crate) const IS_READY: [u8; 1] = *b"!";
pub(crate) const IS_WORN: [u8; 1] = *b"w";
pub(crate) const ASKS_FOR_RELOAD: [u8; 1] = *b"r";
/// ...and what it hears.
pub(crate) const DRAIN: [u8; 1] = *b".";
pub(crate) const HAND_OVER: [u8; 1] = *b">";
pub(crate) const REOPEN: [u8; 1] = *b"l";
pub(crate) const ONE_MORE: [u8; 1] = *b"+";
pub(crate) const ONE_FEWER: [u8; 1] = *b"-";

/// What a worker is told to do. A `HandOver` may be followed by a `Drain`, either by a `Stop`; nothing follows a `Stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Open log files anew. On USR1, and when the master was told so.
    Reopen,
    /// For a worker that is a master itself ([`crate::supervise_under`]): keep one worker more...
    OneMore,
    /// ...or one fewer.
    OneFewer,
    /// The same as `Drain`, while other workers serve on: a successor, a new generation, or the rest of the present one. Idle
    /// connections can be handed over to them.
    HandOver,
    /// Take no new work, finish what runs, then return from `work`. No other worker is known to go on. On TERM, and when the
    /// master stops. Another TERM changes nothing.
    Drain,
    /// Return from `work` at once. On INT and QUIT, and when the master is gone.
    Stop,
}

/// What a forked worker is and can do. Once it is dropped, TERM and INT do nothing to the process any more, and QUIT
/// kills it.
pub struct Worker {
    /// Its place among the workers, from 0 up. Its successor has the same.
    pub number: usize,
    /// How many workers the master had forked when it had forked this one: 1 for the first.
    pub age: u64,
    signals: Signals,
    line: Line,
    said_ready: bool,
    last_order: Option<Order>,
}

/// What any thread of a worker may say to the master.
#[derive(Debug)]
pub struct Voice(OwnedFd);

impl Voice {
    /// This worker wants to be replaced: it serves on until its successor is ready and it is told to drain.
    pub fn is_worn(&self) {
        say(&self.0, IS_WORN);
    }

    /// The code has changed: the master is to reload, as on HUP.
    pub fn asks_for_reload(&self) {
        say(&self.0, ASKS_FOR_RELOAD);
    }
}

impl Worker {
    pub(crate) fn new(number: usize, age: u64, line: OwnedFd, signals: Signals) -> Worker {
        let line = Line { end: line, ended: false };
        Worker { number, age, signals, line, said_ready: false, last_order: None }
    }

    /// Tells the master that this worker does its work now. Only the first call does anything.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.said_ready, true) {
            self.line.say(IS_READY);
        }
    }

    /// A voice of its own. It stays open after the worker is dropped.
    pub fn voice(&self) -> io::Result<Voice> {
        self.line.end.try_clone().map(Voice)
    }

    /// Two descriptors, for reading only through `next_order`: if either is readable, there may be an order. They stay
    /// the same ones for as long as the worker lives, and serve level- and edge-triggered polls alike, provided that
    /// `next_order` is called until it returns `None`.
    pub fn orders(&self) -> [BorrowedFd<'_>; 2] {
        [self.signals.as_fd(), self.line.end.as_fd()]
    }

    /// The next order, if there is one. Never blocks.
    pub fn next_order(&mut self) -> Option<Order> {
        while let Some(signal) = self.signals.next() {
            let order = match signal {
                Signal::TERM => Order::Drain,
                Signal::INT | Signal::QUIT => Order::Stop,
                Signal::USR1 => Order::Reopen,
                _ => continue, // for the master, sent to the whole group
            };
            if let Some(order) = self.news(order) {
                return Some(order);
            }
        }
        while let Some(order) = self.line.hear() {
            if order == Order::Stop {
                self.let_go_of_line();
            }
            if let Some(order) = self.news(order) {
                return Some(order);
            }
        }
        None
    }

    /// What a master needs that is a worker itself.
    pub(crate) fn into_parts(self) -> (Line, Signals) {
        (self.line, self.signals)
    }

    /// The order, unless it, or a stronger one, was given before.
    fn news(&mut self, order: Order) -> Option<Order> {
        if order < Order::HandOver {
            return Some(order);
        }
        let is_news = Some(order) > self.last_order;
        is_news.then(|| *self.last_order.insert(order))
    }

    fn let_go_of_line(&mut self) {
        // An ended line is readable for ever, and whoever polls it would spin. From now on it shows the signals too.
        let moved = dup2(&self.signals, &mut self.line.end)
            .and_then(|()| fcntl_setfd(&self.line.end, FdFlags::CLOEXEC));
        if let Err(error) = moved {
            warn!("worker {} could not let go of its line to the master: {error}", std::process::id());
        }
    }
}

/// The worker's end of the line to its master.
pub(crate) struct Line {
    end: OwnedFd,
    ended: bool,
}

impl Line {
    pub(crate) fn say(&self, word: [u8; 1]) {
        if !self.ended {
            say(&self.end, word);
        }
    }

    /// The next order; a line that has ended is the last one.
    pub(crate) fn hear(&mut self) -> Option<Order> {
        while !self.ended {
            let mut word = [0];
            match retry_on_intr(|| read(&self.end, &mut word)) {
                Ok(1) => match word {
                    DRAIN => return Some(Order::Drain),
                    HAND_OVER => return Some(Order::HandOver),
                    REOPEN => return Some(Order::Reopen),
                    ONE_MORE => return Some(Order::OneMore),
                    ONE_FEWER => return Some(Order::OneFewer),
                    _ => {}
                },
                Err(Errno::AGAIN) => return None,
                Ok(_) | Err(_) => {
                    self.ended = true;
                    return Some(Order::Stop);
                }
            }
        }
        None
    }

    /// What to poll, unless it has ended.
    pub(crate) fn listened_to(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then(|| self.end.as_fd())
    }
}

fn say(line: &OwnedFd, word: [u8; 1]) {
    match retry_on_intr(|| write(line, &word)) {
        // A master that is gone is heard of by `next_order`; one that has unread words hears this one in them.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET | Errno::AGAIN) => {}
        Err(error) => warn!("worker {} could not speak to its master: {error}", std::process::id()),
    }
}
