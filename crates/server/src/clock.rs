//! The wall clock, for the Date field only. Deadlines use the monotonic clock.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

thread_local! {
    static DATE: Cell<(u64, [u8; 29])> = const { Cell::new((0, [b' '; 29])) };
}

/// The current time in the format of the Date field (RFC 9110, section 5.6.7). Formatted once per second.
pub(crate) fn date() -> [u8; 29] {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with(|date| {
        if date.get().0 != second {
            let text = httpdate::fmt_http_date(now);
            let mut bytes = [b' '; 29];
            bytes.copy_from_slice(&text.as_bytes()[..29]);
            date.set((second, bytes));
        }
        date.get().1
    })
}
