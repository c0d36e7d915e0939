//! A response that the app pushes rather than lets be pulled (WSGI's `write()`).

use std::{io, sync::Arc};

use mlws_http1::{Asked, ResponseHead};

use crate::{Bytes, output::Output, wire::Wire};

/// A response under way: its head is sent, pieces are sent as they come, blocking where the client is slow.
pub struct Writer {
    wire: Arc<Wire>,
    pub(crate) output: Output,
}

impl Writer {
    /// An error leaves the connection ended: a part of the head may have been sent.
    pub(crate) fn start(wire: Arc<Wire>, head: ResponseHead, asked: Asked) -> io::Result<Self> {
        let mut output = Output::default();
        output.begin(head, asked, None, &wire.house);
        output.write_blocking(&wire).inspect_err(|_| wire.hang_up())?;
        Ok(Self { wire, output })
    }

    /// Sends a piece; `TimedOut` past the write timeout. Bytes beyond the Content-Length are not sent.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.output.frame(Bytes::Owned(piece.to_vec()));
        self.output.write_blocking(&self.wire)
    }
}
