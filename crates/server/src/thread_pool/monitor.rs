//! The monitor thread: sends deferred output, runs the event loop while no thread leads, and acts on overdue calls.
//!
//! Invariant: it never takes the GIL and never drops objects of the application, because both may wait for the thread
//! that is stuck. So if no other thread can run the event loop any more, it exits the process without notifying the
//! application. With one thread that happens as soon as its call is overdue. With more threads it happens when the
//! stuck call keeps the GIL.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{ThreadPool, promotion::Monitored};
use crate::{Command, ServerEvent};

/// The exit status of a process with a thread that is stuck in the application (`EX_TEMPFAIL` of `sysexits.h`).
pub const EXIT_STUCK: i32 = 75;
/// How often the event loop is checked while a call is overdue.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the event loop may stall then.
const STALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last responses may take.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// How long the first thread may take to return after `Command::Stop` if it is not inside the application.
const STOP_GRACE: Duration = Duration::from_millis(250);
/// How often the monitor thread checks at the end whether all calls have returned.
const SHUTDOWN_POLL: Duration = Duration::from_millis(1);

/// The state of the monitor thread between two checks.
struct Monitor<'a> {
    pool: &'a ThreadPool,
    /// [`ServerEvent::CallTimedOut`] was reported.
    has_notified: bool,
    stall: StallDetector,
}

/// The last observed number of iterations, and when it changed.
#[derive(Default)]
struct StallDetector(Option<(u64, Instant)>);

impl StallDetector {
    /// Whether the event loop has stalled for too long.
    fn is_stalled(&mut self, iterations: u64, is_polling: bool, now: Instant) -> bool {
        match self.0 {
            Some((seen, since)) if seen == iterations && !is_polling => now - since >= STALL_TIMEOUT,
            _ => {
                self.0 = Some((iterations, now));
                false
            }
        }
    }
}

impl ThreadPool {
    pub(super) fn monitor_main(&self) {
        let mut monitor = Monitor { pool: self, has_notified: false, stall: StallDetector::default() };
        self.promotion.run_monitor(&mut monitor);
        if self.is_stopped.load(Ordering::SeqCst) {
            self.exit_unless_first_thread_returns();
        }
        while self.calls.busy() > 0 && self.calls.overdue() == 0 {
            thread::sleep(SHUTDOWN_POLL);
            self.calls.check(&*self.app);
        }
        if self.calls.is_overdue(0) {
            // `run` cannot return to its caller, because that thread is stuck.
            self.notify_and_exit_stuck();
        }
    }

    /// After `Command::Stop`, `run` may be unable to return before the application does: its thread is inside the
    /// application, or waits for the GIL that another thread holds there. `Stop` does not wait for that.
    fn exit_unless_first_thread_returns(&self) {
        let until = Instant::now() + STOP_GRACE;
        while self.calls_in_progress.load(Ordering::SeqCst) > 0
            && !self.has_first_ended.load(Ordering::SeqCst)
        {
            if self.calls.is_busy(0) || Instant::now() >= until {
                (self.on_event)(ServerEvent::Exiting);
                mlws_sys::exit_now(0);
            }
            thread::sleep(SHUTDOWN_POLL);
        }
    }

    /// Sends the responses that the server itself can send, and exits the process unless the call has returned by then.
    fn emergency_shutdown(&self) {
        let event_loop = self.try_lock_loop();
        if self.calls.overdue() == 0 {
            return; // the call has just returned
        }
        let Some(mut event_loop) = event_loop else { self.notify_and_exit_stuck() };
        let until = Instant::now() + SHUTDOWN_GRACE;
        event_loop.close_listeners();
        loop {
            self.handback.drain(|connection, next| event_loop.apply(connection, next));
            self.batch.send(|connection, next| event_loop.apply(connection, next));
            event_loop.reject_pending();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_finished(&mut event_loop) {
                break;
            }
            if !event_loop.is_busy() && event_loop.wait_for_events(Some(left)).is_err() {
                break;
            }
            event_loop.run_once();
        }
        if self.calls.overdue() > 0 {
            self.notify_and_exit_stuck();
        }
        drop(event_loop);
        self.promotion.shutdown();
    }

    fn notify_and_exit_stuck(&self) -> ! {
        (self.on_event)(ServerEvent::Exiting);
        exit_stuck()
    }
}

impl Monitored for Monitor<'_> {
    fn flush(&mut self) {
        self.pool.context.writers.flush_deferred();
        self.pool.flush_batch();
    }

    fn poll_event_loop(&mut self) {
        let pool = self.pool;
        if !pool.is_poll_due(Instant::now()) {
            return;
        }
        pool.is_monitor_polling.store(true, Ordering::SeqCst);
        if let Some(mut event_loop) = pool.event_loop.try_take() {
            pool.handback.drain(|connection, next| event_loop.apply(connection, next));
            match pool.poll_now(&mut event_loop) {
                Ok(()) => event_loop.run_once_without_accepting(),
                Err(error) => pool.fail(error),
            }
            if event_loop.command() == Some(Command::Stop) {
                pool.is_stopped.store(true, Ordering::SeqCst);
                pool.promotion.shutdown();
            }
        }
        pool.is_monitor_polling.store(false, Ordering::SeqCst);
    }

    fn watch(&mut self) -> Option<Instant> {
        let pool = self.pool;
        let seen = pool.calls.check(&*pool.app)?;
        if seen.fresh > 0 {
            if !std::mem::replace(&mut self.has_notified, true) {
                (pool.on_event)(ServerEvent::CallTimedOut);
            }
            // A drain may be waiting for this call only.
            pool.handback.wake();
        }
        if seen.overdue == 0 {
            self.stall = StallDetector::default();
            return Some(seen.next);
        }
        let now = Instant::now();
        let iterations = pool.loop_iterations.load(Ordering::Relaxed);
        let is_polling = pool.is_polling.load(Ordering::Relaxed);
        if pool.promotion.followers() == 0 || self.stall.is_stalled(iterations, is_polling, now) {
            pool.emergency_shutdown();
        }
        Some(seen.next.min(now + CHECK_INTERVAL))
    }
}

/// Exits the process with [`EXIT_STUCK`] while a thread is stuck in the application. Runs no exit handlers, which might
/// wait for that thread.
pub fn exit_stuck() -> ! {
    log::error!("exiting with status {EXIT_STUCK}: a thread is stuck in the application");
    mlws_sys::exit_now(EXIT_STUCK)
}
