//! One HTTP/2 connection.
//!
//! [`Session::receive`] passes the input to `h2` frame by frame. After each frame it asks only the stream of that frame
//! for news, and translates them to events. This makes the events independent of how the input is split, and costs
//! nothing for the other streams.

mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use h2::Reason;

use crate::connection::{Connection, Progress};
use crate::error::{Error, StreamClosed};
use crate::event::{Event, StreamId};
use crate::frame_guard::FrameGuard;
use crate::frame_header::{FrameHeader, kind};
use crate::frame_scanner::FrameScanner;
use crate::io_buffers::Transport;
use crate::limits::Limits;
use crate::response_head::ResponseHead;
use crate::stream::Stream;

/// The client connection preface (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The server's side of a connection.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    connection: Connection,
    transport: Transport,
    preface_read: usize,
    scanner: FrameScanner,
    /// The frame that is being received.
    frame: Option<FrameHeader>,
    guard: FrameGuard,
    streams: BTreeMap<StreamId, Stream>,
    /// The streams whose caller waits for [`Event::Writable`].
    blocked: BTreeSet<StreamId>,
    /// The sum of the sizes of the heads of `streams`.
    heads: usize,
    /// The highest stream that the client has opened.
    last_stream: StreamId,
    /// Opened streams that `h2` has not returned. It has reset them, or responded to them with 431.
    unaccepted: VecDeque<StreamId>,
    /// The size of the data passed to `h2` that it has not written yet.
    queued: usize,
    shutdown: Shutdown,
    events: VecDeque<Event>,
    /// The time of the current call.
    now: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    No,
    /// GOAWAY was sent. Requests that were on their way are accepted.
    Announced,
    /// New streams are reset.
    Refusing,
}

/// How much more of the output a frame header may take than the data in it. An estimate: `h2` holds what does not fit.
const FRAME_OVERHEAD: usize = FrameHeader::LEN;

/// The capacity of each buffer, in bytes, that an idle connection keeps.
const IDLE_CAPACITY: usize = 2048;

/// The capacity of the event queue that an idle connection keeps.
const IDLE_EVENTS: usize = 16;

/// The number of [`Session::unaccepted`] streams that are remembered.
const MAX_UNACCEPTED: usize = 32;

/// Window updates for data smaller than this, sent because the window was not larger, are not expected from a client
/// that makes progress.
const SMALL_WINDOW: usize = 1024;

impl Session {
    /// Starts a connection, at or before its preface. The output begins with this side's SETTINGS.
    ///
    /// # Panics
    ///
    /// A limit is outside its documented range.
    pub fn new(limits: Arc<Limits>, now: Instant) -> Self {
        let transport = Transport::new(limits.output);
        let mut session = Session {
            connection: Connection::new(transport.clone(), &limits),
            guard: FrameGuard::new(&limits, now),
            limits,
            transport,
            preface_read: 0,
            scanner: FrameScanner::default(),
            frame: None,
            streams: BTreeMap::new(),
            blocked: BTreeSet::new(),
            heads: 0,
            last_stream: 0,
            unaccepted: VecDeque::new(),
            queued: 0,
            shutdown: Shutdown::No,
            events: VecDeque::new(),
            now,
        };
        session.drive();
        session
    }

    /// Parses input and returns how many bytes were consumed, all except in one case: if the output is full, frames
    /// that require an acknowledgement are not read. Take the output, then pass the rest again.
    ///
    /// `now` is the time of the call. After the last event, input is consumed and ignored.
    pub fn receive(&mut self, input: &[u8], now: Instant) -> usize {
        self.now = now;
        let mut rest = input;
        self.read_preface(&mut rest);
        while self.connection.is_open() && self.finish_frame() && !rest.is_empty() {
            self.read_frame(&mut rest);
        }
        if !self.connection.is_open() {
            return input.len();
        }
        input.len() - rest.len()
    }

