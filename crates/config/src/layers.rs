//! The settings of each source, and how they are merged.
//!
//! A layer has values as text. The merged layer is converted to a command line and parsed by the parser of the command, so
//! that a value has the same meaning in every source.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, error::ErrorKind, parser::ValueSource};

use crate::{config::Config, error::ConfigError};

/// The settings of one source, or of several merged ones, by id.
#[derive(Clone, Default)]
pub struct ConfigLayer(BTreeMap<String, Setting>);

/// The value of a setting, and the source that it is from.
#[derive(Clone)]
struct Setting {
    value: RawValue,
    origin: String,
}

#[derive(Clone)]
enum RawValue {
    /// A flag that is on may have no values.
    Values(Vec<OsString>),
    /// Overrides a flag or list of a lower layer.
    Off,
}

/// A value in a config file or a call of `serve()`.
pub enum Value {
    /// As if the setting were absent.
    Unset,
    Switch(bool),
    Texts(Vec<String>),
}

/// The result of merging all layers.
pub struct MergedConfig {
    pub config: Config,
    pub matches: ArgMatches,
    /// The source of each setting that is not at its default, by id.
    pub origins: BTreeMap<String, String>,
}

impl ConfigLayer {
    /// Parses the arguments of a command line, without the command name.
    pub fn from_args(origin: &str, words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let definition = Config::command_definition();
        let matches =
            Config::command_line().try_get_matches_from(std::iter::once("mlws".into()).chain(words))?;
        let named = definition
            .get_arguments()
            .map(Arg::get_id)
            .filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine));
        let settings = named.map(|id| {
            let values = matches.get_raw(id.as_str()).into_iter().flatten().map(OsString::from).collect();
            (id.to_string(), Setting::new(origin, RawValue::Values(values)))
        });
        Ok(Self(settings.collect()))
    }

    /// Parses the values of a config file or a call of `serve()`. A name is the flag with underscores, or gunicorn's name.
    pub fn from_values(
        origin: &str,
        values: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, ConfigError> {
        let definition = Config::command_definition();
        let mut layer = Self::default();
        for (name, value) in values {
            let argument = argument(&definition, &name).ok_or_else(|| unknown(&definition, origin, &name))?;
            let raw = match (value, argument.get_action().takes_values()) {
                (Value::Unset, _) => continue,
                (Value::Switch(false), _) => RawValue::Off,
                (Value::Switch(true), false) => RawValue::Values(vec!["true".into()]),
                (Value::Switch(true), true) => {
                    let bare = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
                    RawValue::Values(if bare { Vec::new() } else { vec!["true".into()] })
                }
                (Value::Texts(texts), true) if texts.is_empty() => RawValue::Off,
                (Value::Texts(texts), true) if matches!(argument.get_action(), ArgAction::Append) => {
                    RawValue::Values(texts.into_iter().map(OsString::from).collect())
                }
                (Value::Texts(texts), true) => RawValue::Values(vec![texts.join(",").into()]),
                (Value::Texts(texts), false) => match texts.join(",").to_ascii_lowercase().as_str() {
                    "1" | "true" => RawValue::Values(vec!["true".into()]),
                    "0" | "false" => RawValue::Off,
                    other => {
                        let message =
                            format!("{origin}: invalid value '{other}' for {name}: expected true or false");
                        return Err(ConfigError(message));
                    }
                },
            };
            layer.0.insert(argument.get_id().to_string(), Setting::new(origin, raw));
        }
        // Parsed here as well, so that an error names this source.
        Self::from_args(origin, layer.words(&definition)).map_err(|error| config_error(origin, &error))?;
        Ok(layer)
    }

    /// Whether this layer has a value for a setting, or turns it off.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// The first value of a setting, if this layer has it.
    pub fn value(&self, id: &str) -> Option<&OsString> {
        self.values(id)?.first()
    }

    /// The values of a setting, if this layer has it.
    pub fn values(&self, id: &str) -> Option<&[OsString]> {
        match &self.0.get(id)?.value {
            RawValue::Values(values) => Some(values),
            RawValue::Off => None,
        }
    }

    /// The `KEY=VALUE` pairs of a setting, if this layer has it.
    pub fn pairs(&self, id: &str) -> Option<Vec<(String, String)>> {
        let pairs = self.values(id)?.iter().filter_map(|text| text.to_str()?.split_once('='));
        Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The settings of both layers. Those of this layer take precedence.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self(lower.0.into_iter().chain(self.0).collect())
    }

    /// The command line with the same settings.
    fn words(&self, definition: &Command) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut operands = vec!["--".into()];
        for argument in definition.get_arguments() {
            let Some(values) = self.values(argument.get_id().as_str()) else { continue };
            let Some(flag) = argument.get_long() else {
                operands.extend(values.iter().cloned());
                continue;
            };
            if values.is_empty() || !argument.get_action().takes_values() {
                words.push(format!("--{flag}").into());
                continue;
            }
            words.extend(values.iter().map(|value| {
                let mut word = OsString::from(format!("--{flag}="));
                word.push(value);
                word
            }));
        }
        words.extend(operands);
        words
    }
}

