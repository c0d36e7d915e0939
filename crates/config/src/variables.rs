//! `MLWS_*`: an environment variable for each setting.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};

use crate::{
    Config,
    config_options::CLI_ONLY,
    error::ConfigError,
    layers::{self, ConfigLayer, Value},
};

const PREFIX: &str = "MLWS_";
/// Arguments, as in `GUNICORN_CMD_ARGS`.
pub(crate) const MLWS_CMD_ARGS: &str = "MLWS_CMD_ARGS";
/// Variables with this prefix that are not settings: arguments, and what a master passes to its successor.
const OTHERS: [&str; 3] = [MLWS_CMD_ARGS, "MLWS_SOCKETS", "MLWS_FIRST_MASTER"];

/// The variable of a setting. Options that only the command line has, and ignored settings of gunicorn, have none.
pub(crate) fn name_of(argument: &Arg) -> Option<String> {
    let id = argument.get_id().as_str();
    if argument.is_hide_set() || matches!(id, "help" | "version") || CLI_ONLY.contains(&id) {
        return None;
    }
    Some(format!("{PREFIX}{}", argument.get_long().unwrap_or("app").replace('-', "_").to_uppercase()))
}

/// The settings of all variables, and a warning for each unknown one. An empty variable counts as unset.
pub(crate) fn layer(variables: &[(OsString, OsString)]) -> Result<(ConfigLayer, Vec<String>), ConfigError> {
    let definition = Config::command_definition();
    let (mut layer, mut warnings) = (ConfigLayer::default(), Vec::new());
    for (name, text) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && !OTHERS.contains(name))
        else {
            continue;
        };
        match definition.get_arguments().find(|argument| name_of(argument).as_deref() == Some(name)) {
            Some(argument) => layer = setting(argument, name, text)?.over(layer),
            None => warnings.push(unknown(&definition, name)),
        }
    }
    Ok((layer, warnings))
}

