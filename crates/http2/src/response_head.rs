//! A response head, checked as fields are added.

use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use mlws_http1::ResponseError;

/// The status and the fields of a response, final or interim.
///
/// The caller is responsible for the fields that describe the body: a Content-Length must match it, and a response to
/// HEAD, or with status 204 or 304, must have none.
#[derive(Debug)]
pub struct ResponseHead {
    response: Response<()>,
}

impl ResponseHead {
    /// Starts the head of a final response. `status` is 200 to 999.
    ///
    /// # Errors
    ///
    /// [`ResponseError::Status`].
    pub fn new(status: u16) -> Result<Self, ResponseError> {
        let is_final = (200..=999).contains(&status);
        Self::with_status(status).filter(|_| is_final).ok_or(ResponseError::Status(status))
    }

    /// Starts the head of an interim response. `status` is 100 to 199 except 101, which HTTP/2 does not have.
    ///
    /// # Errors
    ///
    /// [`ResponseError::Status`].
    pub fn interim(status: u16) -> Result<Self, ResponseError> {
        let is_interim = (100..=199).contains(&status) && status != 101;
        Self::with_status(status).filter(|_| is_interim).ok_or(ResponseError::Status(status))
    }

    fn with_status(status: u16) -> Option<Self> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).ok()?;
        Some(ResponseHead { response })
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn is_interim(&self) -> bool {
        self.response.status().is_informational()
    }

    pub(crate) fn into_response(self) -> Response<()> {
        self.response
    }

    /// Adds a field. The name is converted to lowercase, and white space around the value is removed. Fields that
    /// concern an HTTP/1 connection (RFC 9113, section 8.2.2) are ignored.
    ///
    /// # Errors
    ///
    /// The name or value is invalid, or there are more than 24,000 fields. The head is unchanged then.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        let escaped = || name.escape_ascii().to_string();
        let header = HeaderName::from_bytes(name).map_err(|_| ResponseError::FieldName(escaped()))?;
        let value = value.trim_ascii();
        let value = HeaderValue::from_bytes(value).map_err(|_| ResponseError::FieldValue(escaped()))?;
        if is_connection_specific(header.as_str()) {
            return Ok(());
        }
        let added = self.response.headers_mut().try_append(header, value);
        added.map(drop).map_err(|_| ResponseError::FieldName(escaped()))
    }
}

fn is_connection_specific(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_and_interim_statuses_are_distinct() {
        let accepted = |new: fn(u16) -> Result<ResponseHead, ResponseError>| {
            (0..1100).filter(|&status| new(status).is_ok()).collect::<Vec<_>>()
        };
        assert_eq!(accepted(ResponseHead::new), (200..1000).collect::<Vec<_>>());
        assert_eq!(
            accepted(ResponseHead::interim),
            (100..200).filter(|&status| status != 101).collect::<Vec<_>>()
        );
    }

    #[test]
    fn fields_are_checked_and_normalized() {
        let mut head = ResponseHead::new(200).expect("a valid status");
        assert_eq!(head.field(b"X-Y", b" a\xe9\t"), Ok(()));
        assert_eq!(head.field(b"Connection", b"close"), Ok(()));
        assert_eq!(head.field(b":status", b"500"), Err(ResponseError::FieldName(":status".into())));
        assert_eq!(head.field(b"a b", b""), Err(ResponseError::FieldName("a b".into())));
        assert_eq!(head.field(b"a", b"b\r\nc: d"), Err(ResponseError::FieldValue("a".into())));
        let headers = head.into_response().into_parts().0.headers;
        let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("x-y", &b"a\xe9"[..])]);
    }
}
