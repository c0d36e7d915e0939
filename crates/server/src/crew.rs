//! The baton: one loop, many threads.
//!
//! Whoever holds the loop leads: polls, reads, parses, and runs what is ready itself. It lets go of the loop, though not of the app's
//! own lock (Python's GIL), while it is inside the app. Should the app block there, a *standby* thread, which waits for nothing
//! but that lock, gets it, finds the loop free, and leads. The old leader, done, hands its connection back and steps in line.
//! So as long as the app does not block, one thread does everything, as if it were alone, and nothing is passed between threads.
//!
//! - Order of locks: the loop, then the app's. A thread that holds the app's lock only *tries* the loop.
//! - The leader polls without blocking while it holds the app's lock, and lets go of it to block.
//! - One thread more than asked for runs, so that someone can always accept, read, time out and refuse.
//! - Who is promoted, and when, is told in [`crate::line`].

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mio::Waker;

use crate::{
    App, Concurrency, Ended, Notice, Order, Settings,
    closing::{Memory, leave_stuck},
    connection::{Connection, Next},
    event_loop::Loop,
    line::Line,
    sys,
    unsent::{Lender, Unsent},
    watchdog::Posts,
};

/// As much stack as the first thread of a process usually has; deep templates need it.
const STACK: usize = 8 << 20;

/// From so many threads on, one that wakes does not interrupt another: that one might hold the app's lock, for which the woken one,
/// and then all that wake after it, would only wait.
const POLITE: usize = 64;

/// How often the lookout looks at the end whether everybody has gone home.
const HOME: Duration = Duration::from_millis(1);

/// How long the first thread may wait before it runs pending signal handlers: a signal may come just before the wait, or to another
/// thread.
const SIGNAL_CHECK: Duration = Duration::from_millis(500);

pub(crate) struct Crew {
    the_loop: Mutex<Loop>,
    pub(crate) app: Arc<dyn App>,
    pub(crate) notice: Box<dyn Fn(Notice) + Send + Sync>,
    /// How many threads may be inside the app at once.
    threads: usize,
    /// Whether what is ready to be sent may wait for more.
    batches: bool,
    inside: AtomicUsize,
    pub(crate) line: Line,
    pub(crate) posts: Posts,
    pub(crate) returned: Returned,
    pub(crate) unsent: Unsent,
    /// How often the leader has gone round; with `polls`, how the lookout sees that the loop is alive.
    pub(crate) turns: AtomicU64,
    /// The leader is blocked in the system, waiting for sockets.
    pub(crate) polls: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

/// Connections whose threads lost the baton while they were in the app.
pub(crate) struct Returned {
    connections: Mutex<Vec<(Box<Connection>, Next)>>,
    some: AtomicBool,
    leader_sleeps: AtomicBool,
    waker: Waker,
}

impl Crew {
    pub(crate) fn new(
        the_loop: Loop,
        app: Arc<dyn App>,
        notice: Box<dyn Fn(Notice) + Send + Sync>,
        settings: &Settings,
    ) -> io::Result<Self> {
        let threads = match settings.concurrency {
            Concurrency::Threads(threads) => threads.max(1),
            Concurrency::Inline | Concurrency::Fork { .. } => 1,
        };
        let followers = if threads > 1 { threads } else { 0 };
        let returned = Returned {
            connections: Mutex::default(),
            some: AtomicBool::new(false),
            leader_sleeps: AtomicBool::new(false),
            waker: the_loop.waker()?,
        };
        let line = Line::new(followers, app.one_at_a_time());
        let inside = AtomicUsize::new(0);
        Ok(Self {
            the_loop: Mutex::new(the_loop),
            app,
            notice,
            threads,
            batches: settings.concurrency.batches(),
            inside,
            line,
            posts: Posts::new(followers + 1, settings.timeout),
            returned,
            unsent: Unsent::default(),
            turns: AtomicU64::new(0),
            polls: AtomicBool::new(false),
            failure: Mutex::default(),
        })
    }

