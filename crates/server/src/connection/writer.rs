//! A response whose body is produced chunk by chunk: by an iterable, or by WSGI's `write()`.
//!
//! The producing thread pushes chunks as fast as the application makes them. What the socket does not accept stays in
//! memory, then in a temporary file, and the event loop sends it while the thread continues. Only beyond those limits
//! does the thread wait for its client ([`Writer::spill_or_wait`]).
//!
//! Invariant: only the producing thread adds to the queue. It, the event loop and the monitor thread remove from it,
//! each under the lock of [`SharedWriter`]. Files are written without that lock.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mlws_http1::{RequestInfo, ResponseHead};

use crate::{
    Bytes,
    active_writers::ActiveWriter,
    connection::response_writer::{Progress, ResponseWriter, Spool},
    connection::socket::ClientSocket,
    lock::try_lock,
    wakeup::PendingWork,
};

/// The most bytes of one response that the event loop sends before other connections get their turn.
pub(crate) const MAX_BYTES_PER_TURN: usize = 512 * 1024;
/// How long a chunk or a small response may wait to be sent together with others.
pub(crate) const MAX_FLUSH_DELAY: Duration = Duration::from_millis(1);
/// A chunk that follows its predecessor within this time may wait for the next one.
const COALESCE_GAP: Duration = Duration::from_micros(200);

/// The writer of a response in progress.
pub struct Writer {
    shared: Arc<SharedWriter>,
    /// Created when the memory for unsent responses is used up.
    spool: Option<Spool>,
    /// When the last chunk was pushed, and when the queue was last sent.
    pushed_at: Instant,
    flushed_at: Instant,
    /// Chunks have followed each other quickly since the queue was last sent.
    is_quick: bool,
    is_event_stream: bool,
}

/// The part of a [`Writer`] that other threads can access.
pub(crate) struct SharedWriter {
    socket: Arc<ClientSocket>,
    state: Mutex<State>,
    /// The socket may accept more than when it was last tried, so the queue must be sent.
    pending: PendingWork,
    /// The monitor thread must send the queue if the next chunk takes long.
    is_deferred: AtomicBool,
}

#[derive(Default)]
struct State {
    response: ResponseWriter,
    /// When the socket became full. The client has read nothing since.
    blocked_since: Option<Instant>,
    failure: Option<io::ErrorKind>,
}

/// The result of pushing a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The chunk is sent, or buffered within the limits for unsent responses.
    Buffered,
    /// The chunk is queued. [`Writer::spill_or_wait`] must be called before the next one.
    OverLimit,
}

impl Writer {
    /// Queues the head. It is sent together with the first chunk.
    pub(crate) fn start(
        socket: &Arc<ClientSocket>,
        head: ResponseHead,
        info: RequestInfo,
        length: Option<u64>,
    ) -> Self {
        let is_event_stream = head.is_event_stream();
        let mut response = ResponseWriter::default();
        response.begin(head, info, length, &socket.context);
        let state = State { response, ..State::default() };
        let shared = Arc::new(SharedWriter {
            socket: Arc::clone(socket),
            state: Mutex::new(state),
            pending: PendingWork::new(),
            is_deferred: AtomicBool::new(false),
        });
        // Registered before anything is sent, because the event loop must find the writer when the socket accepts more.
        socket.context.writers.insert(socket.token, Arc::clone(&shared) as Arc<dyn ActiveWriter>);
        let now = Instant::now();
        Self { shared, spool: None, pushed_at: now, flushed_at: now, is_quick: true, is_event_stream }
    }

    /// Sends a chunk. What the socket does not accept is buffered. Beyond the limits for that, `wait` is called to run
    /// a function that blocks. Fails with `BrokenPipe` or a similar error if the client is gone, and with `TimedOut` if
    /// it reads too slowly. Bytes beyond the Content-Length are not sent.
    pub fn write(&mut self, chunk: Bytes, wait: impl FnOnce(&mut (dyn FnMut() + Send))) -> io::Result<()> {
        self.is_quick = false; // PEP 3333 forbids `write` to delay a chunk
        match self.push(chunk, None)? {
            Pushed::Buffered => Ok(()),
            Pushed::OverLimit => {
                let mut result = Ok(());
                wait(&mut || result = self.spill_or_wait());
                result
            }
        }
    }

    /// Queues a chunk and sends what the socket accepts. With `defer`, small chunks that follow each other quickly are
    /// sent together; `defer` is called so that the monitor thread sends them if the next one takes long.
    pub(crate) fn push(&mut self, chunk: Bytes, defer: Option<&dyn Fn()>) -> io::Result<Pushed> {
        self.with_queue(defer, |response| response.push(chunk))
    }

    /// The same for any change of the queue.
    pub(crate) fn with_queue(
        &mut self,
        defer: Option<&dyn Fn()>,
        change: impl FnOnce(&mut ResponseWriter),
    ) -> io::Result<Pushed> {
        let now = Instant::now();
        self.is_quick &= now < self.pushed_at + COALESCE_GAP;
        self.pushed_at = now;
        let shared = &self.shared;
        let context = &shared.socket.context;
        let mut state = shared.lock();
        state.check(context.settings.write_timeout, now)?;
        change(&mut state.response);
        if let Some(defer) = defer.filter(|_| {
            self.is_quick
                && state.blocked_since.is_none()
                && state.response.can_coalesce()
                && now < self.flushed_at + MAX_FLUSH_DELAY
        }) {
            drop(state);
            if !shared.is_deferred.swap(true, Ordering::SeqCst) {
                defer();
            }
            return Ok(Pushed::Buffered);
        }
        (self.flushed_at, self.is_quick) = (now, true);
        let is_paused = state.blocked_since.is_none() && state.send(&shared.socket, MAX_BYTES_PER_TURN);
        let outcome = if let Some(failure) = state.failure {
            Err(failure.into())
        } else if is_paused {
            state.blocked_since = None; // the rest is sent without the GIL
            Ok(Pushed::OverLimit)
        } else if state.blocked_since.is_none() || state.response.reserve_memory(&context.response_memory) {
            Ok(Pushed::Buffered)
        } else {
            Ok(Pushed::OverLimit)
        };
        drop(state);
        if shared.send_if_writable(MAX_BYTES_PER_TURN) {
            shared.lock().blocked_since = None;
            return Ok(Pushed::OverLimit);
        }
        outcome
    }

