//! The TLS handshake of a connection, and clients that use TLS where it is not expected, or do not where it is.

use std::{sync::Arc, time::Instant};

use mlws_http2::PREFACE;

use super::{
    Connection, Http2Choice, Next, Phase, Readiness, read::HttpError, tls_transport::Handshake,
    transport::log_tls_error,
};

/// The beginning of a TLS connection: a handshake record, whose major version is 3 (RFC 8446, section 5.1).
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];
/// A fatal alert `protocol_version` (RFC 8446, section 6.2), in a record of TLS 1.0, which every client understands.
const PROTOCOL_VERSION_ALERT: [u8; 7] = [0x15, 3, 1, 0, 2, 2, 70];

impl Connection {
    /// Advances the TLS handshake. Returns what to wait for, or `None` if it is over.
    pub(super) fn shake_hands(&mut self, now: Instant) -> Option<Next> {
        match self.socket().handshake() {
            Ok(Handshake::Complete) => self.phase = Phase::Head,
            Ok(Handshake::InProgress) => {
                self.readiness = Readiness { readable: false, writable: false, ..self.readiness };
                return Some(Next::Wait);
            }
            Ok(Handshake::Ended) => return Some(Next::Close),
            Ok(Handshake::NotTls(bytes)) => {
                let Some(socket) = Arc::get_mut(&mut self.request.socket) else { return Some(Next::Close) };
                socket.abandon_tls();
                self.request.body.bytes = bytes;
                self.enter_head(now);
            }
            Err(error) => {
                log_tls_error(&error, &self.socket().peer);
                return Some(Next::Close);
            }
        }
        self.readiness.readable = true; // more may have been received than the handshake
        None
    }

    /// Whether the client has chosen HTTP/2: in the TLS handshake, or on a port without TLS with the beginning of the connection
    /// ("prior knowledge", RFC 9113, section 3.3).
    pub(super) fn is_http2(&self) -> bool {
        if self.http2_choice == Http2Choice::Over || !matches!(self.phase, Phase::Head) {
            return false;
        }
        match self.socket().tls() {
            Some(tls) => tls.is_http2(),
            None => self.may_become_http2() && self.request.body.bytes.starts_with(PREFACE),
        }
    }

    /// Whether what has been received may be the beginning of the preface of HTTP/2, and the client may use it.
    pub(super) fn may_become_http2(&self) -> bool {
        let bytes = &self.request.body.bytes;
        let settings = &self.context().settings;
        self.http2_choice != Http2Choice::Over
            && !bytes.is_empty()
            && bytes[..bytes.len().min(PREFACE.len())] == PREFACE[..bytes.len().min(PREFACE.len())]
            && self.socket().tls().is_none()
            && !self.socket().is_plain_on_tls_port
            && (self.http2_choice == Http2Choice::PossibleForProxy || self.socket().peer.is_trusted)
            && settings.http2.as_ref().is_some_and(|http2| http2.cleartext)
    }

    /// Whether a client without TLS on this socket has sent a TLS handshake.
    pub(super) fn is_unexpected_tls(&self) -> bool {
        matches!(self.phase, Phase::Head)
            && self.socket().tls().is_none()
            && self.request.body.bytes[self.parsed..].starts_with(&TLS_HANDSHAKE)
    }

    /// Ends a connection whose client expects TLS, with an alert that it understands.
    pub(super) fn answer_tls(&mut self, now: Instant) -> Next {
        let socket = self.socket();
        if socket.context.tls_warning.is_due(now) {
            let peer = socket.peer.name();
            log::warn!("{peer} sent a TLS handshake to a port without TLS; is certfile missing?");
        }
        let _ = socket.transport().send(&PROTOCOL_VERSION_ALERT, false); // the client is disconnected in any case
        self.start_lingering(now)
    }

    /// The error for a client that sends plain HTTP to a port with TLS, with the URL that it should use.
    pub(super) fn plain_http_error(&self) -> HttpError {
        let host = self.request.host().map(String::from_utf8_lossy).unwrap_or_default();
        let path = String::from_utf8_lossy(self.request.path());
        HttpError { status: 400, message: format!("this port requires HTTPS: use https://{host}{path}") }
    }
}
