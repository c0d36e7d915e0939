//! The second half of a connection's way: the app is called, its answer framed and sent, and the connection made ready for
//! the next request.
//!
//! [`Connection::run`] is the only place where app code runs, and no lock of the server is held there.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    App, Record, Request, Response,
    connection::{Connection, Next, Phase},
    fork::{ChildOutcome, ChildProgress},
    output::Progress,
    response::Start,
    unsent::{Lender, PATIENCE},
    watchdog::Duty,
};

/// How many pieces of one stream are sent before other requests have their turn.
const PIECES_IN_A_TURN: usize = 32;
/// A piece that was made sooner than this may wait for the next one.
const QUICK: Duration = Duration::from_micros(200);

impl Connection {
    /// Runs what the app has to do for this connection: answer a request, give pieces of a stream, clean up. With a `lender`, what is
    /// framed may wait for others.
    pub(crate) fn run(&mut self, app: &dyn App, duty: Duty<'_>, lender: Option<&Lender<'_>>) -> Next {
        match self.phase {
            Phase::Complete => {
                let response = call(app, &mut self.request);
                self.respond(response);
                self.pump(app, duty, lender)
            }
            Phase::Ending { lost } => self.finish(app, duty, lost),
            _ => self.pump(app, duty, lender),
        }
    }

    /// Runs the app and sends the whole answer, blocking. Only a forked child does this.
    pub(crate) fn run_to_the_end(&mut self, app: &dyn App, progress: &ChildProgress) -> Next {
        let duty = Duty::of_child(progress);
        let mut next = self.run(app, duty, None);
        loop {
            next = match next {
                Next::Run => self.run(app, duty, None),
                Next::Wait if self.phase == Phase::Sending => match self.wire().wait_writable() {
                    Ok(()) => self.send(Instant::now()),
                    Err(_) => self.lose(Instant::now()),
                },
                _ => return next,
            }
        }
    }

    /// Takes an answer as this connection's output.
    pub(crate) fn respond(&mut self, response: Response) {
        let asked = self.request.asked();
        // An answer to HEAD without a body says nothing of how long the body of GET would be.
        let length = response.body.length().filter(|length| !asked.is_head || *length > 0);
        match response.head {
            Start::Head(head) => {
                self.output.begin(head, asked, length, &self.request.wire.house);
            }
            Start::Sent(writer) => self.output = writer.output,
        }
        self.output.take(response.body);
        self.epilogue = response.epilogue;
        self.tell_of_length();
        self.unlogged = self.house().wants_log && !self.refused;
        self.phase = Phase::Sending;
    }

    /// Sends what is framed, as far as the socket takes it. Runs in the loop; what needs the app becomes [`Next::Run`].
    pub(crate) fn send(&mut self, now: Instant) -> Next {
        self.writable = false;
        match self.output.write(&self.request.wire) {
            Ok(Progress::Sent) if self.output.is_streaming() => Next::Run,
            Ok(Progress::Sent) => self.end(now, false),
            Ok(Progress::Blocked) => {
                self.since = now;
                Next::Wait
            }
            Err(_) => self.end(now, true),
        }
    }

    /// The client is gone, or is given up.
    pub(crate) fn lose(&mut self, now: Instant) -> Next {
        self.end(now, true)
    }

    /// A child process has answered, or died without.
    pub(crate) fn after_child(&mut self, outcome: ChildOutcome, now: Instant) -> Next {
        match outcome {
            ChildOutcome::KeepAlive => {
                self.expect_next_request(now);
                Next::Wait
            }
            ChildOutcome::Close => self.part(now),
            ChildOutcome::NoResponse { status, why } => {
                self.respond(Response::plain(
                    status,
                    format!("{status} {}: {why}\n", mlws_http1::reason(status)),
                ));
                self.send(now)
            }
            ChildOutcome::Truncated => {
                self.wire().reset();
                Next::Close
            }
        }
    }

