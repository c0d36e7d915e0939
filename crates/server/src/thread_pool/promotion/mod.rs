//! Which thread leads next: when the monitor thread or the leader promotes a follower.
//!
//! A follower sleeps. Waking one costs a system call and contention for the GIL, so it does not happen for each
//! request: while the application answers without blocking, one thread does everything. A follower is promoted when
//!
//! - one call has lasted for [`TICKS_BEFORE_PROMOTION`](decision::TICKS_BEFORE_PROMOTION) ticks of the monitor thread, or
//! - requests are queued that a free thread could run (unless the last follower promoted for that was not needed), or
//! - a call has lasted for a tick while a request has waited for
//!   [`MAX_WAIT_FOR_THREAD`](decision::MAX_WAIT_FOR_THREAD) although a thread is free, or
//! - the application has blocked recently: then the leader promotes before each call.
//!
//! A follower declines if it could only take the GIL away from a leader that goes from call to call: if nothing blocks,
//! one thread does as much as two. If no lock excludes the threads (a Rust callback, a free-threaded Python), the
//! leader promotes before each call.
//!
//! [`decision`] has the rule, [`ticks`] what the monitor thread does. Who sleeps, waiting for what, and who wakes it:
//!
//! | sleeper | sleeps until | woken by |
//! |---|---|---|
//! | follower | `Shared::promoted` or shutdown | `promote`, `shutdown` |
//! | monitor thread, at rest | another call, or deferred output | `before_call`, [`Promotion::notify_deferred`] |
//! | leader, in the poll set | a returned connection, or a free thread for a queued request | [`LeaderSleep::notify`](crate::wakeup::LeaderSleep::notify) |

mod decision;
#[cfg(test)]
mod tests;
mod ticks;

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) use self::ticks::Monitored;

/// The interval of the monitor thread while no output is deferred and no follower could be promoted. The event loop is
/// polled at least this often.
pub(crate) const SLOW_TICK: Duration = Duration::from_millis(5);

/// A follower that got the GIL sooner than this got it because the leader blocked. Later means that the leader was
/// preempted (Python's switch interval is 5 ms).
const PREEMPTION_THRESHOLD: Duration = Duration::from_millis(4);

/// How many calls must return without blocking until the application is trusted not to block.
const CALLS_BEFORE_TRUSTED: u32 = 32;
/// For how many ticks no follower is promoted for queued requests after one was not needed.
const COOLDOWN_TICKS: u32 = 64;

/// The promotion of a follower: when it woke, during which call, and whether it preempts the leader.
#[derive(Clone, Copy)]
pub(crate) struct PromotionTicket {
    woken_at: Instant,
    call: u64,
    preempts: bool,
}

/// How the monitor thread waits, so that others know when they must wake it.
mod mode {
    /// Until it is notified.
    pub(super) const ASLEEP: u8 = 0;
    /// For [`SLOW_TICK`](super::SLOW_TICK).
    pub(super) const SLOW: u8 = 1;
    pub(super) const FAST: u8 = 2;
}

pub(crate) struct Promotion {
    followers: usize,
    /// A global interpreter lock lets one thread run at a time.
    one_at_a_time: bool,
    shared: Mutex<Shared>,
    wake_follower: Condvar,
    monitor_is_needed: Condvar,
    /// A follower was promoted and has neither become leader nor declined.
    is_pending: AtomicBool,
    has_leader: AtomicBool,
    /// Counts the calls of the application.
    calls: AtomicU64,
    /// For how many calls a follower is still promoted beforehand.
    eager_calls_left: AtomicU32,
    /// When the oldest request was complete that a free thread could have run when the last call started, in
    /// microseconds after `epoch`. Zero if there was none.
    oldest_ready: AtomicU64,
    cooldown_ticks: AtomicU32,
    /// Output is deferred.
    is_deferred: AtomicBool,
    monitor_mode: AtomicU8,
    is_shutdown: AtomicBool,
    epoch: Instant,
}

#[derive(Default)]
struct Shared {
    promoted: bool,
    preempts: bool,
}

impl Promotion {
    pub(crate) fn new(followers: usize, one_at_a_time: bool) -> Self {
        Self {
            followers,
            one_at_a_time,
            shared: Mutex::default(),
            wake_follower: Condvar::new(),
            monitor_is_needed: Condvar::new(),
            is_pending: AtomicBool::new(false),
            has_leader: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            eager_calls_left: AtomicU32::new(0),
            oldest_ready: AtomicU64::new(0),
            cooldown_ticks: AtomicU32::new(0),
            is_deferred: AtomicBool::new(false),
            monitor_mode: AtomicU8::new(mode::FAST),
            is_shutdown: AtomicBool::new(false),
            epoch: Instant::now(),
        }
    }

    /// The number of threads besides the first.
    pub(crate) fn followers(&self) -> usize {
        self.followers
    }

