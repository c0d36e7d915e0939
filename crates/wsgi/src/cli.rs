//! The command line: the one definition of every setting, of its help, and of the keywords of `serve()`.
//!
//! The structs hold what was said; the methods of [`Flags`] tell the rooms below what it means to them.

#![expect(clippy::doc_markdown, reason = "doc comments here are the help, which is shown as it stands")]

use std::{
    ffi::OsString,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    time::Duration,
};

use clap::{ArgGroup, Args, CommandFactory, Parser, ValueEnum, builder::OsStr};
use log::LevelFilter;
use mlws_http1::Tolerance;
use mlws_server::{Address, Concurrency, Limits, Settings};

const ABOUT: &str = "Serves a Python WSGI application over HTTP.";

const EXAMPLES: &str = "\
Examples:
  mlws flask_app:app                               the object `app` of flask_app.py
  mlws 'shop:create_app(\"prod.ini\", debug=False)'  what a factory returns
  mlws shop.wsgi --bind 0.0.0.0:80 --workers 4     four processes that share the port
  mlws shop.wsgi --fork --timeout 10               each request in a process of its own
  mlws shop.wsgi --bind unix:/run/shop.sock --access-logfile -";

/// What was said on the command line.
#[derive(Parser)]
#[command(name = "mlws", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Flags {
    /// module:attribute, module (its `application`, else its `app`), or module:factory(literal arguments)
    pub(crate) app: String,

    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) running: Running,
    #[command(flatten)]
    limits: RequestLimits,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    pub(crate) process: Process,
    #[command(flatten)]
    pub(crate) logs: Logs,
    #[command(flatten)]
    pub(crate) development: Development,
}

#[derive(Args)]
#[command(next_help_heading = "Sockets")]
pub(crate) struct Sockets {
    /// Where to listen: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N; may be repeated. Port 0 takes a free one.
    /// Where the environment has PORT, the default is 0.0.0.0:$PORT
    #[arg(short, long, value_name = "ADDRESS", default_value = default_address())]
    pub(crate) bind: Vec<Address>,

    /// How many connections may wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) backlog: i32,

    /// Connections that each worker has at once; further clients wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..=MOST))]
    worker_connections: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Workers", group(ArgGroup::new("forking").args(["fork", "preload"]).multiple(true)))]
pub(crate) struct Running {
    /// Processes that serve; one that dies is replaced
    #[arg(short, long, value_name = "N", default_value_t = 1, env = "WEB_CONCURRENCY", hide_env_values = true,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: u16,

    /// Requests that each worker runs at once; 1 runs them one after the other, in the loop itself
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "fork",
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: u16,

    /// Run each request in a process of its own, forked from a worker
    #[arg(long)]
    pub(crate) fork: bool,

    /// With --fork: processes that each worker has at once; further requests wait
    #[arg(long, value_name = "N", default_value_t = 64, requires = "fork",
          value_parser = clap::value_parser!(u16).range(1..))]
    max_children: u16,

    /// Requests that wait in each worker for a thread or a process; further clients are told 503
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=MOST))]
    max_queue: u32,

    /// Load the application once and fork the workers from it: they start at once and share its memory. A reload loads
    /// it anew
    #[arg(long)]
    pub(crate) preload: bool,

    /// With --fork or --preload: a path, such as /, that the application answers once before the first fork. What it
    /// imports and caches then, every process has from its start
    #[arg(long, value_name = "PATH", requires = "forking")]
    pub(crate) fork_warmup: Option<String>,

    /// How long the application may work on a request, or on one piece of its answer; 0 is for ever. Past it the client is
    /// told 504, and the stacks are logged; a child of --fork is killed, any other worker is replaced
    #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,

    /// How long a worker may take to start. Unless given, as long as --timeout, but at least 60; 0 is for ever
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    boot_timeout: Option<Duration>,

    /// How many requests a worker begins before it is replaced; 0 is no bound
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_requests: u64,

    /// Up to so many requests more, at random for each worker, so that they are not all replaced at once
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_requests_jitter: u64,

    /// How much memory a worker may use (its resident set size, children left out) before it is replaced, in bytes or
    /// with K, M or G behind the number; 0 is no bound
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    max_rss: u64,

    /// How long running requests may take to finish once their worker is told to end
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) graceful_timeout: Duration,
}

#[derive(Args)]
#[command(next_help_heading = "Limits of a request")]
struct RequestLimits {
    /// The longest request line; 0 leaves only the limit of the whole head
    #[arg(long, value_name = "BYTES", default_value_t = 8190, value_parser = clap::value_parser!(u32).range(..=MIB))]
    limit_request_line: u32,

