//! [`Config`]: the definition of every setting, for the command line, its help, config files and the keywords of `serve()`.

use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use mlws_server::{Concurrency, Settings};

use crate::{
    app_options::AppOptions,
    config_options::{CLI_ONLY, ConfigOptions},
    dev_options::DevOptions,
    gunicorn,
    http2_options::Http2Options,
    https_options::HttpsOptions,
    limit_options::LimitOptions,
    log_options::LogOptions,
    process_options::ProcessOptions,
    proxy_options::ProxyOptions,
    socket_options::SocketOptions,
    timeout_options::TimeoutOptions,
    worker_options::WorkerOptions,
};

const ABOUT: &str = "Serve a Python WSGI application over HTTP";

const EXAMPLES: &str = "\
Examples:
  mlws flask_app:app                               the object `app` in flask_app.py
  mlws 'shop:create_app(\"prod.ini\", debug=False)'  the return value of a factory
  mlws shop.wsgi --bind 0.0.0.0:80 --workers 4     four processes that share the port
  mlws shop.wsgi --fork --timeout 10               each request in its own process
  mlws shop.wsgi --bind unix:/run/shop.sock --access-logfile -

Each option can also be set in a config file (workers = 4) and by an environment variable (MLWS_WORKERS=4).";

/// The merged settings of all sources.
#[derive(Parser)]
#[command(name = "mlws", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub struct Config {
    /// WSGI application: MODULE:ATTRIBUTE, MODULE, or MODULE:FACTORY(ARGUMENTS)
    ///
    /// MODULE alone means its attribute `application` or else `app`. ARGUMENTS are Python literals.
    pub app: Option<String>,

    #[command(flatten)]
    pub source: AppOptions,
    #[command(flatten)]
    pub configuration: ConfigOptions,
    #[command(flatten)]
    pub sockets: SocketOptions,
    #[command(flatten)]
    pub tls: HttpsOptions,
    #[command(flatten)]
    pub http2: Http2Options,
    #[command(flatten)]
    pub running: WorkerOptions,
    #[command(flatten)]
    pub limits: LimitOptions,
    #[command(flatten)]
    pub timeouts: TimeoutOptions,
    #[command(flatten)]
    pub proxies: ProxyOptions,
    #[command(flatten)]
    pub process: ProcessOptions,
    #[command(flatten)]
    pub logs: LogOptions,
    #[command(flatten)]
    pub development: DevOptions,

    /// Warnings about the sources.
    #[arg(skip)]
    pub warnings: Vec<String>,
    /// The text of `--print-config`.
    #[arg(skip)]
    pub shown: Option<String>,
}

impl Config {
    /// The definition of a single source. Constraints between options are not checked, because the other option may come from
    /// another source. The last of repeated options applies, as in argparse: scripts put their own options before `"$@"`.
    pub fn command_definition() -> Command {
        Self::command().args_override_self(true).args(gunicorn::arguments())
    }

    /// The definition of the command line. As in gunicorn, an unambiguous prefix of an option stands for it, and `-v` is `--version`.
    pub(crate) fn command_line() -> Command {
        let version = Arg::new("version").short('v').visible_short_alias('V').long("version");
        Self::command_definition()
            .infer_long_args(true)
            .disable_version_flag(true)
            .arg(version.action(ArgAction::Version).help("Print the version"))
    }

    /// The definition of the merged sources, with the constraints between options.
    pub(crate) fn command_with_constraints() -> Command {
        Self::command_definition()
            .mut_arg("threads", |threads| threads.conflicts_with("fork"))
            .mut_arg("max_children", |children| children.requires("fork"))
            .mut_arg("fork_warmup", |warmup| warmup.requires("forking"))
            .mut_arg("paste", |paste| paste.conflicts_with_all(["app", "factory"]))
            .mut_arg("paste_global", |variables| variables.requires("paste").conflicts_with("app"))
    }

    /// The name of the application, for messages.
    pub fn name(&self) -> &str {
        self.app.as_deref().or(self.source.paste.as_deref()).unwrap_or_default()
    }

