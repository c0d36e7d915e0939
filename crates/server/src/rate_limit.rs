//! A limit on how often something is logged.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most peers that are remembered.
const MAX_PEERS: usize = 1024;

/// Allows something once per interval.
#[derive(Debug)]
pub(crate) struct RateLimit {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl RateLimit {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::new(None) }
    }

    /// Returns true if it was not due within the interval before `now`.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now >= last + self.interval);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// Allows something once per interval for each peer. If too many peers are remembered, for none that is not.
#[derive(Debug)]
pub(crate) struct PeerRateLimit {
    interval: Duration,
    last: Mutex<HashMap<Option<IpAddr>, Instant>>,
}

impl PeerRateLimit {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::default() }
    }

    /// Returns true if it was not due for this peer within the interval before `now`.
    pub(crate) fn is_due(&self, peer: Option<IpAddr>, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= MAX_PEERS {
            last.retain(|_, last| now < *last + self.interval);
        }
        let is_due = last.get(&peer).is_none_or(|last| now >= *last + self.interval);
        if is_due && last.len() < MAX_PEERS {
            last.insert(peer, now);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_limit_of_its_own_and_their_number_is_bounded() {
        let limit = PeerRateLimit::new(Duration::from_secs(60));
        let start = Instant::now();
        let address = |number: u32| Some(IpAddr::V4(number.into()));
        assert!(
            limit.is_due(address(1), start) && limit.is_due(address(2), start) && limit.is_due(None, start)
        );
        assert!(!limit.is_due(address(1), start + Duration::from_secs(59)));
        assert!(limit.is_due(address(1), start + Duration::from_secs(60)));
        let at = start + Duration::from_secs(200);
        let due = (0..2000).filter(|number| limit.is_due(address(*number), at)).count();
        assert_eq!(due, MAX_PEERS);
    }
}
