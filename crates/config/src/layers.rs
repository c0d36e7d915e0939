//! The settings of each source, and how they are merged.
//!
//! Every layer is converted to a command line and parsed by the parser of the command, so that a value has the same meaning in
//! every source. If two layers have the same setting, the value of the upper layer applies.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, error::ErrorKind, parser::ValueSource};

use crate::{config::Config, error::ConfigError};

/// The settings of one source.
#[derive(Clone, Default)]
pub struct ConfigLayer {
    /// The name of the source in errors.
    origin: String,
    /// The values of each setting by its id. A flag that is on has no values.
    settings: BTreeMap<String, RawValue>,
}

#[derive(Clone, PartialEq, Eq)]
enum RawValue {
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
            (id.to_string(), RawValue::Values(values))
        });
        Ok(Self { origin: origin.to_owned(), settings: settings.collect() })
    }

    /// Parses the values of a config file or a call of `serve()`. A name is the flag with underscores, or gunicorn's name.
    pub fn from_values(
        origin: &str,
        values: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, ConfigError> {
        let definition = Config::command_definition();
        let mut layer = Self { origin: origin.to_owned(), settings: BTreeMap::new() };
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
            layer.settings.insert(argument.get_id().to_string(), raw);
        }
        // Parsed here as well, so that an error names this source.
        Self::from_args(origin, layer.words(&definition)).map_err(|error| config_error(origin, &error))?;
        Ok(layer)
    }

    /// Whether this layer has a value for a setting, or turns it off.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.settings.contains_key(id)
    }

    /// The first value of a setting, if this layer has it.
    pub fn value(&self, id: &str) -> Option<&OsString> {
        self.values(id)?.first()
    }

    /// The values of a setting, if this layer has it.
    pub fn values(&self, id: &str) -> Option<&[OsString]> {
        match self.settings.get(id)? {
            RawValue::Values(values) => Some(values),
            RawValue::Off => None,
        }
    }

    /// The `KEY=VALUE` pairs of a setting, if this layer has it.
    pub fn pairs(&self, id: &str) -> Option<Vec<(String, String)>> {
        let RawValue::Values(values) = self.settings.get(id)? else { return None };
        let pairs = values.iter().filter_map(|text| text.to_str()?.split_once('='));
        Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn words(&self, definition: &Command) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut operands = vec!["--".into()];
        for argument in definition.get_arguments() {
            let Some(RawValue::Values(values)) = self.settings.get(argument.get_id().as_str()) else {
                continue;
            };
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
    /// Merges the layers, the lowest first, and checks the constraints between settings.
    pub fn of(layers: impl IntoIterator<Item = ConfigLayer>) -> Result<Self, clap::Error> {
        let (mut all, mut origins) = (ConfigLayer::default(), BTreeMap::new());
        for layer in layers {
            origins.extend(layer.settings.keys().map(|id| (id.clone(), layer.origin.clone())));
            all.settings.extend(layer.settings);
        }
        let words = all.words(&Config::command_definition());
        let matches = Config::command_with_constraints()
            .try_get_matches_from(std::iter::once("mlws".into()).chain(words))?;
        Ok(Self { config: Config::from_arg_matches(&matches)?, matches, origins })
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
