//! The log of rejected requests, with a limit, so that an attack cannot fill the log.
//!
//! The numbers are in shared memory: a process that was forked for one request takes part in the limit of its worker.

use std::{
    fmt::Arguments,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use log::{Level, log, log_enabled};
use mlws_sys::SharedPage;

/// The most records of each level per second. Further ones are counted.
const MAX_PER_SECOND: u64 = 10;
/// The levels with a limit of their own, so that invalid requests do not hide an overload.
const LEVELS: [Level; 2] = [Level::Info, Level::Warn];

#[derive(Debug)]
pub(crate) struct Rejections {
    epoch: Instant,
    /// For each level the numbers of [`Window`]. Without shared memory there is no limit.
    numbers: Option<SharedPage<AtomicU64>>,
}

/// The limit of one level.
struct Window<'a> {
    /// The second that `logged` counts, since the epoch.
    second: &'a AtomicU64,
    logged: &'a AtomicU64,
    /// Rejections that were not logged, and whose number was not logged either.
    suppressed: &'a AtomicU64,
}

impl Rejections {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), numbers: SharedPage::new(3 * LEVELS.len()).ok() }
    }

    /// Logs a rejection: as a warning if the server is the reason, otherwise as information. Beyond the limit it is
    /// counted, and logged only at debug level.
    pub(crate) fn log(&self, level: Level, message: Arguments<'_>, now: Instant) {
        let window = LEVELS.iter().position(|limited| *limited == level).and_then(|index| self.window(index));
        if log_enabled!(Level::Debug) {
            // Nothing is lost then, so nothing is counted.
            let is_admitted = window.is_none_or(|window| window.admit(self.second(now)));
            return log!(if is_admitted { level } else { Level::Debug }, "{message}");
        }
        let Some(window) = window.filter(|_| log_enabled!(level)) else { return log!(level, "{message}") };
        if window.admit(self.second(now)) {
            log!(level, "{message}");
        } else {
            window.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs how many rejections of an earlier second were not logged.
    pub(crate) fn report_suppressed(&self, now: Instant) {
        for (index, level) in LEVELS.into_iter().enumerate() {
            let suppressed = self.window(index).map_or(0, |window| window.take_suppressed(self.second(now)));
            if suppressed > 0 {
                log!(level, "{suppressed} more requests were rejected");
            }
        }
    }

    /// When [`report_suppressed`](Self::report_suppressed) has something to log.
    pub(crate) fn next_report(&self) -> Option<Instant> {
        let windows = (0..LEVELS.len()).filter_map(|index| self.window(index));
        let seconds = windows.filter_map(|window| {
            let is_due = window.suppressed.load(Ordering::Relaxed) > 0;
            is_due.then(|| window.second.load(Ordering::Relaxed))
        });
        seconds.min().map(|second| self.epoch + Duration::from_secs(second + 1))
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    fn window(&self, index: usize) -> Option<Window<'_>> {
        let number = |offset| self.numbers.as_ref()?.get(3 * index + offset);
        Some(Window { second: number(0)?, logged: number(1)?, suppressed: number(2)? })
    }
}

impl Window<'_> {
    /// Counts a record. Returns whether it may be logged.
    fn admit(&self, second: u64) -> bool {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.logged.store(0, Ordering::Relaxed);
        }
        self.logged.fetch_add(1, Ordering::Relaxed) < MAX_PER_SECOND
    }

    fn take_suppressed(&self, second: u64) -> u64 {
        if self.suppressed.load(Ordering::Relaxed) == 0 || self.second.load(Ordering::Relaxed) == second {
            return 0;
        }
        self.suppressed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rejections_of_each_second_are_logged_and_the_others_counted() {
        let rejections = Rejections::new();
        let window = rejections.window(0).unwrap();
        for second in [0, 1, 5] {
            let admitted = (0..25).filter(|_| {
                let is_admitted = window.admit(second);
                window.suppressed.fetch_add(u64::from(!is_admitted), Ordering::Relaxed);
                is_admitted
            });
            assert_eq!(admitted.count() as u64, MAX_PER_SECOND);
            assert_eq!(window.take_suppressed(second), 0, "the second is not over");
            assert_eq!(rejections.next_report(), Some(rejections.epoch + Duration::from_secs(second + 1)));
            assert_eq!(window.take_suppressed(second + 1), 25 - MAX_PER_SECOND);
            assert_eq!(rejections.next_report(), None);
        }
    }

    #[test]
    fn each_level_has_its_own_limit() {
        let rejections = Rejections::new();
        let [info, warning] = [0, 1].map(|index| rejections.window(index).unwrap());
        assert!((0..MAX_PER_SECOND).all(|_| info.admit(0)));
        assert!(!info.admit(0));
        assert!(warning.admit(0));
    }
}
