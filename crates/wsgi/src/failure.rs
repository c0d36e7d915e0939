//! Log records and responses for failures of the application.
//!
//! Each failure is one log record with its traceback. The client receives a 500 without details, or an aborted response.

use std::fmt;

use mlws_server::{Aborted, Body, Bytes, Failure, Failures, Request, Response, Stream, Writer};
use pyo3::{exceptions::PyOSError, prelude::*};

use crate::forwarding::ForwardingError;

/// Names a request in log records, by its method and target as sent.
pub(crate) struct RequestLabel {
    text: String,
    upload: Option<Failures>,
}

impl RequestLabel {
    pub(crate) fn of(request: &Request) -> Self {
        Self { text: [request.method(), request.target()].join(" "), upload: request.upload_failures() }
    }

    /// Why receiving the request body failed, if this exception reports that.
    fn upload_failure(&self, py: Python<'_>, error: &PyErr) -> Option<Failure> {
        let failure = self.upload.as_ref()?.get()?;
        error.is_instance_of::<PyOSError>(py).then_some(failure)
    }

    fn log_rejection(&self, failure: &Failure) {
        if let Some(failures) = &self.upload {
            failures.log_rejection(failure);
        }
    }

    /// Whether the client caused the exception. Then it is logged at debug level, not as a failure of the application.
    pub(crate) fn blames_client(&self, py: Python<'_>, error: &PyErr) -> bool {
        let failure = self.upload_failure(py, error);
        if let Some(failure) = &failure {
            log::debug!("{self}: response aborted: {failure}");
        }
        failure.is_some()
    }
}

impl fmt::Display for RequestLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The log target of records with a traceback.
pub(crate) const EXCEPTION_TARGET: &str = "exception";

// The messages.
const FAILED: &str = "the application failed";
pub(crate) const FAILED_AFTER_HEADERS: &str = "the application failed after the headers were sent";
pub(crate) const FAILED_AFTER_BODY: &str = "the application failed after the last byte of the body";
pub(crate) const CLOSE_FAILED: &str = "close() of the response failed";
const START_RESPONSE_MISSING: &str = "the application did not call start_response";
const CLIENT_DISCONNECTED: &str = "client disconnected";

/// Logs an exception. `what` is one of the messages above.
pub(crate) fn report(py: Python<'_>, label: &dyn fmt::Display, what: &str, error: &PyErr) {
    let traceback = crate::python::traceback(py, error);
    log::error!(target: EXCEPTION_TARGET, "{label}: {what}\n{}", traceback.trim_end());
}

/// The application failed before the headers were sent: 500. If the exception reports that receiving the request body failed, the status
/// of that failure.
pub(crate) fn failed_before_headers(py: Python<'_>, label: &RequestLabel, error: &PyErr) -> Response {
    if let Some(failure) = label.upload_failure(py, error) {
        let status = failure.status;
        label.log_rejection(&failure);
        return Response::plain(status, format!("{status} {}: {failure}\n", mlws_http1::reason(status)));
    }
    report(py, label, FAILED, error);
    internal_server_error()
}

/// Rejects a request with invalid forwarding fields. The connection is closed, because what follows on it may be forged too.
pub(crate) fn reject(
    request: &mut Request,
    ForwardingError { status, message }: ForwardingError,
) -> Response {
    if status < 500 {
        request.log_rejection(status, message);
    } else {
        // An error of the configuration.
        log::error!("{}: rejected with {status}: {message}", RequestLabel::of(request));
    }
    request.disable_keep_alive();
    Response::plain(status, format!("{status} {}: {message}\n", mlws_http1::reason(status)))
}

/// The application returned without a call of `start_response`: 500.
pub(crate) fn start_response_missing(label: &RequestLabel) -> Response {
    log::error!("{label}: {START_RESPONSE_MISSING}");
    internal_server_error()
}

/// The application failed after the headers were sent: the response is aborted in such a way that the client notices.
pub(crate) fn failed_after_headers(
    py: Python<'_>,
    label: &RequestLabel,
    error: &PyErr,
    writer: Writer,
) -> Response {
    if !label.blames_client(py, error) {
        report(py, label, FAILED_AFTER_HEADERS, error);
    }
    abort(writer)
}

/// The client disconnected during a `write`. An `OSError` of the application is a consequence of that, any other exception is a failure.
pub(crate) fn client_disconnected(
    py: Python<'_>,
    label: &RequestLabel,
    error: Option<&PyErr>,
    writer: Option<Writer>,
) -> Response {
    match error {
        Some(error) if !error.is_instance_of::<PyOSError>(py) => {
            report(py, label, FAILED, error);
        }
        _ => log::debug!("{label}: {CLIENT_DISCONNECTED}"),
    }
    writer.map_or_else(internal_server_error, abort)
}

fn internal_server_error() -> Response {
    Response::plain(500, "Internal Server Error\n")
}

fn abort(writer: Writer) -> Response {
    Response::rest(writer, Body::Stream { stream: Box::new(AbortedBody), length: None })
}

/// A body that is never complete.
struct AbortedBody;

impl Stream for AbortedBody {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        Err(Aborted)
    }
}
