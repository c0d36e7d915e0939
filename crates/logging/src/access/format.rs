//! `--access-logformat`: a format in the style of Python's `%`, as in gunicorn, or JSON. Parsed once at startup.
//!
//! An unknown atom is `-` in each line, as in gunicorn, and produces a warning at startup. A syntax error is reported
//! at startup.

use jiff::tz::TimeZone;
use mlws_server::Record;

use super::atoms::{Atom, client, path, user};
use crate::json;

/// The format of a line of the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// As in the settings.
    pub text: String,
    /// `None` for JSON.
    pieces: Option<Vec<FormatSegment>>,
    pub unknown: Vec<String>,
    /// The names of the environ variables that the format uses.
    pub environ: Vec<String>,
    pub wants_head: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum FormatSegment {
    Text(String),
    Atom(Atom, FormatSpec),
}

/// The part between `%` and the conversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FormatSpec {
    is_left: bool,
    has_zeros: bool,
    width: usize,
    longest: Option<usize>,
}

/// Larger numbers in a format are a mistake.
const WIDEST: usize = 10_000;

impl Format {
    /// Parses `json` or a format.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut format = Self { text: text.to_owned(), ..Self::default() };
        if text.eq_ignore_ascii_case("json") {
            return Ok(format);
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('%') {
            push(&mut pieces, before);
            rest = match after.strip_prefix('%') {
                Some(after) => {
                    push(&mut pieces, "%");
                    after
                }
                None => format.read_atom(&mut pieces, after)?,
            };
        }
        push(&mut pieces, rest);
        format.pieces = Some(pieces);
        Ok(format)
    }

    pub fn is_json(&self) -> bool {
        self.pieces.is_none()
    }

    /// Parses an atom after `%`. Returns the text after it.
    fn read_atom<'a>(&mut self, pieces: &mut Vec<FormatSegment>, text: &'a str) -> Result<&'a str, String> {
        let here = || format!("in '%{}'", text.chars().take(20).collect::<String>());
        let (name, rest) = text
            .strip_prefix('(')
            .and_then(|text| text.split_once(')'))
            .ok_or_else(|| format!("{}: expected a name in parentheses after %, as in %(h)s", here()))?;
        let flags = rest.trim_start_matches(['-', '0', ' ', '+', '#']);
        let of_flags = &rest[..rest.len() - flags.len()];
        let number = |text: &'a str| {
            let rest = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
            let digits = &text[..text.len() - rest.len()];
            let value = if digits.is_empty() { Some(0) } else { digits.parse().ok() };
            let value = value
                .filter(|value| *value <= WIDEST)
                .ok_or_else(|| format!("{}: the width or precision is too large", here()))?;
            Ok::<_, String>((value, rest))
        };
        let (width, rest) = number(flags)?;
        let (longest, rest) = match rest.strip_prefix('.') {
            Some(rest) => number(rest).map(|(longest, rest)| (Some(longest), rest))?,
            None => (None, rest),
        };
        let rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let mut after = rest.chars();
        let conversion = after.next().ok_or_else(|| format!("{}: the conversion is missing", here()))?;
        let atom = self.atom(name);
        let fits = match conversion {
            's' | 'r' | 'a' => true,
            'd' | 'i' | 'u' => atom.as_ref().is_some_and(Atom::is_number),
            _ => false,
        };
        if !fits {
            return Err(format!(
                "{}: %({name}) does not support the conversion '{conversion}'; use 's'",
                here()
            ));
        }
        let is_left = of_flags.contains('-');
        let has_zeros = of_flags.contains('0') && !is_left && !matches!(conversion, 's' | 'r' | 'a');
        let longest = longest.filter(|_| matches!(conversion, 's' | 'r' | 'a'));
        let shape = FormatSpec { is_left, has_zeros, width, longest };
        match atom {
            Some(atom) => pieces.push(FormatSegment::Atom(atom, shape)),
            None => push(pieces, std::str::from_utf8(&shape.apply(b"-".to_vec())).unwrap_or("-")),
        }
        Ok(after.as_str())
    }

    /// The atom with this name, or `None` if it is always `-`.
    fn atom(&mut self, name: &str) -> Option<Atom> {
        if let Some((name, kind)) = name.strip_prefix('{').and_then(|name| name.rsplit_once('}')) {
            match &*kind.to_lowercase() {
                "i" => return Some(Atom::RequestField(name.into())),
                "o" => {
                    self.wants_head = true;
                    return Some(Atom::ResponseField(name.into()));
                }
                "e" => {
                    self.environ.push(name.into());
                    return Some(Atom::Environ(self.environ.len() - 1));
                }
                _ => {}
            }
        }
        let found = Atom::ATOMS.into_iter().find(|(letter, _)| *letter == name);
        if found.is_none() && name != "l" {
            self.unknown.push(name.to_owned());
        }
        found.map(|(_, atom)| atom)
    }

    /// Appends the line of a request, without a line break.
    pub(crate) fn write(&self, line: &mut Vec<u8>, record: &Record<'_>, zone: &TimeZone) {
        let Some(pieces) = &self.pieces else { return write_json(line, record, zone) };
        for piece in pieces {
            match piece {
                FormatSegment::Text(text) => line.extend_from_slice(text.as_bytes()),
                FormatSegment::Atom(atom, shape) if *shape == FormatSpec::default() => {
                    atom.write(line, record, zone);
                }
                FormatSegment::Atom(atom, shape) => {
                    let mut value = Vec::new();
                    atom.write(&mut value, record, zone);
                    line.extend_from_slice(&shape.apply(value));
                }
            }
        }
    }
}

