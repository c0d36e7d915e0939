//! The deadlines of all connections.
//!
//! A deadline is one entry of a `Vec<Option<Instant>>`, so setting it costs almost nothing. The vector is scanned only
//! when the earliest deadline that was ever set has passed, and at most ten times per second. So a timeout may be late
//! by up to a tenth of a second.

use std::time::{Duration, Instant};

/// The minimum interval between two scans.
const MIN_SCAN_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct Deadlines {
    at: Vec<Option<Instant>>,
    next: Option<Instant>,
}

impl Deadlines {
    pub(crate) fn set(&mut self, token: usize, deadline: Option<Instant>) {
        if token >= self.at.len() {
            self.at.resize(token + 1, None);
        }
        self.at[token] = deadline;
        if let Some(deadline) = deadline {
            self.next = Some(self.next.map_or(deadline, |next| next.min(deadline)));
        }
    }

    pub(crate) fn clear(&mut self, token: usize) {
        if let Some(at) = self.at.get_mut(token) {
            *at = None;
        }
    }

    /// How long until the next scan.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// Returns the connections whose deadline has passed, and clears their deadlines.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<usize> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        let mut next = None;
        for (token, at) in self.at.iter_mut().enumerate() {
            match *at {
                Some(deadline) if deadline <= now => {
                    expired.push(token);
                    *at = None;
                }
                Some(deadline) => next = Some(next.map_or(deadline, |next: Instant| next.min(deadline))),
                None => {}
            }
        }
        self.next = next.map(|next| next.max(now + MIN_SCAN_INTERVAL));
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_expires_once_when_it_has_passed() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(3, Some(start + Duration::from_secs(1)));
        deadlines.set(5, Some(start + Duration::from_secs(2)));
        assert!(deadlines.take_expired(start).is_empty());
        assert_eq!(deadlines.take_expired(start + Duration::from_secs(1)), [3]);
        assert_eq!(deadlines.take_expired(start + Duration::from_secs(3)), [5]);
        assert!(deadlines.take_expired(start + Duration::from_secs(9)).is_empty());
    }

    #[test]
    fn a_deadline_that_was_extended_does_not_expire_at_its_old_time() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(0, Some(start + Duration::from_secs(1)));
        deadlines.set(0, Some(start + Duration::from_secs(5)));
        assert!(deadlines.take_expired(start + Duration::from_secs(2)).is_empty());
        assert_eq!(deadlines.wait(start + Duration::from_secs(2)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_earlier_deadline_shortens_the_wait() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(0, Some(start + Duration::from_secs(60)));
        deadlines.set(1, Some(start + Duration::from_millis(200)));
        assert_eq!(deadlines.wait(start), Some(Duration::from_millis(200)));
    }
}
