//! What the lookout does about overdue calls: tells the owner, and closes the house when nobody else can run the loop any more.
//!
//! With one thread, that is as soon as its call is overdue. With more it is the case where the stuck call keeps the app's own lock
//! (Python's GIL): then the loop stands still, and not even an order to end would be heard.
//!
//! The one thing to know: the app cannot be asked for anything here, nor anything of it be dropped, for that may wait for the
//! very lock that is never given back. So the process is left without a word to the app.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{Notice, crew::Crew, sys};

/// The exit status of a process that was left because a thread is stuck in the app (`EX_TEMPFAIL` of `sysexits.h`).
const STUCK: i32 = 75;

/// How often the loop is looked at while a call is overdue.
const OFTEN: Duration = Duration::from_millis(50);
/// How long the loop may stand still then.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How long the last answers may take.
const LAST: Duration = Duration::from_secs(1);

/// What the lookout remembers from one look to the next.
#[derive(Default)]
pub(crate) struct Memory {
    /// The owner was told.
    told: bool,
    /// How many turns of the loop were seen, and when that was new.
    turns: Option<(u64, Instant)>,
}

impl Crew {
    /// Looks at the posts and the loop, and says when to look again.
    pub(crate) fn watch(&self, memory: &mut Memory) -> Option<Instant> {
        let seen = self.posts.look(&*self.app)?;
        if seen.fresh > 0 {
            if !std::mem::replace(&mut memory.told, true) {
                (self.notice)(Notice::Overdue);
            }
            // A drain may wait for nobody else.
            self.returned.wake();
        }
        if seen.overdue == 0 {
            memory.turns = None;
            return Some(seen.next);
        }
        if self.line.followers() == 0 || self.stands_still(memory) {
            self.close_the_house();
        }
        Some(seen.next.min(Instant::now() + OFTEN))
    }

    fn stands_still(&self, memory: &mut Memory) -> bool {
        let (now, turns) = (Instant::now(), self.turns.load(Ordering::Relaxed));
        match memory.turns {
            Some((seen, since)) if seen == turns && !self.polls.load(Ordering::Relaxed) => {
                now - since >= STANDSTILL
            }
            _ => {
                memory.turns = Some((turns, now));
                false
            }
        }
    }

    /// Answers whom the server itself can answer, and leaves the process, unless the call has come back by then.
    fn close_the_house(&self) {
        let the_loop = self.try_loop();
        if self.posts.overdue() == 0 {
            return; // It has come back this very moment.
        }
        let Some(mut the_loop) = the_loop else { leave_stuck() };
        let until = Instant::now() + LAST;
        the_loop.close_doors();
        loop {
            self.take_back(&mut the_loop);
            self.unsent.send(|connection, next| the_loop.settle(connection, next));
            the_loop.turn_away();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_finished(&mut the_loop) {
                break;
            }
            if !the_loop.is_busy() && the_loop.wait(Some(left)).is_err() {
                break;
            }
            the_loop.turn();
        }
        if self.posts.overdue() > 0 {
            leave_stuck();
        }
        drop(the_loop);
        self.line.end();
    }
}

/// Leaves the process, with status 75, while a thread is stuck in the app: without exit handlers, which might wait for it.
pub fn leave_stuck() -> ! {
    log::error!("a thread is stuck in the application; this process is left without it");
    sys::leave(STUCK)
}
