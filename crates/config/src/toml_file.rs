//! Settings in TOML: `mlws.toml`, and a table of `pyproject.toml`.

use std::path::Path;

use mlws_sys::read_settings;

use crate::{
    error::ConfigError,
    layers::{ConfigLayer, Value},
};

pub const PYPROJECT: &str = "pyproject.toml";
const TABLE: &str = "mylittlewebserver";

/// Whether `path` has a table of this server. The file belongs to other tools, too, so errors in the rest of it are not reported.
pub fn has_table(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("[tool.mylittlewebserver"))
}

pub fn read_toml(path: &Path, name: &str) -> Result<ConfigLayer, ConfigError> {
    let wrong = |why: String| ConfigError(format!("{name}: {why}"));
    let text = read_settings(path).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    if name.ends_with(PYPROJECT) {
        let tool = table.remove("tool").and_then(|mut tool| tool.as_table_mut()?.remove(TABLE));
        table = match tool {
            Some(toml::Value::Table(table)) => table,
            _ => return Err(wrong(format!("missing table [tool.{TABLE}]"))),
        };
    }
    let values = table.into_iter().map(|(key, value)| {
        let key = key.replace('-', "_");
        of_toml(value).map(|value| (key.clone(), value)).ok_or_else(|| {
            wrong(format!("{key} must be a string, a number, a boolean, or a list of strings"))
        })
    });
    let values = values.collect::<Result<Vec<_>, _>>()?;
    ConfigLayer::from_values(name, values)
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
