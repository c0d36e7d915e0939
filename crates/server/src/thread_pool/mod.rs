//! The Leader/Followers thread pool (Schmidt et al., POSA2; ACE's `TP_Reactor`), adapted to a global interpreter lock
//! (GIL).
//!
//! The thread that holds the event loop is the leader: it polls, reads, parses, and calls the application itself.
//! Before the call it releases the event loop, but not the GIL. If the application blocks, a follower, promoted by the
//! [`monitor`] thread, gets the GIL, finds the event loop free, and leads. The old leader returns its connection when
//! it is done, and follows. So as long as the application does not block, one thread does everything, and nothing is
//! passed between threads.
//!
//! One thread runs one request from the call to the access log, with no other request's code in between. The event loop
//! sends what the client has not read by then.
//!
//! - Order of locks: the event loop, then the GIL. A thread that holds the GIL only *tries* to take the event loop.
//! - The leader polls without blocking while it holds the GIL, and releases the GIL to block, or before an iteration with
//!   TLS handshakes or large encrypted responses.
//! - One more thread runs than configured, so that one can always accept, read, enforce deadlines and reject.
//! - While no thread leads, the monitor thread runs the event loop every few milliseconds. It never takes the GIL.
//! - [`promotion`] decides which follower is promoted, and when. [`leader`] has what the leader does, and
//!   [`handback_queue`] the connections that other threads return to it.
//!
//! Invariant: code that runs on the event loop needs no GIL and waits for no other thread. The thread that holds the
//! event loop may be the monitor thread, while another thread holds the GIL and spins in [`ThreadPool::try_lock_loop`];
//! waiting for the GIL would be a deadlock then. And if the leader itself holds the GIL, Python code would delay every
//! other client. So, while the event loop is held:
//!
//! - Handlers of [`Command`](crate::Command) and [`ServerEvent`] only write to descriptors and set flags. Hooks run in
//!   threads of their own.
//! - Log records reach the application's logging handlers through another thread. The logger checks
//!   [`runs_event_loop`](crate::runs_event_loop).
//! - No [`App`] method is called, except `detached` (around the wait) and `attached`. The thread that ran the request
//!   writes the access log. With `Concurrency::Fork` the process has one thread, so `start_child`, and with it the
//!   functions around a fork, may run here; [`App::child_exited`] runs without the event loop.
//! - The only objects of the application that are dropped here are the byte strings of response bodies, which run no
//!   code (except for a subclass of `bytes` with `__del__`). `PyO3` defers the decrement of a reference that is dropped
//!   without the GIL until a thread attaches. The log context of a request and completion callbacks are dropped by the
//!   thread that ran the request.

mod handback_queue;
mod held_loop;
mod leader;
mod monitor;
mod promotion;
mod running_threads;
mod write_batch;