    pub fn concurrency(&self) -> Concurrency {
        let WorkerOptions { threads, fork, max_children, .. } = self.running;
        match (fork, threads) {
            (true, _) => Concurrency::Fork { children: max_children.into() },
            (false, 1) => Concurrency::Inline,
            (false, threads) => Concurrency::Threads(threads.into()),
        }
    }

    pub fn server(&self) -> Settings {
        Settings {
            concurrency: self.concurrency(),
            limits: self.limits.protocol(),
            head_timeout: self.timeouts.head_timeout,
            body_timeout: self.timeouts.body_timeout,
            body_rate: self.timeouts.body_rate,
            write_timeout: self.timeouts.write_timeout,
            timeout: Some(self.running.timeout).filter(|timeout| !timeout.is_zero()),
            max_requests: self.running.max_requests(),
            max_rss: Some(self.running.max_rss).filter(|size| *size > 0),
            trusted: self.proxies.forwarded_allow_ips.clone(),
            proxy_protocol: self.proxies.protocol(),
            graceful_timeout: self.running.graceful_timeout,
            keep_alive: self.timeouts.keep_alive,
            connections: self.sockets.worker_connections as usize,
            queue: self.running.max_queue as usize,
            body_buffer: self.limits.body_buffer,
            body_in_memory: self.limits.body_in_memory as usize,
            bodies_in_memory: self.limits.bodies_in_memory as usize,
            response_memory: usize::try_from(self.limits.response_memory).unwrap_or(usize::MAX),
            response_spool: self.limits.response_spool,
            http2: self.http2.settings(),
            temporary: self.limits.tmp_dir.clone().unwrap_or_else(std::env::temp_dir),
            server_name: self.limits.server_header.clone(),
            ..Settings::default()
        }
    }
}

