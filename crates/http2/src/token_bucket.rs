//! A token bucket, which enforces a [`Rate`].

use std::time::{Duration, Instant};

use crate::limits::Rate;

const SECOND: u64 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: Rate,
    tokens: u32,
    /// The time up to which tokens have been added.
    updated: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        TokenBucket { rate, tokens: rate.burst, updated: now }
    }

    /// Takes a token. False if there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }

    /// Adds tokens, at most to the burst.
    pub(crate) fn add(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.rate.burst);
    }

    fn refill(&mut self, now: Instant) {
        let per_second = u64::from(self.rate.per_second);
        let elapsed = now.saturating_duration_since(self.updated);
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let added = elapsed.saturating_mul(per_second) / SECOND;
        if added == 0 {
            return;
        }
        self.add(u32::try_from(added).unwrap_or(u32::MAX));
        self.updated = if self.tokens == self.rate.burst {
            now
        } else {
            self.updated + Duration::from_nanos(added * SECOND / per_second) // keeps the fraction of a token
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_second: 2 };

    fn take_all(bucket: &mut TokenBucket, now: Instant) -> usize {
        (0..100).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(RATE, start);
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(take_all(&mut bucket, start), 3);
        assert_eq!(take_all(&mut bucket, at(400)), 0);
        assert_eq!(take_all(&mut bucket, at(600)), 1, "the fraction of a token is kept");
        assert_eq!(take_all(&mut bucket, at(1000)), 1);
        assert_eq!(take_all(&mut bucket, at(9000)), 3, "not more than a burst");
        assert_eq!(take_all(&mut bucket, start), 0, "an earlier time adds nothing");
    }

    #[test]
    fn added_tokens_do_not_exceed_the_burst() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(RATE, now);
        bucket.add(50);
        assert_eq!(take_all(&mut bucket, now), 3);
        bucket.add(2);
        assert_eq!(take_all(&mut bucket, now), 2);
    }

    #[test]
    fn a_rate_of_zero_never_refills() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(Rate { burst: 1, per_second: 0 }, now);
        assert_eq!(take_all(&mut bucket, now), 1);
        assert_eq!(take_all(&mut bucket, now + Duration::from_secs(1 << 40)), 0);
    }
}
