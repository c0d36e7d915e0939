//! Who leads next: the threads in line, the one standby, and the lookout that promotes it.
//!
//! A thread in line sleeps. Calling one costs a system call, so it is not done for each request: while the app answers without
//! blocking, nobody is called at all. A *lookout* (a thread of its own that runs no app code) glances at the leader every
//! millisecond, sends the responses that wait, and calls a standby when one call has lasted for [`GLANCES`], or requests are ready
//! that a thread more could run. Once the app is seen to block, the leader calls a standby itself before each call, until the app
//! has answered a good many times without. A standby that could only wrest the app's lock from a leader who goes from call to call
//! steps back, and none is called for a while: where nothing blocks, one thread does as much as two.
//! Where no lock of the app orders the threads (a Rust callback, a free-threaded Python) the baton is handed on before each call.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often the lookout glances, and so how long a response can wait when a call takes longer than expected.
const GLANCE: Duration = Duration::from_millis(1);
/// After so many glances at one and the same call a standby is called, so this is how long the loop can stand still when the app
/// blocks unexpectedly.
const GLANCES: u32 = 5;
/// A standby that got the app's lock sooner than this got it because the leader blocked; later, because the leader was
/// preempted (Python's switch interval is 5 ms).
const PREEMPTED: Duration = Duration::from_millis(4);
/// How long the lookout sleeps where nothing is ever overdue.
const LONG: Duration = Duration::from_secs(3600);
/// How many calls without blocking it takes until the app is again believed not to block.
const TRUST: u32 = 32;
/// After so many glances a thread is called again for ready requests, if the last one called was not needed.
const REST: u32 = 64;

/// That a thread was called from the line: when, and at which of the leader's calls.
pub(crate) struct Called {
    at: Instant,
    during: u64,
}

pub(crate) struct Line {
    followers: usize,
    one_at_a_time: bool,
    called: Mutex<bool>,
    turn: Condvar,
    glance: Condvar,
    /// A thread has been called and has neither led nor stepped back yet.
    standby: AtomicBool,
    /// Somebody holds the loop.
    led: AtomicBool,
    /// Counts the calls into the app.
    calls: AtomicU64,
    /// How many calls are still to be made with a standby called beforehand.
    wary: AtomicU32,
    /// When the last call began, requests were ready that a thread more could have run.
    pressing: AtomicBool,
    /// For how many glances nobody is to be called for ready requests.
    rest: AtomicU32,
    lookout_sleeps: AtomicBool,
    over: AtomicBool,
}

