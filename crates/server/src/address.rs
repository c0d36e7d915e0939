//! [`Address`]: what a server listens on.

use std::{fmt, os::fd::RawFd, path::PathBuf, str::FromStr};

/// The port of an address without one.
const DEFAULT_PORT: u16 = 8000;

/// An address to listen on: `HOST:PORT`, `HOST`, `[IPV6]:PORT`, `unix:PATH` or `fd://N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and a port.
    Tcp {
        /// A host name or IP address. An IPv6 address has no brackets here.
        host: String,
        /// 0 selects a free port.
        port: u16,
    },
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// An inherited descriptor that is already bound.
    Descriptor(RawFd),
}

/// An invalid address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid address '{}': expected HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER", self.0)
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(invalid()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return number.parse().map(Self::Descriptor).map_err(|_| invalid());
        }
        let text = text.strip_prefix("tcp://").unwrap_or(text);
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| invalid())?),
            _ if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) => return Err(invalid()),
            _ => (text, DEFAULT_PORT),
        };
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(host)) => host,
            None if !host.contains([':', ']', '/']) => host,
            _ => return Err(invalid()),
        };
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Descriptor(number) => write!(f, "fd://{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_formatted_alike() {
        for text in ["127.0.0.1:8000", "localhost:0", "[::1]:80", "unix:/run/a b.sock", "fd://3"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(":8000".parse::<Address>().unwrap().to_string(), "0.0.0.0:8000");
        assert_eq!("127.0.0.1".parse::<Address>().unwrap().to_string(), "127.0.0.1:8000");
        assert_eq!("tcp://[::1]".parse::<Address>().unwrap().to_string(), "[::1]:8000");
        assert_eq!("unix:///run/x".parse::<Address>().unwrap(), Address::Unix("/run/x".into()));
    }

    #[test]
    fn an_invalid_address_is_an_error_that_says_what_was_expected() {
        for text in ["", "8000", "host:port", "host:70000", "::1:80", "[::1", "a/b", "unix:", "fd://x"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("HOST:PORT"), "{text}: {error}");
        }
    }
}
