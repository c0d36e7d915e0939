//! The access log line of a response, and the warning about one of the wrong length.

use std::time::{Instant, SystemTime};

use super::Connection;
use crate::{App, Record};

/// Who writes the access log.
#[derive(Clone, Copy)]
pub(super) enum Logs<'a> {
    /// The thread of the request.
    Here(&'a dyn App),
    /// Any other thread.
    Later,
}

impl Connection {
    /// Logs a body that is longer or shorter than its Content-Length.
    pub(super) fn warn_length_mismatch(&self) {
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

    /// Logs the response, once. `sent` is the number of body bytes.
    pub(super) fn write_access_log(&mut self, sent: u64, now: Instant, logs: Logs<'_>) {
        if !std::mem::take(&mut self.log_pending) {
            return;
        }
        let record = Record {
            request: &self.request,
            status: if self.socket().was_aborted() { 504 } else { self.output.status },
            head: &self.output.head,
            sent,
            took: now.saturating_duration_since(self.request.began),
            at: SystemTime::now(),
        };
        match logs {
            Logs::Here(app) => app.log(&record),
            Logs::Later => self.app.log_later(&record),
        }
        self.request.log_context = None; // dropped here because its destructor belongs to the app
    }
}

impl Drop for Connection {
    /// Logs a response of which the server sends no more, for example because the process exits.
    fn drop(&mut self) {
        self.write_access_log(self.output.body_sent(), Instant::now(), Logs::Later);
    }
}
