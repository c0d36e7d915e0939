//! gunicorn's settings that have no meaning here: taken, so that a command line or a config file of gunicorn's works as it is, and
//! answered with a sentence that says what happens instead.

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};

use crate::refusal::Refusal;

/// What a setting is answered with.
enum Answer {
    /// A warning; all goes on without it.
    Ignored(&'static str),
    /// An error, unless it has this value, which changes nothing: going on would not be what was asked for.
    Refused(&'static str, &'static str),
}
use Answer::{Ignored, Refused};

const TLS: &str = "TLS is not spoken yet; let nginx or HAProxy speak it in front (docs/proxies.md)";
const HTTP2: &str = "HTTP/2 is not spoken; let nginx or HAProxy speak it in front";
const DIRTY: &str = "there are no dirty workers; use a task queue, or a process of your own";
const STRICT: &str = "such requests are refused in any case, as they can be read in two ways";
const METHODS: &str = "a method is any token, and taken as it is written";
const ASGI: &str = "only WSGI applications are served";

/// The flag, whether a value follows it, and the answer.
const TAKEN: &[(&str, bool, Answer)] = &[
    ("asgi-disconnect-grace-period", true, Ignored(ASGI)),
    ("asgi-lifespan", true, Ignored(ASGI)),
    ("asgi-loop", true, Ignored(ASGI)),
    ("ca-certs", true, Ignored(TLS)),
    ("casefold-http-method", false, Ignored(METHODS)),
    ("cert-reqs", true, Ignored(TLS)),
    ("certfile", true, Refused("", TLS)),
    ("ciphers", true, Ignored(TLS)),
    ("control-socket", true, Ignored("there is no control socket; docs/signals.md tells what signals do")),
    ("control-socket-mode", true, Ignored("there is no control socket")),
    ("dirty-app", true, Refused("", DIRTY)),
    ("dirty-graceful-timeout", true, Ignored(DIRTY)),
    ("dirty-threads", true, Ignored(DIRTY)),
    ("dirty-timeout", true, Ignored(DIRTY)),
    ("dirty-workers", true, Refused("0", DIRTY)),
    ("do-handshake-on-connect", false, Ignored(TLS)),
    ("enable-backlog-metric", false, Ignored("the backlog is not measured")),
    ("http-parser", true, Ignored("there is one parser, and it is fast")),
    ("http-protocols", true, Refused("h1", HTTP2)),
    ("http2-cleartext", true, Refused("off", HTTP2)),
    ("http2-initial-window-size", true, Ignored(HTTP2)),
    ("http2-max-concurrent-streams", true, Ignored(HTTP2)),
    ("http2-max-frame-size", true, Ignored(HTTP2)),
    ("http2-max-header-list-size", true, Ignored(HTTP2)),
    ("keyfile", true, Refused("", TLS)),
    (
        "logger-class",
        true,
        Ignored("the logs are the server's own; --log-config takes them to Python's logging"),
    ),
    ("no-control-socket", false, Ignored("there is none")),
    ("permit-obsolete-folding", false, Ignored(STRICT)),
    ("permit-unconventional-http-method", false, Ignored(METHODS)),
    ("permit-unconventional-http-version", false, Ignored(STRICT)),
    ("protocol", true, Refused("http", "only HTTP is spoken")),
    ("spew", false, Ignored("use `python -m trace` to see each line that runs")),
    ("ssl-version", true, Ignored(TLS)),
    ("strip-header-spaces", false, Ignored(STRICT)),
    ("suppress-ragged-eofs", false, Ignored(TLS)),
    ("uwsgi-allow-from", true, Ignored("only HTTP is spoken")),
    ("websocket-max-message-size", true, Ignored(ASGI)),
    ("worker-tmp-dir", true, Ignored("workers need no file to show that they live")),
];

/// What a config file calls them, where it is not the flag with underscores.
const ALIASES: &[(&str, &str)] = &[
    ("no-control-socket", "control_socket_disable"),
    ("dirty-app", "dirty_apps"),
    ("uwsgi-allow-from", "uwsgi_allow_ips"),
];

/// As arguments that --help does not show.
pub(super) fn arguments() -> impl Iterator<Item = Arg> {
    TAKEN.iter().map(|(flag, has_value, _)| {
        let action = if *has_value { ArgAction::Append } else { ArgAction::SetTrue };
        let aliases = ALIASES.iter().filter(|(of, _)| of == flag).map(|(_, alias)| *alias);
        Arg::new(*flag).long(*flag).action(action).hide(true).aliases(aliases)
    })
}

/// A sentence for each that was named; an error for the first that cannot be done without.
pub(super) fn answers(matches: &ArgMatches) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    for (flag, _, answer) in TAKEN {
        if matches.value_source(flag) != Some(ValueSource::CommandLine) {
            continue;
        }
        match answer {
            Ignored(sentence) => warnings.push(format!("--{flag} is ignored: {sentence}")),
            Refused(harmless, sentence) => {
                let mut values = matches.get_many::<String>(flag).into_iter().flatten();
                if values.any(|value| value != harmless) {
                    return Err(Refusal::Usage(format!("--{flag}: {sentence}")));
                }
            }
        }
    }
    Ok(warnings)
}

/// Validates `--worker-class`: gunicorn's classes that run an application on `--threads` threads, one by default.
pub(super) fn worker_class(name: &str) -> Result<String, String> {
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
