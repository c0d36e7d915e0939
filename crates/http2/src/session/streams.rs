//! What `h2` has found on streams, as events.

use std::task::{Context, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request};

use super::{Session, Shutdown};
use crate::event::{Event, StreamId};
use crate::head::{Head, HeadError};
use crate::io_buffers::SentFrame;
use crate::stream::{Received, Stream};

impl Session {
    /// Checks a request and registers its stream.
    pub(super) fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let id = respond.stream_id().as_u32();
        self.forget_unaccepted(id);
        let (parts, body) = request.into_parts();
        let is_end = body.is_end_stream();
        let is_head = parts.method == Method::HEAD;
        let head = Head::new(&parts, is_end, &self.limits);
        let size = head.as_ref().map_or(0, |head| head.decoded_size);
        if self.shutdown == Shutdown::Refusing || self.heads + size > self.limits.heads {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let mut stream = Stream::new(respond, body, size, self.limits.body, is_head);
        let event = match head {
            Err(HeadError::Malformed) => return stream.reset(Reason::PROTOCOL_ERROR),
            Err(HeadError::Rejected(error)) => {
                stream.discard();
                Event::Rejected { stream: id, error, is_answered: false, is_head }
            }
            Ok(head) => Event::Head { stream: id, head: Box::new(head) },
        };
        self.guard.message_frame();
        self.events.push_back(event);
        self.heads += size;
        self.streams.insert(id, stream);
        self.update_stream(id);
    }

    /// Translates what a frame has changed on its stream.
    pub(super) fn update_stream(&mut self, id: StreamId) {
        let mut context = Context::from_waker(Waker::noop());
        let Some(stream) = self.streams.get_mut(&id) else { return };
        loop {
            let event = match stream.receive(&mut context) {
                None => break,
                Some(Received::Data(data)) => Event::Data { stream: id, data },
                Some(Received::End) => Event::End { stream: id },
                Some(Received::TooLarge) => Event::Rejected {
                    stream: id,
                    error: mlws_http1::Error::BodyTooLarge,
                    is_answered: false,
                    is_head: stream.is_head,
                },
                Some(Received::Reset(reason)) => return self.report_reset(id, reason),
            };
            self.events.push_back(event);
        }
        let has_discarded = std::mem::take(&mut stream.has_discarded);
        if let Some(reason) = stream.reset_reason(&mut context) {
            self.report_reset(id, reason);
        }
        if has_discarded {
            self.drive(); // the window must be extended before the next frame, or its effect would depend on how the input is split
        }
    }

    pub(super) fn report_reset(&mut self, stream: StreamId, reason: Reason) {
        self.remove(stream);
        self.events.push_back(Event::Reset { stream, reason });
    }

    pub(super) fn report_writable(&mut self) {
        if self.output_capacity() == 0 {
            return;
        }
        let Self { streams, events, .. } = self;
        self.blocked.retain(|&stream| {
            let is_writable = streams.get(&stream).is_some_and(Stream::has_send_window);
            if is_writable {
                events.push_back(Event::Writable { stream });
            }
            !is_writable
        });
    }

    pub(super) fn remove(&mut self, stream: StreamId) {
        self.blocked.remove(&stream);
        if let Some(stream) = self.streams.remove(&stream) {
            self.heads -= stream.head_size;
        }
    }

    /// Takes the frames into account that `h2` has sent by itself.
    pub(super) fn process_sent(&mut self) {
        let sent = self.transport.buffers().take_sent();
        for frame in sent {
            match frame {
                SentFrame::Headers { stream } => {
                    if self.forget_unaccepted(stream) && self.connection.is_open() {
                        let error = mlws_http1::Error::HeadTooLong;
                        self.events.push_back(Event::Rejected {
                            stream,
                            error,
                            is_answered: true,
                            is_head: false,
                        });
                    }
                }
                SentFrame::Reset { stream, code } => {
                    self.forget_unaccepted(stream);
                    let counted = self.guard.sent_reset(Reason::from(code), self.now);
                    if let Err(error) = counted
                        && self.connection.is_open()
                    {
                        self.fail(error);
                    }
                }
            }
        }
    }

    pub(super) fn forget_unaccepted(&mut self, stream: StreamId) -> bool {
        let position = self.unaccepted.iter().position(|&other| other == stream);
        position.and_then(|position| self.unaccepted.remove(position)).is_some()
    }
}