    /// How many header fields a request may have
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    limit_request_fields: u32,

    /// The longest header field; 0 leaves only the limit of the whole head
    #[arg(long = "limit-request-field_size", value_name = "BYTES", default_value_t = 8190,
          value_parser = clap::value_parser!(u32).range(..=MIB))]
    limit_request_field_size: u32,

    /// The longest head, from the request line to the blank line. Unless given, 64 KiB, or more where a longer line or
    /// field is allowed
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=MIB))]
    limit_request_head: Option<u32>,

    /// The largest request body; 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    limit_request_body: u64,

    /// How much of a body is held in memory; a larger one goes to a temporary file
    #[arg(long, value_name = "BYTES", default_value_t = 524_288, value_parser = clap::value_parser!(u64).range(..=GIB))]
    body_in_memory: u64,

    /// How much all larger bodies together may take of each worker's memory before they go to files; only those whose
    /// length was told
    #[arg(long, value_name = "BYTES", default_value_t = 67_108_864, value_parser = clap::value_parser!(u64).range(..=GIB))]
    bodies_in_memory: u64,

    /// Where temporary files are made; unless given, in $TMPDIR, or in /tmp
    #[arg(long, value_name = "FOLDER")]
    tmp_dir: Option<PathBuf>,

    /// Whose idea of a good request is followed: ours refuses what could be read in two ways, gunicorn's takes a part
    /// of it
    #[arg(long, value_name = "WHOSE", value_enum, default_value = "strict")]
    http_compat: Compat,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compat {
    Strict,
    Gunicorn,
}

#[derive(Args)]
#[command(next_help_heading = "Patience with clients")]
struct Patience {
    /// How long an idle connection is kept for its next request; 0 closes after every response
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    keep_alive: Duration,

    /// How long a client may take to send the head of a request, and a new one may stay silent
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = some_seconds)]
    head_timeout: Duration,

    /// How long a client may take to send a body, beyond the time that --body-rate allows for it
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = some_seconds)]
    body_timeout: Duration,

    /// How many bytes of a body buy its client another second; 0 leaves it --body-timeout in all
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    body_rate: u64,

    /// How long a client may take nothing of a response before its connection is cut
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = some_seconds)]
    write_timeout: Duration,
}

const MIB: i64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Far beyond what one process can have open.
const MOST: i64 = 1 << 24;
/// Some thirty years: longer waits would leave the clock's range.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

#[derive(Args)]
#[command(next_help_heading = "Process")]
pub(crate) struct Process {
    /// Go to this folder first of all; modules are looked for in it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) chdir: Option<PathBuf>,

    /// Folders where modules are looked for before anywhere else, separated by commas
    #[arg(long, value_name = "FOLDERS", value_delimiter = ',')]
    pub(crate) pythonpath: Vec<PathBuf>,

    /// Write the process id of the master to this file, and remove it at the end
    #[arg(short, long, value_name = "FILE")]
    pub(crate) pid: Option<PathBuf>,

    /// Go on in the background. The command returns when all workers are ready, or tells why they cannot be. After
    /// that stdin, stdout and stderr are /dev/null: use --error-logfile
    #[arg(short = 'D', long)]
    pub(crate) daemon: bool,

    /// Run the workers as this user, and in its own group unless --group is given. Only root can
    #[arg(short, long, value_name = "NAME|UID")]
    pub(crate) user: Option<String>,

    /// Run the workers in this group, and in no other
    #[arg(short, long, value_name = "NAME|GID")]
    pub(crate) group: Option<String>,

    /// What nobody may do with new files: 022 and 0o22 are octal, 18 is the same in decimal. Unless given it is as
    /// found, but everybody may connect to a Unix socket
    #[arg(short = 'm', long, value_name = "MASK", value_parser = file_mask)]
    pub(crate) umask: Option<u32>,

    /// With --user: run the workers in all groups of that user
    #[arg(long)]
    pub(crate) initgroups: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Logs")]
pub(crate) struct Logs {
    /// The least that is worth a line in the log
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "info", ignore_case = true)]
    log_level: Level,

    /// Where the log goes; `-` is stderr
    #[arg(long, visible_alias = "log-file", value_name = "FILE", default_value = "-")]
    pub(crate) error_logfile: PathBuf,

    /// Where each request gets a line, in the combined format; `-` is stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) access_logfile: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Development")]
pub(crate) struct Development {
    /// Load the application again whenever one of its files changes; while it cannot be loaded, clients are told why
    #[arg(long)]
    pub(crate) reload: bool,

