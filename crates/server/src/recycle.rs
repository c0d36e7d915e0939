//! Limits after which a worker is replaced: on the number of requests, and on memory, against leaks in the application.

use crate::Settings;

/// Memory is checked once per this many requests.
const RSS_CHECK_INTERVAL: u64 = 64;

#[derive(Debug)]
pub(crate) struct RecycleLimits {
    requests: u64,
    max_requests: Option<u64>,
    max_rss: Option<u64>,
    is_reached: bool,
}

impl RecycleLimits {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            requests: 0,
            max_requests: settings.max_requests,
            max_rss: settings.max_rss,
            is_reached: false,
        }
    }

    /// Counts a request. Returns which limit is reached, once.
    pub(crate) fn on_request(&mut self) -> Option<String> {
        self.requests += 1;
        if self.is_reached {
            return None;
        }
        let reason = if self.max_requests.is_some_and(|max| self.requests >= max) {
            format!("served {} requests", self.requests)
        } else {
            let max = self.max_rss.filter(|_| self.requests.is_multiple_of(RSS_CHECK_INTERVAL))?;
            let rss = resident_bytes().filter(|rss| *rss >= max)?;
            format!("uses {} MiB", rss >> 20)
        };
        self.is_reached = true;
        Some(reason)
    }
}

/// The resident set size of this process. `None` if `/proc` is not available.
fn resident_bytes() -> Option<u64> {
    let sizes = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = sizes.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_requests: Option<u64>, max_rss: Option<u64>) -> RecycleLimits {
        RecycleLimits::new(&Settings { max_requests, max_rss, ..Settings::default() })
    }

    #[test]
    fn a_limit_is_reported_once() {
        let mut limits = limits(Some(3), None);
        let reported: Vec<_> = (0..9).map(|_| limits.on_request()).collect();
        assert_eq!(reported.iter().flatten().collect::<Vec<_>>(), ["served 3 requests"]);
        assert!(reported[2].is_some());
    }

    #[test]
    fn memory_is_checked_at_intervals() {
        let mut small = limits(None, Some(1));
        let reported: Vec<_> = (0..RSS_CHECK_INTERVAL).filter_map(|_| small.on_request()).collect();
        assert_eq!(reported, [format!("uses {} MiB", resident_bytes().unwrap() >> 20)]);
        let mut large = limits(None, Some(u64::MAX));
        assert!((0..RSS_CHECK_INTERVAL).all(|_| large.on_request().is_none()));
    }
}
