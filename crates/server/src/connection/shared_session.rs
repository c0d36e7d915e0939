//! An HTTP/2 session and the connection below it, shared by the event loop and the threads that answer its streams.
//!
//! The event loop passes in what it receives. Any thread may append a part of a response, and send all output there is. Nobody
//! waits: what the socket does not accept is sent by the event loop when it does.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use mlws_http2::{Event, Limits, Reason, ResponseHead, Session, StreamId};

use super::transport::Transport;
use crate::memory::MemoryBudget;

/// The capacity of the output buffer that an idle connection keeps, in bytes.
const IDLE_CAPACITY: usize = 2048;

pub(crate) struct SharedSession {
    pub(crate) transport: Transport,
    /// The number of the connection in the event loop.
    pub(crate) token: usize,
    state: Mutex<State>,
    /// The number of streams that have a [`Permit`].
    permits: AtomicUsize,
    /// Memory for the request bodies of all streams, within that of all connections.
    pub(crate) body_memory: Arc<MemoryBudget>,
}

struct State {
    session: Session,
    /// Output of the session, from `sent` on not yet sent.
    output: Vec<u8>,
    sent: usize,
    /// When the socket became full. The client has read nothing since.
    blocked_since: Option<Instant>,
    failure: Option<io::ErrorKind>,
}

/// The right of a stream to be queued for the application or inside it. Returned on drop.
pub(crate) struct Permit(Arc<SharedSession>);

impl SharedSession {
    pub(crate) fn new(
        transport: Transport,
        token: usize,
        limits: Arc<Limits>,
        body_memory: Arc<MemoryBudget>,
        now: Instant,
    ) -> Self {
        let session = Session::new(limits, now);
        let state = State { session, output: Vec::new(), sent: 0, blocked_since: None, failure: None };
        Self { transport, token, state: Mutex::new(state), permits: AtomicUsize::new(0), body_memory }
    }

    /// Passes received bytes to the session. Returns how many it has consumed: fewer than all if its output is full.
    pub(crate) fn receive(&self, bytes: &[u8], now: Instant) -> usize {
        self.lock().session.receive(bytes, now)
    }

    /// The events since the last call, appended to `events`.
    pub(crate) fn take_events(&self, events: &mut Vec<Event>) {
        let mut state = self.lock();
        events.extend(std::iter::from_fn(|| state.session.next_event()));
    }

    pub(crate) fn has_events(&self) -> bool {
        self.lock().session.has_events()
    }

    /// Starts a response, or sends an interim one.
    pub(crate) fn respond(&self, stream: StreamId, head: ResponseHead, end: bool) -> io::Result<()> {
        let mut state = self.lock();
        state.check()?;
        state.session.respond(stream, head, end).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends a part of a body. Returns how many bytes were accepted; `WouldBlock` if none.
    pub(crate) fn data(&self, stream: StreamId, bytes: &[u8], end: bool) -> io::Result<usize> {
        let mut state = self.lock();
        let mut accepted = 0;
        loop {
            state.check()?;
            let rest = &bytes[accepted..];
            let count = state.session.data(stream, rest, end).map_err(|_| io::ErrorKind::BrokenPipe)?;
            accepted += count;
            if accepted == bytes.len() {
                return Ok(accepted);
            }
            let is_flushed = state.flush(&self.transport);
            if count == 0 || !is_flushed {
                break;
            }
        }
        if accepted > 0 { Ok(accepted) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Lets the client send as many bytes more.
    pub(crate) fn release(&self, stream: StreamId, bytes: usize) {
        self.lock().session.release(stream, bytes);
    }

    /// Resets a stream, unless it has ended.
    pub(crate) fn reset(&self, stream: StreamId, reason: Reason) {
        self.lock().session.reset(stream, reason);
    }

    /// See [`Session::go_away`].
    pub(crate) fn go_away(&self) {
        self.lock().session.go_away();
    }

    /// See [`Session::abort`].
    pub(crate) fn abort(&self, reason: Reason) {
        self.lock().session.abort(reason);
    }

    /// Sends output until there is none or the socket is full. Returns whether there is none.
    pub(crate) fn flush(&self) -> bool {
        self.lock().flush(&self.transport)
    }

    /// The socket may accept more.
    pub(crate) fn on_writable(&self) {
        let mut state = self.lock();
        if self.transport.flush_records().is_ok() && state.blocked_since.is_some() {
            state.blocked_since = None;
            state.flush(&self.transport);
        }
    }

    /// When the socket became full, if it has accepted nothing since.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.lock().blocked_since
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// Whether a frame with a request head has begun and is not complete.
    pub(crate) fn is_in_head(&self) -> bool {
        self.lock().session.is_in_head()
    }

    /// Nothing can be sent any more.
    pub(crate) fn set_failed(&self) {
        self.lock().failure.get_or_insert(io::ErrorKind::BrokenPipe);
    }

    /// Takes a permit for a stream. `None` if `limit` streams have one.
    pub(crate) fn take_permit(self: &Arc<Self>, limit: usize) -> Option<Permit> {
        let add = |permits: usize| (permits < limit).then_some(permits + 1);
        self.permits.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Permit(Arc::clone(self)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        self.failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Sends what the socket accepts. Returns whether that was everything.
    fn flush(&mut self, transport: &Transport) -> bool {
        while self.failure.is_none() && self.blocked_since.is_none() {
            if self.sent == self.output.len() {
                self.output.clear();
                self.sent = 0;
                self.session.take_output(&mut self.output);
                if self.output.is_empty() {
                    if self.session.is_idle() {
                        self.output.shrink_to(IDLE_CAPACITY);
                    }
                    return true;
                }
            }
            match transport.send(&self.output[self.sent..], false) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked_since = Some(Instant::now());
                }
                Err(error) => self.failure = Some(error.kind()),
            }
        }
        false
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.permits.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for SharedSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedSession").field("transport", &self.transport).finish_non_exhaustive()
    }
}
