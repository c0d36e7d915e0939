//! The entry points: the command `mlws`, and `serve()` for Python programs. Both call [`serving::run`].

use std::{
    ffi::OsString,
    io::{self, Write},
};

use mlws_supervisor::Pid;
use pyo3::{
    exceptions::{PySystemExit, PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyString},
};

use mlws_config::{Value, keywords as keywords_of_serve, show_completions};
use mlws_logging::logger;

use crate::{
    config_sources::{ConfigFailure, ConfigSources},
    process::descriptors,
    python_config::value_of,
    serving,
};

/// Runs the command `mlws` with these arguments, and returns its exit status. A worker never returns.
#[pyfunction]
#[pyo3(signature = (args, /))]
pub(crate) fn main(py: Python<'_>, args: Vec<OsString>) -> PyResult<i32> {
    end_on_interrupt(py)?;
    let sources = ConfigSources::cli(args);
    let config = match sources.read(py) {
        Ok(config) => config,
        Err(ConfigFailure::Clap(message)) => {
            // clap reports --help and --version as errors too, for stdout and with status 0.
            let _ = message.print().and_then(|()| io::stdout().flush());
            return Ok(message.exit_code());
        }
        Err(ConfigFailure::Startup(error)) => return Ok(error.report()),
    };
    if let Some(shell) = config.configuration.completions {
        show_completions(shell);
        return Ok(0);
    }
    let options = &config.configuration;
    let status = if options.check_config || options.print_config {
        serving::check(py, &config)
    } else {
        serving::run(py, config, &sources, None)
    };
    Ok(status.unwrap_or_else(|error| error.report()))
}

/// Writes a record to the server's log; the level is a number as in Python's `logging`. Surrogates are replaced.
#[pyfunction]
#[pyo3(name = "log", signature = (level, text, /))]
pub(crate) fn write_log(level: u32, text: &Bound<'_, PyString>) {
    let text = &*text.to_string_lossy();
    match level {
        50.. => logger::critical(text),
        40.. => log::error!("{text}"),
        30.. => log::warn!("{text}"),
        20.. => log::info!("{text}"),
        _ => log::debug!("{text}"),
    }
}

/// Restores the original limit on open files for a program that was just started.
#[pyfunction]
#[pyo3(signature = (pid, /))]
pub(crate) fn restore_descriptor_limit(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0) {
        descriptors::restore(pid);
    }
}

