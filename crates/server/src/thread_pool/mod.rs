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
//! - The leader polls without blocking while it holds the GIL, and releases the GIL to block.
//! - One more thread runs than configured, so that one can always accept, read, enforce deadlines and reject.
//! - While no thread leads, the monitor thread runs the event loop every few milliseconds. It never takes the GIL.
//! - [`promotion`] decides which follower is promoted, and when.
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
//!   functions around a fork, may run here.
//! - The only objects of the application that are dropped here are the byte strings of response bodies, which run no
//!   code (except for a subclass of `bytes` with `__del__`). `PyO3` defers the decrement of a reference that is dropped
//!   without the GIL until a thread attaches. The log context of a request and completion callbacks are dropped by the
//!   thread that ran the request.

mod held_loop;
mod monitor;
mod promotion;
mod write_batch;

use std::{
    ffi::CString,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mio::Waker;

pub use self::monitor::{EXIT_STUCK, leave_stuck};
use self::{
    held_loop::{HeldLoop, LoopSlot},
    promotion::{Promotion, PromotionTicket, SLOW_TICK},
    write_batch::WriteBatch,
};
use crate::{
    App, Command, Concurrency, Outcome, ServerEvent, Settings,
    connection::respond::{Others, Produced},
    connection::{Connection, Next},
    context::ServerContext,
    event_loop::EventLoop,
    wakeup::LeaderSleep,
    watchdog::CallTracker,
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

/// The result of waiting for work.
enum Polled<'a> {
    /// The event loop has run.
    Events(HeldLoop<'a>),
    /// A signal arrived, or it is time to check for one.
    Nothing(HeldLoop<'a>),
    /// Another thread leads now.
    LostLead,
}

/// Connections of threads that lost the lead while they were in the application.
struct HandbackQueue {
    connections: Mutex<Vec<(Box<Connection>, Next)>>,
    is_filled: AtomicBool,
    leader: LeaderSleep,
    waker: Waker,
}

/// The number of serving threads besides the first.
#[derive(Default)]
struct RunningThreads {
    count: Mutex<usize>,
    one_has_ended: Condvar,
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
        let handback = HandbackQueue {
            connections: Mutex::default(),
            is_filled: AtomicBool::new(false),
            leader: LeaderSleep::new(),
            waker: event_loop.waker()?,
        };
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
        lock(&self.failure).take().map_or(Ok(ended), Err)
    }

    fn spawn_followers(self: &Arc<Self>) -> io::Result<()> {
        for number in 1..=self.promotion.followers() {
            let pool = Arc::clone(self);
            pool.running.add();
            let main = move || {
                let _running = RunningGuard(&pool.running);
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
                        self.run_loop(number, event_loop);
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

    /// Runs the event loop until the lead is lost or the server is finished.
    fn run_loop(&self, number: usize, event_loop: HeldLoop<'_>) {
        let mut held = event_loop;
        let mut call = Duration::ZERO;
        let mut now = Instant::now();
        loop {
            self.loop_iterations
                .store(self.loop_iterations.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            self.take_handed_back(&mut held);
            if self.is_finished(&mut held) {
                self.is_stopped.store(held.command() == Some(Command::Stop), Ordering::SeqCst);
                return self.promotion.shutdown();
            }
            if self.batch.is_due(now, call) || !held.has_ready() {
                self.batch.send(|connection, next| held.apply(connection, next));
            }
            if held.has_ready() && self.is_poll_due(now) {
                if let Err(error) = self.poll_now(&mut held) {
                    return self.fail(error);
                }
                held.run_once();
            }
            if self.calls_in_progress.load(Ordering::SeqCst) < self.threads
                && let Some(connection) = held.next_ready()
            {
                if held.client_gave_up(&connection, now) {
                    log::debug!("a client left before its request was begun");
                    held.apply(connection, Next::Close);
                    continue;
                }
                if connection.is_complete()
                    && let Some(reason) = held.count_request()
                {
                    log::info!("recycling this worker: {reason}");
                    (self.on_event)(ServerEvent::RecycleLimitReached);
                }
                if held.forks() && connection.is_complete() {
                    held.start_child(connection, &*self.app);
                    continue;
                }
                match self.call_app(number, now, held, connection) {
                    Some(again) => held = again,
                    None => return,
                }
                let then = std::mem::replace(&mut now, Instant::now());
                call = now - then;
                continue;
            }
            if held.is_draining() && held.has_ready() && self.calls.overdue() >= self.threads {
                held.reject_pending();
            }
            self.batch.send(|connection, next| held.apply(connection, next));
            if self.is_finished(&mut held) {
                continue; // what was just sent may have been the last: nothing would end the wait
            }
            held = match self.poll(number, held) {
                Ok(Polled::Nothing(again)) if number == 0 => match self.check_signals(again) {
                    Some(again) => again,
                    None => return,
                },
                Ok(Polled::Events(again) | Polled::Nothing(again)) => again,
                Ok(Polled::LostLead) => return,
                Err(error) => return self.fail(error),
            };
            now = Instant::now();
        }
    }

    /// Releases the event loop, runs the application for a request, and takes the event loop again unless another
    /// thread leads by then.
    fn call_app<'a>(
        &'a self,
        number: usize,
        now: Instant,
        event_loop: HeldLoop<'a>,
        connection: Box<Connection>,
    ) -> Option<HeldLoop<'a>> {
        let in_progress = self.calls_in_progress.fetch_add(1, Ordering::SeqCst) + 1;
        let oldest_ready = if in_progress < self.threads { event_loop.oldest_ready() } else { None };
        drop(event_loop);
        self.promotion.before_call(oldest_ready, !self.batch.is_empty());
        self.calls.enter(number, &connection.request, connection.token, now);
        let mut connection = Some(connection);
        let mut finished = None;
        self.app.in_request(&mut || {
            let Some(mut connection) = connection.take() else { return };
            let Produced { next, on_complete } = self.produce(&mut connection);
            if on_complete.is_none() {
                finished = Some((connection, next));
                return;
            }
            // The response must not wait for the application's cleanup.
            self.calls.start_completion(number, Instant::now());
            match next {
                Next::Flush => self.batch.push(connection, Instant::now()),
                next => self.handback.push(connection, next),
            }
            self.promotion.before_call(oldest_ready, true);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(on_complete)));
        });
        self.calls.leave(number);
        let (mut flush, mut settle) = (None, None);
        match finished {
            Some((connection, Next::Flush)) => flush = Some(connection),
            other => settle = other,
        }
        if let Some(connection) = flush {
            self.batch.push(connection, Instant::now());
        }
        self.calls_in_progress.fetch_sub(1, Ordering::SeqCst);
        self.handback.notify_leader(); // it may be asleep with a queued request for which no thread was free
        let Some(mut event_loop) = self.try_lock_loop() else {
            if let Some((connection, next)) = settle {
                self.handback.push(connection, next);
            }
            self.flush_batch();
            return None;
        };
        self.promotion.resumed_lead();
        if let Some((connection, next)) = settle {
            event_loop.apply(connection, next);
        }
        Some(event_loop)
    }

    fn produce(&self, connection: &mut Connection) -> Produced {
        let others: Option<&dyn Others> = if self.coalesce_writes { Some(self) } else { None };
        let run = AssertUnwindSafe(|| connection.run(&*self.app, others));
        catch_unwind(run).unwrap_or_else(|_| {
            log::error!("a panic while a response was produced; its connection is closed");
            Produced { next: Next::Close, on_complete: None }
        })
    }

    /// Runs `wait` without the GIL. Other threads can see when the calling thread waits for the GIL afterwards.
    fn wait_detached(&self, wait: &mut (dyn FnMut() + Send)) {
        self.app.detached(&mut || {
            wait();
            self.waiting_for_lock.fetch_add(1, Ordering::Relaxed);
        });
        self.waiting_for_lock.fetch_sub(1, Ordering::Relaxed);
    }

    /// Releases the event loop and runs the application's signal handlers, in the first thread of the process.
    fn check_signals<'a>(&'a self, event_loop: HeldLoop<'a>) -> Option<HeldLoop<'a>> {
        drop(event_loop);
        self.promotion.before_call(None, false);
        self.app.check_signals();
        let event_loop = self.try_lock_loop()?;
        self.promotion.resumed_lead();
        Some(event_loop)
    }

    /// Sends the batch without holding the event loop.
    fn flush_batch(&self) {
        self.batch.send(|connection, next| self.handback.push(connection, next));
    }

    /// Waits for work, and does what needs no thread of the application.
    ///
    /// Invariant: no thread holds the event loop while it waits for the GIL, which another thread may keep for long. So
    /// after the wait the event loop runs without the GIL and is released. Another thread may lead by the time this one
    /// has the GIL.
    fn poll<'a>(&'a self, number: usize, event_loop: HeldLoop<'a>) -> io::Result<Polled<'a>> {
        let mut held = Some(event_loop);
        let Some(event_loop) = held.as_mut() else { return Ok(Polled::LostLead) };
        self.note_poll();
        if event_loop.poll_now()? || event_loop.is_busy() {
            event_loop.run_once();
            return Ok(held.map_or(Polled::LostLead, Polled::Events));
        }
        let at_most = (number == 0).then_some(SIGNAL_CHECK);
        let is_queued = event_loop.has_ready() && !self.forks;
        let has_work = || {
            let can_call = || self.calls_in_progress.load(Ordering::SeqCst) < self.threads;
            (is_queued && can_call()) || self.handback.is_filled.load(Ordering::SeqCst)
        };
        let mut polled = Ok(true);
        self.handback.leader.sleep_unless(has_work, || {
            self.wait_detached(&mut || {
                let Some(mut event_loop) = held.take() else { return };
                self.is_polling.store(true, Ordering::Relaxed);
                polled = event_loop.wait_for_events(at_most);
                self.is_polling.store(false, Ordering::Relaxed);
                self.note_poll();
                if self.forks {
                    held = Some(event_loop); // there is no other thread
                } else {
                    if matches!(polled, Ok(true)) {
                        event_loop.run_once();
                    }
                    self.promotion.left_lead();
                }
            });
        });
        let has_events = polled?;
        let mut event_loop = match held {
            Some(event_loop) => event_loop,
            None => match self.try_lock_loop() {
                Some(event_loop) => event_loop,
                None => return Ok(Polled::LostLead),
            },
        };
        self.promotion.regained_lead();
        if self.forks && has_events {
            event_loop.run_once();
        }
        Ok(if has_events { Polled::Events(event_loop) } else { Polled::Nothing(event_loop) })
    }

    /// Polls between two calls, so that the event loop advances however many requests are queued.
    fn poll_now(&self, event_loop: &mut EventLoop) -> io::Result<()> {
        self.note_poll();
        event_loop.poll_now().map(drop)
    }

    fn note_poll(&self) {
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
        *lock(&self.failure) = Some(error);
        self.promotion.shutdown();
    }

    fn is_finished(&self, event_loop: &mut EventLoop) -> bool {
        event_loop.is_finished(|connection| self.calls.is_given_up(connection))
    }

    fn take_handed_back(&self, event_loop: &mut EventLoop) {
        if self.handback.is_filled.swap(false, Ordering::SeqCst) {
            for (connection, next) in lock(&self.handback.connections).drain(..) {
                event_loop.apply(connection, next);
            }
        }
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

impl HandbackQueue {
    fn push(&self, connection: Box<Connection>, next: Next) {
        lock(&self.connections).push((connection, next));
        self.is_filled.store(true, Ordering::SeqCst);
        self.notify_leader();
    }

    fn notify_leader(&self) {
        self.leader.notify(|| self.wake());
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("waking the leader thread failed: {error}");
        }
    }
}

impl RunningThreads {
    fn add(&self) {
        *lock(&self.count) += 1;
    }

    fn wait_for_all(&self) {
        let mut count = lock(&self.count);
        while *count > 0 {
            count = self.one_has_ended.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Counts a thread out when it ends, even by a panic.
struct RunningGuard<'a>(&'a RunningThreads);

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.one_has_ended.notify_all();
    }
}

/// For `ps` and debuggers. Python names threads for the kernel only since 3.14. A failure is harmless.
fn name_thread(number: usize) {
    if let Ok(name) = CString::new(format!("mlws-{number}")) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Ignores poisoning: the guarded values are valid after every single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