use std::{
    ffi::CString,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use self::monitor::{EXIT_STUCK, exit_stuck};
use self::{
    handback_queue::HandbackQueue,
    held_loop::{HeldLoop, LoopSlot},
    promotion::{Promotion, PromotionTicket, SLOW_TICK},
    running_threads::RunningThreads,
    write_batch::WriteBatch,
};
use crate::{
    App, Concurrency, Outcome, ServerEvent, Settings, connection::respond::Others, context::ServerContext,
    event_loop::EventLoop, watchdog::CallTracker,
};

/// From this many threads on, a thread that wakes does not preempt another: that one might hold the GIL, for which the
/// woken thread and all that wake after it would only wait.
const SCHED_BATCH_THRESHOLD: usize = 64;

/// How often the first thread of the process checks for signals that the application handles, in case one arrived just
/// before a wait.
const SIGNAL_CHECK: Duration = Duration::from_millis(500);

pub(crate) struct ThreadPool {
    event_loop: LoopSlot,
    /// The event loop has received `Command::Stop`.
    is_stopped: AtomicBool,
    /// Requests run in child processes. This process has one thread then.
    forks: bool,
    app: Arc<dyn App>,
    context: Arc<ServerContext>,
    on_event: Box<dyn Fn(ServerEvent) + Send + Sync>,
    /// The maximum number of threads inside the application.
    threads: usize,
    /// Whether output may be deferred.
    coalesce_writes: bool,
    calls_in_progress: AtomicUsize,
    promotion: Promotion,
    calls: CallTracker,
    handback: HandbackQueue,
    batch: WriteBatch,
    /// Counts iterations of the event loop. Together with `is_polling`, it shows the monitor thread that the event loop
    /// is alive.
    loop_iterations: AtomicU64,
    /// The leader is blocked in the kernel, waiting for sockets.
    is_polling: AtomicBool,
    /// When the event loop was last polled, in microseconds after `epoch`.
    polled_at: AtomicU64,
    epoch: Instant,
    /// Threads that have work and wait for the GIL.
    waiting_for_lock: AtomicUsize,
    /// The monitor thread holds the event loop, briefly and without waiting for anything.
    is_monitor_polling: AtomicBool,
    running: RunningThreads,
    /// The first thread has left the pool, so [`ThreadPool::run`] can return.
    has_first_ended: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl ThreadPool {
    pub(crate) fn new(
        event_loop: EventLoop,
        app: Arc<dyn App>,
        on_event: Box<dyn Fn(ServerEvent) + Send + Sync>,
        context: Arc<ServerContext>,
    ) -> io::Result<Self> {
        let settings: &Settings = &context.settings;
        let threads = match settings.concurrency {
            Concurrency::Threads(threads) => threads.max(1),
            Concurrency::Inline | Concurrency::Fork { .. } => 1,
        };
        let followers = if threads > 1 { threads } else { 0 };
        let handback = HandbackQueue::new(event_loop.waker()?);
        Ok(Self {
            forks: event_loop.forks(),
            event_loop: LoopSlot::new(event_loop),
            is_stopped: AtomicBool::new(false),
            on_event,
            threads,
            coalesce_writes: settings.concurrency.batches(),
            calls_in_progress: AtomicUsize::new(0),
            promotion: Promotion::new(followers, app.one_at_a_time()),
            calls: CallTracker::new(followers + 1, settings.timeout),
            app,
            context,
            handback,
            batch: WriteBatch::default(),
            loop_iterations: AtomicU64::new(0),
            is_polling: AtomicBool::new(false),
            polled_at: AtomicU64::new(0),
            epoch: Instant::now(),
            waiting_for_lock: AtomicUsize::new(0),
            is_monitor_polling: AtomicBool::new(false),
            running: RunningThreads::default(),
            has_first_ended: AtomicBool::new(false),
            failure: Mutex::default(),
        })
    }

    /// Serves until a command stops the server. The calling thread is part of the pool.
    pub(crate) fn run(self: Arc<Self>) -> io::Result<Outcome> {
        let mut monitor = None;
        if !self.forks {
            let pool = Arc::clone(&self);
            let thread = thread::Builder::new().name("mlws-monitor".into());
            monitor = Some(thread.spawn(move || pool.monitor_main())?);
        }
        self.spawn_followers().inspect_err(|_| self.promotion.shutdown())?;
        (self.on_event)(ServerEvent::Serving);
        self.thread_main(0);
        self.has_first_ended.store(true, Ordering::SeqCst);
        // After `Command::Stop`, threads that are still inside the application are left behind; the process is about to
        // exit.
        if !self.is_stopped.load(Ordering::SeqCst) {
            self.app.detached(&mut || {
                // The monitor thread ends when no call is left that could return.
                let _ = monitor.take().map(thread::JoinHandle::join);
                if self.calls.overdue() == 0 {
                    self.running.wait_for_all();
                }
            });
        }
        let ended = if self.calls.overdue() > 0 { Outcome::Stuck } else { Outcome::Finished };
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(ended), Err)
    }

    fn spawn_followers(self: &Arc<Self>) -> io::Result<()> {
        for number in 1..=self.promotion.followers() {
            let pool = Arc::clone(self);
            pool.running.add();
            let main = move || {
                let _running = pool.running.guard();
                name_thread(number);
                if pool.threads >= SCHED_BATCH_THRESHOLD {
                    mlws_sys::use_sched_batch();
                }
                pool.thread_main(number);
            };
            self.app.spawn(format!("mlws-{number}"), Box::new(main))?;
        }
        Ok(())
    }

    /// The life of one thread: lead if the event loop is free, otherwise follow. The first thread leads first, so that
    /// no application code runs before all threads exist.
    fn thread_main(&self, number: usize) {
        self.app.attached(&mut || {
            let mut ticket = if number == 0 { None } else { self.follow(number) };
            while !self.promotion.is_shutdown() {
                let should = ticket.is_none_or(|ticket| self.promotion.should_take_over(&ticket));
                match should.then(|| self.try_lock_loop()).flatten() {
                    Some(event_loop) => {
                        self.promotion.became_leader(ticket.as_ref());
                        let run = AssertUnwindSafe(|| self.run_loop(number, event_loop));
                        // Without this thread the pool would have no leader, and would not know.
                        if catch_unwind(run).is_err() {
                            self.fail(io::Error::other("the event loop panicked"));
                        }
                    }
                    None => self.promotion.declined(),
                }
                ticket = self.follow(number);
            }
        });
    }

    /// Waits to be promoted. Meanwhile the first thread runs the application's signal handlers.
    fn follow(&self, number: usize) -> Option<PromotionTicket> {
        let at_most = (number == 0).then_some(SIGNAL_CHECK);
        loop {
            let mut ticket = None;
            self.wait_detached(&mut || ticket = self.promotion.wait(at_most));
            if ticket.is_some() || self.promotion.is_shutdown() {
                return ticket;
            }
            self.app.check_signals();
        }
    }

    /// Runs `wait` without the GIL. Other threads can see when the calling thread waits for the GIL afterwards.
    fn wait_detached(&self, wait: &mut (dyn FnMut() + Send)) {
        self.app.detached(&mut || {
            wait();
            self.waiting_for_lock.fetch_add(1, Ordering::Relaxed);
        });
        self.waiting_for_lock.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sends the batch without holding the event loop.
    fn flush_batch(&self) {
        self.batch.send(|connection, next| self.handback.push(connection, next));
    }

    /// Polls between two calls, so that the event loop advances however many requests are queued.
    fn poll_now(&self, event_loop: &mut EventLoop) -> io::Result<()> {
        self.record_poll();
        event_loop.poll_now().map(drop)
    }

    fn record_poll(&self) {
        self.polled_at.store(self.micros(Instant::now()), Ordering::Relaxed);
    }

    fn is_poll_due(&self, now: Instant) -> bool {
        let polled_at = Duration::from_micros(self.polled_at.load(Ordering::Relaxed));
        now >= self.epoch + polled_at + SLOW_TICK
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    fn fail(&self, error: io::Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.promotion.shutdown();
    }

    fn is_finished(&self, event_loop: &mut EventLoop) -> bool {
        event_loop.is_finished(|connection| self.calls.is_given_up(connection))
    }

    /// The event loop, unless another thread leads. The monitor thread releases it soon, without waiting for the GIL,
    /// so this function waits for that.
    fn try_lock_loop(&self) -> Option<HeldLoop<'_>> {
        loop {
            let event_loop = self.event_loop.try_take();
            if event_loop.is_some() || !self.is_monitor_polling.load(Ordering::SeqCst) {
                return event_loop;
            }
            thread::yield_now();
        }
    }
}

impl Others for ThreadPool {
    fn notify_deferred(&self) {
        self.promotion.notify_deferred();
    }

    fn wait_for_lock(&self) -> bool {
        self.waiting_for_lock.load(Ordering::Relaxed) > 0
    }
}

/// For `ps` and debuggers. Python names threads for the kernel only since 3.14. A failure is harmless.
fn name_thread(number: usize) {
    if let Ok(name) = CString::new(format!("mlws-{number}")) {
        let _ = rustix::thread::set_name(&name);
    }
}