impl FormatSpec {
    fn apply(self, mut value: Vec<u8>) -> Vec<u8> {
        value.truncate(self.longest.unwrap_or(value.len()));
        let missing = self.width.saturating_sub(value.len());
        let padding = vec![if self.has_zeros { b'0' } else { b' ' }; missing];
        if self.is_left { [value, padding].concat() } else { [padding, value].concat() }
    }
}

fn push(pieces: &mut Vec<FormatSegment>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(FormatSegment::Text(before)) => before.push_str(text),
        _ => pieces.push(FormatSegment::Text(text.to_owned())),
    }
}

/// The keys are documented in docs/logs.md and stable.
fn write_json(line: &mut Vec<u8>, record: &Record<'_>, zone: &TimeZone) {
    let request = record.request;
    let at = jiff::Timestamp::try_from(record.at).unwrap_or_default().to_zoned(zone.clone());
    let user = user(record);
    let path = path(record);
    let strings = [
        ("client", client(record).map(str::as_bytes)),
        ("user", user.as_deref()),
        ("method", Some(request.method().as_bytes())),
        ("target", Some(request.target().as_bytes())),
        ("path", Some(&*path)),
        ("query", Some(request.query())),
        ("protocol", Some(request.version().as_str().as_bytes())),
        ("host", request.host()),
        ("referer", request.field("Referer")),
        ("user_agent", request.field("User-Agent")),
    ];
    line.extend_from_slice(format!("{{\"time\": \"{}\"", at.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z")).as_bytes());
    for (key, value) in strings {
        line.extend_from_slice(format!(", \"{key}\": ").as_bytes());
        match value {
            Some(value) => json::string(line, value),
            None => line.extend_from_slice(b"null"),
        }
    }
    let numbers = format!(
        ", \"status\": {}, \"bytes\": {}, \"duration\": {:.6}, \"pid\": {}}}",
        record.status,
        record.sent,
        record.took.as_secs_f64(),
        std::process::id()
    );
    line.extend_from_slice(numbers.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_text_and_atoms() {
        let format =
            Format::read("%(l)s %(h)s 100%% %(X)-3s|%({X-Id}I)s %({Date}o)10.5s %({REMOTE_USER}e)s").unwrap();
        let pieces = format.pieces.unwrap();
        assert_eq!(pieces[0], FormatSegment::Text("- ".into()));
        assert_eq!(pieces[1], FormatSegment::Atom(Atom::Client, FormatSpec::default()));
        assert_eq!(pieces[2], FormatSegment::Text(" 100% -  |".into()));
        assert_eq!(pieces[3], FormatSegment::Atom(Atom::RequestField("X-Id".into()), FormatSpec::default()));
        let shape = FormatSpec { width: 10, longest: Some(5), ..FormatSpec::default() };
        assert_eq!(pieces[5], FormatSegment::Atom(Atom::ResponseField("Date".into()), shape));
        assert_eq!(shape.apply(b"1234567".to_vec()), b"     12345");
        assert_eq!((format.unknown, format.environ), (vec!["X".into()], vec!["REMOTE_USER".into()]));
        assert!(format.wants_head);
    }

    #[test]
    fn an_invalid_format_is_rejected() {
        for wrong in ["%h", "100%", "%(h", "%(h)", "%(h)q", "%(h)d", "%(D)5", "%s", "%(h)99999s"] {
            assert!(Format::read(wrong).is_err(), "{wrong}");
        }
        for right in ["", "plain", "%(D)06d", "%(s)d", "%(t)s"] {
            assert!(Format::read(right).is_ok(), "{right}");
        }
    }
}
