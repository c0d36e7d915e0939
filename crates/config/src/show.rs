//! `--print-config`: the settings as lines of an `mlws.toml`, each with its source.

use clap::Arg;

use crate::{Config, config_options::CLI_ONLY, layers::MergedConfig};

/// A line per setting, in the order of --help.
pub(crate) fn toml(merged: &MergedConfig) -> String {
    let definition = Config::command_definition();
    let shown = definition.get_arguments().filter(|argument| !argument.is_hide_set());
    let lines = shown.filter_map(|argument| {
        let id = argument.get_id().as_str();
        if matches!(id, "help" | "version" | "config") || CLI_ONLY.contains(&id) {
            return None;
        }
        let name = argument.get_long().map_or_else(|| "app".to_owned(), |flag| flag.replace('-', "_"));
        let from = match merged.origins.get(id) {
            Some(origin) => origin,
            None => "default",
        };
        Some(match value(merged, argument) {
            Some(value) => format!("{:<50} # {from}", format!("{name} = {value}")),
            None => format!("# {name} is not set"),
        })
    });
    lines.map(|line| line + "\n").collect()
}

/// The value in TOML syntax.
fn value(merged: &MergedConfig, argument: &Arg) -> Option<String> {
    let id = argument.get_id().as_str();
    if !argument.get_action().takes_values() {
        return Some(merged.matches.get_flag(id).to_string());
    }
    let texts: Vec<_> = merged.matches.get_raw(id)?.map(|text| text.to_string_lossy().into_owned()).collect();
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
