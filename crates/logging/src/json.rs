//! JSON strings in pure ASCII, so that no value can break a line or send control sequences to a terminal.

/// Appends a quoted string. Bytes that are not UTF-8 are read as latin-1.
pub(crate) fn string(line: &mut Vec<u8>, text: &[u8]) {
    line.push(b'"');
    match std::str::from_utf8(text) {
        Ok(text) => text.chars().for_each(|character| push(line, character)),
        Err(_) => text.iter().for_each(|byte| push(line, char::from(*byte))),
    }
    line.push(b'"');
}

fn push(line: &mut Vec<u8>, character: char) {
    match character {
        '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
        '\n' => line.extend_from_slice(b"\\n"),
        ' '..='~' => line.push(character as u8),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                line.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::string;

    #[test]
    fn a_string_is_encoded_as_ascii() {
        let mut line = Vec::new();
        string(&mut line, "a\"\\\n\r\0\x7f é \u{2028} 🦀".as_bytes());
        string(&mut line, b"\xe9\xff");
        let expected = r#""a\"\\\n\u000d\u0000\u007f \u00e9 \u2028 \ud83e\udd80""\u00e9\u00ff""#;
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
