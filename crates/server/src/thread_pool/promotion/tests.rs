use std::{
    sync::atomic::{AtomicBool, AtomicU32},
    thread,
};

use super::*;

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
        promotion
            .should_take_over(&PromotionTicket { woken_at: Instant::now() + PREEMPTION_THRESHOLD, ..soon })
    );
}

#[derive(Default)]
struct MonitoredPool {
    flushes: AtomicU32,
    polls: AtomicU32,
    watches: AtomicU32,
    is_watched: AtomicBool,
}

impl Monitored for &MonitoredPool {
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

fn with_monitor(promotion: &Promotion, pool: &MonitoredPool, test: impl FnOnce()) {
    thread::scope(|scope| {
        scope.spawn(|| promotion.run_monitor(&mut &*pool));
        test();
        promotion.shutdown();
    });
}

#[test]
fn a_follower_is_promoted_while_call_follows_call_and_requests_are_queued() {
    let (promotion, pool) = (Promotion::new(3, true), MonitoredPool::default());
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
fn no_follower_is_promoted_while_call_follows_call_and_no_request_is_queued() {
    let (promotion, pool) = (Promotion::new(3, true), MonitoredPool::default());
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
fn in_a_long_call_the_monitor_sends_queued_data_and_polls_until_the_leader_returns() {
    for followers in [0, 3] {
        let (promotion, pool) = (Promotion::new(followers, true), MonitoredPool::default());
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
    let (promotion, pool) = (Promotion::new(3, true), MonitoredPool::default());
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