    /// Serves until ordered to end. The calling thread is one of the crew.
    pub(crate) fn run(self: Arc<Self>) -> io::Result<Ended> {
        let mut others = Vec::new();
        let forks = lock(&self.the_loop).forks();
        for number in 0..self.line.followers() {
            let crew = Arc::clone(&self);
            let thread = thread::Builder::new().name(format!("mlws-{}", number + 1)).stack_size(STACK);
            others.push(thread.spawn(move || {
                if crew.threads >= POLITE {
                    sys::wake_politely();
                }
                crew.serve(number + 1);
            })?);
        }
        if !forks {
            let crew = Arc::clone(&self);
            let lookout = thread::Builder::new().name("mlws-lookout".into());
            others.insert(0, lookout.spawn(move || crew.look_out())?);
        }
        self.serve(0);
        // Told to stop at once, threads that are still inside the app are left behind; the process is about to end.
        if lock(&self.the_loop).order() != Some(Order::Stop) {
            self.app.detached(&mut || {
                for other in others.drain(..) {
                    let _ = other.join();
                    // The lookout comes first, and only once no call that could come back is left.
                    if self.posts.overdue() > 0 {
                        break;
                    }
                }
            });
        }
        let ended = if self.posts.overdue() > 0 { Ended::Stuck } else { Ended::Finished };
        lock(&self.failure).take().map_or(Ok(ended), Err)
    }

    fn look_out(&self) {
        let mut memory = Memory::default();
        self.line.look_out(|| self.send_for_others(), || self.watch(&mut memory));
        if lock(&self.the_loop).order() == Some(Order::Stop) && self.posts.is_busy(0) {
            sys::leave(0); // `run` could not return before the app does, and who says "at once" does not wait
        }
        while self.posts.busy() > 0 && self.posts.overdue() == 0 {
            thread::sleep(HOME);
            self.posts.look(&*self.app);
        }
        if self.posts.is_overdue(0) {
            // `run` cannot return to whoever called it, for that thread itself is stuck.
            leave_stuck();
        }
    }

    /// The life of one thread: lead where the loop is free, else wait in line.
    fn serve(&self, number: usize) {
        self.app.attached(&mut || {
            let mut called = None;
            while !self.line.is_over() {
                let needed = called.as_ref().is_none_or(|called| self.line.is_needed(called));
                match needed.then(|| self.try_loop()).flatten() {
                    Some(the_loop) => {
                        self.line.takes_over(called.as_ref());
                        self.lead(number, the_loop);
                    }
                    None => self.line.steps_back(),
                }
                let check = (number == 0).then_some(SIGNAL_CHECK);
                loop {
                    self.app.detached(&mut || called = self.line.wait(check));
                    if number == 0 {
                        self.app.check_signals();
                    }
                    if called.is_some() || self.line.is_over() {
                        break;
                    }
                }
            }
        });
    }

    /// Runs the loop until the baton is lost or all is over.
    fn lead(&self, number: usize, the_loop: MutexGuard<'_, Loop>) {
        let mut held = the_loop;
        let mut call = Duration::ZERO;
        let mut now = Instant::now();
        loop {
            self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            self.take_back(&mut held);
            if self.is_finished(&held) {
                return self.line.end();
            }
            if self.unsent.is_due(now, call) || !held.has_ready() {
                self.unsent.send(|connection, next| held.settle(connection, next));
            }
            if self.inside.load(Ordering::Relaxed) < self.threads
                && let Some(connection) = held.next_ready()
            {
                if held.is_forsaken(&connection, now) {
                    log::debug!("a client left before its request was begun");
                    held.settle(connection, Next::Close);
                    continue;
                }
                if connection.is_complete()
                    && let Some(why) = held.count()
                {
                    log::info!("this worker {why}");
                    (self.notice)(Notice::Worn);
                }
                if held.forks() && connection.is_complete() {
                    held.start_child(connection, &*self.app);
                    continue;
                }
                match self.run_inside(number, now, held, connection) {
                    Some(again) => held = again,
                    None => return,
                }
                let then = std::mem::replace(&mut now, Instant::now());
                call = now - then;
                continue;
            }
            if held.is_draining() && held.has_ready() && self.posts.overdue() >= self.threads {
                held.turn_away();
            }
            self.unsent.send(|connection, next| held.settle(connection, next));
            if self.is_finished(&held) {
                continue; // what was sent just now may have been the last of all: nothing would end the wait
            }
            let waited = match self.poll(number, &mut held) {
                Ok(waited) => waited,
                Err(error) => {
                    *lock(&self.failure) = Some(error);
                    return self.line.end();
                }
            };
            held.turn();
            if waited && number == 0 {
                drop(held); // a signal handler of the app may block
                self.app.check_signals();
                match self.try_loop() {
                    Some(the_loop) => held = the_loop,
                    None => return,
                }
            }
            now = Instant::now();
        }
    }

