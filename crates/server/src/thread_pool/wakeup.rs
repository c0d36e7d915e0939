//! How the leader goes to sleep in the poll set without missing what other threads leave for it.
//!
//! The protocol is that of an event count: the sleeper announces that it is about to sleep and then looks once more for work; others
//! publish work first and then look for a sleeper. All of it is sequentially consistent, so at least one of the two sees the other.
//! `tests` below check it with a model checker (`cargo test -p mlws-server --features loom`).

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct LeaderSleep {
    is_asleep: AtomicBool,
}

impl LeaderSleep {
    pub(super) fn new() -> Self {
        Self { is_asleep: AtomicBool::new(false) }
    }

    /// Runs `sleep`, unless `has_work` finds something after the sleep was announced.
    pub(super) fn sleep_unless(&self, has_work: impl FnOnce() -> bool, sleep: impl FnOnce()) {
        self.is_asleep.store(true, Ordering::SeqCst);
        if !has_work() {
            sleep();
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }

    /// Runs `wake` if the leader sleeps or is about to. To be called after the work was published. The leader looks for all work once
    /// it is awake, so it is woken once.
    pub(super) fn notify(&self, wake: impl FnOnce()) {
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            wake();
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod tests {
    use loom::{
        sync::{
            Arc, Condvar, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::LeaderSleep;

    /// The eventfd in the poll set: what was written before the wait ends it at once.
    #[derive(Default)]
    struct Waker {
        is_set: Mutex<bool>,
        changed: Condvar,
    }

    impl Waker {
        fn wake(&self) {
            *self.is_set.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn wait(&self) {
            let mut is_set = self.is_set.lock().unwrap();
            while !*is_set {
                is_set = self.changed.wait(is_set).unwrap();
            }
            *is_set = false;
        }
    }

    struct Pool {
        sleep: LeaderSleep,
        waker: Waker,
        calls_in_progress: AtomicUsize,
        handed_back: AtomicUsize,
    }

    fn pool(calls_in_progress: usize) -> Arc<Pool> {
        Arc::new(Pool {
            sleep: LeaderSleep::new(),
            waker: Waker::default(),
            calls_in_progress: AtomicUsize::new(calls_in_progress),
            handed_back: AtomicUsize::new(0),
        })
    }

    /// The leader has a request queued for which no thread is free. Loom reports a deadlock if it sleeps for ever.
    #[test]
    fn a_thread_that_becomes_free_wakes_a_leader_with_a_queued_request() {
        loom::model(|| {
            let pool = pool(2);
            for _ in 0..2 {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    pool.calls_in_progress.fetch_sub(1, Ordering::SeqCst);
                    pool.sleep.notify(|| pool.waker.wake());
                });
            }
            let can_call = || pool.calls_in_progress.load(Ordering::SeqCst) < 2;
            while !can_call() {
                pool.sleep.sleep_unless(can_call, || pool.waker.wait());
            }
        });
    }

    #[test]
    fn every_connection_that_is_handed_back_is_taken() {
        loom::model(|| {
            let pool = pool(0);
            for _ in 0..2 {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    pool.handed_back.fetch_add(1, Ordering::SeqCst);
                    pool.sleep.notify(|| pool.waker.wake());
                });
            }
            let mut taken = 0;
            while taken < 2 {
                let has_work = || pool.handed_back.load(Ordering::SeqCst) > 0;
                pool.sleep.sleep_unless(has_work, || pool.waker.wait());
                taken += pool.handed_back.swap(0, Ordering::SeqCst);
            }
        });
    }
}
