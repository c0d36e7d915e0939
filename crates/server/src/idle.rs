//! Which idle connections are closed when a worker is full and another client is waiting.

use std::time::{Duration, Instant};

use crate::connection::{Connection, Phase};

/// A connection that has been idle for less than this may be about to send a request.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// One in this many connections is closed at a time, because searching many connections takes time.
const SHARE: usize = 1024;

/// The sort key: connections that have never sent a request come first.
pub(crate) type Candidate = (IsKeptAlive, Instant, Token);
type IsKeptAlive = bool;
type Token = usize;

/// The sort key of a connection, if it is idle.
pub(crate) fn candidate(connection: &Connection) -> Option<Candidate> {
    let is_idle = connection.is_idle() && !connection.readiness.readable;
    is_idle.then_some((matches!(connection.phase, Phase::Idle), connection.since, connection.token))
}

/// The tokens of the connections to close. `count` is the number of all connections.
pub(crate) fn longest_idle(
    candidates: impl Iterator<Item = Candidate>,
    count: usize,
    now: Instant,
) -> Vec<Token> {
    choose(candidates, 1 + count / SHARE, now)
}

fn choose(idle: impl Iterator<Item = Candidate>, count: usize, now: Instant) -> Vec<Token> {
    let is_long_idle = |since: Instant| now.saturating_duration_since(since) >= MIN_IDLE;
    let mut idle: Vec<_> = idle.filter(|(_, since, _)| is_long_idle(*since)).collect();
    if count < idle.len() {
        idle.select_nth_unstable(count);
        idle.truncate(count);
    }
    idle.into_iter().map(|(_, _, token)| token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_without_a_request_are_closed_first_then_the_longest_idle() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let idle = [(true, at(0), 0), (true, at(1), 1), (false, at(2), 2), (false, at(9), 3)];
        let chosen = |count, now| {
            let mut chosen = choose(idle.into_iter(), count, at(now));
            chosen.sort_unstable();
            chosen
        };
        assert_eq!(chosen(1, 9), [2]);
        assert_eq!(chosen(2, 9), [0, 2]);
        assert_eq!(chosen(9, 9), [0, 1, 2]); // the last one may be about to send its first request
        assert_eq!(chosen(2, 10), [2, 3]);
        assert!(chosen(9, 0).is_empty());
    }
}