    /// Lets go of the loop, runs app code, and takes the loop up again unless somebody else leads by then.
    fn run_inside<'a>(
        &'a self,
        number: usize,
        now: Instant,
        the_loop: MutexGuard<'a, Loop>,
        mut connection: Box<Connection>,
    ) -> Option<MutexGuard<'a, Loop>> {
        let inside = self.inside.fetch_add(1, Ordering::Relaxed) + 1;
        let pressing = inside < self.threads && the_loop.has_ready();
        drop(the_loop);
        self.line.call_begins(pressing, !self.unsent.is_empty());
        self.posts.enter(number, &connection.request, connection.token, now);
        let duty = self.posts.duty(number);
        let lender = Lender { unsent: &self.unsent, line: &self.line };
        let lender = self.batches.then_some(&lender);
        let run = AssertUnwindSafe(|| connection.run(&*self.app, duty, lender));
        let next = catch_unwind(run).unwrap_or_else(|_| {
            log::error!("a panic while a response was sent; its connection is closed");
            Next::Close
        });
        if next == Next::Flush {
            // What the app still has to do once its answer is sent must not hold the answer up.
            let epilogue = connection.epilogue.take();
            let now = Instant::now();
            if epilogue.is_some() {
                self.posts.enter_epilogue(number, now);
            } else {
                self.posts.leave(number);
            }
            self.unsent.put(connection, now);
            if epilogue.is_some() {
                self.line.call_begins(pressing, true);
                let _ = catch_unwind(AssertUnwindSafe(|| drop(epilogue)));
                self.posts.leave(number);
            }
            self.inside.fetch_sub(1, Ordering::Relaxed);
            let the_loop = self.try_loop();
            if the_loop.is_some() {
                self.line.leads_on();
            } else {
                self.send_for_the_leader();
            }
            return the_loop;
        }
        self.posts.leave(number);
        self.inside.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut the_loop) = self.try_loop() {
            self.line.leads_on();
            the_loop.settle(connection, next);
            return Some(the_loop);
        }
        self.returned.put(connection, next);
        None
    }

    /// What the lookout does when nothing moves.
    fn send_for_others(&self) {
        self.unsent.send_lent();
        self.send_for_the_leader();
    }

    /// Sends what waits to be sent, without the loop.
    fn send_for_the_leader(&self) {
        self.unsent.send(|connection, next| self.returned.put(connection, next));
    }

    /// True if it waited.
    fn poll(&self, number: usize, the_loop: &mut Loop) -> io::Result<bool> {
        if the_loop.look()? || the_loop.is_busy() {
            return Ok(false);
        }
        self.returned.leader_sleeps.store(true, Ordering::SeqCst);
        let mut polled = Ok(());
        if !self.returned.some.load(Ordering::SeqCst) {
            self.app.detached(&mut || {
                self.polls.store(true, Ordering::Relaxed);
                polled = the_loop.wait((number == 0).then_some(SIGNAL_CHECK));
                self.polls.store(false, Ordering::Relaxed);
            });
        }
        self.returned.leader_sleeps.store(false, Ordering::SeqCst);
        polled.map(|()| true)
    }

    pub(crate) fn is_finished(&self, the_loop: &Loop) -> bool {
        the_loop.is_finished(|connection| self.posts.has_given_up(connection))
    }

    pub(crate) fn take_back(&self, the_loop: &mut Loop) {
        if self.returned.some.swap(false, Ordering::SeqCst) {
            for (connection, next) in lock(&self.returned.connections).drain(..) {
                the_loop.settle(connection, next);
            }
        }
    }

    pub(crate) fn try_loop(&self) -> Option<MutexGuard<'_, Loop>> {
        match self.the_loop.try_lock() {
            Ok(the_loop) => Some(the_loop),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Returned {
    fn put(&self, connection: Box<Connection>, next: Next) {
        lock(&self.connections).push((connection, next));
        self.some.store(true, Ordering::SeqCst);
        // Who is woken looks for all, so it is woken once.
        if self.leader_sleeps.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the leading thread could not be woken: {error}");
        }
    }
}

/// A lock that stays usable after a panic: what it guards is changed only in steps that leave it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
