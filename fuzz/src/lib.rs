//! The invariants that the fuzz targets check, as ordinary functions.
//!
//! An input consists of the bytes on the wire and nothing else. How it is split into segments and which limits apply
//! is derived from a hash of it ([`rng`]), so inputs are readable and failures are reproducible.
//!
//! - [`transcript`]: parses segments as a server does, and checks each event.
//! - [`poisoned`]: parses byte by byte and overwrites every examined byte, to detect that one is examined again.
//! - [`head`], [`chunked`], [`machine`], [`target`], [`response`], [`proxy`], [`http2`], [`tls`]: one module per target.
//! - [`client`]: a strict parser for responses.

pub mod chunked;
pub mod client;
pub mod head;
pub mod http2;
pub mod machine;
pub mod poisoned;
pub mod proxy;
pub mod response;
pub mod rng;
pub mod target;
pub mod tls;
// Shared with the tests of the parser.
#[path = "../../crates/http1/tests/support/mod.rs"]
pub mod transcript;
