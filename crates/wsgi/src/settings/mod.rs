//! Every setting: the one definition of the command line, of its help, and of the keywords of `serve()`.
//!
//! The structs hold what was said; the methods of [`Flags`] tell the rooms below what it means to them.
//!
//! | module       | what it holds |
//! |--------------|---|
//! | [`running`]  | where to listen, and what runs there |
//! | [`requests`] | what a client may ask for, and how long it may take |
//! | [`proxies`]  | which proxies are believed, and what |
//! | [`process`]  | the process among others, and what helps to develop |
//! | [`logs`]     | what is logged, where, and in what form |
//! | [`values`]   | how lengths of time, sizes and masks are written |

mod logs;
mod process;
mod proxies;
mod requests;
mod running;
mod values;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};
use mlws_server::{Concurrency, Settings};

pub(crate) use self::logs::ErrorFormat;
pub(crate) use self::process::{Development, Engine, Process};
use self::{
    logs::Logs,
    proxies::Proxies,
    requests::{Patience, RequestLimits},
    running::{Running, Sockets},
};

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
    proxies: Proxies,
    #[command(flatten)]
    pub(crate) process: Process,
    #[command(flatten)]
    pub(crate) logs: Logs,
    #[command(flatten)]
    pub(crate) development: Development,
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

#[cfg(test)]
mod tests {
    use mlws_http1::Tolerance;

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
    fn jitter_adds_up_to_so_many_requests_where_there_is_a_bound() {
        assert_eq!(read("app --max-requests-jitter 2").unwrap().server().max_requests, None);
        for _ in 0..100 {
            let flags = read("app --max-requests 10 --max-requests-jitter 2").unwrap();
            assert!((10..=12).contains(&flags.server().max_requests.unwrap()));
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
