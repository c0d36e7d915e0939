//! Config files: Python as gunicorn's, TOML, or `python:MODULE`.
//!
//! A Python config file is a program, which `python/mylittlewebserver/_config.py` runs. A name that is a setting sets it, a name that is a
//! hook defines the hook, and everything else is ignored. If gunicorn's name of a setting differs from the option, only gunicorn's name
//! counts there.

use std::path::{Path, PathBuf};

use mlws_config::{
    Config, ConfigLayer, Value, layers,
    toml_file::{PYPROJECT, has_table, read_toml},
};
use mlws_sys::read_settings;
use pyo3::{
    exceptions::PyImportError,
    prelude::*,
    types::{PyBool, PyBytes, PyDict, PyList, PySet, PyTuple, PyType},
};

use crate::{error::StartupError, imports::extend_path_of_master};

/// The files to search for without --config, in this order. Only the first one that exists is read.
const DEFAULT_FILES: [&str; 3] = ["mlws.toml", "gunicorn.conf.py", PYPROJECT];

/// What only a Python file can express, and warnings.
#[derive(Default)]
pub(crate) struct Extras {
    /// The hooks, by their names.
    pub(crate) hooks: Option<Py<PyDict>>,
    /// A configuration of Python's `logging`.
    pub(crate) logconfig_dict: Option<Py<PyDict>>,
    /// The hook `ssl_context`.
    pub(crate) ssl_context: Option<Py<PyAny>>,
    pub(crate) warnings: Vec<String>,
}

type Loaded = Result<(ConfigLayer, Extras), StartupError>;

/// Reads the file of --config. A Python file can import from the directories in `imports`.
pub(crate) fn load_named(py: Python<'_>, directory: &Path, name: &str, imports: &[PathBuf]) -> Loaded {
    if let Some(module) = name.strip_prefix("python:") {
        return python(py, name, imports, |config| config.call_method1("import_module", (module,)));
    }
    let path = directory.join(name.strip_prefix("file:").unwrap_or(name));
    if !path.is_file() {
        return Err(StartupError::Usage(format!("--config: no such file: {name}")));
    }
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    if is_toml { toml(&path, name) } else { python_file(py, &path, name, imports) }
}

/// Reads the default file in the directory, if there is one.
pub(crate) fn load_default(py: Python<'_>, directory: &Path, imports: &[PathBuf]) -> Loaded {
    for name in DEFAULT_FILES {
        let path = directory.join(name);
        match name {
            _ if !path.is_file() => {}
            "gunicorn.conf.py" => return python_file(py, &path, name, imports),
            PYPROJECT if !has_table(&path) => {}
            _ => return toml(&path, name),
        }
    }
    Ok(<_>::default())
}

fn toml(path: &Path, name: &str) -> Loaded {
    Ok((read_toml(path, name)?, Extras::default()))
}

fn python_file(py: Python<'_>, path: &Path, name: &str, imports: &[PathBuf]) -> Loaded {
    let source = read_settings(path).map_err(|error| StartupError::Usage(format!("{name}: {error}")))?;
    let arguments = (path.as_os_str(), PyBytes::new(py, &source));
    python(py, name, imports, |config| config.call_method1("run_file", arguments))
}

/// Runs a config file with `_config.py`. It can import from these directories, now and when its hooks are called.
fn python<'py>(
    py: Python<'py>,
    name: &str,
    imports: &[PathBuf],
    run: impl FnOnce(Bound<'py, PyModule>) -> PyResult<Bound<'py, PyAny>>,
) -> Loaded {
    let rejected = extend_path_of_master(py, imports).map_err(|error| invalid_file(py, name, &error))?;
    let config = py.import("mylittlewebserver._config").map_err(|error| invalid_file(py, name, &error))?;
    let hook_error = config.getattr("HookError").map_err(|error| invalid_file(py, name, &error))?;
    let found = run(config).map_err(|error| {
        let cause = error.cause(py).unwrap_or_else(|| error.clone_ref(py));
        let mut reasons = vec![if error.is_instance(py, &hook_error) {
            format!("{name}: {}", error.value(py))
        } else {
            invalid_file(py, name, &cause).to_string()
        }];
        if cause.is_instance_of::<PyImportError>(py) {
            reasons.extend(rejected);
        }
        StartupError::Usage(reasons.join("; "))
    })?;
    let read = || {
        let (hooks, logconfig_dict, others): (Bound<'_, PyDict>, Option<Py<PyDict>>, Bound<'_, PyDict>) =
            found.extract()?;
        let hooks = (!hooks.is_empty()).then(|| hooks.unbind());
        let ssl_context =
            others.get_item("ssl_context")?.filter(PyAnyMethods::is_callable).map(Bound::unbind);
        let mut extras = Extras { hooks, logconfig_dict, ssl_context, warnings: Vec::new() };
        PyResult::Ok((settings(name, &others, &mut extras.warnings)?, extras))
    };
    let (values, extras) = read().map_err(|error| invalid_file(py, name, &error))?;
    Ok((ConfigLayer::from_values(name, values)?, extras))
}

/// An exception of a config file is a usage error.
fn invalid_file(py: Python<'_>, name: &str, error: &PyErr) -> StartupError {
    StartupError::Usage(
        StartupError::from_exception(py, &format!("{name} cannot be read"), error).to_string(),
    )
}

/// The settings among the names that a file defines.
fn settings(
    name: &str,
    names: &Bound<'_, PyDict>,
    warnings: &mut Vec<String>,
) -> PyResult<Vec<(String, Value)>> {
    let (definition, mut values) = (Config::command_definition(), Vec::new());
    for (key, value) in names.iter() {
        let key: String = key.extract()?;
        if key == "sendfile" {
            let is_off = value.extract::<bool>().is_ok_and(|wanted| !wanted);
            values.push(("no_sendfile".into(), Value::Switch(is_off)));
        } else if key == "ssl_context" {
            // a hook
        } else if let Some(argument) = layers::argument(&definition, &key) {
            match layers::gunicorns_name(argument) {
                Some(name_there) if name_there != key => warnings.push(format!(
                    "{name}: {key} is not a setting in Python files; did you mean {name_there}?"
                )),
                _ => values.push((key, value_of(&value)?)),
            }
        } else if is_plain(&value)
            && let Some(known) = layers::suggest(&definition, &key)
        {
            warnings.push(format!("{name}: {key} is not a setting; did you mean {known}?"));
        }
    }
    Ok(values)
}

/// Whether it could be the value of a setting, unlike a module, function or class.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.extract::<String>().is_ok() || value.extract::<f64>().is_ok() || value.is_instance_of::<PyList>()
}

/// Converts a value to texts: a class to `MODULE.CLASS`. A dict becomes a list of `key=value`, and an empty one an empty text.
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
    if let Ok(class) = value.cast::<PyType>() {
        return Ok(Value::Texts(vec![class.fully_qualified_name()?.to_string()]));
    }
    Ok(Value::Texts(vec![value.str()?.to_string()]))
}
