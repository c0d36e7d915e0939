//! `--log-syslog`: both logs as syslog records in gunicorn's format.
//!
//! What cannot be sent at once is dropped (see [`remote`](crate::remote)).

use std::io;

use rustix::net::SocketType;

use crate::{
    level::Level,
    remote::{Remote, RemoteAddress},
};

/// Names and codes of the facilities (RFC 5424, section 6.2.1).
pub const FACILITIES: [(&str, u8); 21] = [
    ("auth", 4),
    ("authpriv", 10),
    ("cron", 9),
    ("daemon", 3),
    ("ftp", 11),
    ("kern", 0),
    ("lpr", 6),
    ("mail", 2),
    ("news", 7),
    ("security", 4),
    ("syslog", 5),
    ("user", 1),
    ("uucp", 8),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// Maximum size of a record. Larger ones do not fit a datagram, and many collectors reject them.
const LONGEST: usize = 60_000;

pub struct Syslog {
    remote: Remote,
    prefix: String,
    facility: u8,
}

impl Syslog {
    /// The program names of records are `gunicorn.<prefix>.error` and `gunicorn.<prefix>.access`.
    pub fn new(address: &RemoteAddress, prefix: &str, facility: u8) -> io::Result<Self> {
        Ok(Self { remote: Remote::new(address)?, prefix: prefix.to_owned(), facility })
    }

    pub fn send(&self, level: Level, log: &str, text: &[u8]) {
        let severity = match level {
            Level::Critical => 2,
            Level::Error => 3,
            Level::Warning => 4,
            Level::Info => 6,
            Level::Debug => 7,
        };
        let (code, process) = (self.facility * 8 + severity, std::process::id());
        let mut record = format!("<{code}>gunicorn.{}.{log}: [{process}] ", self.prefix).into_bytes();
        record.extend_from_slice(&text[..text.len().min(LONGEST)]);
        record.push(0);
        self.remote.send(&record);
    }
}

/// Parses `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix://PATH`. The last may end in `#dgram` or `#stream`.
pub fn address(text: &str) -> Result<RemoteAddress, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        let (path, kinds): (_, &[_]) = match path.split_once('#') {
            None => (path, &[SocketType::DGRAM, SocketType::STREAM]),
            Some((path, "dgram")) => (path, &[SocketType::DGRAM]),
            Some((path, "stream")) => (path, &[SocketType::STREAM, SocketType::DGRAM]),
            Some((_, other)) => {
                return Err(format!("invalid socket type #{other}: expected #dgram or #stream"));
            }
        };
        return Ok(RemoteAddress::Unix(path.into(), kinds));
    }
    let (make, rest): (fn(_, _) -> _, _) = match text.split_once("://") {
        Some(("udp", rest)) => (RemoteAddress::Udp, rest),
        Some(("tcp", rest)) => (RemoteAddress::Tcp, rest),
        _ => return Err("expected udp://, tcp:// or unix://".into()),
    };
    let (host, port) = RemoteAddress::host_and_port(rest, Some(514)).ok_or("invalid port")?;
    Ok(make(host, port))
}

/// Parses the name of a facility.
pub fn facility(name: &str) -> Result<u8, String> {
    let name = name.to_ascii_lowercase();
    let found = FACILITIES.iter().find(|(other, _)| *other == name);
    let names = || FACILITIES.map(|(name, _)| name).join(", ");
    found.map(|(_, code)| *code).ok_or_else(|| format!("expected one of: {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_as_in_gunicorn() {
        let udp = |host: &str, port| Ok(RemoteAddress::Udp(host.into(), port));
        assert_eq!(address("udp://log.example:1514"), udp("log.example", 1514));
        assert_eq!(address("udp://[::1]:99"), udp("::1", 99));
        assert_eq!(address("udp://"), udp("localhost", 514));
        assert_eq!(address("tcp://10.0.0.1"), Ok(RemoteAddress::Tcp("10.0.0.1".into(), 514)));
        assert_eq!(
            address("unix:///dev/log#dgram"),
            Ok(RemoteAddress::Unix("/dev/log".into(), &[SocketType::DGRAM]))
        );
        for wrong in ["localhost:514", "udp://a:b", "unix:///dev/log#x", "http://a"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
