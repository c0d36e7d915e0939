//! The connection of `h2` in each of its phases.
//!
//! ```text
//! Handshake --preface--> Open --closed by h2--> Closed
//! Handshake --abort()--> Closed        Open --abort()--> Closing --GOAWAY written--> Closed
//! ```

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection as H2Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;

use crate::error::Error;
use crate::io_buffers::Transport;
use crate::limits::Limits;

/// How many streams that this side has reset are remembered. What the client sends on them before it receives the reset
/// is ignored; on a forgotten stream, it is an error.
const REMEMBERED_RESETS: usize = 256;

/// How long they are remembered: more than the round trip time of any client, including its queued uploads.
const REMEMBER_RESETS: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    is_shutting_down: bool,
}

#[derive(Debug)]
enum State {
    /// `h2` waits for the preface.
    Handshake(Box<Handshake<Transport, Bytes>>),
    Open(Box<H2Connection<Transport, Bytes>>),
    /// The end was reported. `h2` still has to write its GOAWAY frame.
    Closing(Box<H2Connection<Transport, Bytes>>),
    Closed,
}

/// What `h2` has found in its input.
#[derive(Debug)]
pub(crate) enum Progress {
    Request(Box<Request<RecvStream>>, SendResponse<Bytes>),
    Closed(Option<Error>),
}

impl Connection {
    pub(crate) fn new(transport: Transport, limits: &Limits) -> Self {
        let handshake = Builder::new()
            .max_concurrent_streams(limits.concurrent_streams)
            .max_frame_size(limits.frame_size)
            .max_header_list_size(limits.header_list_size)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_send_buffer_size(limits.output)
            .max_local_error_reset_streams(None) // FrameGuard limits their rate instead
            .data_frame_budget(usize::MAX) // data does not stay in h2; on ended streams, it would be counted forever
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .reset_stream_duration(REMEMBER_RESETS)
            .handshake(transport);
        Connection { state: State::Handshake(Box::new(handshake)), is_shutting_down: false }
    }

    /// Neither closed nor aborted.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Handshake(_) | State::Open(_))
    }

    /// Lets `h2` read its input and write its output, until it finds something or can do no more.
    ///
    /// Wakers are of no use: the caller knows when there is input, or space for output, and calls this then.
    pub(crate) fn poll(&mut self) -> Option<Progress> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let closed = match &mut self.state {
                State::Handshake(handshake) => match Pin::new(handshake.as_mut()).poll(&mut context) {
                    Poll::Pending => return None,
                    Poll::Ready(Ok(mut connection)) => {
                        if self.is_shutting_down {
                            connection.graceful_shutdown();
                        }
                        self.state = State::Open(Box::new(connection));
                        continue;
                    }
                    Poll::Ready(Err(error)) => Some(error),
                },
                State::Open(connection) => match pin!(connection.accept()).poll(&mut context) {
                    Poll::Pending => return None,
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        return Some(Progress::Request(Box::new(request), respond));
                    }
                    Poll::Ready(Some(Err(error))) => Some(error),
                    Poll::Ready(None) => None,
                },
                State::Closing(connection) => {
                    if connection.poll_closed(&mut context).is_ready() {
                        self.state = State::Closed;
                    }
                    return None;
                }
                State::Closed => return None,
            };
            self.state = State::Closed;
            return Some(Progress::Closed(closed.as_ref().map(reported)));
        }
    }

    /// Sends GOAWAY(2^31-1) and, when the peer has responded to a PING, GOAWAY with the last stream.
    pub(crate) fn shut_down(&mut self) {
        self.is_shutting_down = true;
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Closes the connection with GOAWAY. Nothing is reported from then on.
    pub(crate) fn abort(&mut self, reason: Reason) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(mut connection) => {
                connection.abrupt_shutdown(reason);
                State::Closing(connection)
            }
            State::Closing(connection) => State::Closing(connection),
            State::Handshake(_) | State::Closed => State::Closed,
        };
    }
}

fn reported(error: &h2::Error) -> Error {
    let reason = error.reason().unwrap_or(Reason::PROTOCOL_ERROR);
    if error.is_remote() { Error::ClosedByPeer(reason) } else { Error::Connection(reason) }
}
