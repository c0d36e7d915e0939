//! From the name of a field as sent to its key in the environ: `User-Agent` to `HTTP_USER_AGENT`.
//!
//! The one thing to know: each spelling is worked out once and then found in a table that is written once and read without a lock. It
//! has room for so many spellings; those that a hostile client adds past it are worked out every time.

use std::sync::{Arc, OnceLock};

use pyo3::{prelude::*, types::PyString};

use crate::ffi;
use crate::forwarding::{ForwardingPolicy, HeaderRule};

const SLOTS: usize = 512;
/// How many slots one spelling may lie in.
const PROBES: usize = 4;
/// Longer names are not kept.
const LONGEST: usize = 64;

/// Kept from the start, as written here and in lower case, so that nobody can take their places.
const COMMON: [&str; 36] = [
    "Accept",
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Authorization",
    "Cache-Control",
    "Connection",
    "Content-Disposition",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "DNT",
    "Expect",
    "Forwarded",
    "From",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Origin",
    "Pragma",
    "Priority",
    "Range",
    "Referer",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
    "Transfer-Encoding",
    "Upgrade-Insecure-Requests",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-Requested-With",
];

pub(crate) struct HeaderKeyCache {
    slots: Box<[OnceLock<Name>]>,
    policy: Arc<ForwardingPolicy>,
}

struct Name {
    sent: Box<[u8]>,
    key: Py<PyString>,
    rule: Option<HeaderRule>,
}

impl HeaderKeyCache {
    pub(crate) fn new(py: Python<'_>, policy: Arc<ForwardingPolicy>) -> PyResult<Self> {
        let names = Self { slots: (0..SLOTS).map(|_| OnceLock::new()).collect(), policy };
        for name in COMMON {
            names.key(py, name.as_bytes())?;
            names.key(py, name.to_ascii_lowercase().as_bytes())?;
        }
        Ok(names)
    }

    /// The key of a field, and the rule for it if it is not like all others.
    pub(crate) fn key<'py>(
        &self,
        py: Python<'py>,
        sent: &[u8],
    ) -> PyResult<(Bound<'py, PyString>, Option<HeaderRule>)> {
        let first = hash_slot(sent);
        for slot in (first..first + PROBES).map(|index| &self.slots[index % SLOTS]) {
            match slot.get() {
                Some(name) if *name.sent == *sent => return Ok((name.key.bind(py).clone(), name.rule)),
                Some(_) => {}
                None if sent.len() > LONGEST => break,
                None => {
                    let (key, rule) = (PyString::intern(py, &key_of(sent)), self.policy.rule(sent));
                    // Another thread may have been faster; then this spelling is kept the next time.
                    let _ = slot.set(Name { sent: sent.into(), key: key.clone().unbind(), rule });
                    return Ok((key, rule));
                }
            }
        }
        Ok((ffi::latin1(py, key_of(sent).as_bytes())?, self.policy.rule(sent)))
    }
}

/// PEP 3333's key. A name with an underscore, where there is a rule that takes it, never becomes one without `HTTP_`.
fn key_of(sent: &[u8]) -> String {
    let is = |name: &[u8]| sent.eq_ignore_ascii_case(name);
    let upper = sent.iter().map(|byte| if *byte == b'-' { '_' } else { byte.to_ascii_uppercase().into() });
    let prefix = if is(b"content-type") || is(b"content-length") { "" } else { "HTTP_" };
    prefix.chars().chain(upper).collect()
}

/// Where to look first: a mix of the name's length, its first eight bytes and its last eight.
fn hash_slot(name: &[u8]) -> usize {
    let word = |bytes: &[u8]| bytes.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let first = name.first_chunk::<8>().map_or_else(|| word(name), |bytes| u64::from_le_bytes(*bytes));
    let last = name.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mixed = (first ^ last.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 48) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::{COMMON, PROBES, SLOTS, hash_slot, key_of};

    #[test]
    fn a_name_becomes_the_key_that_pep_3333_says() {
        assert_eq!(key_of(b"User-Agent"), "HTTP_USER_AGENT");
        assert_eq!(key_of(b"x!y"), "HTTP_X!Y");
        assert_eq!(key_of(b"content-TYPE"), "CONTENT_TYPE");
        assert_eq!(key_of(b"Content-Length"), "CONTENT_LENGTH");
        assert_eq!(key_of(b"Content_Length"), "HTTP_CONTENT_LENGTH");
    }

    #[test]
    fn all_common_names_find_a_place() {
        let mut taken = [false; SLOTS];
        for name in COMMON.iter().flat_map(|name| [(*name).to_string(), name.to_ascii_lowercase()]) {
            let first = hash_slot(name.as_bytes());
            let free = (first..first + PROBES).map(|place| place % SLOTS).find(|place| !taken[*place]);
            taken[free.unwrap_or_else(|| panic!("{name} has no place"))] = true;
        }
    }
}
