//! TLS for the server, over rustls. Sans-I/O: bytes in, bytes out, no sockets.
//!
//! | module | content |
//! |---|---|
//! | `options` | what the operator configures |
//! | `error` | what is wrong with it |
//! | `files` | the contents of the configured files |
//! | `pem_file` | files in PEM format |
//! | `certificate` | a certificate with its key, and its validity |
//! | `cipher_suites` | OpenSSL's cipher strings |
//! | `client_auth` | verification of client certificates |
//! | `client_certificate` | the fields of a client certificate that applications see |
//! | `resolver` | the choice of a certificate by server name (SNI) |
//! | `tickets` | session tickets that every worker accepts |
//! | `config` | all of it, ready to serve |
//! | `session` | one connection |
//! | `facts` | what was negotiated |
//!
//! The master reads the files, before workers drop their privileges, so workers never need access to a key. A renewed certificate reaches them as
//! [`TlsFiles`], and [`TlsConfig::replace`] puts it into effect for new connections.

mod certificate;
mod cipher_suites;
mod client_auth;
mod client_certificate;
mod config;
mod error;
mod facts;
mod files;
mod options;
mod pem_file;
mod resolver;
mod session;
mod tickets;

pub use client_certificate::ClientCertificate;
pub use config::TlsConfig;
pub use error::TlsError;
pub use facts::SessionFacts;
pub use files::TlsFiles;
pub use options::{CertificateFiles, ClientCertificates, MinVersion, TlsOptions};
pub use session::{Session, SessionError};
pub use tickets::TicketKeys;
