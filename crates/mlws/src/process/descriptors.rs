//! The limit on open files (`RLIMIT_NOFILE`): raised for connections, restored for programs that the application starts.
//!
//! Some programs rely on a low soft limit: they use `select()`, or close all descriptors up to the limit. The application may start such
//! programs, so they get the original soft limit. It cannot be lowered in this process while other threads open files, so it is set for each
//! program right after its start.

use std::sync::atomic::{AtomicU64, Ordering};

use mlws_supervisor::Pid;
use pyo3::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The highest soft limit to set. Programs that close all descriptors up to a higher limit would take minutes.
const MAX_LIMIT: u64 = 1 << 20;
/// Descriptors for the server itself: standard streams, logs, listeners, channels.
const SERVER_RESERVE: usize = 32;
/// Descriptors reserved for the application, but at most a quarter of the limit.
const APP_RESERVE: usize = 1024;

/// The soft limit before it was raised, or 0 if it was not. An atomic, because a child may be forked while another thread holds a lock.
static ORIGINAL: AtomicU64 = AtomicU64::new(0);

/// A guard: the limit is raised until it is dropped.
pub(crate) struct RaisedLimit;

impl RaisedLimit {
    pub(crate) fn new(py: Python<'_>) -> Self {
        let limits = getrlimit(Resource::Nofile);
        let wanted = limits.maximum.unwrap_or(MAX_LIMIT).min(MAX_LIMIT);
        let Some(original) = limits.current.filter(|current| (1..wanted).contains(current)) else {
            return Self;
        };
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limits }) {
            log::debug!("raising the limit on open files failed: {error}");
            return Self;
        }
        ORIGINAL.store(original, Ordering::Relaxed);
        let module = py.import("mylittlewebserver._descriptors");
        if let Err(error) = module.and_then(|module| module.call_method0("install")) {
            log::debug!("restoring the limit on open files for programs of the application failed: {error}");
        }
        Self
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        let limits = getrlimit(Resource::Nofile);
        if let original @ 1.. = ORIGINAL.swap(0, Ordering::Relaxed)
            && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(original), ..limits })
        {
            log::debug!("restoring the limit on open files failed: {error}");
        }
    }
}

/// Restores the original limit for a program that this process has just started.
pub(crate) fn restore(program: Pid) {
    let original @ 1.. = ORIGINAL.load(Ordering::Relaxed) else { return };
    let own = getrlimit(Resource::Nofile);
    let restored = Rlimit { current: Some(original), ..own };
    // It may have exited or run as another user. A limit that it has set itself stays.
    if let Ok(previous) = prlimit(Some(program), Resource::Nofile, restored)
        && previous != own
    {
        let _ = prlimit(Some(program), Resource::Nofile, previous);
    }
}

/// The number of connections per worker that the limit allows, at most `wanted`. `requests` is the number of concurrent requests.
pub(crate) fn connections(wanted: usize, requests: usize) -> usize {
    match limit() {
        Some(limit) => wanted.min(max_connections(limit, requests)),
        None => wanted,
    }
}

/// The current limit on open files.
pub(crate) fn limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok())
}

fn max_connections(limit: usize, requests: usize) -> usize {
    let reserve = APP_RESERVE.min(limit / 4).max(requests.min(limit / 2));
    limit.saturating_sub(reserve + SERVER_RESERVE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_reserved_for_the_application() {
        assert_eq!(max_connections(1 << 20, 4), (1 << 20) - 1024 - 32);
        assert_eq!(max_connections(1024, 4), 736);
        assert_eq!(max_connections(256, 4), 160);
        assert_eq!(max_connections(256, 100), 124); // each request may open a file
        assert_eq!(max_connections(256, 4096), 96);
        assert_eq!(max_connections(16, 4), 1);
    }
}
