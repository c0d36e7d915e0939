//! A complete small response.

use std::io::IoSlice;

/// A response of the server in the format of HTTP/1.
#[derive(Debug)]
pub(crate) struct EncodedResponse {
    pub(crate) status: u16,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl EncodedResponse {
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.head), IoSlice::new(&self.body)]
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}
