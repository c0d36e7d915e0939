//! HTTP/2 connections and their streams.
//!
//! Invariant: after anything was done to a connection or one of its streams, the connection is in `pending_http2`. Before the loop waits,
//! [`EventLoop::process_http2`] handles the events of its session, sends its output, and sets its deadline.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use mlws_http2::{Event, Head, StreamId};

use super::{
    EventLoop, Slot,
    http2_connection::{Http2Connection, OpenStream},
};
use crate::connection::{
    Connection, Readiness, socket::ClientSocket, stream_socket::StreamSocket, writer::MAX_FLUSH_DELAY,
};

const READABLE: Readiness = Readiness { readable: true, writable: false, peer_closed: None };
const WRITABLE: Readiness = Readiness { readable: false, writable: true, peer_closed: None };

impl EventLoop {
    /// The client of this connection has chosen HTTP/2.
    pub(super) fn switch_to_http2(&mut self, connection: Connection, now: Instant) {
        let token = connection.token;
        let listener = connection.socket().listener;
        self.deadlines.clear(token);
        let Some((transport, peer, received)) = connection.into_transport() else {
            log::error!("closing a connection: it could not be switched to HTTP/2");
            return self.remove_slot(token);
        };
        let http2 = Http2Connection::new(transport, peer, listener, received, &self.context, token, now);
        if let Some(slot) = self.slots.get_mut(token) {
            *slot = Slot::Http2(Box::new(http2));
            self.advance_http2(token, now);
        }
    }

    /// Reads what has arrived.
    pub(super) fn advance_http2(&mut self, token: usize, now: Instant) {
        let Some(Slot::Http2(http2)) = self.slots.get_mut(token) else { return };
        let scratch = &mut self.scratch;
        if catch_unwind(AssertUnwindSafe(|| http2.receive(now, scratch))).is_err() {
            http2.fail_after_panic();
        }
        if http2.can_receive() {
            self.runnable.push_back(token);
        }
        self.mark_pending(token);
    }

    pub(super) fn mark_pending(&mut self, token: usize) {
        if let Some(Slot::Http2(http2)) = self.slots.get_mut(token)
            && !std::mem::replace(&mut http2.is_pending, true)
        {
            self.pending_http2.push(token);
        }
    }

    /// Handles what has happened on HTTP/2 connections, and sends their output.
    pub(super) fn process_http2(&mut self, now: Instant) {
        while let Some(token) = self.pending_http2.pop() {
            let Some(Slot::Http2(http2)) = self.slots.get_mut(token) else { continue };
            let mut events = std::mem::take(&mut self.http2_events);
            http2.session.take_events(&mut events);
            let mut rest = events.drain(..);
            while let Some(event) = rest.next() {
                let has_more =
                    rest.as_slice().first().is_some_and(|next| stream_of(next) == stream_of(&event));
                self.handle_stream_event(token, event, has_more, now);
            }
            drop(rest);
            self.http2_events = events;
            let Some(Slot::Http2(http2)) = self.slots.get_mut(token) else { continue };
            http2.is_pending = false;
            let processed = catch_unwind(AssertUnwindSafe(|| http2.process(now)));
            let stays_open = processed.unwrap_or_else(|_| {
                http2.fail_after_panic();
                false
            });
            if !stays_open {
                self.close_http2(token, now);
            } else if http2.session.has_events() {
                self.mark_pending(token);
            } else {
                self.deadlines.set(token, http2.deadline());
            }
        }
    }

    /// `has_more` is whether another event of the same stream follows immediately.
    fn handle_stream_event(&mut self, connection: usize, event: Event, has_more: bool, now: Instant) {
        match event {
            Event::Head { stream, head } => {
                let token = self.open_stream(connection, stream, *head, now);
                if let Some(token) = token.filter(|_| !has_more) {
                    self.advance(token, now);
                }
            }
            Event::Data { stream, data } => {
                self.wake_stream(connection, stream, READABLE, now, |stream| stream.on_data(&data));
            }
            Event::End { stream } => {
                self.wake_stream(connection, stream, READABLE, now, StreamSocket::on_end);
            }
            Event::Writable { stream } => {
                self.wake_stream(connection, stream, WRITABLE, now, StreamSocket::on_writable);
            }
            Event::Reset { stream, .. } => self.on_stream_reset(connection, stream, now),
            Event::Rejected { stream, error, is_answered, is_head } => {
                self.reject_stream(connection, stream, error, is_answered, is_head, now);
            }
            Event::GoAway { error } => {
                if let Some(Slot::Http2(http2)) = self.slots.get_mut(connection) {
                    http2.on_session_end(error, now);
                }
            }
        }
    }

