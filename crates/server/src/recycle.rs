//! When a process has served enough: a bound on its requests, and one on its memory, against what leaks in the app.
//!
//! Counted by whoever holds the loop, so it costs an addition; the system is asked for the memory now and then only.

use crate::Settings;

/// The memory is looked at once in so many requests.
const NOW_AND_THEN: u64 = 64;

#[derive(Debug)]
pub(crate) struct RecycleLimits {
    served: u64,
    max_requests: Option<u64>,
    max_rss: Option<u64>,
    worn: bool,
}

impl RecycleLimits {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { served: 0, max_requests: settings.max_requests, max_rss: settings.max_rss, worn: false }
    }

    /// A request is begun. Says, once, what bound is reached.
    pub(crate) fn add(&mut self) -> Option<String> {
        self.served += 1;
        if self.worn {
            return None;
        }
        let why = if self.max_requests.is_some_and(|most| self.served >= most) {
            format!("has served {} requests", self.served)
        } else {
            let asked = self.max_rss.filter(|_| self.served.is_multiple_of(NOW_AND_THEN));
            let rss = asked.and_then(|most| resident().filter(|rss| *rss >= most))?;
            format!("uses {} MiB", rss >> 20)
        };
        self.worn = true;
        Some(why)
    }
}

/// The memory of this process that is in use, in bytes; nothing where the system does not tell.
fn resident() -> Option<u64> {
    let sizes = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = sizes.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recycle(max_requests: Option<u64>, max_rss: Option<u64>) -> RecycleLimits {
        RecycleLimits::new(&Settings { max_requests, max_rss, ..Settings::default() })
    }

    #[test]
    fn a_bound_is_told_of_once_when_it_is_reached() {
        let mut recycle = recycle(Some(3), None);
        let told: Vec<_> = (0..9).map(|_| recycle.add()).collect();
        assert_eq!(told.iter().flatten().collect::<Vec<_>>(), ["has served 3 requests"]);
        assert!(told[2].is_some());
    }

    #[test]
    fn memory_counts_from_the_first_look() {
        let mut small = recycle(None, Some(1));
        assert!(
            (0..NOW_AND_THEN)
                .filter_map(|_| small.add())
                .eq([format!("uses {} MiB", resident().unwrap() >> 20)])
        );
        let mut large = recycle(None, Some(u64::MAX));
        assert!((0..NOW_AND_THEN).all(|_| large.add().is_none()));
    }
}
