//! Character classes and small productions shared by the rest of the crate (RFC 9110, section 5.6).

/// `tchar`: the bytes of tokens, such as field names and methods.
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

/// The bytes of field values, reason phrases and quoted strings: HTAB, SP, visible ASCII and obs-text.
pub(crate) fn is_text_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

pub(crate) fn is_text(bytes: &[u8]) -> bool {
    all(bytes, is_text_byte)
}

/// Whether every byte satisfies `predicate`. Blocks of eight bytes are checked without branches, which the compiler
/// turns into vector instructions. The last block may overlap the one before it.
pub(crate) fn all(bytes: &[u8], predicate: impl Fn(u8) -> bool) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else { return bytes.iter().all(|&byte| predicate(byte)) };
    let (blocks, _) = bytes.as_chunks::<8>();
    blocks.iter().chain([last]).all(|block| block.iter().fold(true, |good, &byte| good & predicate(byte)))
}

/// Parses `1*DIGIT`: no sign, space or separator. `None` if the number exceeds 64 bits.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit().then_some(u64::from(byte.wrapping_sub(b'0')));
    let (&first, rest) = bytes.split_first()?;
    rest.iter().try_fold(digit(first)?, |number, &byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

/// The elements of a comma-separated list (RFC 9110, section 5.6.1), trimmed. Empty elements are included.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

/// Removes optional white space (OWS: SP and HTAB) at both ends.
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
    fn tokens_contain_no_separators_and_are_not_empty() {
        let tokens: Vec<u8> = (0..=255).filter(|&byte| is_token(&[byte])).collect();
        assert_eq!(tokens, b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~");
        assert!(!is_token(b""));
    }

    #[test]
    fn text_contains_everything_except_control_characters() {
        let rejected: Vec<u8> = (0..=255).filter(|&byte| !is_text(&[b'a', byte, b'b'])).collect();
        let controls: Vec<u8> = (0..=8).chain(10..=31).chain([127]).collect();
        assert_eq!(rejected, controls);
    }

    #[test]
    fn a_control_character_at_any_position_is_not_text() {
        for length in 1..40 {
            assert!(is_text(&vec![b'a'; length]));
            for at in 0..length {
                let mut bytes = vec![b'a'; length];
                bytes[at] = b'\r';
                assert!(!is_text(&bytes), "{at} of {length}");
            }
        }
    }

    #[test]
    fn decimal_accepts_only_digits_that_fit_64_bits() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"007"), Some(7));
        for other in ["18446744073709551616", "", "+1", "-1", " 1", "1 ", "1_0", "1.0", "0x1", "\u{661}"] {
            assert_eq!(decimal(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn list_elements_are_trimmed() {
        assert_eq!(list(b" a ,\tb c,,d").collect::<Vec<_>>(), [&b"a"[..], b"b c", b"", b"d"]);
    }
}