impl Line {
    pub(crate) fn new(followers: usize, one_at_a_time: bool) -> Self {
        Self {
            followers,
            one_at_a_time,
            called: Mutex::new(false),
            turn: Condvar::new(),
            glance: Condvar::new(),
            standby: AtomicBool::new(false),
            led: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            wary: AtomicU32::new(0),
            pressing: AtomicBool::new(false),
            rest: AtomicU32::new(0),
            lookout_sleeps: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// How many threads beside the first.
    pub(crate) fn followers(&self) -> usize {
        self.followers
    }

    /// Whether a thread that was called and now has the app's lock is to take the loop if it is free. Not if it had to wrest the lock
    /// from a leader who goes on from call to call.
    pub(crate) fn is_needed(&self, called: &Called) -> bool {
        let needed = called.at.elapsed() < PREEMPTED || called.during == self.calls.load(Ordering::SeqCst);
        if !needed {
            self.rest.store(REST, Ordering::Relaxed);
        }
        needed
    }

    /// The calling thread has the loop, and was called from the line or is the first.
    pub(crate) fn takes_over(&self, called: Option<&Called>) {
        self.led.store(true, Ordering::SeqCst);
        self.standby.store(false, Ordering::SeqCst);
        if called.is_some_and(|called| called.at.elapsed() < PREEMPTED) {
            self.wary.store(TRUST, Ordering::Relaxed);
        }
    }

    /// The calling thread was called, but the leader leads on.
    pub(crate) fn steps_back(&self) {
        self.standby.store(false, Ordering::SeqCst);
    }

    /// The leader has let go of the loop and goes into the app, perhaps while requests are ready that another thread could run, or
    /// responses wait to be sent.
    pub(crate) fn call_begins(&self, pressing: bool, unsent: bool) {
        if self.followers == 0 && !unsent {
            return;
        }
        self.led.store(false, Ordering::SeqCst);
        self.pressing.store(pressing, Ordering::Relaxed);
        let wary = self.followers > 0 && (!self.one_at_a_time || self.wary.load(Ordering::Relaxed) > 0);
        if wary && !self.standby.load(Ordering::SeqCst) {
            self.call(&mut self.lock());
        }
        self.be_watched();
    }

    /// Something waits to be sent while the calling thread is in the app: the lookout is to see whether that takes long.
    pub(crate) fn be_watched(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.lookout_sleeps.load(Ordering::SeqCst) {
            // The lock makes sure that the lookout is either before its last look or asleep.
            drop(self.lock());
            self.glance.notify_one();
        }
    }

    /// The leader is back from the app and has the loop again.
    pub(crate) fn leads_on(&self) {
        if self.followers > 0 {
            self.led.store(true, Ordering::SeqCst);
            let wary = self.wary.load(Ordering::Relaxed);
            self.wary.store(wary.saturating_sub(1), Ordering::Relaxed);
        }
    }

    /// Sleeps until called; `None` when all is over, or this time has passed.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> Option<Called> {
        let mut called = self.lock();
        let end = at_most.map(|at_most| Instant::now() + at_most);
        while !*called && !self.is_over() && end.is_none_or(|end| Instant::now() < end) {
            let left = end.map_or(LONG, |end| end.saturating_duration_since(Instant::now()));
            called = self.turn.wait_timeout(called, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut *called)
            .then(|| Called { at: Instant::now(), during: self.calls.load(Ordering::SeqCst) })
    }

    /// The life of the lookout, who calls `send` when the leader stays in a call while responses wait, and `watch` whenever the time
    /// has come that it names; nothing is not to be called again.
    pub(crate) fn look_out(&self, send: impl Fn(), mut watch: impl FnMut() -> Option<Instant>) {
        let mut due = watch();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= Instant::now());
        let mut called = self.lock();
        let mut seen = self.calls.load(Ordering::SeqCst);
        let mut glances = 0;
        while !self.is_over() {
            called = self.glance.wait_timeout(called, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
            if is_due(due) {
                drop(called);
                due = watch();
                called = self.lock();
            }
            let calls = self.calls.load(Ordering::SeqCst);
            if calls != seen {
                (seen, glances) = (calls, 0);
                let rest = self.rest.load(Ordering::Relaxed);
                self.rest.store(rest.saturating_sub(1), Ordering::Relaxed);
                if rest == 0 && self.pressing.load(Ordering::Relaxed) {
                    self.call(&mut called);
                }
                continue;
            }
            glances += 1;
            if glances == 1 {
                drop(called);
                send();
                called = self.lock();
            }
            if glances < GLANCES {
                continue;
            }
            if self.followers > 0 && !self.led.load(Ordering::SeqCst) {
                self.call(&mut called);
            }
            // Nothing moves; nothing is missed by sleeping until the next call begins, or one could be overdue.
            self.lookout_sleeps.store(true, Ordering::SeqCst);
            while self.calls.load(Ordering::SeqCst) == seen && !self.is_over() && !is_due(due) {
                let wait = due.map_or(LONG, |due| due.saturating_duration_since(Instant::now()));
                called = self.glance.wait_timeout(called, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            self.lookout_sleeps.store(false, Ordering::SeqCst);
            (seen, glances) = (self.calls.load(Ordering::SeqCst), 0);
        }
    }

    /// Everybody may go home.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        drop(self.lock());
        self.turn.notify_all();
        self.glance.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Calls one thread from the line, unless one is called already.
    fn call(&self, called: &mut bool) {
        if !self.standby.swap(true, Ordering::SeqCst) {
            *called = true;
            self.turn.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn called(line: &Line, ago: Duration) -> Called {
        Called { at: Instant::now().checked_sub(ago).unwrap(), during: line.calls.load(Ordering::SeqCst) }
    }

    #[test]
    fn who_waited_long_for_the_lock_is_needed_only_if_the_leader_is_still_in_the_same_call() {
        let line = Line::new(3, true);
        line.call_begins(false, false);
        let (soon, late) = (called(&line, Duration::ZERO), called(&line, PREEMPTED));
        assert!(line.is_needed(&soon) && line.is_needed(&late));
        line.leads_on();
        line.call_begins(false, false);
        assert_eq!(line.rest.load(Ordering::SeqCst), 0);
        assert!(!line.is_needed(&late));
        assert_eq!(line.rest.load(Ordering::SeqCst), REST);
        assert!(line.is_needed(&called(&line, PREEMPTED)));
        // Had the lock been had for the asking, call after call would not matter.
        let soon = Called { at: Instant::now() + PREEMPTED, ..soon };
        assert!(line.is_needed(&soon));
    }

    #[test]
    fn a_thread_is_called_while_call_follows_call_and_requests_are_ready() {
        let line = Line::new(3, true);
        line.rest.store(3, Ordering::SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| line.look_out(|| (), || None));
            let called = scope.spawn(|| line.wait(None));
            while !called.is_finished() {
                line.call_begins(true, false);
                line.leads_on();
            }
            assert!(called.join().unwrap().is_some());
            line.end();
        });
    }

    #[test]
    fn nobody_is_called_while_call_follows_call_and_no_request_is_ready() {
        let line = Line::new(3, true);
        let looked = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let watch = || {
                    looked.fetch_add(1, Ordering::SeqCst);
                    Some(Instant::now())
                };
                line.look_out(|| (), watch);
            });
            line.call_begins(false, false);
            line.takes_over(None);
            while looked.load(Ordering::SeqCst) < 20 {
                line.be_watched();
            }
            assert!(!line.standby.load(Ordering::SeqCst));
            line.end();
        });
    }
}
