//! A response from a child of `--fork`: its end, and the part that comes through a relay.

use std::time::Instant;

use super::{Connection, Next, Phase};
use crate::{
    Response,
    fork::{outcome::ChildOutcome, relay::Relay},
};

impl Connection {
    /// A child has answered, or has exited without an answer.
    pub(crate) fn after_child(&mut self, outcome: ChildOutcome, now: Instant) -> Next {
        if let Some(relay) = self.relay_mut() {
            (relay.outcome, relay.is_readable, relay.next_check) = (Some(outcome), true, None);
            return self.continue_relay(now);
        }
        match outcome {
            ChildOutcome::KeepAlive | ChildOutcome::Close if self.socket().stream().is_some() => Next::Close,
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

    /// Starts to receive the rest of the child's response through a relay.
    pub(crate) fn start_relay(&mut self, relay: Relay, now: Instant) -> Next {
        self.phase = Phase::Relaying(Box::new(relay));
        (self.since, self.readiness.writable) = (now, true);
        self.continue_relay(now)
    }

    /// Moves bytes from the child to the client, until one of them must wait or other connections need their turn.
    /// Called by the event loop.
    pub(crate) fn continue_relay(&mut self, now: Instant) -> Next {
        let Phase::Relaying(relay) = &mut self.phase else { return Next::Wait };
        let moved =
            relay.advance(&mut self.output, &self.request.socket, &mut self.readiness.writable, || {
                self.since = now;
            });
        self.request.socket.flush();
        if moved.is_err() {
            return self.abort_relay(now);
        }
        let Some(outcome) = relay.finished(&self.output) else { return Next::Wait };
        self.phase = Phase::InChild;
        self.request.buffer = self.output.reset();
        self.after_child(outcome, now)
    }

    /// The client is gone or too slow. A reset shows it that the response is incomplete. The child finds the relay
    /// closed; the connection waits for its end.
    pub(crate) fn abort_relay(&mut self, now: Instant) -> Next {
        self.socket().cancel_stream();
        self.socket().reset();
        self.output.reset();
        let is_child_done = self.relay().is_some_and(|relay| relay.outcome.is_some());
        // This drops the relay.
        let next = self.enter_child(now);
        if is_child_done { Next::Close } else { next }
    }
}
