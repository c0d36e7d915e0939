//! The second half of a connection's way: the app is called, its answer framed and sent, and the connection made ready for
//! the next request.
//!
//! [`Connection::run`] is the only place where app code runs, and no lock of the server is held there.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Aborted, App, Body, Record, Request, Response, Stream, Writer,
    connection::response_writer::{Progress, Spool},
    connection::writer::{MAX_BYTES_PER_TURN, Pushed},
    connection::{Connection, Next, Phase},
    fork::{ChildOutcome, Relay},
    response::Start,
};

/// What is left to do for a request whose response is produced: where its connection goes, and the application's clean-up
/// (`close()` of the iterable, then `post_request`), which runs when this is dropped.
pub(crate) struct Produced {
    pub(crate) next: Next,
    pub(crate) on_complete: Option<Box<dyn Send>>,
}

/// What a thread that produces a response owes to the other threads of its pool.
pub(crate) trait Others {
    /// Something waits to be sent: somebody is to send it if the next piece is long in coming.
    fn notify_deferred(&self);

    /// Whether another thread waits for the application's lock (Python's GIL) to go on with its work.
    fn wait_for_lock(&self) -> bool;
}

/// How often a thread that produces a stream lets another thread have the application's lock: Python's switch interval. Python
/// itself enforces that only if nobody lets go of the GIL in between, however briefly.
const YIELD_INTERVAL: Duration = Duration::from_millis(5);
/// How long it stays away then, so that the other one has woken up and taken the lock.
const YIELD: Duration = Duration::from_micros(50);

impl Connection {
    /// Has the application answer a complete request, from the call to the last byte of the body. What the client does not read
    /// meanwhile is left to be sent. With `others`, what is framed may wait a moment for more, see [`Writer::push`].
    pub(crate) fn run(&mut self, app: &dyn App, others: Option<&dyn Others>) -> Produced {
        if let Phase::Logging { is_lost } = self.phase {
            let now = Instant::now();
            self.write_access_log(app, now);
            return Produced { next: self.close_or_keep_alive(now, is_lost), on_complete: None };
        }
        self.socket().record_request_complete(self.since);
        let response = call(app, &mut self.request);
        let (on_complete, lost) = self.produce(app, response, others);
        self.warn_length_mismatch();
        self.phase = Phase::Sending;
        self.log_pending = self.context().wants_log && !self.server_generated;
        let now = Instant::now();
        self.write_access_log(app, now);
        let next = if lost {
            self.close_or_keep_alive(now, true)
        } else if others.is_some() && self.output.can_batch() {
            Next::Flush
        } else {
            let limit = if self.socket().is_in_child() { usize::MAX } else { MAX_BYTES_PER_TURN };
            self.try_send(limit, now).unwrap_or_else(|| {
                let mut next = Next::Close;
                app.detached(&mut || next = self.spill_or_wait());
                next
            })
        };
        Produced { next, on_complete }
    }

    /// Frames the whole response. What is left to clean up, and whether the client is gone.
    fn produce(
        &mut self,
        app: &dyn App,
        response: Response,
        others: Option<&dyn Others>,
    ) -> (Option<Box<dyn Send>>, bool) {
        let Response { head, body, on_complete } = response;
        let asked = self.request.asked();
        // An answer to HEAD without a body does not tell how long the body of GET would be.
        let length = body.length().filter(|length| !asked.is_head || *length > 0);
        let mut writer = match (head, &body) {
            (Start::Head(head), Body::Stream { .. }) => {
                Writer::start(&self.request.socket, head, asked, length)
            }
            (Start::Head(head), _) => {
                self.output.begin(head, asked, length, &self.request.socket.context);
                self.output.push_body(body);
                return (on_complete, false);
            }
            (Start::Sent(writer), _) => writer,
        };
        let stream = match body {
            Body::Stream { stream, .. } => Some(self.stream(app, &mut writer, stream, others)),
            whole => {
                // An error shows at the end.
                let _ = writer.with_queue(None, |response| response.push_body(whole));
                None
            }
        };
        let (output, result) = writer.finish();
        self.output = output;
        let on_complete: Option<Box<dyn Send>> = match (stream, on_complete) {
            (Some(stream), Some(on_complete)) => Some(Box::new((stream, on_complete))),
            (Some(stream), None) => Some(Box::new(stream)),
            (None, on_complete) => on_complete,
        };
        (on_complete, result.is_err())
    }