    fn reject_stream(
        &mut self,
        connection: usize,
        stream: StreamId,
        error: mlws_http1::Error,
        is_answered: bool,
        is_head: bool,
        now: Instant,
    ) {
        let Some(Slot::Http2(http2)) = self.slots.get(connection) else { return };
        if is_answered {
            let (peer, status) = (http2.peer.name(), error.status());
            let message = format_args!("rejected a request from {peer}: {status} {error}");
            return self.context.rejections.log(log::Level::Info, message, now);
        }
        let open = http2.streams.get(&stream).map(|stream| stream.token);
        let token = open.or_else(|| self.open_stream(connection, stream, Head::default(), now));
        if let Some(mut stream) = token.and_then(|token| self.slots.get_mut(token)).and_then(Slot::take) {
            stream.request.is_head = is_head;
            let next = stream.reject(error.status(), &error.to_string(), now);
            self.apply(stream, next);
        }
    }

    /// Creates the connection of a new stream and returns its token.
    fn open_stream(
        &mut self,
        connection: usize,
        stream: StreamId,
        head: Head,
        now: Instant,
    ) -> Option<usize> {
        let Some(Slot::Http2(http2)) = self.slots.get(connection) else { return None };
        let socket = StreamSocket::new(Arc::clone(&http2.session), stream);
        let mut socket =
            ClientSocket::of_stream(socket, http2.peer.clone(), http2.listener, Arc::clone(&self.context));
        let entry = self.slots.vacant_entry();
        let token = entry.key();
        socket.token = token;
        let mut opened = Box::new(Connection::of_stream(token, socket, head, &self.app, now));
        opened.acquire_buffers(&mut self.buffer_pool);
        let socket = Arc::clone(&opened.request.socket);
        self.deadlines.set(token, opened.deadline());
        entry.insert(Slot::Held(opened));
        self.streams += 1;
        self.acceptor.publish_load(self.slots.len());
        if let Some(Slot::Http2(http2)) = self.slots.get_mut(connection) {
            http2.on_stream_opened(stream, OpenStream { token, socket }, now);
        }
        Some(token)
    }

    /// Passes an event to a stream, and to the connection that is its request.
    fn wake_stream(
        &mut self,
        connection: usize,
        stream: StreamId,
        readiness: Readiness,
        now: Instant,
        change: impl FnOnce(&StreamSocket),
    ) {
        let Some(Slot::Http2(http2)) = self.slots.get(connection) else { return };
        let Some(open) = http2.streams.get(&stream) else { return };
        let token = open.token;
        if let Some(socket) = open.socket.stream() {
            change(socket);
        }
        self.add_readiness(token, readiness, now);
    }

    /// The client has reset a stream, or the session has ended it.
    fn on_stream_reset(&mut self, connection: usize, stream: StreamId, now: Instant) {
        let Some(Slot::Http2(http2)) = self.slots.get_mut(connection) else { return };
        let Some(open) = http2.streams.get(&stream) else { return };
        let token = open.token;
        if let Some(socket) = open.socket.stream() {
            socket.on_reset();
        }
        if let Some(children) = &self.children {
            children.on_client_gone(token);
        }
        let position = http2.waiting.iter().position(|waiting| waiting.token == token);
        if let Some(waiting) = position.and_then(|position| http2.waiting.remove(position)) {
            return self.close_stream(&waiting, now);
        }
        self.add_readiness(token, Readiness { readable: true, writable: true, peer_closed: Some(now) }, now);
    }

