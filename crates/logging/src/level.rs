//! The severity of a log record.

/// The levels of Python's `logging`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug = 10,
    Info = 20,
    Warning = 30,
    Error = 40,
    Critical = 50,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    pub(crate) fn colour(self) -> &'static str {
        match self {
            Self::Debug => "2",
            Self::Info => "32",
            Self::Warning => "33",
            Self::Error | Self::Critical => "31",
        }
    }
}