impl MergedConfig {
    /// Parses the merged layers, and checks the constraints between settings.
    pub fn of(layers: ConfigLayer) -> Result<Self, clap::Error> {
        let words = layers.words(&Config::command_definition());
        let matches = Config::command_with_constraints()
            .try_get_matches_from(std::iter::once("mlws".into()).chain(words))?;
        let origins = layers.0.into_iter().map(|(id, setting)| (id, setting.origin)).collect();
        Ok(Self { config: Config::from_arg_matches(&matches)?, matches, origins })
    }
}

impl Setting {
    fn new(origin: &str, value: RawValue) -> Self {
        Self { value, origin: origin.to_owned() }
    }
}

/// The argument with this name in config files and in `serve()`.
pub fn argument<'a>(definition: &'a Command, name: &str) -> Option<&'a Arg> {
    definition.get_arguments().find(|argument| {
        let has_flag = argument.get_long().is_some_and(|flag| flag.replace('-', "_") == name);
        has_flag
            || argument.get_all_aliases().unwrap_or_default().contains(&name)
            || is_application(argument, name)
    })
}

/// The name of a setting in gunicorn's config files, if it is not the flag with underscores.
pub fn gunicorns_name(argument: &Arg) -> Option<&str> {
    let aliases = argument.get_all_aliases().unwrap_or_default();
    let theirs = aliases.into_iter().find(|alias| !alias.contains('-'));
    theirs.or(argument.is_positional().then_some("wsgi_app"))
}

/// APP is the only setting without a flag.
fn is_application(argument: &Arg, name: &str) -> bool {
    argument.is_positional() && matches!(name, "app" | "wsgi_app")
}

/// The known setting closest to a misspelled name.
pub fn suggest(definition: &Command, name: &str) -> Option<String> {
    let names = definition.get_arguments().flat_map(|argument| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long().into_iter().chain(aliases).map(|name| name.replace('-', "_")).collect::<Vec<_>>()
    });
    let near = names.map(|known| (strsim::damerau_levenshtein(&known, name), known));
    near.filter(|(distance, known)| *distance * 4 <= known.len()).min().map(|(_, known)| known)
}

fn unknown(definition: &Command, origin: &str, name: &str) -> ConfigError {
    let hint = suggest(definition, name).map_or_else(
        || "mlws --help lists all settings".to_owned(),
        |known| format!("did you mean {known}?"),
    );
    ConfigError(format!("{origin}: unknown setting '{name}'; {hint}"))
}

/// Converts an error of the parser in a source other than the command line.
pub fn config_error(origin: &str, error: &clap::Error) -> ConfigError {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ConfigError(format!("{origin}: --help and --version are allowed only on the command line"));
    }
    ConfigError(format!("{origin}: {}", clap_message(error)))
}

/// The error in one line, without the usage text.
pub fn clap_message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_layer_with_a_setting_determines_its_value_and_source() {
        let file = [
            ("workers", Value::Texts(vec!["2".into()])),
            ("bind", Value::Texts(vec!["[::1]:1".into(), "[::1]:2".into()])),
            ("preload", Value::Switch(true)),
            ("threads", Value::Unset),
        ];
        let file = file.map(|(name, value)| (name.to_owned(), value));
        let above = [("preload", Value::Switch(false)), ("env", Value::Texts(Vec::new()))];
        let above = above.map(|(name, value)| (name.to_owned(), value));
        let file = ConfigLayer::from_values("a file", file).unwrap();
        let words = ConfigLayer::from_args("words", ["--workers=4", "--env=A=1"].map(Into::into)).unwrap();
        let merged = ConfigLayer::from_values("serve()", above).unwrap().over(words).over(file);
        let cases = [
            // (setting, values, source)
            ("workers", Some("4"), Some("words")),
            ("bind", Some("[::1]:1 [::1]:2"), Some("a file")),
            ("preload", None, Some("serve()")),
            ("env", None, Some("serve()")),
            ("threads", None, None),
        ];
        for (id, values, origin) in cases {
            let text = |values: &[OsString]| values.join(" ".as_ref()).into_string().unwrap();
            assert_eq!(merged.values(id).map(text).as_deref(), values, "{id}");
            assert_eq!(merged.0.get(id).map(|setting| setting.origin.as_str()), origin, "{id}");
        }
    }
}
