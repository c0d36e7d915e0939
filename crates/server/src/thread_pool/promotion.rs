//! Which thread leads next: when the monitor thread or the leader promotes a follower.
//!
//! A follower sleeps. Waking one costs a system call and contention for the GIL, so it does not happen for each
//! request: while the application answers without blocking, one thread does everything. A follower is promoted when
//!
//! - one call has lasted for [`TICKS_BEFORE_PROMOTION`] ticks of the monitor thread, or
//! - requests are queued that a free thread could run (unless the last follower promoted for that was not needed), or
//! - a call has lasted for a tick while a request has waited for [`MAX_WAIT_FOR_THREAD`] although a thread is free, or
//! - the application has blocked recently: then the leader promotes before each call.
//!
//! A follower declines if it could only take the GIL away from a leader that goes from call to call: if nothing blocks,
//! one thread does as much as two. If no lock excludes the threads (a Rust callback, a free-threaded Python), the
//! leader promotes before each call.
//!
//! Who sleeps, waiting for what, and who wakes it:
//!
//! | sleeper | sleeps until | woken by |
//! |---|---|---|
//! | follower | `Shared::promoted` or shutdown | `promote`, `shutdown` |
//! | monitor thread, at rest | another call, or deferred output | `before_call`, [`Promotion::notify_deferred`] |
//! | leader, in the poll set | a returned connection, or a free thread for a queued request | [`LeaderSleep::notify`](crate::wakeup::LeaderSleep::notify) |

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The interval of the monitor thread while requests run. It bounds how long a response can wait if a call takes longer
/// than expected.
const TICK: Duration = Duration::from_millis(1);
/// The interval while no output is deferred and no follower could be promoted. The event loop is polled at least this
/// often.
pub(crate) const SLOW_TICK: Duration = Duration::from_millis(5);
/// How long the event loop may stall if the application blocks unexpectedly, in ticks.
const TICKS_BEFORE_PROMOTION: u32 = 5;
/// A follower that got the GIL sooner than this got it because the leader blocked. Later means that the leader was
/// preempted (Python's switch interval is 5 ms).
const PREEMPTION_THRESHOLD: Duration = Duration::from_millis(4);
/// How long the monitor thread sleeps if no call can be overdue.
const IDLE_WAIT: Duration = Duration::from_secs(3600);
/// How many calls must return without blocking until the application is trusted not to block.
const CALLS_BEFORE_TRUSTED: u32 = 32;
/// For how many ticks no follower is promoted for queued requests after one was not needed.
const COOLDOWN_TICKS: u32 = 64;
/// A request that has waited this long while a thread is free starts on another thread, even if that preempts the
/// leader. With the switch interval this makes 10 ms. Calls shorter than a tick do not count: behind those a request
/// waits for the processor.
const MAX_WAIT_FOR_THREAD: Duration = Duration::from_millis(5);

/// What the monitor thread observes at a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Observation {
    /// For how many ticks the newest call has been the newest. Zero if another one has started since the last tick.
    ticks_in_call: u32,
    /// A thread runs the event loop.
    has_leader: bool,
    /// How long the oldest request that a free thread could run has waited.
    oldest_wait: Option<Duration>,
    /// For how many more ticks no follower is promoted for queued requests.
    cooldown_ticks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Hold,
    Promote,
    /// Promote a follower that takes the event loop even from a leader that goes from call to call.
    Preempt,
}

impl Observation {
    fn decide(self) -> Decision {
        let waits_long = self.oldest_wait.is_some_and(|wait| wait >= MAX_WAIT_FOR_THREAD);
        match self.ticks_in_call {
            _ if self.has_leader => Decision::Hold,
            0 if self.oldest_wait.is_some() && self.cooldown_ticks == 0 => Decision::Promote,
            0 => Decision::Hold,
            1.. if waits_long => Decision::Preempt,
            TICKS_BEFORE_PROMOTION.. => Decision::Promote,
            _ => Decision::Hold,
        }
    }
}

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

/// What the monitor thread does for the thread pool.
pub(crate) trait Monitored {
    /// Sends deferred output.
    fn flush(&mut self);
    /// Runs the event loop once, if no other thread does.
    fn poll_event_loop(&mut self);
    /// Acts on calls that have become overdue. Returns when to check again.
    fn watch(&mut self) -> Option<Instant>;
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

