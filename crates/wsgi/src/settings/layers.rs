//! What each source says of the settings, and what follows when they are laid one over the other.
//!
//! The one thing to know: a layer is a command line, whatever it was read from. Each is read by the parser of the command,
//! so that a value means the same wherever it stands; a setting that two layers name has the value of the upper one only.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, error::ErrorKind, parser::ValueSource};

use super::Flags;
use crate::refusal::Refusal;

/// What one source says.
#[derive(Default)]
pub(crate) struct Layer {
    /// What an error calls it.
    origin: String,
    /// The values of each setting, by its id: none for a switch that is on.
    said: BTreeMap<String, Said>,
}

#[derive(Clone, PartialEq, Eq)]
enum Said {
    Values(Vec<OsString>),
    /// A switch that a lower layer may have turned on.
    Off,
}

/// A value as a file or a program has it.
pub(crate) enum Value {
    /// The setting is as if it were not named.
    Nothing,
    Switch(bool),
    Texts(Vec<String>),
}

/// The layers, one over the other.
pub(super) struct Pile {
    pub(super) flags: Flags,
    pub(super) matches: ArgMatches,
    /// Where each setting comes from that somebody named, by its id.
    pub(super) origins: BTreeMap<String, String>,
}

impl Layer {
    /// Reads a command line, without the command's own name.
    pub(super) fn of_words(
        origin: &str,
        words: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let definition = Flags::definition();
        let matches = definition.clone().try_get_matches_from(std::iter::once("mlws".into()).chain(words))?;
        let named = definition
            .get_arguments()
            .map(Arg::get_id)
            .filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine));
        let said = named.map(|id| {
            let values = matches.get_raw(id.as_str()).into_iter().flatten().map(OsString::from).collect();
            (id.to_string(), Said::Values(values))
        });
        Ok(Self { origin: origin.to_owned(), said: said.collect() })
    }

    /// Takes named values, from a file or a program. `name` is the flag with underscores, or what gunicorn calls it.
    pub(crate) fn of_values(
        origin: &str,
        values: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, Refusal> {
        let definition = Flags::definition();
        let mut layer = Self { origin: origin.to_owned(), said: BTreeMap::new() };
        for (name, value) in values {
            let argument = argument(&definition, &name).ok_or_else(|| unknown(&definition, origin, &name))?;
            let said = match (value, argument.get_action().takes_values()) {
                (Value::Nothing, _) => continue,
                (Value::Switch(false), _) => Said::Off,
                (Value::Switch(true), false) => Said::Values(vec!["true".into()]),
                (Value::Switch(true), true) => {
                    let bare = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
                    Said::Values(if bare { Vec::new() } else { vec!["true".into()] })
                }
                (Value::Texts(texts), true) if texts.is_empty() => Said::Off,
                (Value::Texts(texts), true) if matches!(argument.get_action(), ArgAction::Append) => {
                    Said::Values(texts.into_iter().map(OsString::from).collect())
                }
                (Value::Texts(texts), true) => Said::Values(vec![texts.join(",").into()]),
                (Value::Texts(texts), false) => match texts.join(",").to_ascii_lowercase().as_str() {
                    "1" | "true" => Said::Values(vec!["true".into()]),
                    "0" | "false" => Said::Off,
                    other => {
                        let sentence = format!("{origin}: {name} is a switch, true or false, not '{other}'");
                        return Err(Refusal::Usage(sentence));
                    }
                },
            };
            layer.said.insert(argument.get_id().to_string(), said);
        }
        // What is wrong here is this source's fault, and is told as such.
        Self::of_words(origin, layer.words(&definition)).map_err(|error| told(origin, &error))?;
        Ok(layer)
    }

    /// The one value of a setting, if it is named here.
    pub(super) fn value(&self, id: &str) -> Option<&OsString> {
        self.values(id)?.first()
    }

    /// The values of a setting, if it is named here.
    pub(super) fn values(&self, id: &str) -> Option<&[OsString]> {
        match self.said.get(id)? {
            Said::Values(values) => Some(values),
            Said::Off => None,
        }
    }

    /// The values of a setting that are `KEY=VALUE`, if it is named here.
    pub(super) fn pairs(&self, id: &str) -> Option<Vec<(String, String)>> {
        let Said::Values(values) = self.said.get(id)? else { return None };
        let pairs = values.iter().filter_map(|text| text.to_str()?.split_once('='));
        Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn words(&self, definition: &Command) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut operands = vec!["--".into()];
        for argument in definition.get_arguments() {
            let Some(Said::Values(values)) = self.said.get(argument.get_id().as_str()) else { continue };
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

impl Pile {
    /// Lays each layer over those before it. Only now is it looked at what goes together with what.
    pub(super) fn of(layers: impl IntoIterator<Item = Layer>) -> Result<Self, clap::Error> {
        let (mut all, mut origins) = (Layer::default(), BTreeMap::new());
        for layer in layers {
            origins.extend(layer.said.keys().map(|id| (id.clone(), layer.origin.clone())));
            all.said.extend(layer.said);
        }
        let words = all.words(&Flags::definition());
        let matches =
            Flags::whole_definition().try_get_matches_from(std::iter::once("mlws".into()).chain(words))?;
        Ok(Self { flags: Flags::from_arg_matches(&matches)?, matches, origins })
    }
}

/// The argument that this name stands for in files and programs.
pub(super) fn argument<'a>(definition: &'a Command, name: &str) -> Option<&'a Arg> {
    definition.get_arguments().find(|argument| {
        let has_flag = argument.get_long().is_some_and(|flag| flag.replace('-', "_") == name);
        has_flag
            || argument.get_all_aliases().unwrap_or_default().contains(&name)
            || is_application(argument, name)
    })
}

/// What gunicorn's config files call a setting, where it is not the flag with underscores.
pub(super) fn gunicorns_name(argument: &Arg) -> Option<&str> {
    let aliases = argument.get_all_aliases().unwrap_or_default();
    let theirs = aliases.into_iter().find(|alias| !alias.contains('-'));
    theirs.or(argument.is_positional().then_some("wsgi_app"))
}

/// APP is the one setting that is no flag.
fn is_application(argument: &Arg, name: &str) -> bool {
    argument.is_positional() && matches!(name, "app" | "wsgi_app")
}

/// The name of a setting that somebody may have meant.
pub(super) fn nearest(definition: &Command, name: &str) -> Option<String> {
    let names = definition.get_arguments().flat_map(|argument| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long().into_iter().chain(aliases).map(|name| name.replace('-', "_")).collect::<Vec<_>>()
    });
    let near = names.map(|known| (strsim::damerau_levenshtein(&known, name), known));
    near.filter(|(distance, known)| *distance * 4 <= known.len()).min().map(|(_, known)| known)
}

fn unknown(definition: &Command, origin: &str, name: &str) -> Refusal {
    let hint = nearest(definition, name).map_or_else(
        || "mlws --help and docs/settings.md have them all".to_owned(),
        |known| format!("did you mean {known}?"),
    );
    Refusal::Usage(format!("{origin}: there is no setting '{name}'; {hint}"))
}

/// What the parser says, as the fault of a source that is not the command line.
pub(super) fn told(origin: &str, error: &clap::Error) -> Refusal {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Refusal::Usage(format!("{origin}: --help and --version are for the command line"));
    }
    Refusal::Usage(format!("{origin}: {}", sentence(error)))
}

/// What is wrong, without how the command is used.
pub(super) fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}
