//! Settings of gunicorn that this server does not support. They are accepted, so that existing command lines and config files
//! work unchanged, and produce a warning or an error that says what to do instead.

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};

use crate::error::ConfigError;

/// The response to an unsupported setting.
enum Unsupported {
    /// A warning: the setting has no effect.
    Ignore(&'static str),
    /// An error, unless the setting has this harmless value.
    Reject(&'static str, &'static str),
}
use Unsupported::{Ignore, Reject};

const HANDSHAKE: &str = "handshakes never block other connections";
const DIRTY: &str = "dirty workers are not supported; use a task queue or a separate process";
const STRICT: &str = "such requests are always rejected, because they are ambiguous";
const METHODS: &str = "any token is accepted as a method, unchanged";
const ASGI: &str = "only WSGI applications are supported";

/// The flag, whether it takes a value, and the response.
const UNSUPPORTED: &[(&str, bool, Unsupported)] = &[
    ("asgi-disconnect-grace-period", true, Ignore(ASGI)),
    ("asgi-lifespan", true, Ignore(ASGI)),
    ("asgi-loop", true, Ignore(ASGI)),
    ("casefold-http-method", false, Ignore(METHODS)),
    (
        "control-socket",
        true,
        Ignore("there is no control socket; use signals, such as `kill -HUP` to reload"),
    ),
    ("control-socket-mode", true, Ignore("there is no control socket")),
    ("dirty-app", true, Reject("", DIRTY)),
    ("dirty-graceful-timeout", true, Ignore(DIRTY)),
    ("dirty-threads", true, Ignore(DIRTY)),
    ("dirty-timeout", true, Ignore(DIRTY)),
    ("dirty-workers", true, Reject("0", DIRTY)),
    ("do-handshake-on-connect", false, Ignore(HANDSHAKE)),
    ("enable-backlog-metric", false, Ignore("this metric is not supported")),
    ("http-parser", true, Ignore("there is only one parser")),
    ("no-control-socket", false, Ignore("there is no control socket")),
    ("permit-obsolete-folding", false, Ignore(STRICT)),
    ("permit-unconventional-http-method", false, Ignore(METHODS)),
    ("permit-unconventional-http-version", false, Ignore(STRICT)),
    ("protocol", true, Reject("http", "only HTTP is supported")),
    ("spew", false, Ignore("use `python -m trace` to trace each line")),
    ("ssl-version", true, Ignore("the client and the server choose TLS 1.2 or 1.3; use --tls-min")),
    ("strip-header-spaces", false, Ignore(STRICT)),
    ("suppress-ragged-eofs", false, Ignore("an unannounced end of a TLS connection is never an error")),
    ("uwsgi-allow-from", true, Ignore("only HTTP is supported")),
    ("websocket-max-message-size", true, Ignore(ASGI)),
    ("worker-tmp-dir", true, Ignore("workers do not use heartbeat files")),
];

/// Names in config files that are not the flag with underscores.
const ALIASES: &[(&str, &str)] = &[
    ("no-control-socket", "control_socket_disable"),
    ("dirty-app", "dirty_apps"),
    ("uwsgi-allow-from", "uwsgi_allow_ips"),
];

/// Arguments that --help does not show.
pub(crate) fn arguments() -> impl Iterator<Item = Arg> {
    UNSUPPORTED.iter().map(|(flag, has_value, _)| {
        let action = if *has_value { ArgAction::Append } else { ArgAction::SetTrue };
        let aliases = ALIASES.iter().filter(|(of, _)| of == flag).map(|(_, alias)| *alias);
        Arg::new(*flag).long(*flag).action(action).hide(true).aliases(aliases)
    })
}

/// Returns a warning for each ignored setting in use, or an error for the first rejected one.
pub(crate) fn check_unsupported(matches: &ArgMatches) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for (flag, _, response) in UNSUPPORTED {
        if matches.value_source(flag) != Some(ValueSource::CommandLine) {
            continue;
        }
        match response {
            Ignore(message) => warnings.push(format!("--{flag} is ignored: {message}")),
            Reject(harmless, message) => {
                let mut values = matches.get_many::<String>(flag).into_iter().flatten();
                if values.any(|value| value != harmless) {
                    return Err(ConfigError(format!("--{flag}: {message}")));
                }
            }
        }
    }
    Ok(warnings)
}

/// Validates `--worker-class`. Only gunicorn's classes that run the application on OS threads are accepted.
pub(crate) fn worker_class(name: &str) -> Result<String, String> {
    match name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "sync" | "syncworker" => Ok("sync".into()),
        "gthread" | "threadworker" => Ok("gthread".into()),
        kind if ["gevent", "eventlet", "tornado"].iter().any(|green| kind.contains(green)) => {
            Err("green threads are not supported; use --threads 64 or more".into())
        }
        kind if ["uvicorn", "asgi"].iter().any(|other| kind.contains(other))
            || name.starts_with("uvicorn") =>
        {
            Err("only WSGI applications are supported; use an ASGI server".into())
        }
        _ => Err("expected sync or gthread; use --threads or --fork instead of other classes".into()),
    }
}