    fn read_preface(&mut self, input: &mut &[u8]) {
        let expected = &PREFACE[self.preface_read..];
        let part = input.split_off(..input.len().min(expected.len())).unwrap_or_default();
        if part.is_empty() || !self.connection.is_open() {
            return;
        }
        if !expected.starts_with(part) {
            return self.fail(Error::Preface);
        }
        self.preface_read += part.len();
        if self.preface_read == PREFACE.len() {
            self.transport.buffers().input.extend_from_slice(PREFACE);
            self.drive();
        }
    }

    /// Consumes one frame, or the part of it that has arrived.
    fn read_frame(&mut self, input: &mut &[u8]) {
        if self.frame.is_none() {
            let Some(header) = self.scanner.header(input) else { return };
            if let Err(error) = self.guard.check(header, self.now) {
                return self.fail(error);
            }
            self.frame = Some(header);
            self.transport.buffers().input.extend_from_slice(self.scanner.header_bytes());
        }
        let payload = self.scanner.payload(input);
        self.transport.buffers().input.extend_from_slice(payload);
        self.finish_frame();
    }

    /// Passes a complete frame to `h2`. False if `h2` cannot read it, because the output is full.
    fn finish_frame(&mut self) -> bool {
        let Some(header) = self.frame else { return true };
        if !self.scanner.finish_frame() {
            return true;
        }
        self.guard.finish_frame(header);
        if header.kind == kind::HEADERS && header.stream > self.last_stream {
            self.last_stream = header.stream;
            self.unaccepted.truncate(MAX_UNACCEPTED - 1);
            self.unaccepted.push_front(header.stream);
        }
        self.drive();
        if !self.transport.buffers().is_input_read() {
            return !self.connection.is_open();
        }
        self.frame = None;
        match header.kind {
            kind::DATA | kind::HEADERS | kind::RST_STREAM | kind::WINDOW_UPDATE | kind::CONTINUATION => {
                self.update_stream(header.stream);
            }
            _ => {}
        }
        if matches!(header.kind, kind::WINDOW_UPDATE | kind::SETTINGS | kind::RST_STREAM) {
            self.report_writable();
        }
        true
    }

    /// Whether [`next_event`](Self::next_event) returns an event.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Returns the next event, if any. Call this until it returns `None` after each call of another method.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Moves output to the end of `output`: up to [`Limits::output`] bytes if `output` is empty. Call this after events
    /// have been processed, and again when these bytes have been sent.
    pub fn take_output(&mut self, output: &mut Vec<u8>) {
        self.drive();
        let mut buffers = self.transport.buffers();
        if buffers.output.is_empty() {
            return;
        }
        if output.is_empty() {
            std::mem::swap(&mut buffers.output, output);
        } else {
            output.append(&mut buffers.output);
        }
        if self.streams.is_empty() {
            buffers.input.shrink_to(IDLE_CAPACITY);
            buffers.output.shrink_to(IDLE_CAPACITY);
            self.events.shrink_to(IDLE_EVENTS);
        }
        drop(buffers);
        self.report_writable(); // there is space, and streams may have ended and freed the window they had reserved
    }

    /// Sends a response head, final or interim. A final one ends the response if `end` is true. Heads are always
    /// accepted.
    ///
    /// If the response ends before the request, the stream is reset with `NO_ERROR` after the response (RFC 9113,
    /// section 8.1).
    ///
    /// # Errors
    ///
    /// The stream is closed, or has a response already.
    pub fn respond(&mut self, stream: StreamId, head: ResponseHead, end: bool) -> Result<(), StreamClosed> {
        let ends = end && !head.is_interim();
        self.streams.get_mut(&stream).ok_or(StreamClosed)?.respond(head, ends)?;
        if ends {
            self.remove(stream);
        }
        Ok(())
    }

