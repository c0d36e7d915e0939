//! What must hold for all bytes: the checks that the fuzz targets run, as plain functions.
//!
//! The one thing to know: an input is what stands on the wire and nothing else. How it is cut into segments and which
//! limits it meets is drawn from a hash of it ([`dice`]), so every input is readable, and repeats.
//!
//! - [`reading`]: reads segments as a server does, and checks each event on the way.
//! - [`spoiled`]: reads byte by byte with all that was looked at spoiled, so that a second look shows.
//! - [`head`], [`chunked`], [`machine`], [`target`], [`response`], [`proxy`]: one module for each target.
//! - [`client`]: a small reader of responses.

pub mod chunked;
pub mod client;
pub mod dice;
pub mod head;
pub mod machine;
pub mod proxy;
pub mod reading;
pub mod response;
pub mod spoiled;
pub mod target;
