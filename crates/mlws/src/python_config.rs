//! Config files: Python as gunicorn's, TOML, or `python:MODULE`.
//!
//! A Python config file is a program. A name that is a setting sets it, a name that is a hook defines the hook, and everything else is
//! ignored. If gunicorn's name of a setting differs from the option, only gunicorn's name counts there.

use std::path::{Path, PathBuf};

use mlws_config::{
    Config, ConfigLayer, Value, layers,
    toml_file::{PYPROJECT, has_table, read_toml},
};
use mlws_sys::read_settings;
use pyo3::{
    exceptions::PyImportError,
    prelude::*,
    types::{PyBool, PyBytes, PyDict, PyList, PySet, PyTuple},
};

use crate::{app_spec::extend_path_of_master, error::StartupError};

/// Looked for in this order where no file is named; the first that is there is the only one that is read.
const DEFAULT_FILES: [&str; 3] = ["mlws.toml", "gunicorn.conf.py", PYPROJECT];

/// The functions that a config file may define, as gunicorn names them.
pub(crate) const HOOKS: [&str; 15] = [
    "on_starting",
    "on_reload",
    "when_ready",
    "pre_fork",
    "post_fork",
    "post_worker_init",
    "worker_int",
    "worker_abort",
    "pre_exec",
    "pre_request",
    "post_request",
    "child_exit",
    "worker_exit",
    "nworkers_changed",
    "on_exit",
];

/// What only Python can say, and what is worth a warning.
#[derive(Default)]
pub(crate) struct Extras {
    /// The functions that are called, by the names of [`HOOKS`].
    pub(crate) hooks: Option<Py<PyDict>>,
    /// Python's own logging, configured by a dict.
    pub(crate) logconfig_dict: Option<Py<PyDict>>,
    pub(crate) warnings: Vec<String>,
}

type Loaded = Result<(ConfigLayer, Extras), StartupError>;

/// Reads the file that --config names. A Python file can import what lies in the directories of `imports`.
pub(crate) fn load_named(py: Python<'_>, directory: &Path, name: &str, imports: &[PathBuf]) -> Loaded {
    if let Some(module) = name.strip_prefix("python:") {
        let import = || py.import(module);
        return of_module(py, name, &run_with_imports(py, name, imports, import)?);
    }
    let path = directory.join(name.strip_prefix("file:").unwrap_or(name));
    if !path.is_file() {
        return Err(StartupError::Usage(format!("--config: no such file: {name}")));
    }
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    if is_toml { toml(&path, name) } else { python(py, &path, name, imports) }
}

/// Reads what lies in the directory, if anything does.
pub(crate) fn load_default(py: Python<'_>, directory: &Path, imports: &[PathBuf]) -> Loaded {
    for name in DEFAULT_FILES {
        let path = directory.join(name);
        match name {
            _ if !path.is_file() => {}
            "gunicorn.conf.py" => return python(py, &path, name, imports),
            PYPROJECT if !has_table(&path) => {}
            _ => return toml(&path, name),
        }
    }
    Ok(<_>::default())
}

fn toml(path: &Path, name: &str) -> Loaded {
    Ok((read_toml(path, name)?, Extras::default()))
}

fn python(py: Python<'_>, path: &Path, name: &str, imports: &[PathBuf]) -> Loaded {
    let source = read_settings(path).map_err(|error| StartupError::Usage(format!("{name}: {error}")))?;
    let module = run_with_imports(py, name, imports, || run(py, path, &source))?;
    of_module(py, name, &module)
}

/// Runs a config file that can import what lies in these directories, now and when its hooks are called.
fn run_with_imports<'py>(
    py: Python<'py>,
    name: &str,
    imports: &[PathBuf],
    run: impl FnOnce() -> PyResult<Bound<'py, PyModule>>,
) -> Result<Bound<'py, PyModule>, StartupError> {
    let refused = extend_path_of_master(py, imports).map_err(|error| raised(py, name, &error))?;
    run().map_err(|error| match raised(py, name, &error) {
        StartupError::Usage(text) if error.is_instance_of::<PyImportError>(py) && !refused.is_empty() => {
            StartupError::Usage(format!("{text}; {}", refused.join("; ")))
        }
        error => error,
    })
}

