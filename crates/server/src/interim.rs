//! Interim responses that the application sends before its response, such as `103 Early Hints` (RFC 8297).
//!
//! They are sent immediately, ahead of everything that may wait to be sent together. They are optional, so a client that
//! does not read gets none, and neither threads nor memory are held for it.

use std::io;

use crate::connection::socket::ClientSocket;

/// Sends an interim response in the format of HTTP/1. Does nothing if the response has begun or the socket is full. In
/// the rare case that the socket accepts only a part, `wait` is called to run a function that blocks.
pub(crate) fn send(
    socket: &ClientSocket,
    status: u16,
    bytes: &[u8],
    wait: impl FnOnce(&mut (dyn FnMut() + Send)),
) {
    if socket.has_begun_response() || !socket.is_writable() {
        return;
    }
    let sent = match socket.send_early(status, bytes) {
        Ok(sent) => sent,
        // TLS has encrypted the bytes, so they must be sent.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(_) => return, // the client is gone, as sending the response will show
    };
    if sent < bytes.len() {
        wait(&mut || {
            if send_rest(socket, status, &bytes[sent..]).is_err() {
                socket.reset();
            }
        });
    }
}

/// Sends the rest of a partly sent interim response. If that fails, nothing else can be sent to the client.
fn send_rest(socket: &ClientSocket, status: u16, mut rest: &[u8]) -> io::Result<()> {
    // The watchdog must not send its response in the middle.
    socket.claim_response()?;
    while !rest.is_empty() {
        match socket.send_early(status, rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.wait_writable()?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
