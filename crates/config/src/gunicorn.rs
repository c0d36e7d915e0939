//! gunicorn's settings that have no meaning here: taken, so that a command line or a config file of gunicorn's works as it is, and
//! answered with a clap_message that says what happens instead.

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};

use crate::error::ConfigError;

/// What a setting is answered with.
enum Unsupported {
    /// A warning; all goes on without it.
    Ignore(&'static str),
    /// An error, unless it has this value, which changes nothing: going on would not be what was asked for.
    Reject(&'static str, &'static str),
}
use Unsupported::{Ignore, Reject};

const TLS: &str = "TLS is not spoken yet; let nginx or HAProxy speak it in front (docs/proxies.md)";
const HTTP2: &str = "HTTP/2 is not spoken; let nginx or HAProxy speak it in front";
const DIRTY: &str = "there are no dirty workers; use a task queue, or a process of your own";
const STRICT: &str = "such requests are refused in any case, as they can be read in two ways";
const METHODS: &str = "a method is any token, and taken as it is written";
const ASGI: &str = "only WSGI applications are served";

/// The flag, whether a value follows it, and the answer.
const UNSUPPORTED: &[(&str, bool, Unsupported)] = &[
    ("asgi-disconnect-grace-period", true, Ignore(ASGI)),
    ("asgi-lifespan", true, Ignore(ASGI)),
    ("asgi-loop", true, Ignore(ASGI)),
    ("ca-certs", true, Ignore(TLS)),
    ("casefold-http-method", false, Ignore(METHODS)),
    ("cert-reqs", true, Ignore(TLS)),
    ("certfile", true, Reject("", TLS)),
    ("ciphers", true, Ignore(TLS)),
    ("control-socket", true, Ignore("there is no control socket; docs/signals.md tells what signals do")),
    ("control-socket-mode", true, Ignore("there is no control socket")),
    ("dirty-app", true, Reject("", DIRTY)),
    ("dirty-graceful-timeout", true, Ignore(DIRTY)),
    ("dirty-threads", true, Ignore(DIRTY)),
    ("dirty-timeout", true, Ignore(DIRTY)),
    ("dirty-workers", true, Reject("0", DIRTY)),
    ("do-handshake-on-connect", false, Ignore(TLS)),
    ("enable-backlog-metric", false, Ignore("the backlog is not measured")),
    ("http-parser", true, Ignore("there is one parser, and it is fast")),
    ("http-protocols", true, Reject("h1", HTTP2)),
    ("http2-cleartext", true, Reject("off", HTTP2)),
    ("http2-initial-window-size", true, Ignore(HTTP2)),
    ("http2-max-concurrent-streams", true, Ignore(HTTP2)),
    ("http2-max-frame-size", true, Ignore(HTTP2)),
    ("http2-max-header-list-size", true, Ignore(HTTP2)),
    ("keyfile", true, Reject("", TLS)),
    (
        "logger-class",
        true,
        Ignore("the logs are the server's own; --log-config takes them to Python's logging"),
    ),
    ("no-control-socket", false, Ignore("there is none")),
    ("permit-obsolete-folding", false, Ignore(STRICT)),
    ("permit-unconventional-http-method", false, Ignore(METHODS)),
    ("permit-unconventional-http-version", false, Ignore(STRICT)),
    ("protocol", true, Reject("http", "only HTTP is spoken")),
    ("spew", false, Ignore("use `python -m trace` to see each line that runs")),
    ("ssl-version", true, Ignore(TLS)),
    ("strip-header-spaces", false, Ignore(STRICT)),
    ("suppress-ragged-eofs", false, Ignore(TLS)),
    ("uwsgi-allow-from", true, Ignore("only HTTP is spoken")),
    ("websocket-max-message-size", true, Ignore(ASGI)),
    ("worker-tmp-dir", true, Ignore("workers need no file to show that they live")),
];

/// What a config file calls them, where it is not the flag with underscores.
const ALIASES: &[(&str, &str)] = &[
    ("no-control-socket", "control_socket_disable"),
    ("dirty-app", "dirty_apps"),
    ("uwsgi-allow-from", "uwsgi_allow_ips"),
];

/// As arguments that --help does not show.
pub(crate) fn arguments() -> impl Iterator<Item = Arg> {
    UNSUPPORTED.iter().map(|(flag, has_value, _)| {
        let action = if *has_value { ArgAction::Append } else { ArgAction::SetTrue };
        let aliases = ALIASES.iter().filter(|(of, _)| of == flag).map(|(_, alias)| *alias);
        Arg::new(*flag).long(*flag).action(action).hide(true).aliases(aliases)
    })
}

/// A clap_message for each that was named; an error for the first that cannot be done without.
pub(crate) fn check_unsupported(matches: &ArgMatches) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for (flag, _, answer) in UNSUPPORTED {
        if matches.value_source(flag) != Some(ValueSource::CommandLine) {
            continue;
        }
        match answer {
            Ignore(clap_message) => warnings.push(format!("--{flag} is ignored: {clap_message}")),
            Reject(harmless, clap_message) => {
                let mut values = matches.get_many::<String>(flag).into_iter().flatten();
                if values.any(|value| value != harmless) {
                    return Err(ConfigError(format!("--{flag}: {clap_message}")));
                }
            }
        }
    }
    Ok(warnings)
}

/// Validates `--worker-class`: gunicorn's classes that run an application on `--threads` threads, one by default.
pub(crate) fn worker_class(name: &str) -> Result<String, String> {
    match name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "sync" | "syncworker" => Ok("sync".into()),
        "gthread" | "threadworker" => Ok("gthread".into()),
        kind if ["gevent", "eventlet", "tornado"].iter().any(|green| kind.contains(green)) => {
            Err("there are no green threads here; use --threads 64, or more: waiting threads cost little"
                .into())
        }
        kind if ["uvicorn", "asgi"].iter().any(|other| kind.contains(other))
            || name.starts_with("uvicorn") =>
        {
            Err("only WSGI applications are served; an ASGI application needs another server".into())
        }
        _ => Err("say sync or gthread, or leave it out and say --threads, or --fork".into()),
    }
}
