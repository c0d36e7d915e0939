//! [`Session`]: the TLS state of one connection.

use std::{
    fmt,
    io::{self, BufRead as _, IoSlice, Write},
};

use rustls::{CertificateError, Error, ServerConnection};

use crate::{config::TlsConfig, error::TlsError, facts::SessionFacts};

/// The most bytes of encrypted records that wait to be taken. Plaintext beyond it is not accepted.
const MAX_PENDING: usize = 64 * 1024;

/// The server's side of a TLS connection, without a socket.
///
/// [`feed`](Self::feed) takes what the peer has sent, [`plaintext`](Self::plaintext) returns what was in it. [`encrypt`](Self::encrypt)
/// takes plaintext, [`write_records`](Self::write_records) returns what must be sent, which includes handshake messages and alerts.
pub struct Session {
    connection: ServerConnection,
    has_plaintext: bool,
    peer_has_closed: bool,
}

/// Why a session has ended. An alert for the peer is among the records.
#[derive(Debug)]
pub struct SessionError(Error);

impl Session {
    /// Creates the session of a new connection.
    pub fn new(config: &TlsConfig) -> Result<Self, TlsError> {
        let mut connection =
            ServerConnection::new(config.current()).map_err(|error| TlsError(error.to_string()))?;
        connection.set_buffer_limit(Some(MAX_PENDING));
        Ok(Self { connection, has_plaintext: false, peer_has_closed: false })
    }

    /// Processes records until there is plaintext or `bytes` is empty, and removes what it has processed. After `close_notify` the rest
    /// is discarded.
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<(), SessionError> {
        while !bytes.is_empty() && !self.has_plaintext && !self.peer_has_closed {
            // Reading from a slice does not fail. The buffers have space, because there is no unread plaintext.
            self.connection
                .read_tls(bytes)
                .map_err(|error| SessionError(Error::General(error.to_string())))?;
            let state = self.connection.process_new_packets().map_err(SessionError)?;
            self.has_plaintext = state.plaintext_bytes_to_read() > 0;
            self.peer_has_closed = state.peer_has_closed();
        }
        if self.peer_has_closed {
            *bytes = &[];
        }
        Ok(())
    }

    /// Decrypted bytes. Empty if more records are needed.
    pub fn plaintext(&mut self) -> &[u8] {
        if !self.has_plaintext {
            return &[];
        }
        self.connection.reader().into_first_chunk().unwrap_or_default()
    }

    /// Removes the first `count` bytes of [`plaintext`](Self::plaintext).
    pub fn consume(&mut self, count: usize) {
        let mut reader = self.connection.reader();
        reader.consume(count);
        self.has_plaintext = reader.into_first_chunk().is_ok_and(|rest| !rest.is_empty());
    }

    /// Whether the handshake is incomplete.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer has sent `close_notify`: it sends no more.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// What was negotiated. Call it after the handshake.
    pub fn facts(&self) -> SessionFacts {
        SessionFacts::of(&self.connection)
    }

    /// Encrypts bytes, at most 64 KiB together with those that wait to be taken. Returns how many were accepted.
    pub fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> usize {
        // Writing to memory does not fail.
        self.connection.writer().write_vectored(slices).unwrap_or(0)
    }

    /// Announces the end of the data (`close_notify`).
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether there are records to send.
    pub fn has_records(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes records to `to`, in one call. Returns the number of bytes written.
    pub fn write_records(&mut self, to: &mut dyn Write) -> io::Result<usize> {
        self.connection.write_tls(to)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Session")
    }
}

impl SessionError {
    /// Whether the client's certificate, or its absence, is the reason.
    pub fn concerns_client_certificate(&self) -> bool {
        matches!(self.0, Error::NoCertificatesPresented | Error::InvalidCertificate(_))
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        formatter.write_str(&text)?;
        let is_ca = matches!(&self.0, Error::InvalidCertificate(CertificateError::Other(_)))
            && text.contains("CaUsedAsEndEntity");
        if is_ca {
            formatter
                .write_str("; the client presented a CA certificate: issue a leaf certificate for it")?;
        }
        Ok(())
    }
}

impl std::error::Error for SessionError {}

#[cfg(test)]
mod tests;
