//! The monitor thread: sends what waits too long, runs the event loop while nobody leads, and acts on overdue calls.
//!
//! Invariant: it never takes the GIL and never drops anything of the application, for either may wait for the very thread that is
//! stuck. So when nobody else can run the event loop any more, it leaves the process without a word to the application. With one
//! thread that is as soon as its call is overdue. With more it is when the stuck call keeps the GIL.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{ThreadPool, promotion::Monitored};
use crate::{Command, ServerEvent, sys};

/// The exit status of a process that was left because a thread is stuck in the application (`EX_TEMPFAIL` of `sysexits.h`).
pub const EXIT_STUCK: i32 = 75;
/// How often the event loop is looked at while a call is overdue.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the event loop may stand still then.
const STALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last responses may take.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// How long the first thread has to return when the server is told to stop at once and it is not inside the application.
const STOP_GRACE: Duration = Duration::from_millis(250);
/// How often the monitor thread looks at the end whether all calls have returned.
const SHUTDOWN_POLL: Duration = Duration::from_millis(1);

/// What the monitor thread remembers from one look to the next.
struct Monitor<'a> {
    pool: &'a ThreadPool,
    /// The owner of the server was notified of an overdue call.
    has_notified: bool,
    stall: StallDetector,
}

/// How many iterations of the event loop were seen, and when that was new.
#[derive(Default)]
struct StallDetector(Option<(u64, Instant)>);

impl StallDetector {
    /// Whether the event loop has stood still for too long.
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
            // `run` cannot return to its caller, for that thread itself is stuck.
            self.notify_and_leave_stuck();
        }
    }

    /// Told to stop at once, `run` may be unable to return before the application does: its thread is inside the application, or waits
    /// for the GIL that another thread holds there. "At once" does not wait for that.
    fn exit_unless_first_thread_returns(&self) {
        let until = Instant::now() + STOP_GRACE;
        while self.calls_in_progress.load(Ordering::SeqCst) > 0
            && !self.has_first_ended.load(Ordering::SeqCst)
        {
            if self.calls.is_busy(0) || Instant::now() >= until {
                (self.on_event)(ServerEvent::Exiting);
                sys::leave(0);
            }
            thread::sleep(SHUTDOWN_POLL);
        }
    }

    /// Answers whom the server itself can answer, and leaves the process, unless the call has come back by then.
    fn emergency_shutdown(&self) {
        let event_loop = self.try_lock_loop();
        if self.calls.overdue() == 0 {
            return; // it has come back this very moment
        }
        let Some(mut event_loop) = event_loop else { self.notify_and_leave_stuck() };
        let until = Instant::now() + SHUTDOWN_GRACE;
        event_loop.close_listeners();
        loop {
            self.take_handed_back(&mut event_loop);
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
            self.notify_and_leave_stuck();
        }
        drop(event_loop);
        self.promotion.shutdown();
    }

    fn notify_and_leave_stuck(&self) -> ! {
        (self.on_event)(ServerEvent::Exiting);
        leave_stuck()
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
            pool.take_handed_back(&mut event_loop);
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
            // A drain may wait for nobody else.
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

/// Leaves the process, with status 75, while a thread is stuck in the application: without exit handlers, which might wait for it.
pub fn leave_stuck() -> ! {
    log::error!("a thread is stuck in the application; this process is left without it");
    sys::leave(EXIT_STUCK)
}
