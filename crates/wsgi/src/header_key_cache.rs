//! From a field name as sent to its key in the environ: `User-Agent` to `HTTP_USER_AGENT`.
//!
//! The cache is a hash table of fixed size. Each slot is written once and read without a lock. Names that find no free slot, for example
//! those of a hostile client, are converted for each request.

use std::sync::{Arc, OnceLock};

use pyo3::{prelude::*, types::PyString};

use crate::ffi;
use crate::forwarding::{ForwardingPolicy, HeaderRule};

const SLOTS: usize = 512;
/// The number of slots that are tried for a name.
const PROBES: usize = 4;
/// Longer names are not cached.
const MAX_NAME: usize = 64;

/// Cached from the start, in this spelling and in lower case, so that clients cannot fill their slots with other names.
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
    slots: Box<[OnceLock<Entry>]>,
    policy: Arc<ForwardingPolicy>,
}

struct Entry {
    name: Box<[u8]>,
    key: Py<PyString>,
    rule: Option<HeaderRule>,
}

impl HeaderKeyCache {
    pub(crate) fn new(py: Python<'_>, policy: Arc<ForwardingPolicy>) -> PyResult<Self> {
        let cache = Self { slots: (0..SLOTS).map(|_| OnceLock::new()).collect(), policy };
        for name in COMMON {
            cache.key(py, name.as_bytes())?;
            cache.key(py, name.to_ascii_lowercase().as_bytes())?;
        }
        Ok(cache)
    }

    /// The key of a field, and its rule if it has one.
    pub(crate) fn key<'py>(
        &self,
        py: Python<'py>,
        name: &[u8],
    ) -> PyResult<(Bound<'py, PyString>, Option<HeaderRule>)> {
        let first = hash_slot(name);
        for slot in (first..first + PROBES).map(|index| &self.slots[index % SLOTS]) {
            match slot.get() {
                Some(entry) if *entry.name == *name => return Ok((entry.key.bind(py).clone(), entry.rule)),
                Some(_) => {}
                None if name.len() > MAX_NAME => break,
                None => {
                    let (key, rule) = (PyString::intern(py, &key_of(name)), self.policy.rule(name));
                    // If another thread has filled the slot meanwhile, the next request caches this name.
                    let _ = slot.set(Entry { name: name.into(), key: key.clone().unbind(), rule });
                    return Ok((key, rule));
                }
            }
        }
        Ok((ffi::latin1(py, key_of(name).as_bytes())?, self.policy.rule(name)))
    }
}

/// The key according to PEP 3333. `Content_Length` with an underscore never becomes `CONTENT_LENGTH`.
fn key_of(name: &[u8]) -> String {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let upper = name.iter().map(|byte| if *byte == b'-' { '_' } else { byte.to_ascii_uppercase().into() });
    let prefix = if is(b"content-type") || is(b"content-length") { "" } else { "HTTP_" };
    prefix.chars().chain(upper).collect()
}

/// The first slot to try: a hash of the length, the first eight bytes and the last eight bytes.
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
    fn a_name_becomes_the_key_of_pep_3333() {
        assert_eq!(key_of(b"User-Agent"), "HTTP_USER_AGENT");
        assert_eq!(key_of(b"x!y"), "HTTP_X!Y");
        assert_eq!(key_of(b"content-TYPE"), "CONTENT_TYPE");
        assert_eq!(key_of(b"Content-Length"), "CONTENT_LENGTH");
        assert_eq!(key_of(b"Content_Length"), "HTTP_CONTENT_LENGTH");
    }

    #[test]
    fn all_common_names_find_a_slot() {
        let mut taken = [false; SLOTS];
        for name in COMMON.iter().flat_map(|name| [(*name).to_string(), name.to_ascii_lowercase()]) {
            let first = hash_slot(name.as_bytes());
            let free = (first..first + PROBES).map(|slot| slot % SLOTS).find(|slot| !taken[*slot]);
            taken[free.unwrap_or_else(|| panic!("{name} has no slot"))] = true;
        }
    }
}