/// The keyword arguments of `serve()` in the order of --help, and their defaults as text. Flags, lists, and options that the
/// environment can set have no default.
pub fn keywords() -> Vec<(String, String)> {
    let definition = Config::command_definition();
    let shown = definition.get_arguments().filter(|argument| !argument.is_hide_set());
    let keywords = shown.filter_map(|argument| {
        let is_fixed = matches!(argument.get_action(), ArgAction::Set) && argument.get_id() != "workers";
        let default = argument.get_default_values().first().filter(|_| is_fixed);
        let default = default.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
        Some((argument.get_long()?.replace('-', "_"), default))
    });
    keywords.filter(|(name, _)| !CLI_ONLY.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use mlws_http1::ParserMode;

    use super::*;
    use crate::layers::{argument, suggest};

    #[test]
    fn only_one_option_names_the_application() {
        assert!(Config::parse_words("--paste Cargo.toml app").err().unwrap().contains("cannot be used with"));
        assert!(Config::parse_words("app --paste-global a=b").is_err());
        assert_eq!(Config::parse_words("--paster Cargo.toml").unwrap().name(), "Cargo.toml");
    }

    #[test]
    fn the_definition_is_valid() {
        Config::command_definition().debug_assert();
        Config::command_line().debug_assert();
        Config::command_with_constraints().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_server() {
        let (parsed, own) = (Config::parse_words("app").unwrap().server(), Settings::default());
        let own = Settings { concurrency: parsed.concurrency, ..own };
        assert_eq!(format!("{parsed:?}"), format!("{own:?}"));
    }

    #[test]
    fn one_thread_is_the_default_and_runs_inline_and_fork_excludes_threads() {
        assert_eq!(Config::parse_words("app").unwrap().concurrency(), Concurrency::Inline);
        assert_eq!(Config::parse_words("app --threads 1").unwrap().concurrency(), Concurrency::Inline);
        assert_eq!(Config::parse_words("app --threads 4").unwrap().concurrency(), Concurrency::Threads(4));
        assert_eq!(
            Config::parse_words("app --fork").unwrap().concurrency(),
            Concurrency::Fork { children: 64 }
        );
        assert_eq!(Config::parse_words("app --timeout 0").unwrap().server().timeout, None);
        assert!(Config::parse_words("app --fork --threads 4").err().unwrap().contains("cannot be used with"));
        assert!(Config::parse_words("app --fork-warmup /").err().unwrap().contains("required"));
        assert!(
            Config::parse_words("app --preload --fork-warmup /").is_ok()
                && Config::parse_words("app --fork --fork-warmup /").is_ok()
        );
    }

    #[test]
    fn zero_lifts_a_limit_up_to_the_next_one() {
        let limits =
            Config::parse_words("app --limit-request-line 0 --limit-request-body 0").unwrap().server().limits;
        assert_eq!((limits.request_line, limits.head, limits.body), (65536, 65536, u64::MAX));
        let limits = Config::parse_words("app --limit-request-field_size 100000").unwrap().server().limits;
        assert!(limits.field_size == 100_000 && limits.head > 100_000);
        let limits = Config::parse_words("app --limit-request-line 0 --limit-request-head 1000")
            .unwrap()
            .server()
            .limits;
        assert_eq!((limits.request_line, limits.head), (1000, 1000));
    }

    #[test]
    fn an_unambiguous_prefix_stands_for_an_option() {
        let config = Config::parse_words("app --thr 2 --max-requests-j=3 --prel").unwrap();
        assert_eq!((config.running.threads, config.running.max_requests_jitter), (2, 3));
        assert!(config.running.preload && config.running.max_requests == 0);
        assert_eq!(Config::parse_words("app --max-requests 5").unwrap().running.max_requests, 5);
        assert!(Config::parse_words("app --wor 2").err().unwrap().contains("unexpected argument '--wor'"));
    }

    #[test]
    fn http_compat_selects_the_parser_mode() {
        let mode = |words| Config::parse_words(words).unwrap().server().limits.mode;
        assert_eq!(mode("app"), ParserMode::Strict);
        assert_eq!(mode("app --http-compat gunicorn"), ParserMode::Gunicorn);
    }

    #[test]
    fn jitter_is_added_to_max_requests() {
        assert_eq!(Config::parse_words("app --max-requests-jitter 2").unwrap().server().max_requests, None);
        for _ in 0..100 {
            let flags = Config::parse_words("app --max-requests 10 --max-requests-jitter 2").unwrap();
            assert!((10..=12).contains(&flags.server().max_requests.unwrap()));
        }
    }

    #[test]
    fn a_setting_is_named_as_its_flag_or_as_in_gunicorn() {
        let definition = Config::command_definition();
        let flag = |name| argument(&definition, name).and_then(|argument| argument.get_long());
        assert_eq!(flag("max_children"), Some("max-children"));
        assert_eq!(flag("limit_request_field_size"), Some("limit-request-field_size"));
        assert_eq!((flag("preload_app"), flag("pidfile")), (Some("preload"), Some("pid")));
        assert_eq!((flag("nonsense"), suggest(&definition, "wokers").as_deref()), (None, Some("workers")));
    }

    #[test]
    fn worker_classes_do_not_change_threads_and_green_threads_are_rejected() {
        assert_eq!(Config::parse_words("app -k sync").unwrap().concurrency(), Concurrency::Inline);
        assert_eq!(
            Config::parse_words("app -k sync --threads 2").unwrap().concurrency(),
            Concurrency::Threads(2)
        );
        assert_eq!(Config::parse_words("app -k gthread").unwrap().concurrency(), Concurrency::Inline);
        assert_eq!(
            Config::parse_words("app -k gthread --threads 2").unwrap().concurrency(),
            Concurrency::Threads(2)
        );
        assert!(Config::parse_words("app -k gevent").err().unwrap().contains("--threads"));
    }

    #[test]
    fn unsupported_settings_of_gunicorn_are_reported() {
        let warnings = Config::parse_words("app --worker-tmp-dir /dev/shm --ssl-version 2").unwrap().warnings;
        assert_eq!(warnings.len(), 2);
        assert!(Config::parse_words("app --dirty-workers 1").err().unwrap().contains("dirty workers"));
    }
}
