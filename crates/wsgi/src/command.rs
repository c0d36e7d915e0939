//! The two doors: the command `mlws`, and `serve()` for Python programs. Both lead to [`serving::run`].

use std::{
    ffi::OsString,
    io::{self, Write},
};

use pyo3::{
    exceptions::{PySystemExit, PyTypeError, PyValueError},
    prelude::*,
    types::{PyBool, PyDict, PyList, PyTuple},
};

use crate::{
    loader::Target,
    refusal::Refusal,
    serving::{self, Application},
    settings::Flags,
};

/// Runs the command `mlws` with these arguments, and returns its exit status. A worker never returns.
#[pyfunction]
#[pyo3(signature = (args, /))]
pub(crate) fn main(py: Python<'_>, args: Vec<OsString>) -> PyResult<i32> {
    let flags = match Flags::read(args) {
        Ok(flags) => flags,
        Err(told) => {
            // Help and the version are such an "error" too, for stdout and with status 0.
            let _ = told.print().and_then(|()| io::stdout().flush());
            return Ok(told.exit_code());
        }
    };
    end_on_interrupt(py)?;
    let target = Target::read(py, &flags.app).map(Application::Named);
    let status = target.and_then(|target| serving::run(py, &flags, &target));
    Ok(status.unwrap_or_else(|refusal| tell(&refusal)))
}

/// Serves a WSGI application until the process is told to end, as the command `mlws` does.
///
/// The application is a callable or a text that the command would take. The keywords are the command's options with
/// underscores; one that is not given, None or False means the option is not given. The calling process becomes the
/// master of the worker processes and keeps its other Python threads waiting; a worker never returns to its caller.
/// Raises `ValueError` or `TypeError` for a setting that makes no sense, and `SystemExit` if serving ends in failure.
#[pyfunction]
#[pyo3(
    signature = (app, **settings),
    text_signature = "(app, *, bind=None, backlog=2048, worker_connections=60000, workers=None, threads=4, fork=False, \
        max_children=64, max_queue=8192, preload=False, fork_warmup=None, timeout=30, \
        boot_timeout=None, max_requests=0, max_requests_jitter=0, max_rss=0, graceful_timeout=30, limit_request_line=8190, \
        limit_request_fields=100, limit_request_field_size=8190, limit_request_head=None, limit_request_body=0, \
        body_in_memory=524288, bodies_in_memory=67108864, tmp_dir=None, http_compat='strict', keep_alive=5, head_timeout=30, \
        body_timeout=30, body_rate=512, write_timeout=60, chdir=None, pythonpath=None, pid=None, daemon=False, \
        user=None, group=None, umask=None, initgroups=False, log_level='info', error_logfile='-', \
        error_logformat='text', access_logfile=None, \
        access_logformat='%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s \"%(f)s\" \"%(a)s\"', capture_output=False, \
        enable_stdio_inheritance=False, log_config=None, log_config_json=None, log_syslog=False, \
        log_syslog_to='udp://localhost:514', log_syslog_prefix=None, log_syslog_facility='user', \
        disable_redirect_access_to_syslog=False, statsd_host=None, statsd_prefix='', dogstatsd_tags='', \
        reload=False, reload_engine='auto', reload_extra_file=None)"
)]
pub(crate) fn serve(app: &Bound<'_, PyAny>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let py = app.py();
    let text = app.extract::<String>().ok();
    let name = text.clone().map_or_else(|| name_of(app), Ok)?;
    let flags = Flags::read(words(&name, settings)?).map_err(|told| {
        let told = told.to_string();
        let sentence = told.lines().next().unwrap_or_default();
        PyValueError::new_err(sentence.trim_start_matches("error: ").to_owned())
    })?;
    let application = match text {
        Some(text) => Target::read(py, &text).map(Application::Named),
        None if app.is_callable() => Ok(Application::Given(app.clone().unbind())),
        None => {
            return Err(PyTypeError::new_err(format!(
                "{name} cannot be called, and is no text that names an application"
            )));
        }
    };
    py.check_signals()?;
    let status = application.and_then(|application| serving::run(py, &flags, &application));
    match status.unwrap_or_else(|refusal| tell(&refusal)) {
        0 => Ok(()),
        status => Err(PySystemExit::new_err(status)),
    }
}

/// The command line that says the same as these keywords.
fn words(app: &str, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<OsString>> {
    let mut words = Vec::new();
    for (keyword, value) in settings.into_iter().flatten() {
        let keyword: String = keyword.extract()?;
        let flag = Flags::of_keyword(&keyword).ok_or_else(|| {
            PyTypeError::new_err(format!("serve() got an unexpected keyword argument '{keyword}'"))
        })?;
        if value.is_none() {
            continue;
        }
        if let Ok(value) = value.cast::<PyBool>() {
            words.extend(value.is_true().then(|| format!("--{flag}").into()));
        } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            for value in value.try_iter()? {
                words.push(format!("--{flag}={}", value?.str()?).into());
            }
        } else {
            words.push(format!("--{flag}={}", value.str()?).into());
        }
    }
    words.extend(["--".into(), app.into()]);
    Ok(words)
}

/// What a person would call this object: `shop:app` for a function, else what it says of itself.
fn name_of(app: &Bound<'_, PyAny>) -> PyResult<String> {
    match (app.getattr("__module__"), app.getattr("__qualname__")) {
        (Ok(module), Ok(name)) => Ok(format!("{module}:{name}")),
        _ => Ok(app.repr()?.to_string()),
    }
}

/// Until the master listens for signals itself, Ctrl-C simply ends the command; Python would show a traceback.
fn end_on_interrupt(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("_signal")?; // what `signal` is made of, without the enumerations that would cost 0.3 MB
    signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?))?;
    Ok(())
}

/// Shows why nothing is served. The exit status that says the same.
pub(crate) fn tell(refusal: &Refusal) -> i32 {
    // Where stderr is gone, the status still tells.
    let _ = writeln!(io::stderr(), "error: {refusal}");
    refusal.exit_status()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn serve_takes_what_the_command_takes() {
        Python::initialize();
        Python::attach(|py| {
            let function = wrap_pyfunction!(serve, py).unwrap();
            let signature = py.import("inspect").unwrap().call_method1("signature", (function,)).unwrap();
            let keywords: Vec<String> = signature
                .getattr("parameters")
                .unwrap()
                .try_iter()
                .unwrap()
                .skip(1)
                .map(|name| name.unwrap().extract().unwrap())
                .collect();
            let command = Flags::command();
            let flags: Vec<String> =
                command.get_arguments().filter_map(|flag| Some(flag.get_long()?.replace('-', "_"))).collect();
            assert_eq!(keywords, flags);
        });
    }
}