    /// A request over HTTP/2 may be queued for the application only if not too many of its connection are.
    pub(super) fn enqueue_stream(&mut self, mut connection: Box<Connection>) {
        let limit = self.context.settings.concurrency.requests() + 1;
        let Some(stream) = connection.socket().stream() else { return };
        let session = Arc::clone(stream.session());
        if let Some(permit) = session.take_permit(limit) {
            connection.set_permit(permit);
            return self.enqueue(connection);
        }
        let token = session.token;
        if let Some(Slot::Http2(http2)) = self.slots.get_mut(token) {
            http2.waiting.push_back(connection);
            if http2.waiting.len() == 1 {
                self.with_waiting_streams.push_back(token);
            }
        }
    }

    /// Queues the next waiting request of some HTTP/2 connection, if its connection has a permit left. A connection keeps its turn for about as
    /// long as small responses wait to be sent together.
    pub(super) fn admit_waiting(&mut self) {
        let limit = self.context.settings.concurrency.requests() + 1;
        for _ in 0..self.with_waiting_streams.len() {
            let Some(token) = self.with_waiting_streams.pop_front() else { return };
            let Some(Slot::Http2(http2)) = self.slots.get_mut(token) else { continue };
            let permit = if http2.waiting.is_empty() { continue } else { http2.session.take_permit(limit) };
            let admitted = permit.and_then(|permit| {
                let mut connection = http2.waiting.pop_front()?;
                connection.set_permit(permit);
                Some(connection)
            });
            if !http2.waiting.is_empty() {
                if admitted.is_some() && self.keeps_turn(token) {
                    self.with_waiting_streams.push_front(token);
                } else {
                    self.with_waiting_streams.push_back(token);
                }
            }
            if let Some(connection) = admitted {
                return self.enqueue(connection);
            }
        }
    }

    /// Whether the connection from which a request was just queued comes first again.
    fn keeps_turn(&mut self, token: usize) -> bool {
        let now = Instant::now();
        let since = match self.turn {
            Some((current, since)) if current == token => since,
            _ => now,
        };
        let keeps = now < since + MAX_FLUSH_DELAY;
        self.turn = keeps.then_some((token, since));
        keeps
    }

    /// A stream has ended. Its connection goes on.
    pub(super) fn close_stream(&mut self, connection: &Connection, now: Instant) {
        self.deadlines.clear(connection.token);
        self.slots.try_remove(connection.token);
        self.streams -= 1;
        self.acceptor.publish_load(self.slots.len());
        let Some(stream) = connection.socket().stream() else { return };
        stream.abandon();
        let token = stream.session().token;
        if let Some(Slot::Http2(http2)) = self.slots.get_mut(token) {
            http2.on_stream_closed(stream.id(), now);
            self.mark_pending(token);
        }
    }

    /// Closes an HTTP/2 connection. Streams that are in the application end when it returns.
    pub(super) fn close_http2(&mut self, token: usize, now: Instant) {
        let Some(Slot::Http2(http2)) = self.slots.get_mut(token) else { return };
        http2.session.set_failed();
        let streams: Vec<_> = http2.streams.keys().copied().collect();
        for stream in streams {
            self.on_stream_reset(token, stream, now);
        }
        let Some(Slot::Http2(http2)) = self.slots.get_mut(token) else { return };
        let transport = &http2.session.transport;
        transport.close_tls();
        // Streams in the application, or children, may hold the socket, which would keep it open for the client.
        super::deregister(self.poll.registry(), transport);
        transport.shutdown();
        self.deadlines.clear(token);
        self.remove_slot(token);
    }

    pub(super) fn remove_slot(&mut self, token: usize) {
        self.slots.try_remove(token);
        self.acceptor.publish_load(self.slots.len());
    }

    pub(super) fn time_out_http2(&mut self, token: usize, now: Instant) {
        let Some(Slot::Http2(http2)) = self.slots.get_mut(token) else { return };
        if http2.time_out(now) {
            self.mark_pending(token);
        } else {
            self.close_http2(token, now);
        }
    }
}

/// The stream of an event.
fn stream_of(event: &Event) -> Option<StreamId> {
    match event {
        Event::Head { stream, .. }
        | Event::Data { stream, .. }
        | Event::End { stream }
        | Event::Rejected { stream, .. }
        | Event::Reset { stream, .. }
        | Event::Writable { stream } => Some(*stream),
        Event::GoAway { .. } => None,
    }
}