    /// The life of the monitor thread.
    pub(crate) fn run_monitor(&self, pool: &mut impl Monitored) {
        let mut due = pool.watch();
        let (mut seen, mut ticks) = (self.calls.load(Ordering::SeqCst), 0);
        while !self.is_shutdown() {
            let has_leader = self.has_leader.load(Ordering::SeqCst);
            if has_leader && ticks >= TICKS_BEFORE_PROMOTION {
                self.wait_for_a_call(seen, due);
                ticks = 0;
            } else {
                self.wait_for_tick(ticks);
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                due = pool.watch();
            }
            let calls = self.calls.load(Ordering::SeqCst);
            ticks = if calls == seen { ticks + 1 } else { 0 };
            seen = calls;
            if ticks > 0 && self.is_deferred.swap(false, Ordering::SeqCst) {
                pool.flush();
            }
            let decision = self.observe(ticks).decide();
            if decision != Decision::Hold && self.followers > 0 {
                self.promote(&mut self.lock(), decision == Decision::Preempt);
            }
            if !self.has_leader.load(Ordering::SeqCst) {
                pool.poll_event_loop();
            }
        }
    }

    fn observe(&self, ticks_in_call: u32) -> Observation {
        let cooldown_ticks = self.cooldown_ticks.load(Ordering::Relaxed);
        if ticks_in_call == 0 && cooldown_ticks > 0 {
            self.cooldown_ticks.store(cooldown_ticks - 1, Ordering::Relaxed);
        }
        let oldest = self.oldest_ready.load(Ordering::Relaxed);
        let waited = self.micros(Instant::now()).saturating_sub(oldest);
        Observation {
            ticks_in_call,
            has_leader: self.has_leader.load(Ordering::SeqCst),
            oldest_wait: (oldest > 0).then(|| Duration::from_micros(waited)),
            cooldown_ticks,
        }
    }

    /// A tick is short while output is deferred or a follower could be promoted.
    fn wait_for_tick(&self, ticks: u32) {
        let is_slow = if self.followers > 0 {
            ticks > TICKS_BEFORE_PROMOTION
        } else {
            ticks != 0 || !self.is_deferred.load(Ordering::SeqCst)
        };
        let shared = self.lock();
        let mode = if is_slow { mode::SLOW } else { mode::FAST };
        self.monitor_mode.store(mode, Ordering::SeqCst);
        let is_slow = is_slow && !self.is_deferred.load(Ordering::SeqCst);
        let tick = if is_slow { SLOW_TICK } else { TICK };
        if !self.is_shutdown() {
            drop(self.monitor_is_needed.wait_timeout(shared, tick));
        }
        self.monitor_mode.store(mode::FAST, Ordering::SeqCst);
    }

