//! Records in text logs: no message can start a line of its own or send control sequences to a terminal.

use std::{borrow::Cow, fmt::Write};

/// Set before each line of a message after the first, so that only the first looks like a record.
const INDENT: &str = "  ";

/// Returns `message` with its further lines indented, and with control characters other than tabs, line separators
/// and controls of the writing direction as `\xNN` or `\uNNNN`. Line breaks at the end are removed.
pub fn escape(message: &str) -> Cow<'_, str> {
    let message = message.trim_end_matches(['\r', '\n']);
    if message.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Cow::Borrowed(message);
    }
    let mut escaped = String::with_capacity(message.len() + 64);
    for (number, line) in message.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if number > 0 {
            escaped.push('\n');
            if !line.is_empty() {
                escaped.push_str(INDENT);
            }
        }
        line.chars().for_each(|character| push(&mut escaped, character));
    }
    Cow::Owned(escaped)
}

fn push(escaped: &mut String, character: char) {
    let code = u32::from(character);
    let written = match character {
        _ if character.is_control() && character != '\t' => write!(escaped, "\\x{code:02x}"),
        _ if is_line_separator(character) || is_bidi_control(character) => write!(escaped, "\\u{code:04x}"),
        _ => escaped.write_char(character),
    };
    debug_assert!(written.is_ok(), "a string takes what is written");
}

fn is_line_separator(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

/// The Unicode property `Bidi_Control`.
fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn printable_text_is_unchanged() {
        for text in ["", "plain \\ \"text\" ~", "a\tb", "\u{e9} \u{20ac} \u{1f980} \u{5d0}"] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn further_lines_are_indented() {
        for (text, expected) in [
            ("a\n[2030-01-01] [1] [INFO] forged", "a\n  [2030-01-01] [1] [INFO] forged"),
            ("failed\r\nTraceback:\n  File\n\n\n", "failed\n  Traceback:\n    File"),
            ("a\n\nb", "a\n\n  b"),
            ("\nb", "\n  b"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn control_and_bidirectional_characters_are_escaped() {
        let controls = (0..0x20).chain(0x7f..0xa0).filter(|code| !matches!(code, 0x09 | 0x0a));
        let others =
            [0x2028, 0x2029, 0x61c, 0x200e, 0x200f].into_iter().chain(0x202a..=0x202e).chain(0x2066..=0x2069);
        for code in controls.chain(others) {
            let character = char::from_u32(code).unwrap();
            let escaped = escape(&format!("a{character}b")).into_owned();
            assert!(
                escaped.starts_with("a\\") && escaped.ends_with('b') && escaped.is_ascii(),
                "{escaped:?}"
            );
            assert!(!escaped.contains('\n'), "{escaped:?}");
        }
        assert_eq!(escape("a\r\x1b[2J\u{85}\u{202e}"), r"a\x0d\x1b[2J\x85\u202e");
    }
}
