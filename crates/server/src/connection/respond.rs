//! From the app to the socket: the app is called, its response framed and sent, and the connection prepared for the
//! next request.
//!
//! [`Connection::run`] is the only place that calls the app. The server holds no lock meanwhile.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Aborted, App, Body, Request, Response, Stream, Writer,
    connection::access_log::Logs,
    connection::response_writer::{Progress, Spool},
    connection::writer::{MAX_BYTES_PER_TURN, Pushed},
    connection::{Connection, Next, Phase},
    response::Start,
};

/// What is left to do when a response has been produced: where its connection goes, and the application's cleanup
/// (`close()` of the iterable, then `post_request`), which runs on drop.
pub(crate) struct Produced {
    pub(crate) next: Next,
    pub(crate) on_complete: Option<Box<dyn Send>>,
}

/// How a thread that produces a response cooperates with the other threads of its pool.
pub(crate) trait Others {
    /// Output is deferred: another thread must send it if the next chunk takes long.
    fn notify_deferred(&self);

    /// Whether another thread is waiting for the application's lock (Python's GIL).
    fn wait_for_lock(&self) -> bool;
}

/// How much of a response was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// The rest must wait for the client.
    Partly,
    /// The same, but there is no memory for the rest.
    OverLimit,
    /// The client will not receive the rest.
    Lost,
}

/// The most bytes of a whole body that a thread encrypts at once while it has the application's lock (Python's GIL).
const MAX_ATTACHED_SEND: u64 = 128 * 1024;
/// How often a thread that produces a stream lets another thread have the GIL: Python's switch interval. Python
/// enforces that interval only if no thread releases the GIL in between, however briefly.
const YIELD_INTERVAL: Duration = Duration::from_millis(5);
/// How long the thread stays away then, so that the other one wakes up and takes the GIL.
const YIELD: Duration = Duration::from_micros(50);

impl Connection {
    /// Runs the app for a complete request, from the call to the last byte of the body. What the client has not read by
    /// then remains to be sent. With `others`, output may be deferred briefly (see [`Writer::push`]).
    pub(crate) fn run(&mut self, app: &dyn App, others: Option<&dyn Others>) -> Produced {
        self.socket().record_request_complete(self.since);
        let response = call(app, &mut self.request);
        let (on_complete, lost) = self.produce(app, response, others);
        self.release_permit();
        self.warn_length_mismatch();
        self.phase = Phase::Sending;
        self.log_pending = self.context().wants_log;
        let can_log_later = !self.log_pending || app.can_log_later();
        let now = Instant::now();
        if lost {
            return Produced { next: self.end(now, true, Logs::Here(app)), on_complete };
        }
        if can_log_later && others.is_some() && self.output.can_batch() {
            return Produced { next: Next::Flush, on_complete };
        }
        let is_in_child = self.socket().is_in_child();
        let limit = if is_in_child { usize::MAX } else { MAX_BYTES_PER_TURN };
        let mut sent = Sent::All;
        if app.one_at_a_time() && self.socket().tls().is_some() && self.output.unsent() > MAX_ATTACHED_SEND {
            // Encrypting takes long. The lock of the session is free again before this thread waits for the GIL, so a
            // thread that has the GIL, or the monitor thread, may wait for that lock.
            app.detached(&mut || sent = self.try_send(limit, now));
        } else {
            sent = self.try_send(limit, now);
        }
        if sent == Sent::OverLimit {
            app.detached(&mut || sent = self.spill_or_wait());
        }
        self.socket().flush();
        let next = self.after_send(sent, Logs::Here(app));
        if !can_log_later && !is_in_child {
            // What the server still has to send counts as sent, because the record belongs to this thread.
            self.write_access_log(self.output.body_framed(), Instant::now(), Logs::Here(app));
        }
        Produced { next, on_complete }
    }

