//! Parsers of values: durations, sizes, numbers of workers, masks and pairs.

use std::{num::NonZero, thread::available_parallelism, time::Duration};

pub(crate) const MIB: i64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
/// Far more than a process can have open.
pub(crate) const MAX_COUNT: i64 = 1 << 24;
/// About 31 years. Longer durations could overflow the clock.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(1_000_000_000);

/// Parses a file mode mask as gunicorn does: a leading 0 or 0o is octal, 0x hexadecimal, 0b binary, otherwise decimal.
pub(crate) fn file_mask(text: &str) -> Result<u32, String> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let mask = u32::from_str_radix(digits, radix).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "expected a mask from 0 to 0o777".to_owned())
}

/// Parses `KEY=VALUE`. The value may be empty, the key may not.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() || text.contains('\0') {
        return Err("expected KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The value of a header field of responses. White space around it is removed.
pub(crate) fn field_value(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.chars().all(|character| (' '..='~').contains(&character)) {
        Ok(text.to_owned())
    } else {
        Err("expected printable ASCII characters".into())
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(seconds)
        .map_err(|_| "expected a number of seconds, 0 or more".to_owned())?;
    if time > MAX_DURATION { Err("too long: at most 1000000000 seconds".to_owned()) } else { Ok(time) }
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    let unit = match text.chars().last().map(|last| last.to_ascii_uppercase()) {
        Some('K') => 1 << 10,
        Some('M') => 1 << 20,
        Some('G') => GIB,
        _ => 1,
    };
    let number = if unit == 1 { text } else { &text[..text.len() - 1] };
    let number: u64 = number.parse().map_err(|_| "expected a number of bytes, such as 300M".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "too large".to_owned())
}

pub(crate) fn positive_seconds(text: &str) -> Result<Duration, String> {
    seconds(text)
        .and_then(|time| if time.is_zero() { Err("must be greater than 0".to_owned()) } else { Ok(time) })
}

/// Parses a number of workers. `auto` is the number of available CPUs at this moment.
pub(crate) fn worker_count(text: &str) -> Result<u16, String> {
    if text == "auto" {
        // On Linux, the standard library takes the minimum of the CPU affinity (`sched_getaffinity`) and the CPU quotas of the
        // cgroup and its parents (`cpu.max` of version 2, `cpu.cfs_quota_us` of version 1). It rounds a quota down, to at least 1.
        let cpus = available_parallelism()
            .map_err(|error| format!("the number of CPUs is unknown, set a number: {error}"))?;
        return Ok(u16::try_from(cpus.get()).unwrap_or(u16::MAX));
    }
    let count =
        text.parse::<NonZero<u16>>().map_err(|_| "expected a number from 1 to 65535, or auto".to_owned())?;
    Ok(count.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_of_seconds_from_zero() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["", "ten", "-1", "nan", "inf", "1e30", "1e10"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(positive_seconds("0").is_err() && positive_seconds("0.1").is_ok());
    }

    #[test]
    fn a_pair_is_split_at_the_first_equals_sign() {
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(pair("A="), Ok(("A".into(), String::new())));
        assert!(pair("A").is_err() && pair("=b").is_err() && pair("").is_err());
    }

    #[test]
    fn a_size_is_a_number_with_an_optional_unit() {
        assert_eq!([size("0"), size("12"), size("3k")], [Ok(0), Ok(12), Ok(3072)]);
        assert_eq!([size("300M"), size("2G")], [Ok(300 << 20), Ok(2 << 30)]);
        for wrong in ["", "M", "-1", "1.5G", "1T", "1é", "99999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_of_workers_is_positive_or_auto() {
        assert_eq!((worker_count("1"), worker_count("65535")), (Ok(1), Ok(65535)));
        assert!(worker_count("auto").is_ok_and(|count| count > 0));
        for wrong in ["", "0", "-1", "1.5", "65536", "many", "AUTO", "auto 2"] {
            assert!(worker_count(wrong).is_err_and(|error| error.contains("or auto")), "{wrong}");
        }
    }

    #[test]
    fn a_field_value_is_printable() {
        assert_eq!(field_value(" shop 1.0 (x) "), Ok("shop 1.0 (x)".into()));
        assert_eq!(field_value(""), Ok(String::new()));
        for wrong in ["a\r\nb: c", "a\tb", "a\0", "\u{e9}"] {
            assert!(field_value(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_mask_is_parsed_as_in_gunicorn() {
        for text in ["022", "0o22", "18", "0x12", "0b10010"] {
            assert_eq!(file_mask(text), Ok(18), "{text}");
        }
        assert_eq!((file_mask("0"), file_mask("0777")), (Ok(0), Ok(0o777)));
        for wrong in ["", "08", "0o", "+", "-1", "01000", "\u{e9}0"] {
            assert!(file_mask(wrong).is_err(), "{wrong}");
        }
    }
}
