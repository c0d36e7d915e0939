//! The monitor thread's side: it observes the calls tick by tick, and promotes a follower if one is needed.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Promotion, SLOW_TICK,
    decision::{Decision, Observation, TICKS_BEFORE_PROMOTION},
    mode,
};

/// The interval of the monitor thread while requests run. It bounds how long a response can wait if a call takes longer
/// than expected.
const TICK: Duration = Duration::from_millis(1);
/// How long the monitor thread sleeps if no call can be overdue.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

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
}
