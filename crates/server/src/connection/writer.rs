//! A response whose body is produced piece by piece: by the iterable of an application, or by WSGI's `write()`.
//!
//! The thread that produces it pushes pieces as fast as the application makes them. What the socket does not take stays in memory,
//! then in a temporary file, and the event loop sends it while the thread goes on. Only past those bounds does the thread wait for
//! its client ([`Writer::spill_or_wait`]).
//!
//! Invariant: only the producing thread adds to the queue; it, the event loop and the monitor thread take from it, each under the
//! lock of [`SharedWriter`]. Disk writes happen without that lock.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
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
    wakeup::PendingWork,
};

/// The most bytes of one response that the event loop sends before other connections get their turn.
pub(crate) const MAX_BYTES_PER_TURN: usize = 512 * 1024;
/// How long a piece, or a whole small response, may wait to be sent together with others.
pub(crate) const MAX_FLUSH_DELAY: Duration = Duration::from_millis(1);
/// A piece that comes sooner than this after the one before may wait for the next one.
const COALESCE_GAP: Duration = Duration::from_micros(200);

/// A response under way, to which pieces are pushed.
pub struct Writer {
    shared: Arc<SharedWriter>,
    /// Made when the memory for unsent responses is used up.
    spool: Option<Spool>,
    /// When the last piece came, and when bytes were last given to the socket.
    pushed_at: Instant,
    flushed_at: Instant,
    /// Pieces have come quickly one after the other since the last flush.
    is_quick: bool,
    is_event_stream: bool,
}

/// The part of a [`Writer`] that others than its thread can reach.
pub(crate) struct SharedWriter {
    socket: Arc<ClientSocket>,
    state: Mutex<State>,
    /// The socket may take more than when it was last tried, so the queue is to be sent.
    pending: PendingWork,
    /// Something is queued that the monitor thread should send if the next piece is long in coming.
    is_deferred: AtomicBool,
}

#[derive(Default)]
struct State {
    response: ResponseWriter,
    /// The socket took no more; since then the client has read nothing.
    blocked_since: Option<Instant>,
    failure: Option<io::ErrorKind>,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is sent, or buffered within the bounds for unsent responses.
    Buffered,
    /// It is queued, but [`Writer::spill_or_wait`] has to be called before the next piece.
    OverLimit,
}

impl Writer {
    /// Queues the head. It is sent together with the first piece.
    pub(crate) fn start(
        socket: &Arc<ClientSocket>,
        head: ResponseHead,
        asked: RequestInfo,
        length: Option<u64>,
    ) -> Self {
        let is_event_stream = head.is_event_stream();
        let mut response = ResponseWriter::default();
        response.begin(head, asked, length, &socket.context);
        let state = State { response, ..State::default() };
        let shared = Arc::new(SharedWriter {
            socket: Arc::clone(socket),
            state: Mutex::new(state),
            pending: PendingWork::new(),
            is_deferred: AtomicBool::new(false),
        });
        // Before anything is sent: from then on the event loop must find it when the socket takes more.
        socket.context.writers.insert(socket.token, Arc::clone(&shared) as Arc<dyn ActiveWriter>);
        let now = Instant::now();
        Self { shared, spool: None, pushed_at: now, flushed_at: now, is_quick: true, is_event_stream }
    }

    /// Sends a piece. What the socket does not take is buffered; past the bounds for that, `wait` is called to run what blocks.
    /// `BrokenPipe` or another error where the client is gone, `TimedOut` if it reads too slowly. Bytes beyond the Content-Length
    /// are not sent.
    pub fn write(&mut self, piece: Bytes, wait: impl FnOnce(&mut (dyn FnMut() + Send))) -> io::Result<()> {
        self.is_quick = false; // PEP 3333 does not let `write` delay a piece
        match self.push(piece, None)? {
            Pushed::Buffered => Ok(()),
            Pushed::OverLimit => {
                let mut made = Ok(());
                wait(&mut || made = self.spill_or_wait());
                made
            }
        }
    }

    /// Queues a piece and sends what the socket takes. With `defer`, small pieces that come quickly one after the other are sent
    /// together, and `defer` is called to have the monitor thread send them if the next one is long in coming.
    pub(crate) fn push(&mut self, piece: Bytes, defer: Option<&dyn Fn()>) -> io::Result<Pushed> {
        self.with_queue(defer, |response| response.push(piece))
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
            state.blocked_since = None; // the rest is sent without the application's lock
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

    /// Moves what is queued to a temporary file, or waits for the client where that is full or cannot be written. Blocks.
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
                self.spool = None; // all of it is sent, so its space is given back
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
                // The event loop may have found nothing to send meanwhile.
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

    /// The body will not be completed: the client must see an unclean end.
    pub(crate) fn truncate(&mut self) {
        self.shared.lock().response.is_truncated = true;
    }

    /// Whether the response has a body, and more of it may be sent.
    pub(crate) fn wants_more(&self) -> bool {
        self.shared.lock().response.wants_more()
    }

    /// Whether it is a stream of server-sent events.
    pub(crate) fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// Whether nobody is there any more to read the response: a failed send, or a closed connection.
    pub(crate) fn client_is_gone(&self) -> bool {
        self.shared.lock().failure.is_some() || self.shared.socket.client_has_given_up()
    }

    /// Ends the production. The rest of the response, which is left to be sent, or an error where the client is gone.
    pub(crate) fn finish(self) -> (ResponseWriter, io::Result<()>) {
        let mut state = self.shared.lock();
        let result = state.failure.map_or(Ok(()), |failure| Err(failure.into()));
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
        if let Some(mut state) = self.try_lock() {
            state.send(&self.socket, usize::MAX);
        }
        self.send_if_writable(usize::MAX);
    }
}

impl SharedWriter {
    /// Sends after an event of the socket; whoever holds the lock at that moment does it afterwards. True if the limit ended it.
    fn send_if_writable(&self, limit: usize) -> bool {
        let mut is_paused = false;
        self.pending.run(|| self.try_lock(), |mut state| is_paused = state.send(&self.socket, limit));
        is_paused
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl State {
    /// Sends what the socket takes. True if the limit ended it.
    fn send(&mut self, socket: &ClientSocket, limit: usize) -> bool {
        if self.failure.is_some() || (self.response.is_empty() && self.blocked_since.is_none()) {
            return false;
        }
        match self.response.write(socket, limit) {
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

    /// Why nothing more can be sent, if so.
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
