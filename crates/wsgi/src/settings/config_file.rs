//! Config files: Python as gunicorn's are, `mlws.toml`, and a table in `pyproject.toml`.
//!
//! The one thing to know: a Python config file is a program. What it binds to the name of a setting is that setting, what it
//! binds to the name of a hook is called when its time comes, and all else is its own business. Where gunicorn has another name
//! for a setting than the flag, only gunicorn's counts there.

use std::path::{Path, PathBuf};

use pyo3::{
    exceptions::PyImportError,
    prelude::*,
    types::{PyBool, PyBytes, PyDict, PyList, PySet, PyTuple},
};

use super::{
    Flags,
    layers::{self, Layer, Value},
};
use crate::{loader::extend_path_of_master, process::privileged::read_settings, refusal::Refusal};

/// Looked for in this order where no file is named; the first that is there is the only one that is read.
const USUAL: [&str; 3] = ["mlws.toml", "gunicorn.conf.py", PYPROJECT];
const PYPROJECT: &str = "pyproject.toml";
const TABLE: &str = "mylittlewebserver";

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

type Read = Result<(Layer, Extras), Refusal>;

/// Reads the file that --config names. A Python file can import what lies in the directories of `imports`.
pub(super) fn named(py: Python<'_>, folder: &Path, name: &str, imports: &[PathBuf]) -> Read {
    if let Some(module) = name.strip_prefix("python:") {
        let import = || py.import(module);
        return of_module(py, name, &run_with_imports(py, name, imports, import)?);
    }
    let path = folder.join(name.strip_prefix("file:").unwrap_or(name));
    if !path.is_file() {
        return Err(Refusal::Usage(format!("--config {name}: there is no such file")));
    }
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    if is_toml { toml(&path, name) } else { python(py, &path, name, imports) }
}

/// Reads what lies in the folder, if anything does.
pub(super) fn usual(py: Python<'_>, folder: &Path, imports: &[PathBuf]) -> Read {
    for name in USUAL {
        let path = folder.join(name);
        match name {
            _ if !path.is_file() => {}
            "gunicorn.conf.py" => return python(py, &path, name, imports),
            PYPROJECT if !has_table(&path) => {}
            _ => return toml(&path, name),
        }
    }
    Ok(<_>::default())
}

/// Another tool's file is looked into only as far as needed: what is wrong with the rest of it is not for us to say.
fn has_table(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("[tool.mylittlewebserver"))
}

fn toml(path: &Path, name: &str) -> Read {
    let wrong = |why: String| Refusal::Usage(format!("{name}: {why}"));
    let text = read_settings(path).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    if name.ends_with(PYPROJECT) {
        let tool = table.remove("tool").and_then(|mut tool| tool.as_table_mut()?.remove(TABLE));
        table = match tool {
            Some(toml::Value::Table(table)) => table,
            _ => return Err(wrong(format!("there is no table [tool.{TABLE}]"))),
        };
    }
    let values = table.into_iter().map(|(key, value)| {
        let key = key.replace('-', "_");
        of_toml(value)
            .map(|value| (key.clone(), value))
            .ok_or_else(|| wrong(format!("{key} must be a text, a number, true, false, or a list of texts")))
    });
    let values = values.collect::<Result<Vec<_>, _>>()?;
    Ok((Layer::of_values(name, values)?, Extras::default()))
}

fn of_toml(value: toml::Value) -> Option<Value> {
    let text = |value: toml::Value| match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    Some(match value {
        toml::Value::Boolean(switch) => Value::Switch(switch),
        toml::Value::Array(list) => Value::Texts(list.into_iter().map(text).collect::<Option<_>>()?),
        toml::Value::Table(table) => {
            let pairs = table.into_iter().map(|(key, value)| Some(format!("{key}={}", text(value)?)));
            Value::Texts(pairs.collect::<Option<_>>()?)
        }
        other => Value::Texts(vec![text(other)?]),
    })
}

fn python(py: Python<'_>, path: &Path, name: &str, imports: &[PathBuf]) -> Read {
    let source = read_settings(path).map_err(|error| Refusal::Usage(format!("{name}: {error}")))?;
    let module = run_with_imports(py, name, imports, || run(py, path, &source))?;
    of_module(py, name, &module)
}

/// Runs a config file that can import what lies in these directories, now and when its hooks are called.
fn run_with_imports<'py>(
    py: Python<'py>,
    name: &str,
    imports: &[PathBuf],
    run: impl FnOnce() -> PyResult<Bound<'py, PyModule>>,
) -> Result<Bound<'py, PyModule>, Refusal> {
    let refused = extend_path_of_master(py, imports).map_err(|error| raised(py, name, &error))?;
    run().map_err(|error| match raised(py, name, &error) {
        Refusal::Usage(text) if error.is_instance_of::<PyImportError>(py) && !refused.is_empty() => {
            Refusal::Usage(format!("{text}; {}", refused.join("; ")))
        }
        refusal => refusal,
    })
}

/// A file that cannot be run is a setting that makes no sense.
fn raised(py: Python<'_>, name: &str, error: &PyErr) -> Refusal {
    Refusal::Usage(Refusal::raised(py, &format!("{name} cannot be read"), error).to_string())
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

fn of_module(py: Python<'_>, name: &str, module: &Bound<'_, PyModule>) -> Read {
    let read = || {
        let (hooks, mut extras, mut values) = (PyDict::new(py), Extras::default(), Vec::new());
        let definition = Flags::definition();
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
                extras.warnings.push(format!("{name}: ssl_context is not called, for TLS is not spoken"));
            } else if let Some(argument) = layers::argument(&definition, &key) {
                // A file of gunicorn's may call something of its own `app`, `env`, `name` or `fork`.
                match layers::gunicorns_name(argument) {
                    _ if value.is_callable() && !key.ends_with("_class") => {}
                    Some(theirs) if theirs != key => extras
                        .warnings
                        .push(format!("{name}: {key} is no setting in a Python file; {theirs} is")),
                    _ => values.push((key, of_python(&value)?)),
                }
            } else if is_plain(&value)
                && let Some(known) = layers::nearest(&definition, &key)
            {
                extras.warnings.push(format!("{name}: {key} is no setting; did you mean {known}?"));
            }
        }
        extras.hooks = (!hooks.is_empty()).then(|| hooks.unbind());
        PyResult::Ok((values, extras))
    };
    let (values, extras) = read().map_err(|error| raised(py, name, &error))?;
    Ok((Layer::of_values(name, values)?, extras))
}

/// Whether it could be the value of a setting: no module, function or class.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.extract::<String>().is_ok() || value.extract::<f64>().is_ok() || value.is_instance_of::<PyList>()
}

/// Text is what all values are made of; a dict is a list of `key=value`, and an empty one an empty text.
pub(crate) fn of_python(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::Nothing);
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