    /// Frames the whole response. Returns the cleanup, and whether the client is gone.
    fn produce(
        &mut self,
        app: &dyn App,
        response: Response,
        others: Option<&dyn Others>,
    ) -> (Option<Box<dyn Send>>, bool) {
        let Response { head, body, on_complete } = response;
        let info = self.request.response_info();
        // The length of a response to HEAD without a body is not that of the body of GET.
        let length = body.length().filter(|length| !info.is_head || *length > 0);
        let mut writer = match (head, &body) {
            (Start::Head(head), Body::Stream { .. }) => {
                Writer::start(&self.request.socket, head, info, length)
            }
            (Start::Head(head), _) => {
                self.output.begin(head, info, length, &self.request.socket.context);
                self.output.push_body(body);
                return (on_complete, false);
            }
            (Start::Sent(writer), _) => writer,
        };
        let stream = match body {
            Body::Stream { stream, .. } => Some(self.stream(app, &mut writer, stream, others)),
            whole => {
                // The error is reported by `finish`.
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

    /// Pulls a stream to its end, as fast as the application produces it. Returns the stream, to be dropped when the
    /// response is on its way.
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
            let chunk = catch_unwind(AssertUnwindSafe(|| stream.next())).unwrap_or(Err(Aborted));
            let pushed = match chunk {
                Ok(Some(chunk)) if chunk.as_ref().is_empty() => {
                    if writer.client_is_gone() {
                        writer.truncate();
                        break;
                    }
                    continue;
                }
                Ok(Some(chunk)) => writer.push(chunk, defer),
                Ok(None) => {
                    writer.end();
                    break;
                }
                Err(Aborted) => {
                    writer.truncate();
                    break;
                }
            };
            let result = match pushed {
                Ok(Pushed::OverLimit) => {
                    let mut result = Ok(());
                    app.detached(&mut || result = writer.spill_or_wait());
                    result
                }
                pushed => pushed.map(drop),
            };
            if result.is_err() {
                break;
            }
        }
        socket.restart_call_timer(Instant::now());
        stream
    }

    /// Runs the app and sends the whole response, blocking. Only a forked child calls this.
    pub(crate) fn run_to_the_end(&mut self, app: &dyn App) -> Next {
        let Produced { mut next, on_complete } = self.run(app, None);
        while next == Next::Wait && matches!(self.phase, Phase::Sending) {
            next = match self.socket().wait_writable() {
                Ok(()) => {
                    let sent = self.try_send(usize::MAX, Instant::now());
                    self.after_send(sent, Logs::Here(app))
                }
                Err(_) => self.end(Instant::now(), true, Logs::Here(app)),
            };
        }
        self.socket().restart_call_timer(Instant::now());
        drop(on_complete);
        next
    }

    /// Makes a response of the server this connection's output.
    pub(crate) fn respond(&mut self, response: Response) {
        if let Start::Head(head) = response.head {
            self.output.begin(
                head,
                self.request.response_info(),
                response.body.length(),
                &self.request.socket.context,
            );
        }
        self.output.push_body(response.body);
        self.log_pending = self.context().wants_log;
        self.phase = Phase::Sending;
    }

    /// Sends queued bytes until the socket is full or other connections need their turn. Called by the event loop.
    pub(crate) fn send(&mut self, now: Instant) -> Next {
        let next = self.send_unflushed(now);
        self.socket().flush();
        next
    }

    /// The same, but the caller flushes the session of a stream, when several responses are in it.
    pub(crate) fn send_unflushed(&mut self, now: Instant) -> Next {
        let mut sent = self.try_send(MAX_BYTES_PER_TURN, now);
        if sent == Sent::OverLimit {
            // Only small responses are sent from here for the first time, so little is written.
            sent = match self.spill() {
                Ok(()) => self.try_send(MAX_BYTES_PER_TURN, now),
                Err(error) => {
                    log::warn!("spooling a response failed, so its connection is closed: {error}");
                    Sent::Lost
                }
            };
        }
        self.after_send(sent, Logs::Later)
    }

    fn try_send(&mut self, limit: usize, now: Instant) -> Sent {
        self.readiness.writable = false;
        let progress = self.output.write(&self.request.socket, limit);
        self.output.release_memory();
        match progress {
            Ok(Progress::Sent) => return Sent::All,
            Ok(Progress::Blocked) => {}
            Ok(Progress::Paused) => self.readiness.writable = true,
            Err(_) => return Sent::Lost,
        }
        self.since = now;
        let has_memory = self.output.reserve_memory(&self.request.socket.context.response_memory);
        if has_memory { Sent::Partly } else { Sent::OverLimit }
    }

    fn after_send(&mut self, sent: Sent, logs: Logs<'_>) -> Next {
        match sent {
            Sent::All => self.end(Instant::now(), false, logs),
            Sent::Lost => self.end(Instant::now(), true, logs),
            Sent::Partly | Sent::OverLimit => Next::Wait,
        }
    }

    /// Moves the unsent part to a temporary file. If that is not possible, waits for the client. Blocks.
    fn spill_or_wait(&mut self) -> Sent {
        let socket = Arc::clone(&self.request.socket);
        // The parent of a child buffers for it.
        let mut may_spill =
            self.output.held() as u64 <= socket.context.settings.response_spool && !socket.is_in_child();
        loop {
            match self.try_send(usize::MAX, Instant::now()) {
                Sent::OverLimit => {}
                sent => return sent,
            }
            if may_spill {
                if let Err(error) = self.spill() {
                    log::warn!("spooling a response failed, so the thread waits for its client: {error}");
                    may_spill = false;
                }
            } else if socket.wait_writable().is_err() {
                return Sent::Lost;
            }
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.output.spill(&mut Spool::create(&self.context().settings.temporary)?)
    }

    /// The client is gone, or the server closes the connection without finishing the response.
    pub(crate) fn on_disconnect(&mut self, now: Instant) -> Next {
        self.end(now, true, Logs::Later)
    }

    /// The response is sent, or the client is gone.
    fn end(&mut self, now: Instant, lost: bool, logs: Logs<'_>) -> Next {
        self.write_access_log(self.output.body_sent(), now, logs);
        self.close_or_keep_alive(now, lost)
    }

    fn close_or_keep_alive(&mut self, now: Instant, lost: bool) -> Next {
        let is_incomplete = self.output.is_incomplete();
        let is_stream = self.socket().stream().is_some();
        if lost || is_incomplete {
            self.end_upload();
            if lost {
                self.socket().cancel_stream();
            }
            if self.output.ends_by_close() || is_stream {
                self.socket().reset();
            }
            return Next::Close;
        }
        self.socket().finish_response();
        if is_stream {
            self.end_upload();
            return Next::Close;
        }
        let keep_alive = self.output.keep_alive;
        self.request.buffer = self.output.reset();
        if !keep_alive {
            return self.close_gracefully(now);
        }
        self.await_next_request(now)
    }

    /// Closes the sending side and waits for the client to do the same. Closing both sides while the client is sending
    /// would reset the connection, and the client might lose the response (RFC 9112, section 9.6).
    pub(super) fn close_gracefully(&mut self, now: Instant) -> Next {
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