/// Serves a WSGI application until the process is stopped, like the command `mlws`.
///
/// The application is a callable, or a text like the argument of the command. With `paste` it is omitted. The keywords are the options of the
/// command with underscores. None and False mean that the option is not set. The calling process becomes the master of
/// the worker processes. Its other Python threads continue, but do not exist in the workers. A worker never
/// returns to the caller. Raises `ValueError` or `TypeError` for an invalid setting, and `SystemExit` if serving
/// fails.
#[pyfunction]
#[pyo3(
    signature = (app=None, **settings),
    text_signature = "(app=None, *, factory=False, paste=None, paste_global=None, env=None, env_file=None, config=None, bind=None, backlog=2048, reuse_port=False, worker_connections=60000, certfile=None, keyfile=None, extra_certfile=None, ca_certs=None, cert_reqs=0, crl=None, ciphers=None, tls_min=1.2, insecure_bind=None, \
        http_protocols='h2,h1', http2_cleartext='off', http2_max_concurrent_streams=100, http2_initial_window_size=1048576, \
        http2_max_frame_size=16384, http2_max_header_list_size=65536, \
        workers=None, threads=1, worker_class=None, fork=False, \
        max_children=64, max_queue=8192, preload=False, fork_warmup=None, timeout=30, \
        boot_timeout=None, max_requests=0, max_requests_jitter=0, max_rss=0, graceful_timeout=30, no_sendfile=False, limit_request_line=8190, \
        limit_request_fields=100, limit_request_field_size=8190, limit_request_head=None, limit_request_body=0, \
        body_buffer='8M', body_in_memory=524288, bodies_in_memory=67108864, response_memory='64M', response_spool='1G', tmp_dir=None, http_compat='strict', server_header='mylittlewebserver', keep_alive=5, head_timeout=30, \
        body_timeout=30, body_rate=512, write_timeout=60, forwarded_allow_ips='127.0.0.1,::1', secure_scheme_header=None, \
        forwarder_headers=None, header_map='drop', root_path=None, proxy_protocol='off', \
        proxy_allow_from='127.0.0.1,::1', forwarded_fields=None, chdir=None, pythonpath=None, pid=None, daemon=False, \
        user=None, group=None, umask=None, initgroups=False, name=None, log_level='info', error_logfile='-', \
        error_logformat='text', access_logfile=None, \
        access_logformat='%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s \"%(f)s\" \"%(a)s\"', capture_output=False, \
        enable_stdio_inheritance=False, log_config=None, log_config_json=None, logger_class=None, log_syslog=False, \
        log_syslog_to='udp://localhost:514', log_syslog_prefix=None, log_syslog_facility='user', \
        disable_redirect_access_to_syslog=False, statsd_host=None, statsd_prefix='', dogstatsd_tags='', \
        reload=False, reload_engine='auto', reload_extra_file=None)"
)]
pub(crate) fn serve(
    py: Python<'_>,
    app: Option<&Bound<'_, PyAny>>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let text = app.and_then(|app| app.extract::<String>().ok());
    let name = match (app, &text) {
        (Some(app), None) => Some(name_of(app)?),
        _ => text.clone(),
    };
    let sources = ConfigSources::api(keywords(name, settings)?);
    let config = sources.read(py).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let given = match app {
        Some(app) if text.is_none() && app.is_callable() => Some(app.clone().unbind()),
        Some(_) if text.is_some() => None,
        None => None,
        Some(_) => {
            let name = config.name();
            return Err(PyTypeError::new_err(format!(
                "invalid app {name}: expected a callable or a text that names one"
            )));
        }
    };
    py.check_signals()?;
    let status = serving::run(py, config, &sources, given);
    match status.unwrap_or_else(|error| error.report()) {
        0 => Ok(()),
        status => Err(PySystemExit::new_err(status)),
    }
}

/// The keywords with their values as texts.
fn keywords(
    app: Option<String>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Vec<(String, Vec<String>)>> {
    let mut keywords: Vec<_> = app.into_iter().map(|app| ("app".to_owned(), vec![app])).collect();
    for (keyword, value) in settings.into_iter().flatten() {
        let keyword: String = keyword.extract()?;
        if !keywords_of_serve().iter().any(|(name, _)| *name == keyword) {
            let text = format!("serve() got an unexpected keyword argument '{keyword}'");
            return Err(PyTypeError::new_err(text));
        }
        match value_of(&value)? {
            Value::Unset | Value::Switch(false) => {}
            Value::Switch(true) => keywords.push((keyword, Vec::new())),
            Value::Texts(texts) => keywords.push((keyword, texts)),
        }
    }
    Ok(keywords)
}

/// A name for log messages: `shop:app` for a function, otherwise the `repr()`.
fn name_of(app: &Bound<'_, PyAny>) -> PyResult<String> {
    match (app.getattr("__module__"), app.getattr("__qualname__")) {
        (Ok(module), Ok(name)) => Ok(format!("{module}:{name}")),
        _ => Ok(app.repr()?.to_string()),
    }
}

/// Until the master installs its signal handlers, Ctrl-C ends the command without Python's traceback.
fn end_on_interrupt(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("_signal")?; // the C part of `signal`, without its enumerations, which need 0.3 MB
    signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use pyo3::types::PyBool;

    use super::*;

    #[test]
    fn the_signature_of_serve_has_the_options_of_the_command_with_their_defaults() {
        Python::initialize();
        Python::attach(|py| {
            let function = wrap_pyfunction!(serve, py).unwrap();
            let signature = py.import("inspect").unwrap().call_method1("signature", (function,)).unwrap();
            let parameters = signature.getattr("parameters").unwrap().call_method0("items").unwrap();
            let parameters = parameters.try_iter().unwrap().skip(1).map(|item| {
                let (name, parameter): (String, Bound<'_, PyAny>) = item.unwrap().extract().unwrap();
                let default = parameter.getattr("default").unwrap();
                let is_unset = default.is_none() || default.is(PyBool::new(py, false));
                (name, if is_unset { String::new() } else { default.to_string() })
            });
            assert_eq!(parameters.collect::<Vec<_>>(), keywords_of_serve());
        });
    }
}
