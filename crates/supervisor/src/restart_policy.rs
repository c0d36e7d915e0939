//! When a worker that exited unexpectedly is restarted. Pure functions.

use std::time::Duration;

/// A worker that exits before it has run for this long counts as part of a crash loop.
const MIN_UPTIME: Duration = Duration::from_secs(1);
/// The delay after the first failure in a slot. It doubles with each consecutive failure, up to `MAX_BACKOFF`.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Whether a worker that exited is restarted now, rather than after a backoff. `uptime` is how long it ran after it was ready, and
/// `was_recycling` whether it had requested its replacement.
pub(crate) fn restarts_now(uptime: Option<Duration>, was_recycling: bool) -> bool {
    uptime.is_some_and(|uptime| was_recycling || uptime >= MIN_UPTIME)
}

/// The delay before the next attempt, after `failures` earlier failures in a row.
pub(crate) fn backoff(failures: u32) -> Duration {
    INITIAL_BACKOFF.saturating_mul(1 << failures.min(16)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_that_ran_long_enough_or_were_to_be_recycled_restart_now() {
        let (never, short, long) = (None, Some(Duration::from_millis(999)), Some(MIN_UPTIME));
        for (uptime, was_recycling, expected) in [
            (never, false, false),
            (never, true, false),
            (short, false, false),
            (short, true, true),
            (long, false, true),
            (long, true, true),
        ] {
            assert_eq!(restarts_now(uptime, was_recycling), expected, "{uptime:?} {was_recycling}");
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
