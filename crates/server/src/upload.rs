//! A request body that the application reads while the client still sends it.
//!
//! From the moment the application is called, the thread that runs the request reads the rest of the body from the socket itself: it
//! waits for the client with the deadline of `--body-timeout` and `--body-rate`, feeds the connection's parser, and hands the bytes
//! out. Nothing is stored. The event loop does not read from the socket meanwhile; it gets the parser back when the response is sent.
//!
//! Invariant: after [`Upload::end`] nobody reads from the socket on the upload's behalf, however long the application keeps it.

use std::{
    fmt,
    io::{self, ErrorKind},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mlws_http1::{Event, Head, Length, Parser};

use crate::{
    sys::{ReadBuffer, append_to},
    wire::Wire,
};

/// How much of a body that the application left unread is read and dropped to keep the connection.
pub(crate) const DRAIN_LIMIT: u64 = 256 * 1024;
/// How many bytes of a chunked body are read at once.
const READ_SIZE: usize = 64 * 1024;

pub(crate) struct Upload {
    wire: Weak<Wire>,
    state: Mutex<State>,
    /// The head of the final response exists, so `100 Continue` may not be sent any more.
    response_begun: AtomicBool,
    failed: AtomicBool,
}

struct State {
    parser: Parser,
    /// Bytes received and not yet parsed, and where they begin. Always empty for a body of known length.
    received: Vec<u8>,
    parsed: usize,
    /// Body bytes in `received` that were parsed and not yet handed out.
    decoded: Range<usize>,
    /// How many bytes of a body of known length are missing.
    missing: Option<u64>,
    progress: Progress,
    /// The client waits for `100 Continue`.
    expects_continue: bool,
    /// How many bytes the client has sent, and how long it was waited for: the deadline follows from these.
    count: u64,
    waited: Duration,
}

enum Progress {
    Receiving,
    Complete,
    Failed(Failure),
    /// The response is sent, and the connection has the parser back.
    Over,
}

/// Why the rest of a body cannot be received, and the status that says so to the client.
#[derive(Debug, Clone)]
pub struct Failure {
    /// 400, 408 or 413 and the like.
    pub status: u16,
    kind: ErrorKind,
    why: String,
}

/// What the connection gets back.
pub(crate) struct Ended {
    pub(crate) parser: Parser,
    /// Received, but not parsed: the rest of the body, or what follows it.
    pub(crate) unparsed: Vec<u8>,
    pub(crate) is_complete: bool,
}

impl Upload {
    /// `waited` is how long the part of the body that is already here took, `count` how many bytes that were.
    pub(crate) fn new(
        wire: &Arc<Wire>,
        parser: Parser,
        unparsed: Vec<u8>,
        missing: Option<u64>,
        expects_continue: bool,
        (count, waited): (u64, Duration),
    ) -> Self {
        let state = State {
            parser,
            received: unparsed,
            parsed: 0,
            decoded: 0..0,
            missing,
            progress: Progress::Receiving,
            expects_continue,
            count,
            waited,
        };
        Self {
            wire: Arc::downgrade(wire),
            state: Mutex::new(state),
            response_begun: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Reads at least one byte of the body, unless it has ended, and blocks until there is one. `Interrupted` if a signal came first.
    pub(crate) fn read(&self, into: &mut ReadBuffer<'_>) -> io::Result<()> {
        let mut state = self.lock();
        let may_continue = !self.response_begun.load(Ordering::SeqCst);
        let was_complete = matches!(state.progress, Progress::Complete);
        let read = state.read(&self.wire, into, may_continue);
        if let (Progress::Complete, false, Some(wire)) = (&state.progress, was_complete, self.wire.upgrade())
        {
            wire.note_request_complete(Instant::now());
        }
        read.inspect_err(|error| {
            self.failed.store(error.kind() != ErrorKind::Interrupted, Ordering::Relaxed);
        })
    }

    /// The head of the final response is being made. Whether the connection can be kept behind it, as far as this body is concerned.
    pub(crate) fn begin_response(&self) -> bool {
        self.response_begun.store(true, Ordering::SeqCst);
        // Another thread that reads just now leaves the connection in an unknown state.
        self.try_lock().is_some_and(|state| match state.progress {
            Progress::Complete => true,
            Progress::Receiving => !state.expects_continue && state.parser.missing() <= DRAIN_LIMIT,
            Progress::Failed(_) | Progress::Over => false,
        })
    }

    /// Why reading failed, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if !self.failed.load(Ordering::Relaxed) {
            return None;
        }
        match &self.try_lock()?.progress {
            Progress::Failed(failure) => Some(failure.clone()),
            _ => None,
        }
    }

    /// The response is sent: from here on the application's reads fail. `None` if the connection cannot be used for another request.
    pub(crate) fn end(&self) -> Option<Ended> {
        let Some(mut state) = self.try_lock() else {
            // A thread that the application has started reads just now. This ends its wait.
            if let Some(wire) = self.wire.upgrade() {
                wire.hang_up();
            }
            return None;
        };
        let progress = std::mem::replace(&mut state.progress, Progress::Over);
        let is_complete = match progress {
            Progress::Complete => true,
            Progress::Receiving if !state.expects_continue => false,
            _ => return None,
        };
        // What was decoded and not read does not matter any more: the parser is behind it.
        let parsed = std::mem::take(&mut state.parsed);
        state.decoded = 0..0;
        let mut unparsed = std::mem::take(&mut state.received);
        unparsed.drain(..parsed);
        let parser = std::mem::replace(&mut state.parser, Parser::new(Arc::default()));
        Some(Ended { parser, unparsed, is_complete })
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
    fn read(&mut self, wire: &Weak<Wire>, into: &mut ReadBuffer<'_>, may_continue: bool) -> io::Result<()> {
        if into.remaining() == 0 {
            return Ok(());
        }
        loop {
            if self.decode(into)? > 0 {
                return Ok(());
            }
            match &self.progress {
                Progress::Receiving => {}
                Progress::Complete => return Ok(()),
                Progress::Failed(failure) => return Err(failure.into()),
                Progress::Over => return Err(io::Error::other("the request is over")),
            }
            let Some(wire) = wire.upgrade() else {
                return Err(self.fail(400, ErrorKind::ConnectionAborted, "the connection is closed"));
            };
            match self.receive(&wire, into) {
                Ok(0) => {
                    let why = "the client closed the connection before the request's body was complete";
                    return Err(self.fail(400, ErrorKind::ConnectionAborted, why));
                }
                Ok(_) if self.missing.is_some() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(&wire, may_continue)?,
                Err(error) => return Err(self.fail_gone(&error)),
            }
        }
    }

    /// Hands out what is here of a chunked body, and parses on as long as something fits.
    fn decode(&mut self, into: &mut ReadBuffer<'_>) -> io::Result<usize> {
        let mut count = 0;
        loop {
            let copied = into.append(&self.received[self.decoded.clone()]);
            self.decoded.start += copied;
            count += copied;
            if self.decoded.is_empty() && self.parsed == self.received.len() {
                self.received.clear();
                (self.parsed, self.decoded) = (0, 0..0);
            }
            let is_stuck = !self.decoded.is_empty() || self.received.is_empty();
            if is_stuck || !matches!(self.progress, Progress::Receiving) {
                break;
            }
            let from = self.parsed;
            match self.parser.next(&self.received[from..], &mut Head::default()) {
                Ok(Some(Event::Data { payload, consumed })) => {
                    self.decoded = from + payload.start..from + payload.end;
                    self.parsed = from + consumed;
                }
                Ok(Some(Event::End { consumed })) => {
                    self.parsed = from + consumed;
                    self.progress = Progress::Complete;
                }
                Ok(Some(Event::Head) | None) => {
                    self.received.drain(..from);
                    self.parsed = 0;
                    self.decoded = 0..0;
                    break;
                }
                // What was decoded before is handed out first; the parser gives the same error again.
                Err(_) if count > 0 => break,
                Err(error) => {
                    return Err(self.fail(error.status(), ErrorKind::InvalidData, &error.to_string()));
                }
            }
        }
        Ok(count)
    }

    /// Receives what is there, without waiting: straight into the caller's buffer if the body has no framing within.
    fn receive(&mut self, wire: &Wire, into: &mut ReadBuffer<'_>) -> io::Result<usize> {
        let count = match &mut self.missing {
            Some(missing) => {
                let count = into.read_from(wire, usize::try_from(*missing).unwrap_or(usize::MAX))?;
                *missing -= count as u64;
                self.parse_received(into.filled().len() - count, into.filled())?;
                count
            }
            None => append_to(&mut self.received, READ_SIZE, |buffer| buffer.read_from(wire, READ_SIZE))?,
        };
        self.expects_continue &= count == 0;
        self.count += count as u64;
        Ok(count)
    }

    /// Takes the parser of a body of known length past what was received behind `start`.
    fn parse_received(&mut self, start: usize, received: &[u8]) -> io::Result<()> {
        let mut rest = &received[start..];
        while let Ok(Some(event)) = self.parser.next(rest, &mut Head::default()) {
            match event {
                Event::Data { consumed, .. } => rest = &rest[consumed..],
                Event::End { .. } => {
                    self.progress = Progress::Complete;
                    return Ok(());
                }
                Event::Head => return Err(io::Error::other("a head in the middle of a body")),
            }
        }
        Ok(())
    }

    /// Blocks until the client has sent something, within its deadline.
    fn wait(&mut self, wire: &Wire, may_continue: bool) -> io::Result<()> {
        if self.expects_continue {
            if !may_continue {
                let why = "the response was begun before the client was asked for the request's body";
                return Err(self.fail(400, ErrorKind::ConnectionAborted, why));
            }
            let sent = wire.send_all_interim(mlws_http1::CONTINUE);
            sent.map_err(|error| self.fail_gone(&error))?;
            self.expects_continue = false;
        }
        let settings = &wire.house.settings;
        let earned = self.count.checked_div(settings.body_rate).unwrap_or(0);
        let allowed = settings.body_timeout.saturating_add(Duration::from_secs(earned));
        let began = Instant::now();
        let waited = wire.wait_readable(began + allowed.saturating_sub(self.waited));
        self.waited += began.elapsed();
        match waited {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                Err(self.fail(408, ErrorKind::TimedOut, "the request's body came too slowly"))
            }
            Err(error) => Err(self.fail_gone(&error)),
        }
    }

    fn fail_gone(&mut self, error: &io::Error) -> io::Error {
        let why = format!("the client left before the request's body was complete: {error}");
        self.fail(400, ErrorKind::ConnectionReset, &why)
    }

    fn fail(&mut self, status: u16, kind: ErrorKind, why: &str) -> io::Error {
        let failure = Failure { status, kind, why: why.to_owned() };
        let error = io::Error::from(&failure);
        self.progress = Progress::Failed(failure);
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

/// How many bytes of a body are still to be received, if that is known.
pub(crate) fn missing(length: Length, here: u64) -> Option<u64> {
    match length {
        Length::Known(length) => Some(length.saturating_sub(here)),
        Length::Chunked => None,
    }
}

#[cfg(test)]
mod tests;