/// A file that cannot be run is a setting that makes no sense.
fn raised(py: Python<'_>, name: &str, error: &PyErr) -> StartupError {
    StartupError::Usage(
        StartupError::from_exception(py, &format!("{name} cannot be read"), error).to_string(),
    )
}

/// Runs the file as the module `__config__`, as gunicorn does. It is not read again, and no compiled file beside it is used: either
/// may be somebody else's.
fn run<'py>(py: Python<'py>, path: &Path, source: &[u8]) -> PyResult<Bound<'py, PyModule>> {
    let (util, machinery) = (py.import("importlib.util")?, py.import("importlib.machinery")?);
    let loader = machinery.call_method1("SourceFileLoader", ("__config__", path.as_os_str()))?;
    let spec = util.call_method1("spec_from_loader", ("__config__", &loader))?;
    let module = util.call_method1("module_from_spec", (spec,))?;
    py.import("sys")?.getattr("modules")?.set_item("__config__", &module)?;
    let code = loader.call_method1("source_to_code", (PyBytes::new(py, source), path.as_os_str()))?;
    py.import("builtins")?.call_method1("exec", (code, module.getattr("__dict__")?))?;
    Ok(module.cast_into()?)
}

fn of_module(py: Python<'_>, name: &str, module: &Bound<'_, PyModule>) -> Loaded {
    let read = || {
        let (hooks, mut extras, mut values) = (PyDict::new(py), Extras::default(), Vec::new());
        let definition = Config::command_definition();
        for (key, value) in module.getattr("__dict__")?.cast::<PyDict>()?.iter() {
            let key: String = key.extract()?;
            if HOOKS.contains(&key.as_str()) {
                hooks.set_item(key, value)?;
            } else if key == "logconfig_dict" {
                extras.logconfig_dict = value
                    .cast::<PyDict>()
                    .ok()
                    .filter(|dict| !dict.is_empty())
                    .map(|dict| dict.clone().unbind());
            } else if key == "sendfile" {
                values.push((
                    "no_sendfile".into(),
                    Value::Switch(value.extract::<bool>().is_ok_and(|wanted| !wanted)),
                ));
            } else if key == "ssl_context" {
                extras.warnings.push(format!("{name}: ssl_context is ignored: TLS is not enabled"));
            } else if let Some(argument) = layers::argument(&definition, &key) {
                // A file of gunicorn's may call something of its own `app`, `env`, `name` or `fork`.
                match layers::gunicorns_name(argument) {
                    _ if value.is_callable() && !key.ends_with("_class") => {}
                    Some(theirs) if theirs != key => extras.warnings.push(format!(
                        "{name}: {key} is not a setting in Python files; did you mean {theirs}?"
                    )),
                    _ => values.push((key, value_of(&value)?)),
                }
            } else if is_plain(&value)
                && let Some(known) = layers::suggest(&definition, &key)
            {
                extras.warnings.push(format!("{name}: {key} is not a setting; did you mean {known}?"));
            }
        }
        extras.hooks = (!hooks.is_empty()).then(|| hooks.unbind());
        PyResult::Ok((values, extras))
    };
    let (values, extras) = read().map_err(|error| raised(py, name, &error))?;
    Ok((ConfigLayer::from_values(name, values)?, extras))
}

/// Whether it could be the value of a setting: no module, function or class.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.extract::<String>().is_ok() || value.extract::<f64>().is_ok() || value.is_instance_of::<PyList>()
}

/// Text is what all values are made of; a dict is a list of `key=value`, and an empty one an empty text.
pub(crate) fn value_of(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::Unset);
    }
    if let Ok(switch) = value.cast::<PyBool>() {
        return Ok(Value::Switch(switch.is_true()));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        if dict.is_empty() {
            return Ok(Value::Texts(vec![String::new()]));
        }
        let pairs = dict.iter().map(|(key, value)| Ok(format!("{}={}", key.str()?, value.str()?)));
        return Ok(Value::Texts(pairs.collect::<PyResult<_>>()?));
    }
    if value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyTuple>()
        || value.is_instance_of::<PySet>()
    {
        let texts = value.try_iter()?.map(|text| Ok(text?.str()?.to_string()));
        return Ok(Value::Texts(texts.collect::<PyResult<_>>()?));
    }
    Ok(Value::Texts(vec![value.str()?.to_string()]))
}
