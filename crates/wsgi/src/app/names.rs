//! From the name of a field as sent to its key in the environ: `User-Agent` to `HTTP_USER_AGENT`.
//!
//! The one thing to know: each spelling is worked out once and then found in a table that is written once and read without a lock. It
//! has room for so many spellings; those that a hostile client adds past it are worked out every time.

use std::sync::OnceLock;

use pyo3::{prelude::*, types::PyString};

use crate::ffi;

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

pub(crate) struct Names(Box<[OnceLock<Name>]>);

struct Name {
    sent: Box<[u8]>,
    /// Nothing for a name that the application must not see.
    key: Option<Py<PyString>>,
}

impl Names {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let names = Self((0..SLOTS).map(|_| OnceLock::new()).collect());
        for name in COMMON {
            names.key(py, name.as_bytes())?;
            names.key(py, name.to_ascii_lowercase().as_bytes())?;
        }
        Ok(names)
    }

    /// The key of a field, or nothing if it is to be dropped.
    pub(crate) fn key<'py>(&self, py: Python<'py>, sent: &[u8]) -> PyResult<Option<Bound<'py, PyString>>> {
        let first = place(sent);
        for slot in (first..first + PROBES).map(|place| &self.0[place % SLOTS]) {
            match slot.get() {
                Some(name) if *name.sent == *sent => {
                    return Ok(name.key.as_ref().map(|key| key.bind(py).clone()));
                }
                Some(_) => {}
                None if sent.len() > LONGEST => break,
                None => {
                    let key = key_of(sent).map(|key| PyString::intern(py, &key));
                    // Another thread may have been faster; then this spelling is kept the next time.
                    let _ = slot.set(Name { sent: sent.into(), key: key.clone().map(Bound::unbind) });
                    return Ok(key);
                }
            }
        }
        key_of(sent).map(|key| ffi::latin1(py, key.as_bytes())).transpose()
    }
}

/// PEP 3333's key. A name with an underscore could pass for another one with a dash; `Proxy` would become `HTTP_PROXY`, which programs
/// obey as a setting.
fn key_of(sent: &[u8]) -> Option<String> {
    if sent.contains(&b'_') || sent.eq_ignore_ascii_case(b"proxy") {
        return None;
    }
    let upper = sent.iter().map(|byte| if *byte == b'-' { '_' } else { byte.to_ascii_uppercase().into() });
    let key: String = "HTTP_".chars().chain(upper).collect();
    Some(match &*key {
        "HTTP_CONTENT_TYPE" | "HTTP_CONTENT_LENGTH" => key["HTTP_".len()..].into(),
        _ => key,
    })
}

/// Where to look first: a mix of the name's length, its first eight bytes and its last eight.
fn place(name: &[u8]) -> usize {
    let word = |bytes: &[u8]| bytes.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let first = name.first_chunk::<8>().map_or_else(|| word(name), |bytes| u64::from_le_bytes(*bytes));
    let last = name.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mixed = (first ^ last.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 48) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::{COMMON, PROBES, SLOTS, key_of, place};

    #[test]
    fn a_name_becomes_the_key_that_pep_3333_says() {
        assert_eq!(key_of(b"User-Agent").as_deref(), Some("HTTP_USER_AGENT"));
        assert_eq!(key_of(b"x!y").as_deref(), Some("HTTP_X!Y"));
        assert_eq!(key_of(b"content-TYPE").as_deref(), Some("CONTENT_TYPE"));
        assert_eq!(key_of(b"Content-Length").as_deref(), Some("CONTENT_LENGTH"));
    }

    #[test]
    fn names_that_could_pass_for_others_have_no_key() {
        assert_eq!(key_of(b"X_Forwarded-For"), None);
        assert_eq!(key_of(b"Content_Length"), None);
        assert_eq!(key_of(b"pRoXy"), None);
        assert!(key_of(b"Proxy-Authorization").is_some());
    }

    #[test]
    fn all_common_names_find_a_place() {
        let mut taken = [false; SLOTS];
        for name in COMMON.iter().flat_map(|name| [(*name).to_string(), name.to_ascii_lowercase()]) {
            let first = place(name.as_bytes());
            let free = (first..first + PROBES).map(|place| place % SLOTS).find(|place| !taken[*place]);
            taken[free.unwrap_or_else(|| panic!("{name} has no place"))] = true;
        }
    }
}
