//! What the application writes to `wsgi.errors`: a thread's text is collected until its line ends, so that the lines of several threads
//! and processes do not mix.
//!
//! A line ends at its line break, at [`end_line`] (the application's `flush()`, or the end of its request), and with its thread. Nothing
//! is shared between threads, so a process forked by the application cannot find a lock held.

use std::{
    cell::{Cell, RefCell},
    mem,
    sync::OnceLock,
};

/// The maximum length of an unfinished line in bytes. A longer one is written in pieces.
const MAX_UNFINISHED: usize = 64 << 10;

/// Writes complete lines to the log.
static WRITE_LINES: OnceLock<fn(&str)> = OnceLock::new();

thread_local! {
    static UNFINISHED: RefCell<UnfinishedLine> = const { RefCell::new(UnfinishedLine::EMPTY) };
    /// Whether `UNFINISHED` may have text: cheaper to read, for threads that never write.
    static HAS_TEXT: Cell<bool> = const { Cell::new(false) };
}

/// Text without a line break at its end.
struct UnfinishedLine {
    text: String,
    /// The process that began the line. A forked child must not finish it.
    process: u32,
}

impl UnfinishedLine {
    const EMPTY: Self = Self { text: String::new(), process: 0 };

    /// Adds text. Returns the complete lines, with the line break of the last one.
    fn add(&mut self, text: &str, process: u32) -> String {
        if self.process != process {
            *self = Self { text: String::new(), process };
        }
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = String::new();
        if complete > 0 {
            lines = mem::take(&mut self.text);
            lines.push_str(&text[..complete]);
        }
        self.text.push_str(&text[complete..]);
        if self.text.len() > MAX_UNFINISHED {
            lines.push_str(&self.end(process));
        }
        lines
    }

    /// Ends the line. Returns it with a line break, or an empty text if there is no line.
    fn end(&mut self, process: u32) -> String {
        let mut line = mem::take(&mut self.text);
        if self.process != process {
            line.clear();
        }
        if !line.is_empty() {
            line.push('\n');
        }
        line
    }
}

impl Drop for UnfinishedLine {
    fn drop(&mut self) {
        log_lines(&self.end(std::process::id()));
    }
}

/// Sets the function that writes complete lines, once per process.
pub(crate) fn set_writer(write_lines: fn(&str)) {
    let _ = WRITE_LINES.set(write_lines);
}

/// Adds text to the line of this thread, and logs the lines that are complete.
pub fn write(text: &str) {
    let lines = UNFINISHED.try_with(|line| {
        let mut line = line.borrow_mut();
        let lines = line.add(text, std::process::id());
        HAS_TEXT.set(!line.text.is_empty());
        lines
    });
    // The thread ends if there is nowhere to collect its text.
    log_lines(lines.as_deref().unwrap_or(text));
}

/// Ends the line of this thread, if it has begun one.
pub fn end_line() {
    if HAS_TEXT.replace(false) {
        let line = UNFINISHED.try_with(|line| line.borrow_mut().end(std::process::id()));
        log_lines(&line.unwrap_or_default());
    }
}

/// The thread must not have borrowed its line: handlers of the log may write, too.
fn log_lines(lines: &str) {
    if let Some(write_lines) = WRITE_LINES.get().filter(|_| !lines.is_empty()) {
        write_lines(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_complete_and_stay_together() {
        let mut line = UnfinishedLine::EMPTY;
        assert_eq!(line.add("one", 1), "");
        assert_eq!(line.add(" line", 1), "");
        assert_eq!(line.add("\ntwo\nand", 1), "one line\ntwo\n");
        assert_eq!(line.end(1), "and\n");
        assert_eq!(line.end(1), "");
        assert_eq!(line.add("\n", 1), "\n");
    }

    #[test]
    fn a_forked_child_does_not_finish_the_line_of_its_parent() {
        let mut line = UnfinishedLine::EMPTY;
        line.add("of the parent", 1);
        assert_eq!(line.add(" of the child\n", 2), " of the child\n");
        let mut line = UnfinishedLine::EMPTY;
        line.add("of the parent", 1);
        assert_eq!(line.end(2), "");
    }

    #[test]
    fn an_endless_line_is_written_in_parts() {
        let mut line = UnfinishedLine::EMPTY;
        let piece = "x".repeat(MAX_UNFINISHED);
        assert_eq!(line.add(&piece, 1), "");
        assert_eq!(line.add("yz", 1), format!("{piece}yz\n"));
        assert_eq!(line.end(1), "");
    }
}
