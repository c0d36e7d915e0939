//! Who leads next: the threads in line, the one standby, and the lookout that promotes it.
//!
//! A thread in line sleeps. Calling one costs a system call, so it is not done for each request: while the app answers without
//! blocking, nobody is called at all. A *lookout* (a thread of its own that runs no app code) glances at the leader every
//! millisecond, sends the responses that wait, and calls a standby when one call has lasted for [`GLANCES`]. Once the app is
//! seen to block, the leader calls a standby itself before each call, until the app has answered a good many times without.
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
            lookout_sleeps: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// How many threads beside the first.
    pub(crate) fn followers(&self) -> usize {
        self.followers
    }

    /// The calling thread has the loop; if it was called from the line, it waited this long for the app's lock.
    pub(crate) fn takes_over(&self, waited: Option<Duration>) {
        self.led.store(true, Ordering::SeqCst);
        self.standby.store(false, Ordering::SeqCst);
        if waited.is_some_and(|waited| waited < PREEMPTED) {
            self.wary.store(TRUST, Ordering::Relaxed);
        }
    }

    /// The calling thread was called, but the leader leads on.
    pub(crate) fn steps_back(&self) {
        self.standby.store(false, Ordering::SeqCst);
    }

    /// The leader has let go of the loop and goes into the app, perhaps while responses wait to be sent.
    pub(crate) fn call_begins(&self, unsent: bool) {
        if self.followers == 0 && !unsent {
            return;
        }
        self.led.store(false, Ordering::SeqCst);
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

    /// Sleeps until called, and says when that was; `None` when all is over.
    pub(crate) fn wait(&self) -> Option<Instant> {
        let mut called = self.lock();
        while !*called && !self.is_over() {
            called = self.turn.wait(called).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut *called).then(Instant::now)
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