fn setting(argument: &Arg, name: &str, text: &OsStr) -> Result<ConfigLayer, ConfigError> {
    let invalid = |text: &str, expected: &str| {
        ConfigError(format!("{name}: invalid value '{text}': expected {expected}"))
    };
    let text = text.to_str().ok_or_else(|| invalid(&text.to_string_lossy(), "UTF-8"))?.trim();
    if text.is_empty() {
        return Ok(ConfigLayer::default());
    }
    let takes_values = argument.get_action().takes_values();
    let may_be_switch = !takes_values || argument.get_num_args().is_some_and(|count| count.min_values() == 0);
    let value = match switch(text).filter(|_| may_be_switch) {
        Some(is_on) => Value::Switch(is_on),
        None if !takes_values => return Err(invalid(text, "1, true, yes, on, 0, false, no or off")),
        None if matches!(argument.get_action(), ArgAction::Append) => {
            Value::Texts(shlex::split(text).ok_or_else(|| invalid(text, "a closing quote"))?)
        }
        None => Value::Texts(vec![text.to_owned()]),
    };
    let setting = argument.get_long().unwrap_or("app").replace('-', "_");
    ConfigLayer::from_values(name, [(setting, value)])
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn unknown(definition: &Command, name: &str) -> String {
    let setting = name[PREFIX.len()..].to_lowercase();
    let near = layers::suggest(definition, &setting);
    let near = near.and_then(|known| name_of(layers::argument(definition, &known)?));
    let hint = near.map_or_else(
        || "mlws --help lists all settings".to_owned(),
        |known| format!("did you mean {known}?"),
    );
    format!("unknown environment variable {name} is ignored; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<(ConfigLayer, Vec<String>), String> {
        layer(&[(name.into(), text.into())]).map_err(|error| error.to_string())
    }

    fn values(name: &str, text: &str, id: &str) -> Option<Vec<String>> {
        let (layer, warnings) = read(name, text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(warnings, [""; 0]);
        let values = layer.values(id)?.iter().map(|value| value.to_string_lossy().into_owned());
        Some(values.collect())
    }

    #[test]
    fn each_setting_has_a_variable_with_its_name() {
        assert_eq!(values("MLWS_WORKERS", " 3\n", "workers"), Some(vec!["3".into()]));
        assert_eq!(values("MLWS_APP", "shop:app", "app"), Some(vec!["shop:app".into()]));
        let field_size = values("MLWS_LIMIT_REQUEST_FIELD_SIZE", "1", "limit_request_field_size");
        assert_eq!(field_size, Some(vec!["1".into()]));
        let definition = Config::command_definition();
        let arguments = definition.get_arguments().filter(|argument| !argument.is_hide_set());
        let without = arguments.filter(|argument| name_of(argument).is_none());
        assert_eq!(without.map(|argument| argument.get_id().as_str()).collect::<Vec<_>>(), CLI_ONLY);
    }

    #[test]
    fn a_flag_is_on_or_off() {
        for text in ["1", "true", "YES", "on"] {
            assert_eq!(values("MLWS_PRELOAD", text, "preload"), Some(vec!["true".into()]), "{text}");
        }
        for text in ["0", "False", "no", "OFF"] {
            let (layer, _) = read("MLWS_PRELOAD", text).unwrap();
            assert!(layer.has("preload") && layer.values("preload").is_none(), "{text}");
        }
        let error = read("MLWS_PRELOAD", "maybe").err().unwrap();
        assert_eq!(
            error,
            "MLWS_PRELOAD: invalid value 'maybe': expected 1, true, yes, on, 0, false, no or off"
        );
        assert_eq!(values("MLWS_PROXY_PROTOCOL", "v1", "proxy_protocol"), Some(vec!["v1".into()]));
        assert_eq!(values("MLWS_PROXY_PROTOCOL", "on", "proxy_protocol"), Some(Vec::new()));
        assert_eq!(values("MLWS_PROXY_PROTOCOL", "off", "proxy_protocol"), None);
    }

    #[test]
    fn a_list_is_split_as_by_a_shell() {
        let split = |text| values("MLWS_ENV", text, "env");
        assert_eq!(split("A=1  B=2,3"), Some(vec!["A=1".into(), "B=2,3".into()]));
        assert_eq!(split("'A=two words' B="), Some(vec!["A=two words".into(), "B=".into()]));
        assert!(read("MLWS_ENV", "'A=1").err().unwrap().contains("expected a closing quote"));
        let addresses = values("MLWS_BIND", "0.0.0.0:80 unix:/run/a.sock", "bind");
        assert_eq!(addresses, Some(vec!["0.0.0.0:80".into(), "unix:/run/a.sock".into()]));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        for name in ["MLWS_WORKERS", "MLWS_PRELOAD", "MLWS_BIND"] {
            for text in ["", " "] {
                let (layer, warnings) = read(name, text).unwrap();
                assert!(!layer.has("workers") && !layer.has("preload") && !layer.has("bind"));
                assert!(warnings.is_empty());
            }
        }
    }

    #[test]
    fn an_invalid_value_is_an_error_that_names_the_variable() {
        let error = read("MLWS_WORKERS", "many").err().unwrap();
        assert!(error.starts_with("MLWS_WORKERS: invalid value 'many'"), "{error}");
    }

    #[test]
    fn an_unknown_variable_is_a_warning_with_the_nearest_name() {
        let cases = [
            ("MLWS_WOKERS", "did you mean MLWS_WORKERS?"),
            ("MLWS_PIDFILE", "did you mean MLWS_PID?"),
            ("MLWS_LOGLEVEL", "did you mean MLWS_LOG_LEVEL?"),
            ("MLWS_XYZ", "mlws --help lists all settings"),
            ("MLWS_CHECK_CONFIG", "mlws --help lists all settings"),
        ];
        for (name, hint) in cases {
            let (_, warnings) = read(name, "1").unwrap();
            assert_eq!(warnings, [format!("unknown environment variable {name} is ignored; {hint}")]);
        }
        for name in OTHERS.into_iter().chain(["WORKERS", "OTHER_MLWS_WORKERS"]) {
            assert!(read(name, "1").unwrap().1.is_empty(), "{name}");
        }
    }
}