    /// Whether a promoted follower that has the GIL should take the event loop if it is free. Not if it had to preempt
    /// a leader that goes from call to call, unless it was promoted to do that.
    pub(crate) fn should_take_over(&self, ticket: &PromotionTicket) -> bool {
        let should = ticket.preempts
            || ticket.woken_at.elapsed() < PREEMPTION_THRESHOLD
            || ticket.call == self.calls.load(Ordering::SeqCst);
        if !should {
            self.cooldown_ticks.store(COOLDOWN_TICKS, Ordering::Relaxed);
        }
        should
    }

    /// The calling thread holds the event loop. It was promoted or is the first.
    pub(crate) fn became_leader(&self, ticket: Option<&PromotionTicket>) {
        self.has_leader.store(true, Ordering::SeqCst);
        self.is_pending.store(false, Ordering::SeqCst);
        if ticket.is_some_and(|ticket| ticket.woken_at.elapsed() < PREEMPTION_THRESHOLD) {
            self.eager_calls_left.store(CALLS_BEFORE_TRUSTED, Ordering::Relaxed);
        }
    }

    /// The calling thread was promoted, but the leader continues.
    pub(crate) fn declined(&self) {
        self.is_pending.store(false, Ordering::SeqCst);
    }

    /// The leader has released the event loop and calls the application. `oldest_ready` is when the oldest request was
    /// complete that another thread could run now. `deferred` means that output is deferred.
    pub(crate) fn before_call(&self, oldest_ready: Option<Instant>, deferred: bool) {
        self.has_leader.store(false, Ordering::SeqCst);
        if self.followers > 0 {
            let oldest_ready = oldest_ready.map_or(0, |since| self.micros(since).max(1));
            self.oldest_ready.store(oldest_ready, Ordering::Relaxed);
            let is_eager = !self.one_at_a_time || self.eager_calls_left.load(Ordering::Relaxed) > 0;
            if is_eager && !self.is_pending.load(Ordering::SeqCst) {
                self.promote(&mut self.lock(), false);
            }
        }
        self.notify_monitor(deferred);
    }

    /// A call starts. The monitor thread must check whether it takes long, and soon if output is deferred.
    ///
    /// Invariant: this writes `calls` and `is_deferred` before it reads the mode. The monitor thread writes its mode
    /// before it reads the other two. So one of them sees the other's write.
    fn notify_monitor(&self, deferred: bool) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if deferred {
            self.notify_deferred();
        } else if self.monitor_mode.load(Ordering::SeqCst) == mode::ASLEEP {
            self.wake_monitor();
        }
    }

    /// Output is deferred: the monitor thread must send it if it is not sent by its next tick.
    pub(crate) fn notify_deferred(&self) {
        if !self.is_deferred.load(Ordering::Relaxed) {
            self.is_deferred.store(true, Ordering::SeqCst);
        }
        if self.monitor_mode.load(Ordering::SeqCst) != mode::FAST {
            self.wake_monitor();
        }
    }

    /// The lock ensures that the monitor thread is either before its last check or asleep.
    fn wake_monitor(&self) {
        drop(self.lock());
        self.monitor_is_needed.notify_one();
    }

    /// The leader has returned from the application and holds the event loop again.
    pub(crate) fn resumed_lead(&self) {
        self.has_leader.store(true, Ordering::SeqCst);
        if self.followers > 0 {
            let left = self.eager_calls_left.load(Ordering::Relaxed);
            if left > 0 {
                self.eager_calls_left.store(left - 1, Ordering::Relaxed);
            }
        }
    }

    /// The leader has released the event loop to wait for the GIL.
    pub(crate) fn left_lead(&self) {
        self.has_leader.store(false, Ordering::SeqCst);
        self.notify_monitor(false);
    }

    /// The leader holds the event loop again.
    pub(crate) fn regained_lead(&self) {
        self.has_leader.store(true, Ordering::SeqCst);
    }

    /// Sleeps until promoted, shut down, or `at_most` has passed.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> Option<PromotionTicket> {
        let mut shared = self.lock();
        while !shared.promoted && !self.is_shutdown() {
            shared = match at_most {
                None => self.wake_follower.wait(shared).unwrap_or_else(PoisonError::into_inner),
                Some(at_most) => {
                    let waited = self.wake_follower.wait_timeout(shared, at_most);
                    let (shared, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && !shared.promoted {
                        return None;
                    }
                    shared
                }
            };
        }
        let Shared { promoted, preempts } = std::mem::take(&mut *shared);
        let call = self.calls.load(Ordering::SeqCst);
        promoted.then(|| PromotionTicket { woken_at: Instant::now(), call, preempts })
    }

    /// Makes all threads return.
    pub(crate) fn shutdown(&self) {
        self.is_shutdown.store(true, Ordering::SeqCst);
        drop(self.lock());
        self.wake_follower.notify_all();
        self.monitor_is_needed.notify_all();
    }

    pub(crate) fn is_shutdown(&self) -> bool {
        self.is_shutdown.load(Ordering::SeqCst)
    }

    /// Wakes one follower, unless one is already promoted.
    fn promote(&self, shared: &mut Shared, preempts: bool) {
        shared.preempts |= preempts;
        if !self.is_pending.swap(true, Ordering::SeqCst) {
            shared.promoted = true;
            self.wake_follower.notify_one();
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
