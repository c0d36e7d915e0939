//! When a worker that exited unexpectedly is restarted. Pure functions.

use std::time::Duration;

/// A worker that exits before it has run for this long counts as part of a crash loop.
const MIN_UPTIME: Duration = Duration::from_secs(1);
/// The delay after the first failure in a slot. It doubles with each consecutive failure, up to `MAX_BACKOFF`.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    /// How long the worker ran after it was ready. `None` if it never was.
    pub(crate) uptime: Option<Duration>,
    /// It had asked to be replaced.
    pub(crate) recycle_requested: bool,
    /// A replacement was running or starting already.
    pub(crate) has_replacement: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Restart now, and forget earlier failures.
    Now,
    /// Count a failure and wait for its backoff.
    BackOff,
}

pub(crate) fn decide(exit: Exit) -> Restart {
    match exit.uptime {
        Some(uptime) if exit.has_replacement || exit.recycle_requested || uptime >= MIN_UPTIME => {
            Restart::Now
        }
        _ => Restart::BackOff,
    }
}

/// The delay before the next attempt, after `failures` earlier failures in a row.
pub(crate) fn backoff(failures: u32) -> Duration {
    INITIAL_BACKOFF.saturating_mul(1 << failures.min(16)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_that_ran_long_enough_or_were_to_be_replaced_restart_now() {
        let (never, short, long) = (None, Some(Duration::from_millis(999)), Some(MIN_UPTIME));
        for (uptime, recycle_requested, has_replacement, expected) in [
            (never, false, false, Restart::BackOff),
            (never, true, false, Restart::BackOff),
            (never, false, true, Restart::BackOff),
            (short, false, false, Restart::BackOff),
            (short, true, false, Restart::Now),
            (short, false, true, Restart::Now),
            (long, false, false, Restart::Now),
        ] {
            let exit = Exit { uptime, recycle_requested, has_replacement };
            assert_eq!(decide(exit), expected, "{exit:?}");
        }
    }

    #[test]
    fn the_backoff_doubles_up_to_a_maximum() {
        let table = [(0, 100), (1, 200), (2, 400), (6, 6400), (7, 10_000), (17, 10_000), (u32::MAX, 10_000)];
        for (failures, millis) in table {
            assert_eq!(backoff(failures), Duration::from_millis(millis), "{failures} failures");
        }
    }
}