    /// The leader holds the event loop and no call is newer than `seen`: the monitor thread may sleep until the next
    /// call starts, or one could be overdue.
    fn wait_for_a_call(&self, seen: u64, due: Option<Instant>) {
        let mut shared = self.lock();
        self.monitor_mode.store(mode::ASLEEP, Ordering::SeqCst);
        let is_due = || due.is_some_and(|due| due <= Instant::now());
        let is_needed =
            || self.calls.load(Ordering::SeqCst) != seen || self.is_deferred.load(Ordering::SeqCst);
        while !is_needed() && !self.is_shutdown() && !is_due() {
            let wait = due.map_or(IDLE_WAIT, |due| due.saturating_duration_since(Instant::now()));
            shared =
                self.monitor_is_needed.wait_timeout(shared, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.monitor_mode.store(mode::FAST, Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32},
        thread,
    };

    use super::*;

    const LONG: Option<Duration> = Some(MAX_WAIT_FOR_THREAD);
    const SHORT: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn the_monitor_decides_by_how_long_a_call_lasts_and_who_waits() {
        let quiet = Observation::default();
        let table = [
            // (observation, decision)
            (quiet, Decision::Hold),
            (Observation { ticks_in_call: 4, ..quiet }, Decision::Hold),
            (Observation { ticks_in_call: 5, ..quiet }, Decision::Promote),
            (Observation { ticks_in_call: 5, has_leader: true, ..quiet }, Decision::Hold),
            (Observation { oldest_wait: SHORT, ..quiet }, Decision::Promote),
            (Observation { oldest_wait: SHORT, cooldown_ticks: 1, ..quiet }, Decision::Hold),
            (Observation { oldest_wait: SHORT, ticks_in_call: 1, ..quiet }, Decision::Hold),
            (Observation { oldest_wait: LONG, ticks_in_call: 1, ..quiet }, Decision::Preempt),
            (
                Observation { oldest_wait: LONG, ticks_in_call: 1, cooldown_ticks: 9, ..quiet },
                Decision::Preempt,
            ),
            (Observation { oldest_wait: LONG, ticks_in_call: 9, ..quiet }, Decision::Preempt),
            // Calls shorter than a tick: the request waits for the processor, not for a thread.
            (Observation { oldest_wait: LONG, cooldown_ticks: 1, ..quiet }, Decision::Hold),
        ];
        for (seen, decision) in table {
            assert_eq!(seen.decide(), decision, "{seen:?}");
        }
    }

    fn ticket(promotion: &Promotion, ago: Duration, preempts: bool) -> PromotionTicket {
        let woken_at = Instant::now().checked_sub(ago).unwrap();
        PromotionTicket { woken_at, call: promotion.calls.load(Ordering::SeqCst), preempts }
    }

    #[test]
    fn a_follower_that_waited_long_for_the_gil_leads_only_if_the_leader_is_still_in_the_same_call() {
        let promotion = Promotion::new(3, true);
        promotion.before_call(None, false);
        let soon = ticket(&promotion, Duration::ZERO, false);
        let late = ticket(&promotion, PREEMPTION_THRESHOLD, false);
        let preempting = ticket(&promotion, PREEMPTION_THRESHOLD, true);
        assert!(promotion.should_take_over(&soon) && promotion.should_take_over(&late));
        promotion.resumed_lead();
        promotion.before_call(None, false);
        assert_eq!(promotion.cooldown_ticks.load(Ordering::SeqCst), 0);
        assert!(promotion.should_take_over(&preempting));
        assert!(!promotion.should_take_over(&late));
        assert_eq!(promotion.cooldown_ticks.load(Ordering::SeqCst), COOLDOWN_TICKS);
        // If it got the GIL immediately, the calls in between do not matter.
        assert!(
            promotion.should_take_over(&PromotionTicket {
                woken_at: Instant::now() + PREEMPTION_THRESHOLD,
                ..soon
            })
        );
    }

    #[derive(Default)]
    struct Pool {
        flushes: AtomicU32,
        polls: AtomicU32,
        watches: AtomicU32,
        is_watched: AtomicBool,
    }

    impl Monitored for &Pool {
        fn flush(&mut self) {
            self.flushes.fetch_add(1, Ordering::SeqCst);
        }

        fn poll_event_loop(&mut self) {
            self.polls.fetch_add(1, Ordering::SeqCst);
        }

        fn watch(&mut self) -> Option<Instant> {
            self.watches.fetch_add(1, Ordering::SeqCst);
            self.is_watched.load(Ordering::SeqCst).then(Instant::now)
        }
    }

    fn with_monitor(promotion: &Promotion, pool: &Pool, test: impl FnOnce()) {
        thread::scope(|scope| {
            scope.spawn(|| promotion.run_monitor(&mut &*pool));
            test();
            promotion.shutdown();
        });
    }

    #[test]
    fn a_follower_is_promoted_while_call_follows_call_and_requests_are_queued() {
        let (promotion, pool) = (Promotion::new(3, true), Pool::default());
        promotion.cooldown_ticks.store(3, Ordering::SeqCst);
        with_monitor(&promotion, &pool, || {
            thread::scope(|scope| {
                let follower = scope.spawn(|| promotion.wait(None));
                while !follower.is_finished() {
                    promotion.before_call(Some(Instant::now()), false);
                    thread::yield_now();
                }
                assert!(follower.join().unwrap().is_some());
            });
        });
    }

    #[test]
    fn nobody_is_promoted_while_call_follows_call_and_no_request_is_queued() {
        let (promotion, pool) = (Promotion::new(3, true), Pool::default());
        pool.is_watched.store(true, Ordering::SeqCst);
        promotion.became_leader(None);
        with_monitor(&promotion, &pool, || {
            while pool.watches.load(Ordering::SeqCst) < 20 {
                promotion.notify_monitor(false);
                promotion.notify_deferred();
            }
            assert!(!promotion.is_pending.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn in_a_long_call_the_monitor_sends_what_waits_and_polls_until_the_leader_is_back() {
        for followers in [0, 3] {
            let (promotion, pool) = (Promotion::new(followers, true), Pool::default());
            with_monitor(&promotion, &pool, || {
                promotion.before_call(None, true);
                while pool.flushes.load(Ordering::SeqCst) == 0 || pool.polls.load(Ordering::SeqCst) < 5 {
                    thread::yield_now();
                }
                promotion.resumed_lead();
            });
        }
    }

    #[test]
    fn a_stream_that_keeps_deferring_is_still_one_long_call() {
        let (promotion, pool) = (Promotion::new(3, true), Pool::default());
        with_monitor(&promotion, &pool, || {
            promotion.before_call(None, false);
            thread::scope(|scope| {
                let follower = scope.spawn(|| promotion.wait(None));
                while !follower.is_finished() {
                    promotion.notify_deferred();
                    thread::yield_now();
                }
                assert!(follower.join().unwrap().is_some());
            });
            promotion.notify_deferred();
            while pool.flushes.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
        });
    }
}
