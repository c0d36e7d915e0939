//! Who answers a request: the app's side or the watchdog, never both.
//!
//! ```text
//! NotStarted ──claim()──▶ Started ──finish()──▶ Finished
//!      ▲                     │                      │
//!      └───────reset()───────┴──────────────────────┘
//! any state ──abort()──▶ Aborted
//! ```
//!
//! Invariant: the thread that moves the state away from `NotStarted` sends the response. Both [`ResponseClaim::claim`] and
//! [`ResponseClaim::abort`] do that in one atomic operation, so exactly one of them sees `NotStarted`. `Aborted` is final: later claims
//! fail, and [`ResponseClaim::finish`] and [`ResponseClaim::reset`] have no effect. Acquire and release ordering makes everything that
//! the previous owner did with the socket visible to the next one.

use std::sync::atomic::{AtomicU8, Ordering};

/// How far the current response of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ResponseState {
    /// Nothing has been sent.
    NotStarted,
    Started,
    /// All of it has been sent.
    Finished,
    /// The watchdog has ended the connection.
    Aborted,
}

/// The watchdog has ended the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WasAborted;

/// The right to answer the current request of a connection.
#[derive(Debug)]
pub(crate) struct ResponseClaim(AtomicU8);

impl ResponseClaim {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(ResponseState::NotStarted as u8))
    }

    /// Claims the response for the app's side, or confirms the claim. Returns true the first time.
    pub(crate) fn claim(&self) -> Result<bool, WasAborted> {
        // Only the app's side leaves `Started`, so this cannot be outdated except by an abort, which then finds `Started`.
        if self.0.load(Ordering::Relaxed) == ResponseState::Started as u8 {
            return Ok(false);
        }
        if self.transition(ResponseState::NotStarted, ResponseState::Started) {
            Ok(true)
        } else {
            Err(WasAborted)
        }
    }

    /// Takes the response away from the app's side. Returns how far it was.
    pub(crate) fn abort(&self) -> ResponseState {
        match self.0.swap(ResponseState::Aborted as u8, Ordering::AcqRel) {
            0 => ResponseState::NotStarted,
            1 => ResponseState::Started,
            2 => ResponseState::Finished,
            _ => ResponseState::Aborted,
        }
    }

    /// The response has been sent.
    pub(crate) fn finish(&self) {
        self.transition(ResponseState::Started, ResponseState::Finished);
    }

    /// The next request of the connection may be answered.
    pub(crate) fn reset(&self) {
        if !self.transition(ResponseState::Started, ResponseState::NotStarted) {
            self.transition(ResponseState::Finished, ResponseState::NotStarted);
        }
    }

    /// Whether neither side has claimed the response.
    pub(crate) fn is_free(&self) -> bool {
        self.0.load(Ordering::Acquire) == ResponseState::NotStarted as u8
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.0.load(Ordering::Acquire) == ResponseState::Aborted as u8
    }

    fn transition(&self, from: ResponseState, to: ResponseState) -> bool {
        self.0.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_claims_the_response_and_an_abort_is_final() {
        let claim = ResponseClaim::new();
        assert!(claim.is_free());
        assert_eq!((claim.claim(), claim.claim()), (Ok(true), Ok(false)));
        assert!(!claim.is_free());
        claim.finish();
        claim.reset();
        assert_eq!(claim.claim(), Ok(true));
        assert_eq!(claim.abort(), ResponseState::Started);
        assert_eq!(claim.abort(), ResponseState::Aborted);
        claim.finish();
        claim.reset();
        assert!(claim.is_aborted() && claim.claim() == Err(WasAborted));
        assert_eq!(ResponseClaim::new().abort(), ResponseState::NotStarted);
    }
}
