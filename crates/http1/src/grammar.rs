//! The character classes and small productions that the rest of the crate shares (RFC 9110, section 5.6).
//!
//! The one thing to know: everything here works on bytes as they came; nothing is trimmed or decoded unless
//! the name says so.

/// `tchar`: what names, methods and tokens are made of.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
            | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z');
        byte += 1;
    }
    table
};

pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// What a field value, a reason phrase and a quoted string may hold: HTAB, SP, visible ASCII and obs-text.
pub(crate) fn is_text_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

pub(crate) fn is_text(bytes: &[u8]) -> bool {
    all(bytes, is_text_byte)
}

/// Whether every byte passes the check. Eight bytes are checked without a branch between them, which the compiler
/// turns into vector instructions; the last eight may overlap those before.
pub(crate) fn all(bytes: &[u8], check: impl Fn(u8) -> bool) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else { return bytes.iter().all(|&byte| check(byte)) };
    let (blocks, _) = bytes.as_chunks::<8>();
    blocks.iter().chain([last]).all(|block| block.iter().fold(true, |good, &byte| good & check(byte)))
}

/// `1*DIGIT` that fits: no sign, no space, no separator.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit().then_some(u64::from(byte.wrapping_sub(b'0')));
    let (&first, rest) = bytes.split_first()?;
    rest.iter().try_fold(digit(first)?, |number, &byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

/// The members of a comma-separated list, without the white space around them.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

/// Without the optional white space (SP and HTAB only) at both ends.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

pub(crate) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_no_separators_and_is_not_empty() {
        let tokens: Vec<u8> = (0..=255).filter(|&byte| is_token(&[byte])).collect();
        assert_eq!(tokens, b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~");
        assert!(!is_token(b""));
    }

    #[test]
    fn text_is_everything_but_controls() {
        let others: Vec<u8> = (0..=255).filter(|&byte| !is_text(&[b'a', byte, b'b'])).collect();
        let controls: Vec<u8> = (0..=8).chain(10..=31).chain([127]).collect();
        assert_eq!(others, controls);
    }

    #[test]
    fn a_decimal_is_digits_that_fit() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"007"), Some(7));
        for other in ["18446744073709551616", "", "+1", "-1", " 1", "1 ", "1_0", "1.0", "0x1", "\u{661}"] {
            assert_eq!(decimal(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_list_has_its_members_trimmed() {
        assert_eq!(list(b" a ,\tb c,,d").collect::<Vec<_>>(), [&b"a"[..], b"b c", b"", b"d"]);
    }
}
