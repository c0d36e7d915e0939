//! The response of an app: a head and a body.

use std::time::{Duration, SystemTime};

use mlws_http1::{RequestInfo, ResponseError, ResponseHead};

use crate::{
    Body, Bytes, Request, Writer,
    connection::{encoded_response::EncodedResponse, response_writer::ResponseWriter},
    context::ServerContext,
};

/// A response to one request.
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

    /// The rest of a response that a [`Writer`] has started.
    pub fn rest(writer: Writer, body: Body) -> Self {
        Self { head: Start::Sent(writer), body, on_complete: None }
    }

    /// `200 OK` with a text body.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::plain(200, body)
    }

    /// A status with its standard reason phrase, and a text body. A status outside 200..=999 becomes 500.
    pub fn plain(status: u16, body: impl Into<Bytes>) -> Self {
        let head = ResponseHead::new(status, mlws_http1::reason(status).as_bytes()).and_then(|mut head| {
            head.field(b"Content-Type", b"text/plain; charset=utf-8")?;
            Ok(head)
        });
        match head {
            Ok(head) => Self::new(head, Body::Bytes(body.into())),
            Err(_) => Self::plain(500, "the app returned an invalid status\n"),
        }
    }

    /// Adds a field.
    ///
    /// # Errors
    ///
    /// If the name is not a token, or the value contains control characters (RFC 9110, section 5).
    pub fn field(mut self, name: &str, value: &str) -> Result<Self, ResponseError> {
        if let Start::Head(head) = &mut self.head {
            head.field(name.as_bytes(), value.as_bytes())?;
        }
        Ok(self)
    }

    /// Drops `guard` when the response is on its way or its client is gone: exactly once, in the thread of the call,
    /// while the server holds no lock. For the application's cleanup. Several guards are dropped in the order in which
    /// they were added.
    #[must_use]
    pub fn on_complete(mut self, guard: Box<dyn Send>) -> Self {
        self.on_complete = Some(match self.on_complete.take() {
            Some(first) => Box::new((first, guard)),
            None => guard,
        });
        self
    }

    /// The bytes of the response. It must have no stream and no file.
    pub(crate) fn encode(self, info: RequestInfo, context: &ServerContext) -> EncodedResponse {
        let mut writer = ResponseWriter::default();
        if let Start::Head(head) = self.head {
            writer.begin(head, info, self.body.length(), context);
            writer.push_body(self.body);
        }
        writer.into_encoded()
    }

    /// The status line and the fields that the app has set. `None` if a [`Writer`] has sent them.
    pub fn head(&self) -> Option<&[u8]> {
        match &self.head {
            Start::Head(head) => Some(head.bytes()),
            Start::Sent(_) => None,
        }
    }
}

/// A finished request, for the access log.
pub struct Record<'a> {
    /// The request.
    pub request: &'a Request,
    /// The status of the response.
    pub status: u16,
    /// The head of the response as sent, if [`App::wants_head`](crate::App::wants_head). Empty otherwise.
    pub head: &'a [u8],
    /// Bytes of the body that were sent, without framing.
    pub sent: u64,
    /// The time from the first byte of the request to the end of the response.
    pub took: Duration,
    /// When the response ended, by the wall clock.
    pub at: SystemTime,
}
