//! Encoder for the heads of interim responses (RFC 9110, section 15.2).

use crate::{response_error::ResponseError, response_head::ResponseHead};

/// The head of an interim response of the application, which has no body.
#[derive(Debug)]
pub struct InterimHead(ResponseHead);

impl InterimHead {
    /// `103 Early Hints` (RFC 8297), still without fields.
    pub fn early_hints() -> Self {
        InterimHead(ResponseHead::start(Vec::with_capacity(256), 103, b"Early Hints"))
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// Adds a field. As in a response, fields that concern the connection are ignored. So is Content-Length, because
    /// there is no body.
    ///
    /// # Errors
    ///
    /// The name or value is invalid. The head is unchanged then.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        self.0.field(name, value)
    }

    /// Completes the head.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_and_those_of_the_connection_are_ignored() {
        let mut head = InterimHead::early_hints();
        assert_eq!(head.status(), 103);
        for (name, value) in [
            (&b"Link"[..], &b"</style.css>; rel=preload"[..]),
            (b"Connection", b"close"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Content-Length", b"5"),
            (b"link", b"</app.js>; rel=preload"),
        ] {
            assert_eq!(head.field(name, value), Ok(()));
        }
        assert_eq!(head.field(b"a b", b""), Err(ResponseError::FieldName("a b".into())));
        assert_eq!(head.field(b"a", b"b\r\n\r\nHTTP/1.1 200 OK"), Err(ResponseError::FieldValue("a".into())));
        let expected = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\
            link: </app.js>; rel=preload\r\n\r\n";
        assert_eq!(head.finish(), expected);
    }
}
