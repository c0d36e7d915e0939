//! What the log and the client hear when an application fails.
//!
//! The one thing to know: a failure is one record of the log, traceback included, and the client learns nothing of it but that it is.

use std::fmt;

use mlws_server::{Aborted, Body, Bytes, Failure, Failures, Request, Response, Stream, Writer};
use pyo3::{exceptions::PyOSError, prelude::*};

use crate::forwarding::ForwardingError;

/// The request that a record of the log is about: its method and its target, as sent.
pub(crate) struct RequestLabel {
    text: String,
    upload: Option<Failures>,
}

impl RequestLabel {
    pub(crate) fn of(request: &Request) -> Self {
        Self { text: [request.method(), request.target()].join(" "), upload: request.upload_failures() }
    }

    /// Why the request's body could not be received, where that is what this exception tells.
    fn upload_failure(&self, py: Python<'_>, error: &PyErr) -> Option<Failure> {
        let failure = self.upload.as_ref()?.get()?;
        error.is_instance_of::<PyOSError>(py).then_some(failure)
    }

    /// Whether the exception is the client's fault: then it is no failure of the application, and logged as what it is.
    pub(crate) fn blames_client(&self, py: Python<'_>, error: &PyErr) -> bool {
        let failure = self.upload_failure(py, error);
        if let Some(failure) = &failure {
            log::debug!("{self}: the response is cut: {failure}");
        }
        failure.is_some()
    }
}

impl fmt::Display for RequestLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The target of log records about exceptions.
pub(crate) const EXCEPTION_TARGET: &str = "exception";

/// Logs an exception, with `what` it put an end to.
pub(crate) fn report(py: Python<'_>, label: &dyn fmt::Display, what: &str, error: &PyErr) {
    let traceback = crate::python::traceback(py, error);
    log::error!(target: EXCEPTION_TARGET, "{label}: {what}\n{}", quoted(&traceback));
}

/// Text that a client may have had a hand in: indented, and its control characters escaped, so that none of it passes for a
/// record of its own.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + text.len() / 8);
    for line in text.trim_end().split('\n') {
        if !quoted.is_empty() {
            quoted.push('\n');
        }
        quoted.push_str("  ");
        for character in line.chars() {
            match character {
                '\t' => quoted.push('\t'),
                control if control.is_control() => quoted.extend(control.escape_default()),
                other => quoted.push(other),
            }
        }
    }
    quoted
}

/// The application failed, and nothing is sent: 500. Or, if it let the exception out that told it of the client's fault in sending the
/// body, the status of that.
pub(crate) fn failed_before_headers(py: Python<'_>, label: &RequestLabel, error: &PyErr) -> Response {
    if let Some(failure) = label.upload_failure(py, error) {
        let status = failure.status;
        log::debug!("{label}: refused with {status}: {failure}");
        return Response::plain(status, format!("{status} {}: {failure}\n", mlws_http1::reason(status)));
    }
    report(py, label, "the application failed", error);
    internal_server_error()
}

/// The request says something that may not be said; then what else is on its connection is not to be trusted either.
pub(crate) fn refuse(
    request: &mut Request,
    ForwardingError { status, message }: ForwardingError,
) -> Response {
    // What a client can do wrong is no news, what an operator can is.
    let level = if status < 500 { log::Level::Debug } else { log::Level::Error };
    log::log!(level, "{}: refused with {status}: {message}", RequestLabel::of(request));
    request.disable_keep_alive();
    Response::plain(status, format!("{status} {}: {message}\n", mlws_http1::reason(status)))
}

/// The application returned, but never said with what status: 500.
pub(crate) fn start_response_missing(label: &RequestLabel) -> Response {
    log::error!("{label}: the application did not call start_response");
    internal_server_error()
}

/// The application failed, and the head is sent: the body is cut so that the client can tell.
pub(crate) fn failed_after_headers(
    py: Python<'_>,
    label: &RequestLabel,
    error: &PyErr,
    writer: Writer,
) -> Response {
    if !label.blames_client(py, error) {
        report(py, label, "the application failed after the response had begun", error);
    }
    cut(writer)
}

/// The client left while `write` sent to it. What the application makes of that is no failure of its own, unless it is something else.
pub(crate) fn client_disconnected(
    py: Python<'_>,
    label: &RequestLabel,
    error: Option<&PyErr>,
    writer: Option<Writer>,
) -> Response {
    match error {
        Some(error) if !error.is_instance_of::<PyOSError>(py) => {
            report(py, label, "the application failed", error);
        }
        _ => log::debug!("{label}: the client left"),
    }
    writer.map_or_else(internal_server_error, cut)
}

fn internal_server_error() -> Response {
    Response::plain(500, "Internal Server Error\n")
}

fn cut(writer: Writer) -> Response {
    Response::rest(writer, Body::Stream { stream: Box::new(AbortedBody), length: None })
}

/// A body that ends before its end.
struct AbortedBody;

impl Stream for AbortedBody {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        Err(Aborted)
    }
}
