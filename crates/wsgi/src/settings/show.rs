//! The settings to look at: for `--print-config` as an `mlws.toml` would say them, for the functions of a config file as Python has them.

use clap::{Arg, parser::ValueSource};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyDict};

use super::{Flags, layers::Pile, sources::OF_COMMAND_ONLY};

/// The lines, in the order of --help.
pub(super) fn toml(pile: &Pile) -> String {
    let definition = Flags::definition();
    let shown = definition.get_arguments().filter(|argument| !argument.is_hide_set());
    let lines = shown.filter_map(|argument| {
        let id = argument.get_id().as_str();
        if matches!(id, "help" | "version" | "config") || OF_COMMAND_ONLY.contains(&id) {
            return None;
        }
        let name = argument.get_long().map_or_else(|| "app".to_owned(), |flag| flag.replace('-', "_"));
        let from = match pile.origins.get(id) {
            Some(origin) => origin,
            None if pile.matches.value_source(id) == Some(ValueSource::EnvVariable) => "the environment",
            None => "default",
        };
        Some(match value(pile, argument) {
            Some(value) => format!("{:<50} # {from}", format!("{name} = {value}")),
            None => format!("# {name} is not set"),
        })
    });
    lines.map(|line| line + "\n").collect()
}

/// As TOML writes it.
fn value(pile: &Pile, argument: &Arg) -> Option<String> {
    let id = argument.get_id().as_str();
    if !argument.get_action().takes_values() {
        return Some(pile.matches.get_flag(id).to_string());
    }
    let texts: Vec<_> = pile.matches.get_raw(id)?.map(|text| text.to_string_lossy().into_owned()).collect();
    if matches!(argument.get_action(), clap::ArgAction::Append) {
        return Some(format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")));
    }
    let text = texts.first()?;
    let is_number = text.parse::<i64>().is_ok_and(|number| number.to_string() == *text);
    Some(if is_number { text.clone() } else { quoted(text) })
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// By all names that a setting has; gunicorn's are among them.
pub(super) fn python(py: Python<'_>, pile: &Pile) -> PyResult<Py<PyDict>> {
    let (definition, seen) = (Flags::definition(), PyDict::new(py));
    for argument in definition.get_arguments() {
        let flag = argument.get_long().unwrap_or("wsgi_app");
        if matches!(flag, "help" | "version") {
            continue;
        }
        let value = object(py, pile, argument)?;
        for name in argument.get_all_aliases().unwrap_or_default().into_iter().chain([flag]) {
            seen.set_item(name.replace('-', "_"), &value)?;
        }
    }
    Ok(seen.unbind())
}

fn object<'py>(py: Python<'py>, pile: &Pile, argument: &Arg) -> PyResult<Bound<'py, PyAny>> {
    let id = argument.get_id().as_str();
    if !argument.get_action().takes_values() {
        return pile.matches.get_flag(id).into_bound_py_any(py);
    }
    let texts = pile.matches.get_raw(id).into_iter().flatten().map(|text| {
        let text = text.to_string_lossy();
        match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.into_bound_py_any(py),
            (_, Ok(number)) => number.into_bound_py_any(py),
            _ => text.into_bound_py_any(py),
        }
    });
    let mut texts = texts.collect::<PyResult<Vec<_>>>()?;
    match argument.get_action() {
        clap::ArgAction::Append => texts.into_bound_py_any(py),
        _ => texts.pop().map_or_else(|| Ok(py.None().into_bound(py)), Ok),
    }
}