    /// With --reload: how changes are noticed. `inotify` is told of them by the system, `poll` looks at all files twice a
    /// second, and `auto` polls only where the system cannot tell
    #[arg(long, value_name = "ENGINE", value_enum, default_value = "auto", requires = "reload")]
    pub(crate) reload_engine: Engine,

    /// With --reload: another file to watch, or a pattern such as 'templates/**/*.html'; may be repeated
    #[arg(long, value_name = "FILE", requires = "reload")]
    pub(crate) reload_extra_file: Vec<glob::Pattern>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Engine {
    Auto,
    Poll,
    Inotify,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

impl Flags {
    /// The flag that a keyword of `serve()` stands for: `max_children` is `max-children`.
    pub(crate) fn of_keyword(keyword: &str) -> Option<String> {
        let command = Self::command();
        let mut flags = command.get_arguments().filter_map(clap::Arg::get_long);
        flags.find(|flag| flag.replace('-', "_") == keyword).map(str::to_owned)
    }

    /// Reads the words that follow the command's own name.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(std::iter::once("mlws".into()).chain(words))
    }

    pub(crate) fn concurrency(&self) -> Concurrency {
        let Running { threads, fork, max_children, .. } = self.running;
        match (fork, threads) {
            (true, _) => Concurrency::Fork { children: max_children.into() },
            (false, 1) => Concurrency::Inline,
            (false, threads) => Concurrency::Threads(threads.into()),
        }
    }

    pub(crate) fn server(&self) -> Settings {
        Settings {
            concurrency: self.concurrency(),
            limits: self.limits.protocol(),
            head_timeout: self.patience.head_timeout,
            body_timeout: self.patience.body_timeout,
            body_rate: self.patience.body_rate,
            write_timeout: self.patience.write_timeout,
            timeout: Some(self.running.timeout).filter(|timeout| !timeout.is_zero()),
            max_requests: self.running.max_requests(),
            max_rss: Some(self.running.max_rss).filter(|size| *size > 0),
            keep_alive: self.patience.keep_alive,
            connections: self.sockets.worker_connections as usize,
            queue: self.running.max_queue as usize,
            body_in_memory: self.limits.body_in_memory as usize,
            bodies_in_memory: self.limits.bodies_in_memory as usize,
            temporary: self.limits.tmp_dir.clone().unwrap_or_else(std::env::temp_dir),
            ..Settings::default()
        }
    }
}

impl Running {
    pub(crate) fn boot_timeout(&self) -> Option<Duration> {
        let least = if self.timeout.is_zero() { Duration::ZERO } else { Duration::from_secs(60) };
        let given = self.boot_timeout.unwrap_or(self.timeout.max(least));
        Some(given).filter(|patience| !patience.is_zero())
    }

    /// With its jitter, which is another one in another process.
    fn max_requests(&self) -> Option<u64> {
        let random = RandomState::new().hash_one(std::process::id());
        let jitter = random % self.max_requests_jitter.saturating_add(1);
        (self.max_requests > 0).then(|| self.max_requests.saturating_add(jitter))
    }
}

impl RequestLimits {
    fn protocol(&self) -> Limits {
        let usual = Limits::default();
        let (line, field_size) = (self.limit_request_line as usize, self.limit_request_field_size as usize);
        // Who allows longer lines than a usual head is long means a longer head.
        let head = self.limit_request_head.map_or(usual.head.max(line + field_size), |head| head as usize);
        Limits {
            request_line: if line == 0 { head } else { line },
            field_size: if field_size == 0 { head } else { field_size },
            fields: self.limit_request_fields as usize,
            body: if self.limit_request_body == 0 { u64::MAX } else { self.limit_request_body },
            head,
            tolerance: match self.http_compat {
                Compat::Strict => Tolerance::Strict,
                Compat::Gunicorn => Tolerance::Gunicorn,
            },
            ..usual
        }
    }
}

impl Logs {
    pub(crate) fn level(&self) -> LevelFilter {
        match self.log_level {
            Level::Debug => LevelFilter::Debug,
            Level::Info => LevelFilter::Info,
            Level::Warning => LevelFilter::Warn,
            Level::Error => LevelFilter::Error,
            // `log` has no such level; what is critical here is written past it (`logging::critical`).
            Level::Critical => LevelFilter::Off,
        }
    }
}

/// A file mode mask as gunicorn reads it: a leading 0 is octal, 0o, 0x and 0b are what they say, else it is decimal.
fn file_mask(text: &str) -> Result<u32, String> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let mask = u32::from_str_radix(digits, radix).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "not a mask from 0 to 0o777".to_owned())
}

