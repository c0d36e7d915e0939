//! What an app answers: a head and a body.

use std::time::{Duration, SystemTime};

use mlws_http1::{RequestInfo, ResponseError, ResponseHead};

use crate::{
    Body, Bytes, Request, Writer, connection::response_writer::ResponseWriter, context::ServerContext,
};

/// An answer to one request.
pub struct Response {
    pub(crate) head: Start,
    pub(crate) body: Body,
    pub(crate) on_complete: Option<Box<dyn Send>>,
}

/// Whether the head is still to be sent, or a [`Writer`] has sent it.
pub(crate) enum Start {
    Head(ResponseHead),
    Sent(Writer),
}

impl Response {
    /// A response with this head and body.
    pub fn new(head: ResponseHead, body: Body) -> Self {
        Self { head: Start::Head(head), body, on_complete: None }
    }

    /// The rest of a response that a [`Writer`] has begun.
    pub fn rest(writer: Writer, body: Body) -> Self {
        Self { head: Start::Sent(writer), body, on_complete: None }
    }

    /// `200 OK` with a text body.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::plain(200, body)
    }

    /// A status with its usual phrase and a text body. A status outside 200..=599 becomes 500.
    pub fn plain(status: u16, body: impl Into<Bytes>) -> Self {
        let head = ResponseHead::new(status, mlws_http1::reason(status).as_bytes()).and_then(|mut head| {
            head.field(b"Content-Type", b"text/plain; charset=utf-8")?;
            Ok(head)
        });
        match head {
            Ok(head) => Self::new(head, Body::Bytes(body.into())),
            Err(_) => Self::plain(500, "the app answered with an impossible status\n"),
        }
    }

    /// Adds a field. Errors where the name is no token or the value holds control characters (RFC 9110, section 5).
    pub fn field(mut self, name: &str, value: &str) -> Result<Self, ResponseError> {
        if let Start::Head(head) = &mut self.head {
            head.field(name.as_bytes(), value.as_bytes())?;
        }
        Ok(self)
    }

    /// Drops `guard` when the response is on its way or its client is lost: exactly once, in the thread of the call, and without
    /// any lock of the server. The place for an application's own clean-up. A second guard follows the first.
    #[must_use]
    pub fn on_complete(mut self, guard: Box<dyn Send>) -> Self {
        self.on_complete = Some(match self.on_complete.take() {
            Some(first) => Box::new((first, guard)),
            None => guard,
        });
        self
    }

    /// The bytes of a response without a stream or file, as they are sent.
    pub(crate) fn encode(self, info: RequestInfo, context: &ServerContext) -> Vec<u8> {
        let mut writer = ResponseWriter::default();
        if let Start::Head(head) = self.head {
            writer.begin(head, info, self.body.length(), context);
            writer.push_body(self.body);
        }
        writer.into_bytes()
    }

    /// Its status line and fields, as far as they are the app's; nothing if a [`Writer`] has sent them.
    pub fn head(&self) -> Option<&[u8]> {
        match &self.head {
            Start::Head(head) => Some(head.bytes()),
            Start::Sent(_) => None,
        }
    }
}

/// A finished exchange, for the access log.
pub struct Record<'a> {
    /// What was asked.
    pub request: &'a Request,
    /// The status sent.
    pub status: u16,
    /// The head of the response as it was framed, where [`App::wants_head`](crate::App::wants_head); else nothing.
    pub head: &'a [u8],
    /// Body bytes sent, framing not counted.
    pub sent: u64,
    /// From the first byte of the request to the last of the response.
    pub took: Duration,
    /// When it ended, by the wall clock.
    pub at: SystemTime,
}