    /// Moves the queue to a temporary file, or waits for the client if the file is full or cannot be written. Blocks.
    pub(crate) fn spill_or_wait(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let context = &shared.socket.context;
        loop {
            let mut state = shared.lock();
            state.check(context.settings.write_timeout, Instant::now())?;
            if state.blocked_since.is_none() {
                state.send(&shared.socket, usize::MAX);
            }
            if state.blocked_since.is_none() || state.response.reserve_memory(&context.response_memory) {
                return Ok(());
            }
            if state.response.spooled() == 0 {
                self.spool = None; // all of it is sent, so its space can be returned
            }
            let written = self.spool.as_ref().map_or(0, Spool::size);
            if written + state.response.held() as u64 <= context.settings.response_spool
                && !shared.socket.is_in_child()
            {
                let mut queue = state.response.take_queue();
                drop(state);
                let spilled = spill(&mut queue, &mut self.spool, &context.settings.temporary);
                let mut state = shared.lock();
                state.response.restore(queue);
                // Meanwhile the event loop may have found an empty queue.
                state.send(&shared.socket, usize::MAX);
                drop(state);
                shared.send_if_writable(usize::MAX);
                match spilled {
                    Ok(()) => return Ok(()),
                    Err(error) => log::warn!(
                        "spooling a response failed, so the application waits for its client: {error}"
                    ),
                }
            } else {
                drop(state);
            }
            shared.socket.wait_writable()?;
            let mut state = shared.lock();
            state.send(&shared.socket, usize::MAX);
        }
    }

    /// The body is complete.
    pub(crate) fn end(&mut self) {
        self.shared.lock().response.push_end();
    }

    /// The body will not be completed, so the client must see an unclean end.
    pub(crate) fn truncate(&mut self) {
        self.shared.lock().response.is_truncated = true;
    }

    /// Whether the response has a body that may continue.
    pub(crate) fn wants_more(&self) -> bool {
        self.shared.lock().response.wants_more()
    }

    /// Whether the response is a stream of server-sent events.
    pub(crate) fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// Whether a send has failed or the client no longer waits for the response.
    pub(crate) fn client_is_gone(&self) -> bool {
        self.shared.lock().failure.is_some() || self.shared.socket.client_has_given_up()
    }

    /// Ends the production. Returns the unsent rest of the response, and an error if the client is gone.
    pub(crate) fn finish(self) -> (ResponseWriter, io::Result<()>) {
        let mut state = self.shared.lock();
        let result = state.failure.map_or(Ok(()), |failure| Err(failure.into()));
        state.response.push_stream_end();
        (std::mem::take(&mut state.response), result)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.socket.context.writers.remove(self.shared.socket.token);
    }
}

impl ActiveWriter for SharedWriter {
    fn on_event(&self, half_closed: Option<Instant>) -> bool {
        if let Some(at) = half_closed {
            self.socket.record_half_close(at);
        }
        self.pending.announce();
        self.send_if_writable(MAX_BYTES_PER_TURN)
    }

    fn flush_deferred(&self) {
        if !self.is_deferred.swap(false, Ordering::SeqCst) {
            return;
        }
        if let Some(mut state) = try_lock(&self.state) {
            state.send(&self.socket, usize::MAX);
        }
        self.send_if_writable(usize::MAX);
    }
}

impl SharedWriter {
    /// Sends after an event of the socket. If another thread holds the lock, that thread sends afterwards. Returns true
    /// if the limit ended it.
    fn send_if_writable(&self, limit: usize) -> bool {
        let mut is_paused = false;
        self.pending.run(|| try_lock(&self.state), |mut state| is_paused = state.send(&self.socket, limit));
        is_paused
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends what the socket accepts. Returns true if the limit ended it.
    fn send(&mut self, socket: &ClientSocket, limit: usize) -> bool {
        if self.failure.is_some() || (self.response.is_empty() && self.blocked_since.is_none()) {
            return false;
        }
        let written = self.response.write(socket, limit);
        socket.flush();
        match written {
            Ok(Progress::Sent) => self.blocked_since = None,
            Ok(Progress::Blocked) => self.blocked_since = Some(Instant::now()),
            Ok(Progress::Paused) => {
                self.blocked_since = Some(Instant::now());
                self.response.release_memory();
                return true;
            }
            Err(error) => self.failure = Some(error.kind()),
        }
        self.response.release_memory();
        false
    }

    /// Returns why nothing more can be sent.
    fn check(&mut self, write_timeout: Duration, now: Instant) -> io::Result<()> {
        if self.blocked_since.is_some_and(|since| now.saturating_duration_since(since) > write_timeout) {
            self.failure.get_or_insert(io::ErrorKind::TimedOut);
        }
        self.failure.map_or(Ok(()), |failure| Err(failure.into()))
    }
}

fn spill(queue: &mut ResponseWriter, spool: &mut Option<Spool>, directory: &Path) -> io::Result<()> {
    let spool = match spool {
        Some(spool) => spool,
        none => none.insert(Spool::create(directory)?),
    };
    queue.spill(spool)
}
