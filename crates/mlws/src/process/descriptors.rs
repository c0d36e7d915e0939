//! The limit on open files (`RLIMIT_NOFILE`): raised for connections, and given back to programs that the application starts.
//!
//! A low soft limit is there for programs that use `select()`, or that close all numbers up to the limit. Such programs may be started by
//! the application, so they get the soft limit that the server was started with. The limit belongs to the whole process and cannot
//! be lowered while other threads open files, so each program gets it right after its start.

use std::sync::atomic::{AtomicU64, Ordering};

use mlws_supervisor::Pid;
use pyo3::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The highest soft limit that is asked for. Where more is allowed, some programs that close all numbers up to it would take minutes.
const MOST: u64 = 1 << 20;
/// What the server itself needs: standard streams, logs, listeners, channels.
const OWN: usize = 32;
/// Descriptors that are left to the application, unless that were more than a quarter of all.
const RESERVE: usize = 1024;

/// The soft limit before it was raised; 0 if it was not. No lock, for a child may be forked while one is held.
static FOUND: AtomicU64 = AtomicU64::new(0);

/// The limit is raised while this lives.
pub(crate) struct RaisedLimit;

impl RaisedLimit {
    pub(crate) fn new(py: Python<'_>) -> Self {
        let limits = getrlimit(Resource::Nofile);
        let wanted = limits.maximum.unwrap_or(MOST).min(MOST);
        let Some(found) = limits.current.filter(|current| (1..wanted).contains(current)) else { return Self };
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limits }) {
            log::debug!("the limit on open files stays as it is: {error}");
            return Self;
        }
        FOUND.store(found, Ordering::Relaxed);
        let module = py.import("mylittlewebserver._descriptors");
        if let Err(error) = module.and_then(|module| module.call_method0("install")) {
            log::debug!("programs of the application have a raised limit on open files: {error}");
        }
        Self
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        let limits = getrlimit(Resource::Nofile);
        if let found @ 1.. = FOUND.swap(0, Ordering::Relaxed)
            && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(found), ..limits })
        {
            log::debug!("the limit on open files stays raised: {error}");
        }
    }
}

/// Gives a program that this process has just started the limit that it would have without us.
pub(crate) fn restore(program: Pid) {
    let found @ 1.. = FOUND.load(Ordering::Relaxed) else { return };
    let ours = getrlimit(Resource::Nofile);
    let restored = Rlimit { current: Some(found), ..ours };
    // It may have ended, or be another user's; and what it has set itself stays.
    if let Ok(had) = prlimit(Some(program), Resource::Nofile, restored)
        && had != ours
    {
        let _ = prlimit(Some(program), Resource::Nofile, had);
    }
}

/// How many connections each worker can have, if so many are wanted, and so many requests run at once.
pub(crate) fn connections(wanted: usize, requests: usize) -> usize {
    match limit() {
        Some(limit) => wanted.min(bound(limit, requests)),
        None => wanted,
    }
}

/// The present limit on open files.
pub(crate) fn limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok())
}

fn bound(limit: usize, requests: usize) -> usize {
    let reserve = RESERVE.min(limit / 4).max(requests.min(limit / 2));
    limit.saturating_sub(reserve + OWN).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_has_a_part_of_the_descriptors_for_itself() {
        assert_eq!(bound(1 << 20, 4), (1 << 20) - 1024 - 32);
        assert_eq!(bound(1024, 4), 736);
        assert_eq!(bound(256, 4), 160);
        assert_eq!(bound(256, 100), 124); // each request may open a file
        assert_eq!(bound(256, 4096), 96);
        assert_eq!(bound(16, 4), 1);
    }
}
