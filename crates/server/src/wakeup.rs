//! Two protocols by which threads leave work for each other without missing any.
//!
//! Both sides of each protocol publish something and then check what the other side has published. Publishing is a
//! read-modify-write operation on one flag, so the later of the two sees everything that the other thread did before.
//! The tests prove that with a model checker (`cargo test -p mlws-server --features loom --lib wakeup`).

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, Ordering};

/// How the leader goes to sleep in the poll set: it announces the sleep and then checks once more for work. Other
/// threads publish work and then check for a sleeper.
pub(crate) struct LeaderSleep {
    is_asleep: AtomicBool,
}

impl LeaderSleep {
    pub(crate) fn new() -> Self {
        Self { is_asleep: AtomicBool::new(false) }
    }

    /// Runs `sleep`, unless `has_work` finds work after the sleep was announced. `sleep` must call [`end`](Self::end) when the leader
    /// has woken, before it gives up the lead: the announcement may be that of the next leader afterwards.
    pub(crate) fn sleep_unless(&self, has_work: impl FnOnce() -> bool, sleep: impl FnOnce()) {
        self.is_asleep.swap(true, Ordering::AcqRel);
        if has_work() {
            self.end();
        } else {
            sleep();
        }
    }

    /// The leader is awake.
    pub(crate) fn end(&self) {
        self.is_asleep.store(false, Ordering::Release);
    }

    /// Runs `wake` if the leader sleeps or is about to. Call this after publishing work. The leader checks for all
    /// kinds of work when it wakes, so it is woken once.
    pub(crate) fn notify(&self, wake: impl FnOnce()) {
        if self.is_asleep.swap(false, Ordering::AcqRel) {
            wake();
        }
    }
}

/// Work that needs a lock which another thread may hold. A thread that finds the lock taken leaves the work to its
/// holder, which checks for it after releasing the lock.
#[derive(Debug)]
pub(crate) struct PendingWork {
    is_pending: AtomicBool,
}

impl PendingWork {
    pub(crate) fn new() -> Self {
        Self { is_pending: AtomicBool::new(false) }
    }

    /// Publishes work. Call [`run`](Self::run) afterwards.
    pub(crate) fn announce(&self) {
        self.is_pending.swap(true, Ordering::AcqRel);
    }

    /// Does pending work while the lock is available. Call this after `announce`, and after every release of the lock.
    pub(crate) fn run<G>(&self, try_lock: impl Fn() -> Option<G>, mut work: impl FnMut(G)) {
        while self.is_pending.fetch_or(false, Ordering::AcqRel) {
            let Some(guard) = try_lock() else { return };
            if self.is_pending.swap(false, Ordering::AcqRel) {
                work(guard);
            }
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

    use super::{LeaderSleep, PendingWork};

    /// The eventfd in the poll set: a write before the wait ends the wait immediately.
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

    /// Runs `test` in every order of steps with up to three preemptions, which is where such errors appear.
    fn model(test: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(test);
    }

    struct ModelPool {
        sleep: LeaderSleep,
        waker: Waker,
        calls_in_progress: AtomicUsize,
        handed_back: AtomicUsize,
    }

    fn pool(calls_in_progress: usize) -> Arc<ModelPool> {
        Arc::new(ModelPool {
            sleep: LeaderSleep::new(),
            waker: Waker::default(),
            calls_in_progress: AtomicUsize::new(calls_in_progress),
            handed_back: AtomicUsize::new(0),
        })
    }

    /// The leader has queued a request for which no thread is free. Loom reports a deadlock if the leader sleeps
    /// forever.
    #[test]
    fn a_thread_that_becomes_free_wakes_a_leader_with_a_queued_request() {
        model(|| {
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
                pool.sleep.sleep_unless(can_call, || {
                    pool.waker.wait();
                    pool.sleep.end();
                });
            }
        });
    }

    /// The next leader may sleep before a leader that has woken continues, because that one waits for the GIL first.
    #[test]
    fn a_leader_that_has_woken_does_not_hide_the_sleep_of_the_next_one() {
        model(|| {
            let (pool, lead) = (pool(0), Arc::new(Mutex::new(0)));
            for _ in 0..2 {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    pool.handed_back.fetch_add(1, Ordering::SeqCst);
                    pool.sleep.notify(|| pool.waker.wake());
                });
            }
            let lead_once = |pool: &ModelPool, lead: &Mutex<usize>| {
                let mut taken = lead.lock().unwrap();
                if *taken == 2 {
                    return false;
                }
                let has_work = || pool.handed_back.load(Ordering::SeqCst) > 0;
                pool.sleep.sleep_unless(has_work, || {
                    pool.waker.wait();
                    pool.sleep.end();
                    *taken += pool.handed_back.swap(0, Ordering::SeqCst);
                    drop(taken);
                });
                true
            };
            let other = Arc::clone(&pool);
            let other_lead = Arc::clone(&lead);
            thread::spawn(move || lead_once(&other, &other_lead));
            while lead_once(&pool, &lead) {
                let mut taken = lead.lock().unwrap();
                *taken += pool.handed_back.swap(0, Ordering::SeqCst);
            }
        });
    }

    #[test]
    fn every_connection_that_is_handed_back_is_taken() {
        model(|| {
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
                pool.sleep.sleep_unless(has_work, || {
                    pool.waker.wait();
                    pool.sleep.end();
                });
                taken += pool.handed_back.swap(0, Ordering::SeqCst);
            }
        });
    }

    fn count(done: &AtomicUsize) {
        done.fetch_add(1, Ordering::SeqCst);
    }

    #[test]
    fn work_that_finds_the_lock_taken_is_done_by_its_holder() {
        model(|| {
            let state = Arc::new((PendingWork::new(), Mutex::new(()), AtomicUsize::new(0)));
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let state = Arc::clone(&state);
                    thread::spawn(move || {
                        let (pending, lock, _) = &*state;
                        pending.announce();
                        pending.run(|| lock.try_lock().ok(), |_guard| count(&state.2));
                    })
                })
                .collect();
            let (pending, lock, done) = &*state;
            drop(lock.lock().unwrap());
            pending.run(|| lock.try_lock().ok(), |_guard| count(done));
            for other in others {
                other.join().unwrap();
            }
            assert!(done.load(Ordering::SeqCst) > 0);
            assert!(!pending.is_pending.load(Ordering::SeqCst));
        });
    }
}
