//! [`ServerContext`]: what all connections of a server process share.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::{Duration, Instant},
};

use crate::{
    Settings,
    active_writers::ActiveWriters,
    memory::MemoryBudget,
    rate_limit::{PeerRateLimit, RateLimit},
    rejections::Rejections,
    settings::Limits,
};

/// The minimum time that an idle connection stays open while the server drains.
const DRAIN_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How often the same warning about clients is logged.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct ServerContext {
    pub(crate) settings: Settings,
    pub(crate) limits: Arc<Limits>,
    pub(crate) wants_log: bool,
    pub(crate) rejections: Rejections,
    /// From [`App::wants_head`](crate::App::wants_head).
    pub(crate) wants_head: Arc<AtomicBool>,
    /// Set while the server drains and idle connections cannot be handed over: every response closes its connection.
    pub(crate) draining: AtomicBool,
    /// When draining began.
    pub(crate) drain_began: OnceLock<Instant>,
    /// From [`Settings::bodies_in_memory`].
    pub(crate) body_memory: Arc<MemoryBudget>,
    /// From [`Settings::response_memory`].
    pub(crate) response_memory: Arc<MemoryBudget>,
    pub(crate) writers: ActiveWriters,
    /// Limits the warnings about clients that expect TLS.
    pub(crate) tls_warning: RateLimit,
    /// Limits the warnings about HTTP/2 clients that exceed limits, for each client.
    pub(crate) http2_warnings: PeerRateLimit,
}

impl ServerContext {
    pub(crate) fn new(settings: Settings, wants_log: bool, wants_head: Arc<AtomicBool>) -> Self {
        let limits = Arc::new(settings.limits.clone());
        let body_memory = MemoryBudget::new(settings.bodies_in_memory);
        let response_memory = MemoryBudget::new(settings.response_memory);
        Self {
            settings,
            limits,
            wants_log,
            wants_head,
            rejections: Rejections::new(),
            draining: AtomicBool::new(false),
            drain_began: OnceLock::new(),
            body_memory,
            response_memory,
            writers: ActiveWriters::default(),
            tls_warning: RateLimit::new(WARNING_INTERVAL),
            http2_warnings: PeerRateLimit::new(WARNING_INTERVAL),
        }
    }

    /// When an idle connection is closed that would be closed at `usual` otherwise. While the server drains, each
    /// client gets time for a last request, but not so much that the process would be killed.
    pub(crate) fn idle_until(&self, usual: Instant) -> Instant {
        let Some(began) = self.drain_began.get() else { return usual };
        let usual = usual.max(*began + DRAIN_KEEP_ALIVE);
        let latest = began.checked_add(self.settings.graceful_timeout / 10 * 9);
        latest.map_or(usual, |latest| usual.min(latest))
    }

    /// Whether the drain has lasted so long that connections which could not be handed over must be closed.
    pub(crate) fn must_close_connections(&self) -> bool {
        self.drain_began.get().is_some_and(|began| began.elapsed() > self.settings.graceful_timeout / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_outlasts_the_start_of_a_drain_but_not_the_graceful_timeout() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        // (keep-alive ends after, graceful timeout, closed after)
        for (usual, graceful, closed) in [(1, 30, 2), (5, 30, 5), (600, 30, 27), (5, 1, 0), (9, u64::MAX, 9)]
        {
            let settings = Settings { graceful_timeout: seconds(graceful), ..Settings::default() };
            let context = ServerContext::new(settings, false, Arc::default());
            assert_eq!(context.idle_until(now + seconds(usual)), now + seconds(usual));
            context.drain_began.get_or_init(|| now);
            let until = context.idle_until(now + seconds(usual)) - now;
            assert_eq!(until.as_secs(), closed, "{usual} {graceful}: {until:?}");
        }
    }
}
