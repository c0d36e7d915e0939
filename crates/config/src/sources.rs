//! The environment as a source of settings: arguments, and variables that change a default.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mlws_server::TrustedNetworks;

use crate::{
    error::ConfigError,
    layers::{self, ConfigLayer, Value},
    values::worker_count,
    variables::{self, MLWS_CMD_ARGS},
};

/// Arguments in a variable, as for gunicorn.
const GUNICORN_CMD_ARGS: &str = "GUNICORN_CMD_ARGS";

/// The settings of the environment between the config file and the command line, and warnings. The precedence, from lowest to
/// highest: `GUNICORN_CMD_ARGS`, a variable for each setting, `MLWS_CMD_ARGS`.
pub fn environment(variables: &[(OsString, OsString)]) -> Result<(ConfigLayer, Vec<String>), ConfigError> {
    let (settings, warnings) = variables::layer(variables)?;
    let layer = arguments(variables, MLWS_CMD_ARGS)?.over(settings);
    Ok((layer.over(arguments(variables, GUNICORN_CMD_ARGS)?), warnings))
}

fn arguments(variables: &[(OsString, OsString)], name: &str) -> Result<ConfigLayer, ConfigError> {
    let text = variables.iter().find(|(known, _)| known == name).and_then(|(_, text)| text.to_str());
    let text = text.unwrap_or_default();
    let words = shlex::split(text).ok_or_else(|| ConfigError(format!("{name}: unclosed quote: {text}")))?;
    ConfigLayer::from_args(name, words.into_iter().map(OsString::from))
        .map_err(|error| layers::config_error(name, &error))
}

/// A variable that changes the default of a setting.
struct DefaultVariable {
    name: &'static str,
    /// The setting.
    id: &'static str,
    /// Whether an empty text is a value. Otherwise it is as if the variable were not set.
    may_be_empty: bool,
    /// Converts the variable to a value of the setting, or returns what was expected.
    read: fn(&str) -> Result<String, String>,
}

const DEFAULT_VARIABLES: [DefaultVariable; 3] = [
    DefaultVariable { name: "WEB_CONCURRENCY", id: "workers", may_be_empty: false, read: workers },
    DefaultVariable { name: "PORT", id: "bind", may_be_empty: false, read: any_address },
    DefaultVariable {
        name: "FORWARDED_ALLOW_IPS",
        id: "forwarded_allow_ips",
        may_be_empty: true,
        read: networks,
    },
];

/// The settings of the variables that change a default. Variables whose settings are in `above` are not read.
///
/// # Errors
///
/// If a variable has an invalid value. The message names the variable.
pub fn default_variables(above: &ConfigLayer) -> Result<ConfigLayer, ConfigError> {
    let unset = DEFAULT_VARIABLES.iter().filter(|variable| !above.has(variable.id));
    let layers = unset.filter_map(|variable| variable.layer(&std::env::var_os(variable.name)?).transpose());
    layers.reduce(|all, layer| Ok(layer?.over(all?))).unwrap_or_else(|| Ok(ConfigLayer::default()))
}

impl DefaultVariable {
    /// `None` if the variable counts as not set.
    fn layer(&self, text: &OsStr) -> Result<Option<ConfigLayer>, ConfigError> {
        let text = text.to_string_lossy();
        let text = text.trim();
        if text.is_empty() && !self.may_be_empty {
            return Ok(None);
        }
        let value = (self.read)(text).map_err(|expected| {
            let flag = self.id.replace('_', "-");
            ConfigError(format!("invalid value '{text}' for --{flag}, set by {}: {expected}", self.name))
        })?;
        ConfigLayer::from_values(self.name, [(self.id.to_owned(), Value::Texts(vec![value]))]).map(Some)
    }
}

fn workers(text: &str) -> Result<String, String> {
    worker_count(text).map(|_| text.to_owned())
}

/// The port on all IPv4 addresses.
fn any_address(text: &str) -> Result<String, String> {
    let port: u16 = text.parse().map_err(|_| "expected a port number from 0 to 65535".to_owned())?;
    Ok(format!("0.0.0.0:{port}"))
}

fn networks(text: &str) -> Result<String, String> {
    text.parse::<TrustedNetworks>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// The working directory by the path in `$PWD`, which may contain symbolic links: a link can point elsewhere at the next reload.
pub fn current_directory() -> PathBuf {
    let known = std::env::var_os("PWD").map(PathBuf::from).filter(|path| {
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        path.is_absolute() && fs::metadata(path).is_ok_and(|a| fs::metadata(".").is_ok_and(|b| same(a, b)))
    });
    // A directory that was removed contains no files.
    known.or_else(|| std::env::current_dir().ok()).unwrap_or_else(|| Path::new(".").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, text: &str) -> Result<Option<String>, String> {
        let variable = DEFAULT_VARIABLES.iter().find(|variable| variable.name == name).unwrap();
        let layer = variable.layer(text.as_ref()).map_err(|error| error.to_string())?;
        Ok(layer.map(|layer| layer.value(variable.id).unwrap().to_string_lossy().into_owned()))
    }

    #[test]
    fn white_space_around_a_variable_is_ignored_and_an_empty_one_counts_as_unset() {
        assert_eq!(value("WEB_CONCURRENCY", " 2\n"), Ok(Some("2".into())));
        assert_eq!(value("WEB_CONCURRENCY", " auto "), Ok(Some("auto".into())));
        assert_eq!(value("PORT", " 80 "), Ok(Some("0.0.0.0:80".into())));
        assert_eq!((value("WEB_CONCURRENCY", " "), value("PORT", "")), (Ok(None), Ok(None)));
        assert_eq!(value("FORWARDED_ALLOW_IPS", ""), Ok(Some(String::new()))); // trusts no network
    }

    #[test]
    fn an_invalid_variable_is_an_error_that_names_it_and_what_was_expected() {
        for text in ["abc", "0", "-1", "1.5", "65536", "2 2"] {
            let expected = format!(
                "invalid value '{text}' for --workers, set by WEB_CONCURRENCY: expected a number from 1 to 65535, or auto"
            );
            assert_eq!(value("WEB_CONCURRENCY", text), Err(expected));
        }
        for text in ["http", "-1", "65536", "127.0.0.1:80"] {
            let expected = format!(
                "invalid value '{text}' for --bind, set by PORT: expected a port number from 0 to 65535"
            );
            assert_eq!(value("PORT", text), Err(expected));
        }
        let error = value("FORWARDED_ALLOW_IPS", "nginx").unwrap_err();
        assert!(
            error
                .starts_with("invalid value 'nginx' for --forwarded-allow-ips, set by FORWARDED_ALLOW_IPS: ")
        );
    }
}