    /// Pulls a stream to its end, as fast as the application produces it. Gives the stream back, to be dropped when the response
    /// is on its way.
    fn stream(
        &self,
        app: &dyn App,
        writer: &mut Writer,
        mut stream: Box<dyn Stream>,
        others: Option<&dyn Others>,
    ) -> Box<dyn Stream> {
        let socket = self.socket();
        let is_unbounded =
            writer.is_event_stream() && socket.context.settings.concurrency.may_wait_for_events();
        let defer = others.map(|others| || others.notify_deferred());
        let defer = defer.as_ref().map(|defer| defer as &dyn Fn());
        let mut yielded_at = Instant::now();
        while writer.wants_more() {
            let mut now = Instant::now();
            if now >= yielded_at + YIELD_INTERVAL && others.is_some_and(Others::wait_for_lock) {
                app.detached(&mut || thread::sleep(YIELD));
                now = Instant::now();
                yielded_at = now;
            }
            socket.restart_call_timer(now);
            if is_unbounded {
                socket.suspend_call_timer();
            }
            let piece = catch_unwind(AssertUnwindSafe(|| stream.next())).unwrap_or(Err(Aborted));
            let pushed = match piece {
                Ok(Some(piece)) if piece.as_ref().is_empty() => {
                    if writer.client_is_gone() {
                        writer.truncate();
                        break;
                    }
                    continue;
                }
                Ok(Some(piece)) => writer.push(piece, defer),
                Ok(None) => {
                    writer.end();
                    break;
                }
                Err(Aborted) => {
                    writer.truncate();
                    break;
                }
            };
            let made = match pushed {
                Ok(Pushed::OverLimit) => {
                    let mut made = Ok(());
                    app.detached(&mut || made = writer.spill_or_wait());
                    made
                }
                pushed => pushed.map(drop),
            };
            if made.is_err() {
                break;
            }
        }
        socket.restart_call_timer(Instant::now());
        stream
    }

    /// Has the application answer, and sends all of it, blocking. Only a forked child does this.
    pub(crate) fn run_to_the_end(&mut self, app: &dyn App) -> Next {
        let Produced { mut next, on_complete } = self.run(app, None);
        while next == Next::Wait && matches!(self.phase, Phase::Sending) {
            next = match self.socket().wait_writable() {
                Ok(()) => self.try_send(usize::MAX, Instant::now()).unwrap_or(Next::Wait),
                Err(_) => self.on_disconnect(Instant::now()),
            };
        }
        self.socket().restart_call_timer(Instant::now());
        drop(on_complete);
        next
    }

    /// Takes a response of the server's own as this connection's output.
    pub(crate) fn respond(&mut self, response: Response) {
        if let Start::Head(head) = response.head {
            self.output.begin(
                head,
                self.request.asked(),
                response.body.length(),
                &self.request.socket.context,
            );
        }
        self.output.push_body(response.body);
        self.log_pending = self.context().wants_log && !self.server_generated;
        self.phase = Phase::Sending;
    }

    /// Sends what is framed, as far as the socket takes it and others can wait. Runs in the event loop.
    pub(crate) fn send(&mut self, now: Instant) -> Next {
        self.try_send(MAX_BYTES_PER_TURN, now).unwrap_or_else(|| {
            // Only small responses are sent from here for the first time, so little is written.
            match self.spill() {
                Ok(()) => self.try_send(MAX_BYTES_PER_TURN, now).unwrap_or(Next::Wait),
                Err(error) => {
                    log::warn!("spooling a response failed, so its connection is closed: {error}");
                    self.end(now, true)
                }
            }
        })
    }

    /// Nothing if the socket takes no more and there is no memory left for the rest.
    fn try_send(&mut self, limit: usize, now: Instant) -> Option<Next> {
        self.readiness.writable = false;
        let progress = self.output.write(&self.request.socket, limit);
        self.output.release_memory();
        match progress {
            Ok(Progress::Sent) => Some(self.end(now, false)),
            Ok(Progress::Blocked) => {
                self.since = now;
                self.output.reserve_memory(&self.request.socket.context.response_memory).then_some(Next::Wait)
            }
            Ok(Progress::Paused) => {
                (self.readiness.writable, self.since) = (true, now);
                self.output.reserve_memory(&self.request.socket.context.response_memory).then_some(Next::Wait)
            }
            Err(_) => Some(self.end(now, true)),
        }
    }

