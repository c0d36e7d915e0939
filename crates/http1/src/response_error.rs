//! Why a response of the application cannot be sent.

use std::fmt;

/// Why a status or field of the application is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The status is not a final one: 200 to 999.
    Status(u16),
    /// The reason phrase contains a control character.
    Reason,
    /// The field name is not a token. Holds the escaped name.
    FieldName(String),
    /// The field value contains a control character. Holds the field name.
    FieldValue(String),
    /// The Content-Length is not a decimal number below 2^64. Holds the escaped value.
    ContentLength(String),
    /// Two different Content-Lengths.
    ContentLengths(u64, u64),
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseError::Status(status) => write!(f, "invalid status {status}: expected 200 to 999"),
            ResponseError::Reason => write!(f, "invalid reason phrase: control character"),
            ResponseError::FieldName(name) => write!(f, "invalid header name '{name}': expected a token"),
            ResponseError::FieldValue(name) => {
                write!(f, "invalid value of header '{name}': control character")
            }
            ResponseError::ContentLength(value) => {
                write!(f, "invalid Content-Length '{value}': expected a decimal number")
            }
            ResponseError::ContentLengths(first, second) => {
                write!(f, "conflicting Content-Lengths: {first} and {second}")
            }
        }
    }
}

impl std::error::Error for ResponseError {}
