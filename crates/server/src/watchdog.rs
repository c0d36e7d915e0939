//! The watchdog: tracks how long each thread has been inside the app, and ends calls that exceed the timeout.
//!
//! A thread fills its slot before it calls the app and clears it afterwards. That takes two uncontended locks and wakes
//! no thread. The monitor thread (see [`thread_pool`](crate::thread_pool)) checks the slots when a call could be
//! overdue. It holds no lock of the app, so that it can log and act even if no other thread can.
//!
//! Invariant: actions on a call happen under the lock of its slot, so the call cannot return meanwhile, and its
//! connection cannot continue with the next request.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mlws_http1::RequestInfo;

use crate::{App, Request, Response, connection::socket::ClientSocket, peer::Peer};

/// The longest part of a request line that is logged, in bytes.
const MAX_LOGGED_LINE: usize = 1024;
/// How soon a call that waits for a slow client is checked again.
const RECHECK: Duration = Duration::from_secs(1);
/// The message for the client of an overdue request.
const TOO_LONG: &str = "the request took too long";

/// A slot for each thread that may be inside the app.
pub(crate) struct CallTracker {
    timeout: Option<Duration>,
    calls: Box<[Mutex<CallSlot>]>,
}

#[derive(Default)]
struct CallSlot {
    call: Option<Call>,
    /// Method and target of the request. The buffer is reused.
    line: Vec<u8>,
}

struct Call {
    since: Instant,
    socket: Arc<ClientSocket>,
    info: RequestInfo,
    /// The connection that the thread owns during the call. `None` while a completion callback runs, which owns no
    /// connection.
    connection: Option<usize>,
    overdue: bool,
}

/// A call of the app, which ends when this is dropped.
pub(crate) struct CallGuard<'a> {
    /// `None` without a timeout.
    slot: Option<&'a Mutex<CallSlot>>,
}

/// The result of a check.
pub(crate) struct WatchdogReport {
    /// Calls that became overdue since the last check.
    pub(crate) fresh: usize,
    /// All overdue calls.
    pub(crate) overdue: usize,
    /// No other call can become overdue before this.
    pub(crate) next: Instant,
}

impl CallTracker {
    /// Without a timeout no call is tracked.
    pub(crate) fn new(count: usize, timeout: Option<Duration>) -> Self {
        Self { timeout, calls: (0..count).map(|_| Mutex::default()).collect() }
    }

    /// Thread `number` calls the app for this request, until the guard is dropped.
    pub(crate) fn enter(
        &self,
        number: usize,
        request: &Request,
        connection: usize,
        now: Instant,
    ) -> CallGuard<'_> {
        let guard = CallGuard { slot: self.timeout.is_some().then(|| &self.calls[number]) };
        let Some(slot) = guard.slot else { return guard };
        request.socket.restart_call_timer(now);
        let socket = Arc::clone(&request.socket);
        let info = RequestInfo { is_head: request.is_head, version: request.version(), keep_alive: false };
        let mut slot = lock(slot);
        slot.line.clear();
        slot.line.extend_from_slice(request_line_for_log(request));
        slot.call = Some(Call { since: now, socket, info, connection: Some(connection), overdue: false });
        guard
    }

    /// Ends every call that has become overdue. `None` without a timeout.
    pub(crate) fn check(&self, app: &dyn App) -> Option<WatchdogReport> {
        let timeout = self.timeout?;
        let now = Instant::now();
        let mut report = WatchdogReport { fresh: 0, overdue: 0, next: now + timeout };
        for slot in &self.calls {
            let mut slot = lock(slot);
            let CallSlot { call: Some(call), line } = &mut *slot else { continue };
            if !call.overdue {
                let due = call.due(timeout, now);
                if due > now {
                    report.next = report.next.min(due);
                    continue;
                }
                call.overdue = true;
                report.fresh += 1;
                log_timeout(line, &call.socket.peer, now - call.started().unwrap_or(now));
                app.show_stacks();
                call.give_up();
            }
            report.overdue += 1;
        }
        Some(report)
    }

    /// The number of overdue calls.
    pub(crate) fn overdue(&self) -> usize {
        self.count(|call| call.overdue)
    }

    /// Whether thread `number` is in an overdue call.
    pub(crate) fn is_overdue(&self, number: usize) -> bool {
        lock(&self.calls[number]).call.as_ref().is_some_and(|call| call.overdue)
    }

    /// Whether thread `number` is inside the app.
    pub(crate) fn is_busy(&self, number: usize) -> bool {
        lock(&self.calls[number]).call.is_some()
    }

    /// The number of threads inside the app.
    pub(crate) fn busy(&self) -> usize {
        self.count(|_| true)
    }

    /// Whether a thread with an overdue call owns this connection.
    pub(crate) fn is_given_up(&self, connection: usize) -> bool {
        self.count(|call| call.overdue && call.connection == Some(connection)) > 0
    }

    fn count(&self, predicate: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|slot| lock(slot).call.as_ref().is_some_and(&predicate)).count()
    }
}

impl CallGuard<'_> {
    /// The response is produced. What the app still does is its completion callback.
    pub(crate) fn start_completion(&self, now: Instant) {
        let Some(slot) = self.slot else { return };
        if let Some(call) = &mut lock(slot).call {
            call.connection = None;
            call.since = now;
        }
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut slot = lock(slot);
        if let Some(call) = slot.call.take().filter(|call| call.overdue) {
            let took = call.started().map_or(0.0, |started| started.elapsed().as_secs_f64());
            log::warn!("request finished after its timeout: {}, {took:.1} s", slot.line.escape_ascii());
        }
    }
}

impl Call {
    /// When the current call started. `None` if it has no time limit. When the response is finished, the connection may
    /// have its next request already, so a completion callback has a time of its own.
    fn started(&self) -> Option<Instant> {
        if self.connection.is_some() { self.socket.timer.started() } else { Some(self.since) }
    }

    /// When the current call becomes overdue or must be checked again.
    fn due(&self, timeout: Duration, now: Instant) -> Instant {
        match (self.started(), self.socket.timer.blocked_time()) {
            (Some(started), _) if self.connection.is_none() => started + timeout,
            (Some(started), Some(waited)) => started + timeout + waited,
            _ => now + RECHECK,
        }
    }

    /// Sends a response in place of the app, or resets the connection if the app's response has started.
    fn give_up(&self) {
        if self.connection.is_none() {
            return;
        }
        let text = format!("504 {}: {TOO_LONG}\n", mlws_http1::reason(504));
        self.socket.abort_response(&Response::plain(504, text).encode(self.info, &self.socket.context));
    }
}

/// Method and target as sent, for the log.
pub(crate) fn request_line_for_log(request: &Request) -> &[u8] {
    let (start, end) = (request.head.method.start as usize, request.head.target.end as usize);
    request.bytes().get(start..end.min(start + MAX_LOGGED_LINE)).unwrap_or_default()
}

/// Logs an overdue request of a thread or child.
pub(crate) fn log_timeout(line: &[u8], peer: &Peer, took: Duration) {
    log::error!(
        "request timeout: {} from {} has been in the application for {:.1} s, stacks follow",
        line.escape_ascii(),
        peer.name(),
        took.as_secs_f64()
    );
}

fn lock(slot: &Mutex<CallSlot>) -> MutexGuard<'_, CallSlot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
