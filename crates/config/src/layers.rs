//! What each source says of the settings, and what follows when they are laid one over the other.
//!
//! The one thing to know: a layer is a command line, whatever it was read from. Each is read by the parser of the command,
//! so that a value means the same wherever it stands; a setting that two layers name has the value of the upper one only.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, error::ErrorKind, parser::ValueSource};

use crate::{config::Config, error::ConfigError};

/// What one source says.
#[derive(Default)]
pub struct ConfigLayer {
    /// What an error calls it.
    origin: String,
    /// The values of each setting, by its id: none for a switch that is on.
    said: BTreeMap<String, RawValue>,
}

#[derive(Clone, PartialEq, Eq)]
enum RawValue {
    Values(Vec<OsString>),
    /// A switch that a lower layer may have turned on.
    Off,
}

/// A value as a file or a program has it.
pub enum Value {
    /// The setting is as if it were not named.
    Unset,
    Switch(bool),
    Texts(Vec<String>),
}

/// The layers, one over the other.
pub struct MergedConfig {
    pub config: Config,
    pub matches: ArgMatches,
    /// Where each setting comes from that somebody named, by its id.
    pub origins: BTreeMap<String, String>,
}

impl ConfigLayer {
    /// Reads a command line, without the command's own name.
    pub fn from_args(origin: &str, words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let definition = Config::command_definition();
        let matches = definition.clone().try_get_matches_from(std::iter::once("mlws".into()).chain(words))?;
        let named = definition
            .get_arguments()
            .map(Arg::get_id)
            .filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine));
        let said = named.map(|id| {
            let values = matches.get_raw(id.as_str()).into_iter().flatten().map(OsString::from).collect();
            (id.to_string(), RawValue::Values(values))
        });
        Ok(Self { origin: origin.to_owned(), said: said.collect() })
    }

    /// Takes named values, from a file or a program. `name` is the flag with underscores, or what gunicorn calls it.
    pub fn from_values(
        origin: &str,
        values: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, ConfigError> {
        let definition = Config::command_definition();
        let mut layer = Self { origin: origin.to_owned(), said: BTreeMap::new() };
        for (name, value) in values {
            let argument = argument(&definition, &name).ok_or_else(|| unknown(&definition, origin, &name))?;
            let said = match (value, argument.get_action().takes_values()) {
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
                        let clap_message =
                            format!("{origin}: {name} is a switch, true or false, not '{other}'");
                        return Err(ConfigError(clap_message));
                    }
                },
            };
            layer.said.insert(argument.get_id().to_string(), said);
        }
        // What is wrong here is this source's fault, and is config_error as such.
        Self::from_args(origin, layer.words(&definition)).map_err(|error| config_error(origin, &error))?;
        Ok(layer)
    }

    /// The one value of a setting, if it is named here.
    pub fn value(&self, id: &str) -> Option<&OsString> {
        self.values(id)?.first()
    }

    /// The values of a setting, if it is named here.
    pub fn values(&self, id: &str) -> Option<&[OsString]> {
        match self.said.get(id)? {
            RawValue::Values(values) => Some(values),
            RawValue::Off => None,
        }
    }

    /// The values of a setting that are `KEY=VALUE`, if it is named here.
    pub fn pairs(&self, id: &str) -> Option<Vec<(String, String)>> {
        let RawValue::Values(values) = self.said.get(id)? else { return None };
        let pairs = values.iter().filter_map(|text| text.to_str()?.split_once('='));
        Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn words(&self, definition: &Command) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut operands = vec!["--".into()];
        for argument in definition.get_arguments() {
            let Some(RawValue::Values(values)) = self.said.get(argument.get_id().as_str()) else { continue };
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
    /// Lays each layer over those before it. Only now is it looked at what goes together with what.
    pub fn of(layers: impl IntoIterator<Item = ConfigLayer>) -> Result<Self, clap::Error> {
        let (mut all, mut origins) = (ConfigLayer::default(), BTreeMap::new());
        for layer in layers {
            origins.extend(layer.said.keys().map(|id| (id.clone(), layer.origin.clone())));
            all.said.extend(layer.said);
        }
        let words = all.words(&Config::command_definition());
        let matches = Config::command_with_constraints()
            .try_get_matches_from(std::iter::once("mlws".into()).chain(words))?;
        Ok(Self { config: Config::from_arg_matches(&matches)?, matches, origins })
    }
}

/// The argument that this name stands for in files and programs.
pub fn argument<'a>(definition: &'a Command, name: &str) -> Option<&'a Arg> {
    definition.get_arguments().find(|argument| {
        let has_flag = argument.get_long().is_some_and(|flag| flag.replace('-', "_") == name);
        has_flag
            || argument.get_all_aliases().unwrap_or_default().contains(&name)
            || is_application(argument, name)
    })
}

/// What gunicorn's config files call a setting, where it is not the flag with underscores.
pub fn gunicorns_name(argument: &Arg) -> Option<&str> {
    let aliases = argument.get_all_aliases().unwrap_or_default();
    let theirs = aliases.into_iter().find(|alias| !alias.contains('-'));
    theirs.or(argument.is_positional().then_some("wsgi_app"))
}

/// APP is the one setting that is no flag.
fn is_application(argument: &Arg, name: &str) -> bool {
    argument.is_positional() && matches!(name, "app" | "wsgi_app")
}

/// The name of a setting that somebody may have meant.
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
        || "mlws --help and docs/settings.md have them all".to_owned(),
        |known| format!("did you mean {known}?"),
    );
    ConfigError(format!("{origin}: there is no setting '{name}'; {hint}"))
}

/// What the parser says, as the fault of a source that is not the command line.
pub fn config_error(origin: &str, error: &clap::Error) -> ConfigError {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ConfigError(format!("{origin}: --help and --version are for the command line"));
    }
    ConfigError(format!("{origin}: {}", clap_message(error)))
}

/// What is wrong, without how the command is used.
pub fn clap_message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}
