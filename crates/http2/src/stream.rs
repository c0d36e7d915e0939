//! One request and its response.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use crate::error::StreamClosed;
use crate::response_head::ResponseHead;

/// The handles of `h2` for a stream. Dropping them before the end of the response cancels the stream.
#[derive(Debug)]
pub(crate) struct Stream {
    sending: Sending,
    receiving: Receiving,
    body: RecvStream,
    /// The size of the request head, as it counts toward [`Limits::heads`](crate::Limits::heads).
    pub(crate) head_size: usize,
    /// Whether the method is HEAD.
    pub(crate) is_head: bool,
    /// Data was discarded, so there may be a window update to write.
    pub(crate) has_discarded: bool,
}

#[derive(Debug)]
enum Sending {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

#[derive(Debug)]
enum Receiving {
    /// Holds how many bytes more the body may have.
    Body {
        allowance: u64,
    },
    /// The request is rejected: data is released when it arrives.
    Discarding,
    Ended,
}

/// The next part of a request.
#[derive(Debug)]
pub(crate) enum Received {
    Data(Bytes),
    End,
    TooLarge,
    Reset(Reason),
}

impl Stream {
    pub(crate) fn new(
        respond: SendResponse<Bytes>,
        body: RecvStream,
        head_size: usize,
        max_body: u64,
        is_head: bool,
    ) -> Self {
        let receiving = Receiving::Body { allowance: max_body };
        let sending = Sending::Head(respond);
        Stream { sending, receiving, body, head_size, is_head, has_discarded: false }
    }

    /// Discards the rest of the request.
    pub(crate) fn discard(&mut self) {
        if !matches!(self.receiving, Receiving::Ended) {
            self.receiving = Receiving::Discarding;
        }
    }

    /// The next part of the request, if it has been received.
    pub(crate) fn receive(&mut self, context: &mut Context<'_>) -> Option<Received> {
        loop {
            if matches!(self.receiving, Receiving::Ended) {
                return None;
            }
            let data = match self.body.poll_data(context) {
                Poll::Pending => return None,
                Poll::Ready(Some(Err(error))) => {
                    return Some(Received::Reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR)));
                }
                Poll::Ready(None) => {
                    let _ = self.body.poll_trailers(context); // frees their memory
                    let ended = std::mem::replace(&mut self.receiving, Receiving::Ended);
                    return matches!(ended, Receiving::Body { .. }).then_some(Received::End);
                }
                Poll::Ready(Some(Ok(data))) => data,
            };
            match &mut self.receiving {
                _ if data.is_empty() => {}
                Receiving::Body { allowance } => match allowance.checked_sub(data.len() as u64) {
                    Some(left) => {
                        *allowance = left;
                        return Some(Received::Data(data));
                    }
                    None => {
                        self.receiving = Receiving::Discarding;
                        self.discard_data(data.len());
                        return Some(Received::TooLarge);
                    }
                },
                Receiving::Discarding | Receiving::Ended => self.discard_data(data.len()),
            }
        }
    }

    fn discard_data(&mut self, bytes: usize) {
        self.release(bytes);
        self.has_discarded = true;
    }

    /// Allows the peer to send as many bytes more.
    pub(crate) fn release(&mut self, bytes: usize) {
        let window = self.body.flow_control();
        let _ = window.release_capacity(bytes.min(window.used_capacity())); // fails if the stream is closed
    }

    /// Whether the stream has been reset, by either side.
    pub(crate) fn reset_reason(&mut self, context: &mut Context<'_>) -> Option<Reason> {
        let poll = match &mut self.sending {
            Sending::Head(respond) => respond.poll_reset(context),
            Sending::Body(send) => send.poll_reset(context),
        };
        match poll {
            Poll::Pending => None,
            Poll::Ready(Ok(reason)) => Some(reason),
            Poll::Ready(Err(error)) => Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
        }
    }

    /// Sends a head. If it ends the response, the stream must be dropped afterwards.
    pub(crate) fn respond(&mut self, head: ResponseHead, end: bool) -> Result<(), StreamClosed> {
        let Sending::Head(respond) = &mut self.sending else { return Err(StreamClosed) };
        if head.is_interim() {
            return respond.send_informational(head.into_response()).map_err(|_| StreamClosed);
        }
        let send = respond.send_response(head.into_response(), end).map_err(|_| StreamClosed)?;
        self.sending = Sending::Body(send);
        Ok(())
    }

    /// Sends data, as much as flow control allows and at most `max`, and returns its size. If all of it was sent and ends the
    /// response, the stream must be dropped afterwards.
    pub(crate) fn send(&mut self, data: &[u8], end: bool, max: usize) -> Result<usize, StreamClosed> {
        let Sending::Body(send) = &mut self.sending else { return Err(StreamClosed) };
        let wanted = data.len().min(max);
        send.reserve_capacity(wanted);
        let accepted = send.capacity().min(wanted);
        let is_all = accepted == data.len();
        if accepted > 0 || is_all && end {
            let part = Bytes::copy_from_slice(&data[..accepted]);
            send.send_data(part, is_all && end).map_err(|_| StreamClosed)?;
        }
        if !is_all {
            send.reserve_capacity(1); // the next window update is then assigned to this stream
        }
        Ok(accepted)
    }

    /// Whether flow control allows to send data.
    pub(crate) fn has_send_window(&self) -> bool {
        match &self.sending {
            Sending::Head(_) => false,
            Sending::Body(send) => send.capacity() > 0,
        }
    }

    /// Resets the stream, which must be dropped afterwards.
    pub(crate) fn reset(&mut self, reason: Reason) {
        match &mut self.sending {
            Sending::Head(respond) => respond.send_reset(reason),
            Sending::Body(send) => send.send_reset(reason),
        }
    }
}