fn default_address() -> OsStr {
    match std::env::var("PORT") {
        Ok(port) if !port.is_empty() => format!("0.0.0.0:{port}").into(),
        _ => "127.0.0.1:8000".into(),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|_| "not a length of time".to_owned())?;
    if time > LONGEST { Err("longer than anybody waits".to_owned()) } else { Ok(time) }
}

fn size(text: &str) -> Result<u64, String> {
    let unit = match text.chars().last().map(|last| last.to_ascii_uppercase()) {
        Some('K') => 1 << 10,
        Some('M') => 1 << 20,
        Some('G') => GIB,
        _ => 1,
    };
    let number = if unit == 1 { text } else { &text[..text.len() - 1] };
    let number: u64 = number.parse().map_err(|_| "not a number of bytes, such as 300M".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "more than there can be".to_owned())
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|time| if time.is_zero() { Err("no time at all".to_owned()) } else { Ok(time) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Flags, String> {
        Flags::read(words.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn nothing_said_is_what_the_server_does_by_itself() {
        let (said, own) = (read("app").unwrap().server(), Settings::default());
        let own = Settings { concurrency: said.concurrency, ..own };
        assert_eq!(format!("{said:?}"), format!("{own:?}"));
    }

    #[test]
    fn one_thread_is_inline_and_fork_excludes_threads() {
        assert_eq!(read("app").unwrap().concurrency(), Concurrency::Threads(4));
        assert_eq!(read("app --threads 1").unwrap().concurrency(), Concurrency::Inline);
        assert_eq!(read("app --fork").unwrap().concurrency(), Concurrency::Fork { children: 64 });
        assert_eq!(read("app --timeout 0").unwrap().server().timeout, None);
        assert!(read("app --fork --threads 4").err().unwrap().contains("cannot be used with"));
        assert!(read("app --fork-warmup /").err().unwrap().contains("required"));
        assert!(read("app --preload --fork-warmup /").is_ok() && read("app --fork --fork-warmup /").is_ok());
    }

    #[test]
    fn zero_lifts_a_limit_up_to_the_next_one() {
        let limits = read("app --limit-request-line 0 --limit-request-body 0").unwrap().server().limits;
        assert_eq!((limits.request_line, limits.head, limits.body), (65536, 65536, u64::MAX));
        let limits = read("app --limit-request-field_size 100000").unwrap().server().limits;
        assert!(limits.field_size == 100_000 && limits.head > 100_000);
        let limits = read("app --limit-request-line 0 --limit-request-head 1000").unwrap().server().limits;
        assert_eq!((limits.request_line, limits.head), (1000, 1000));
    }

    #[test]
    fn requests_are_strict_unless_gunicorns_are_asked_for() {
        let tolerance = |words| read(words).unwrap().server().limits.tolerance;
        assert_eq!(tolerance("app"), Tolerance::Strict);
        assert_eq!(tolerance("app --http-compat gunicorn"), Tolerance::Gunicorn);
    }

    #[test]
    fn a_length_of_time_is_a_number_from_zero_up() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["", "ten", "-1", "nan", "inf", "1e30", "1e10"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(some_seconds("0").is_err() && some_seconds("0.1").is_ok());
    }

    #[test]
    fn a_size_is_a_number_that_may_have_a_unit() {
        assert_eq!([size("0"), size("12"), size("3k")], [Ok(0), Ok(12), Ok(3072)]);
        assert_eq!([size("300M"), size("2G")], [Ok(300 << 20), Ok(2 << 30)]);
        for wrong in ["", "M", "-1", "1.5G", "1T", "1é", "99999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn jitter_adds_up_to_so_many_requests_where_there_is_a_bound() {
        assert_eq!(read("app --max-requests-jitter 2").unwrap().server().max_requests, None);
        for _ in 0..100 {
            let flags = read("app --max-requests 10 --max-requests-jitter 2").unwrap();
            assert!((10..=12).contains(&flags.server().max_requests.unwrap()));
        }
    }

    #[test]
    fn a_mask_is_read_as_gunicorn_reads_it() {
        for text in ["022", "0o22", "18", "0x12", "0b10010"] {
            assert_eq!(file_mask(text), Ok(18), "{text}");
        }
        assert_eq!((file_mask("0"), file_mask("0777")), (Ok(0), Ok(0o777)));
        for wrong in ["", "08", "0o", "+", "-1", "01000", "\u{e9}0"] {
            assert!(file_mask(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_keyword_is_a_flag_with_underscores() {
        assert_eq!(Flags::of_keyword("max_children").as_deref(), Some("max-children"));
        assert_eq!(
            Flags::of_keyword("limit_request_field_size").as_deref(),
            Some("limit-request-field_size")
        );
        assert_eq!(Flags::of_keyword("app"), None);
    }
}