    /// Moves what the client does not read to a temporary file, or waits for the client where that is not possible. Blocks.
    fn spill_or_wait(&mut self) -> Next {
        let socket = Arc::clone(&self.request.socket);
        // A child does not buffer what its parent does.
        let mut may_spill =
            self.output.held() as u64 <= socket.context.settings.response_spool && !socket.is_in_child();
        loop {
            if let Some(next) = self.try_send(usize::MAX, Instant::now()) {
                return next;
            }
            if may_spill {
                if let Err(error) = self.spill() {
                    log::warn!("spooling a response failed, so the thread waits for its client: {error}");
                    may_spill = false;
                }
            } else if socket.wait_writable().is_err() {
                return self.end(Instant::now(), true);
            }
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.output.spill(&mut Spool::create(&self.context().settings.temporary)?)
    }

    /// The client is gone, or is given up.
    pub(crate) fn on_disconnect(&mut self, now: Instant) -> Next {
        self.end(now, true)
    }

    /// A child process has answered, or died without.
    pub(crate) fn after_child(&mut self, outcome: ChildOutcome, now: Instant) -> Next {
        if let Some(relay) = self.relay_mut() {
            (relay.outcome, relay.is_readable, relay.next_check) = (Some(outcome), true, None);
            return self.continue_relay(now);
        }
        match outcome {
            ChildOutcome::KeepAlive => {
                self.expect_next_request(now);
                Next::Wait
            }
            ChildOutcome::Close => self.close_gracefully(now),
            ChildOutcome::NoResponse { status, why } => {
                self.respond(Response::plain(
                    status,
                    format!("{status} {}: {why}\n", mlws_http1::reason(status)),
                ));
                self.send(now)
            }
            ChildOutcome::Truncated => {
                self.socket().reset();
                Next::Close
            }
        }
    }

    /// The rest of the child's response comes through this relay.
    pub(crate) fn start_relay(&mut self, relay: Relay, now: Instant) -> Next {
        self.phase = Phase::Relaying(Box::new(relay));
        (self.since, self.readiness.writable) = (now, true);
        self.continue_relay(now)
    }

    /// Moves what the child sends to the client, as far as either allows and others can wait. Runs in the event loop.
    pub(crate) fn continue_relay(&mut self, now: Instant) -> Next {
        let Phase::Relaying(relay) = &mut self.phase else { return Next::Wait };
        let moved =
            relay.advance(&mut self.output, &self.request.socket, &mut self.readiness.writable, || {
                self.since = now
            });
        if moved.is_err() {
            return self.abort_relay(now);
        }
        let Some(outcome) = relay.finished(&self.output) else { return Next::Wait };
        self.phase = Phase::InChild;
        self.request.buffer = self.output.reset();
        self.after_child(outcome, now)
    }

    /// The client is gone, or is given up; how its response was to end is not known here, so a reset shows that it is incomplete.
    /// The child finds the relay closed, and is waited for.
    pub(crate) fn abort_relay(&mut self, now: Instant) -> Next {
        self.socket().reset();
        self.output.reset();
        let is_child_done = self.relay().is_some_and(|relay| relay.outcome.is_some());
        // Closes the relay, which the child finds.
        let next = self.enter_child(now);
        if is_child_done { Next::Close } else { next }
    }

    /// The response is sent, or its client is gone. The access log is the application's, so it is not written in the event loop.
    fn end(&mut self, now: Instant, lost: bool) -> Next {
        if self.log_pending {
            self.phase = Phase::Logging { is_lost: lost };
            return Next::Run;
        }
        self.close_or_keep_alive(now, lost)
    }

    /// Logs a body that is longer or shorter than its Content-Length.
    fn warn_length_mismatch(&self) {
        let output = &self.output;
        if !output.exceeds_content_length && (output.is_truncated || !output.is_incomplete()) {
            return;
        }
        let (method, target) = (self.request.method(), self.request.target());
        if output.exceeds_content_length {
            log::warn!("{method} {target}: the body is longer than its Content-Length; the rest is not sent");
        } else {
            log::warn!(
                "{method} {target}: the body is shorter than its Content-Length; the connection is closed"
            );
        }
    }

    fn write_access_log(&mut self, app: &dyn App, now: Instant) {
        if std::mem::take(&mut self.log_pending) {
            app.log(&Record {
                request: &self.request,
                status: if self.socket().was_aborted() { 504 } else { self.output.status },
                head: &self.output.head,
                sent: self.output.sent,
                took: now.saturating_duration_since(self.request.began),
                at: SystemTime::now(),
            });
            self.request.kept = None; // here, for what it does when it is dropped is none of the loop's business
        }
    }

    fn close_or_keep_alive(&mut self, now: Instant, lost: bool) -> Next {
        let is_incomplete = self.output.is_incomplete();
        if lost || is_incomplete {
            self.end_upload();
            if self.output.ends_by_close() {
                self.socket().reset();
            }
            return Next::Close;
        }
        self.socket().finish_response();
        let keep_alive = self.output.keep_alive;
        self.request.buffer = self.output.reset();
        if !keep_alive {
            return self.close_gracefully(now);
        }
        self.await_next_request(now)
    }

    /// Says goodbye and waits for the client to say it too: closed under a client that is still sending, the connection would be
    /// reset, and the client might lose the answer (RFC 9112, section 9.6).
    fn close_gracefully(&mut self, now: Instant) -> Next {
        let is_cut_short = self.end_upload();
        if self.readiness.peer_closed.is_some() && !self.server_generated && !is_cut_short {
            Next::Close
        } else {
            self.start_lingering(now)
        }
    }
}

fn call(app: &dyn App, request: &mut Request) -> Response {
    catch_unwind(AssertUnwindSafe(|| app.call(request))).unwrap_or_else(|_| {
        log::error!("the app panicked while it answered {} {}", request.method(), request.target());
        Response::plain(500, "500 Internal Server Error\n")
    })
}
