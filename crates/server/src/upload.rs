//! A request body that the application reads while the client sends it. Only bodies with a Content-Length are read this
//! way; a chunked body is received completely before the application is called.
//!
//! From the moment the application is called, the thread that runs the request reads the rest of the body from the
//! socket itself, within the deadline of `--body-timeout` and `--body-rate`. Nothing is stored. The event loop does not
//! read from the socket meanwhile. When the response is sent, it discards the missing part and continues with the next
//! request.
//!
//! Invariant: after [`Upload::end`] no thread reads from the socket for the upload, however long the application keeps
//! it.

use std::{
    fmt,
    io::{self, ErrorKind},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mlws_sys::ReadBuffer;

use crate::{connection::socket::ClientSocket, lock::try_lock};

/// The largest unread part of a body that is read and discarded to keep the connection, in bytes.
pub(crate) const DRAIN_LIMIT: u64 = 256 * 1024;

pub(crate) struct Upload {
    socket: Weak<ClientSocket>,
    state: Mutex<UploadState>,
    /// The head of the final response exists, so `100 Continue` must not be sent any more.
    response_begun: AtomicBool,
    failed: AtomicBool,
}

struct UploadState {
    /// The number of bytes of the body that have not been received.
    missing: u64,
    progress: UploadProgress,
    /// The client waits for `100 Continue`.
    expects_continue: bool,
    /// How many bytes the client has sent, and how long the server has waited for them. They determine the deadline.
    count: u64,
    waited: Duration,
}

enum UploadProgress {
    Receiving,
    Failed(Failure),
    /// The response is sent, and the event loop reads from the socket again.
    Over,
}

/// Why the rest of a body cannot be received, with the status for the client.
#[derive(Debug, Clone)]
pub struct Failure {
    /// 400 or 408.
    pub status: u16,
    kind: ErrorKind,
    why: String,
}

impl Upload {
    /// `count` is the number of bytes of the body that are already received, `waited` how long that took.
    pub(crate) fn new(
        socket: &Arc<ClientSocket>,
        missing: u64,
        expects_continue: bool,
        (count, waited): (u64, Duration),
    ) -> Self {
        let state =
            UploadState { missing, progress: UploadProgress::Receiving, expects_continue, count, waited };
        Self {
            socket: Arc::downgrade(socket),
            state: Mutex::new(state),
            response_begun: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Reads at least one byte of the body, unless it has ended. Blocks until there is one. `Interrupted` if a signal
    /// arrives first.
    pub(crate) fn read(&self, into: &mut ReadBuffer<'_>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let may_continue = !self.response_begun.load(Ordering::SeqCst);
        state.read(&self.socket, into, may_continue).inspect_err(|error| {
            self.failed.store(error.kind() != ErrorKind::Interrupted, Ordering::Relaxed);
        })
    }

    /// The head of the final response is being created. Returns whether this body allows the connection to be kept
    /// alive.
    pub(crate) fn begin_response(&self) -> bool {
        self.response_begun.store(true, Ordering::SeqCst);
        // If another thread is reading now, the state of the connection is unknown.
        try_lock(&self.state).is_some_and(|state| state.can_be_drained())
    }

    /// Why reading has failed.
    pub(crate) fn socket(&self) -> Option<Arc<ClientSocket>> {
        self.socket.upgrade()
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        if !self.failed.load(Ordering::Relaxed) {
            return None;
        }
        match &try_lock(&self.state)?.progress {
            UploadProgress::Failed(failure) => Some(failure.clone()),
            _ => None,
        }
    }

    /// The response is sent: the application's reads fail from now on. Returns the number of missing bytes, or `None`
    /// if the connection cannot be used for another request.
    pub(crate) fn end(&self) -> Option<u64> {
        let Some(mut state) = try_lock(&self.state) else {
            // A thread of the application is reading now. This ends its wait.
            if let Some(socket) = self.socket.upgrade() {
                socket.shutdown();
            }
            return None;
        };
        let missing = state.can_be_drained().then_some(state.missing);
        state.progress = UploadProgress::Over;
        missing
    }
}

impl UploadState {
    /// Whether discarding the rest of the body leads to the next request.
    fn can_be_drained(&self) -> bool {
        matches!(self.progress, UploadProgress::Receiving)
            && !self.expects_continue
            && self.missing <= DRAIN_LIMIT
    }

    fn read(
        &mut self,
        socket: &Weak<ClientSocket>,
        into: &mut ReadBuffer<'_>,
        may_continue: bool,
    ) -> io::Result<()> {
        if into.remaining() == 0 {
            return Ok(());
        }
        match &self.progress {
            UploadProgress::Receiving if self.missing == 0 => return Ok(()),
            UploadProgress::Receiving => {}
            UploadProgress::Failed(failure) => return Err(failure.into()),
            UploadProgress::Over => return Err(io::Error::other("the request is over")),
        }
        let Some(socket) = socket.upgrade() else {
            return Err(self.fail(400, ErrorKind::ConnectionAborted, "the connection is closed"));
        };
        let limit = usize::try_from(self.missing).unwrap_or(usize::MAX);
        loop {
            match socket.read_body(into, limit) {
                Ok(0) => {
                    let why = "the client closed the connection before the request body was complete";
                    return Err(self.fail(400, ErrorKind::ConnectionAborted, why));
                }
                Ok(count) => {
                    self.received(count as u64, &socket);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(&socket, may_continue)?,
                Err(error) => return Err(self.fail_gone(&error)),
            }
        }
    }

    fn received(&mut self, count: u64, socket: &ClientSocket) {
        self.expects_continue = false;
        self.count += count;
        self.missing -= count;
        if self.missing == 0 {
            socket.record_request_complete(Instant::now());
        }
    }

    /// Blocks until the client has sent something, within its deadline.
    fn wait(&mut self, socket: &ClientSocket, may_continue: bool) -> io::Result<()> {
        if self.expects_continue {
            if !may_continue {
                let why = "the response was started before 100 Continue was sent";
                return Err(self.fail(400, ErrorKind::ConnectionAborted, why));
            }
            let sent = socket.send_all_interim(100, mlws_http1::CONTINUE);
            sent.map_err(|error| self.fail_gone(&error))?;
            self.expects_continue = false;
        }
        let settings = &socket.context.settings;
        let earned = self.count.checked_div(settings.body_rate).unwrap_or(0);
        let allowed = settings.body_timeout.saturating_add(Duration::from_secs(earned));
        let began = Instant::now();
        let waited = socket.wait_readable(began + allowed.saturating_sub(self.waited));
        self.waited += began.elapsed();
        match waited {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                Err(self.fail(408, ErrorKind::TimedOut, "the request body arrived too slowly"))
            }
            Err(error) => Err(self.fail_gone(&error)),
        }
    }

    fn fail_gone(&mut self, error: &io::Error) -> io::Error {
        let why = format!("the client disconnected before the request body was complete: {error}");
        self.fail(400, ErrorKind::ConnectionReset, &why)
    }

    fn fail(&mut self, status: u16, kind: ErrorKind, why: &str) -> io::Error {
        let failure = Failure { status, kind, why: why.to_owned() };
        let error = io::Error::from(&failure);
        self.progress = UploadProgress::Failed(failure);
        error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

impl From<&Failure> for io::Error {
    fn from(failure: &Failure) -> Self {
        Self::new(failure.kind, failure.why.clone())
    }
}

#[cfg(test)]
mod tests;