    /// Sends body data and returns how many bytes were accepted. If all of them were, `end` ends the response.
    ///
    /// If not all were accepted, because of flow control or because the output is full, an [`Event::Writable`] follows.
    /// Then pass the rest.
    ///
    /// # Errors
    ///
    /// The stream is closed, or has no response head yet.
    pub fn data(&mut self, stream: StreamId, data: &[u8], end: bool) -> Result<usize, StreamClosed> {
        let mut capacity = self.output_capacity();
        if capacity < data.len() && self.queued > 0 {
            self.drive(); // replaces the estimate
            capacity = self.output_capacity();
        }
        let sending = self.streams.get_mut(&stream).ok_or(StreamClosed)?;
        let accepted = sending.send(data, end, capacity)?;
        let is_all = accepted == data.len();
        if !is_all {
            self.blocked.insert(stream);
        }
        self.queued += accepted + FRAME_OVERHEAD;
        if accepted > 0 && (is_all || accepted == capacity || accepted >= SMALL_WINDOW) {
            self.guard.message_frame();
        }
        if is_all && end {
            self.remove(stream);
        }
        Ok(accepted)
    }

    /// How much data fits in the output.
    fn output_capacity(&self) -> usize {
        self.transport.buffers().output_capacity().saturating_sub(self.queued + FRAME_OVERHEAD)
    }

    /// Lets the client send as many bytes of body data more. Call this for the data of each [`Event::Data`], in
    /// any number of parts. Data of a closed stream is released automatically.
    pub fn release(&mut self, stream: StreamId, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.release(bytes);
        }
    }

    /// Resets a stream. Does nothing if it is closed.
    pub fn reset(&mut self, stream: StreamId, reason: Reason) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.reset(reason);
            self.remove(stream);
        }
    }

    /// Shuts the connection down gracefully (RFC 9113, section 6.8). The first call sends GOAWAY(2^31-1) and a PING. When
    /// the client has responded to the PING, GOAWAY with the last stream follows. When all streams have ended, the
    /// connection closes.
    ///
    /// Call this a second time after about a second, in case the client does not respond to the PING: from then on, new
    /// streams are reset with `REFUSED_STREAM`.
    pub fn go_away(&mut self) {
        self.shutdown = match self.shutdown {
            Shutdown::No => {
                self.connection.shut_down();
                Shutdown::Announced
            }
            Shutdown::Announced | Shutdown::Refusing => Shutdown::Refusing,
        };
    }

    /// Ends the connection with a GOAWAY frame and [`Event::GoAway`], without waiting for the client. Open streams are reset.
    pub fn abort(&mut self, reason: Reason) {
        if self.connection.is_open() {
            self.connection.abort(reason);
            self.report_closed(reason, None);
            self.drive();
        }
    }

    /// Whether a request head has been received in part.
    pub fn is_in_head(&self) -> bool {
        self.guard.is_in_header_block()
    }

    /// Whether there is no open stream.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether the last event has been returned or is about to be.
    pub fn is_closed(&self) -> bool {
        !self.connection.is_open()
    }

    /// Lets `h2` read its input and write what it has to send.
    fn drive(&mut self) {
        self.queued = 0;
        while let Some(progress) = self.connection.poll() {
            match progress {
                Progress::Request(request, respond) => self.accept(*request, respond),
                Progress::Closed(error) => {
                    self.report_closed(error.map_or(Reason::NO_ERROR, Error::reason), error);
                }
            }
        }
        self.process_sent();
    }

    /// Closes the connection because of an error of the client.
    fn fail(&mut self, error: Error) {
        self.connection.abort(error.reason());
        self.report_closed(error.reason(), Some(error));
        self.drive();
    }

    /// Reports the end of all streams and of the connection.
    fn report_closed(&mut self, reason: Reason, error: Option<Error>) {
        for (stream, _) in std::mem::take(&mut self.streams) {
            self.events.push_back(Event::Reset { stream, reason });
        }
        self.blocked.clear();
        self.heads = 0;
        self.events.push_back(Event::GoAway { error });
    }
}