    /// Sends and pulls in turn until the socket is full, the response complete, or others should have their turn. Pieces that come
    /// quickly one after the other are sent together; what waits is lent to the lookout while the next one is made.
    fn pump(&mut self, app: &dyn App, duty: Duty<'_>, lender: Option<&Lender<'_>>) -> Next {
        let mut now = Instant::now();
        let (mut since, mut is_quick) = (now, true);
        for _ in 0..PIECES_IN_A_TURN {
            if lender.is_some() && self.output.is_whole() {
                self.tell_log(app, now);
                return Next::Flush;
            }
            let may_wait = is_quick && self.output.has_little() && now < since + PATIENCE;
            let lender = lender.filter(|_| may_wait);
            if lender.is_none() {
                match self.output.write(&self.request.wire) {
                    Ok(Progress::Sent) if !self.output.is_streaming() => {
                        return self.finish(app, duty, false);
                    }
                    Ok(Progress::Sent) => since = now,
                    Ok(Progress::Blocked) => return self.wait_for_room(),
                    Err(_) => return self.finish(app, duty, true),
                }
            }
            duty.renew();
            if self.output.pull(&self.request.wire, lender).is_err() {
                // The client gets what the app gave before it failed, as far as there is room.
                let _ = self.output.write(&self.request.wire);
                return self.finish(app, duty, true);
            }
            self.tell_of_length();
            let then = std::mem::replace(&mut now, Instant::now());
            is_quick = now < then + QUICK;
        }
        match self.output.write(&self.request.wire) {
            Ok(Progress::Sent) => Next::Run,
            Ok(Progress::Blocked) => self.wait_for_room(),
            Err(_) => self.finish(app, duty, true),
        }
    }

    fn wait_for_room(&mut self) -> Next {
        self.writable = false;
        self.since = Instant::now();
        Next::Wait
    }

    /// The response is over. Where app code or the log is still to run, that happens outside the loop.
    fn end(&mut self, now: Instant, lost: bool) -> Next {
        if self.output.is_streaming() || self.epilogue.is_some() || self.unlogged {
            self.phase = Phase::Ending { lost };
            return Next::Run;
        }
        let cut = self.output.is_cut();
        self.part_or_go_on(now, lost || cut)
    }

    /// Lets the app clean up, tells the log, and makes ready for what comes next.
    fn finish(&mut self, app: &dyn App, duty: Duty<'_>, lost: bool) -> Next {
        let now = Instant::now();
        let cut = self.output.is_cut();
        if !(lost || cut) {
            self.wire().end_response();
        }
        duty.renew();
        drop(self.output.take_stream());
        drop(self.epilogue.take());
        self.tell_log(app, now);
        self.part_or_go_on(now, lost || cut)
    }

    /// A body that is not as long as the app said is told to the log, once: when the last of it is framed.
    fn tell_of_length(&self) {
        if self.output.is_streaming() || !(self.output.overlong || self.output.is_cut()) {
            return;
        }
        let (method, target) = (self.request.method(), self.request.target());
        if self.output.overlong {
            log::warn!("{method} {target}: the body is longer than its Content-Length; the rest is not sent");
        } else {
            log::warn!(
                "{method} {target}: the body is shorter than its Content-Length; the connection is closed"
            );
        }
    }

    fn tell_log(&mut self, app: &dyn App, now: Instant) {
        if std::mem::take(&mut self.unlogged) {
            app.log(&Record {
                request: &self.request,
                status: if self.wire().is_forfeited() { 504 } else { self.output.status },
                head: &self.output.head,
                sent: self.output.sent,
                took: now.saturating_duration_since(self.request.began),
                at: SystemTime::now(),
            });
            self.request.kept = None; // here, for what it does when it is dropped is none of the loop's business
        }
    }

    fn part_or_go_on(&mut self, now: Instant, lost: bool) -> Next {
        if lost {
            if self.output.ends_by_close() {
                self.wire().reset();
            }
            return Next::Close;
        }
        let keep_alive = self.output.keep_alive;
        self.request.buffer = self.output.reset();
        if !keep_alive {
            return self.part(now);
        }
        self.expect_next_request(now);
        Next::Wait
    }

    /// Says goodbye and waits for the client to say it too: closed under a client that is still sending, the connection would be
    /// reset, and the client might lose the answer (RFC 9112, section 9.6).
    fn part(&mut self, now: Instant) -> Next {
        if self.peer_done && !self.refused { Next::Close } else { self.start_lingering(now) }
    }
}

fn call(app: &dyn App, request: &mut Request) -> Response {
    catch_unwind(AssertUnwindSafe(|| app.call(request))).unwrap_or_else(|_| {
        log::error!("the app panicked while it answered {} {}", request.method(), request.target());
        Response::plain(500, "500 Internal Server Error\n")
    })
}
