//! Where settings come from: defaults, a config file, the environment, the command line, each above the one before it.
//!
//! The one thing to know: [`Sources`] can be read again, for a reload; only the uppermost layer, what the command or the program
//! said, stays the same.

use std::{
    ffi::OsString,
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use pyo3::prelude::*;

use super::{
    Flags, config_file,
    layers::{self, Layer, Pile, Value},
    show,
};
use crate::{loader::paste, refusal::Refusal};

/// Words that stand between the config file and the command line, as gunicorn has them.
const ENVIRONMENT: &str = "GUNICORN_CMD_ARGS";

#[derive(Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Configuration {
    /// Read settings from this file first: Python as gunicorn's, TOML where its name
    /// ends so, or python:MODULE. Unless given: mlws.toml, gunicorn.conf.py, or [tool.mylittlewebserver] in pyproject.toml, if there is one
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<String>,

    /// Load the settings and the application, say what is wrong with them, and serve nothing
    #[arg(long)]
    pub(crate) check_config: bool,

    /// Show each setting, as it would be said in an mlws.toml, and where it comes from; and do as --check-config does
    #[arg(long)]
    pub(crate) print_config: bool,

    /// Show what completes the options of this command in a shell; such as: source <(mlws --completions bash)
    #[arg(long, value_name = "SHELL", value_enum)]
    pub(crate) completions: Option<Shell>,
}

/// What only a command can be told; a program that calls `serve()` has no use for it.
pub(super) const OF_COMMAND_ONLY: [&str; 3] = ["check_config", "print_config", "completions"];

/// Whoever starts the server, and the folder it is started in.
pub(crate) struct Sources {
    caller: Caller,
    pub(crate) folder: PathBuf,
}

enum Caller {
    /// The words of the command line.
    Command(Vec<OsString>),
    /// The application's name, and the keywords of `serve()`.
    Program(Vec<(String, Vec<String>)>),
}

/// Why there are no settings.
pub(crate) enum Unread {
    /// What the parser of the command line has to say, which may be its help.
    Words(clap::Error),
    Refused(Refusal),
}

impl Sources {
    pub(crate) fn command(words: Vec<OsString>) -> Self {
        Self { caller: Caller::Command(words), folder: here() }
    }

    /// Keywords have their values as texts; no text at all is a switch that is on.
    pub(crate) fn program(keywords: Vec<(String, Vec<String>)>) -> Self {
        Self { caller: Caller::Program(keywords), folder: here() }
    }

    /// Reads all of them, as they are now.
    pub(crate) fn read(&self, py: Python<'_>) -> Result<Flags, Unread> {
        let mut upper = match &self.caller {
            Caller::Command(words) => {
                vec![environment()?, Layer::of_words("the command line", words.clone())?]
            }
            Caller::Program(keywords) => {
                let values = keywords.iter().map(|(name, texts)| {
                    let value =
                        if texts.is_empty() { Value::Switch(true) } else { Value::Texts(texts.clone()) };
                    (name.clone(), value)
                });
                vec![Layer::of_values("serve()", values)?]
            }
        };
        let named = upper.iter().rev().find_map(|layer| layer.value("config"));
        let named = named.map(|name| name.to_string_lossy().into_owned());
        let is_command = matches!(self.caller, Caller::Command(_));
        let imports = self.import_directories(&upper);
        let found = named.map(|name| config_file::named(py, &self.folder, &name, &imports));
        let found = found.or_else(|| is_command.then(|| config_file::usual(py, &self.folder, &imports)));
        let (layer, extras) = found.transpose()?.unwrap_or_default();
        upper.insert(0, layer);
        if let Some(text) = upper.iter().rev().find_map(|layer| layer.value("paste")) {
            let variables =
                upper.iter().rev().find_map(|layer| layer.pairs("paste_global")).unwrap_or_default();
            upper.insert(0, paste::settings(py, &text.to_string_lossy(), &variables)?);
        }
        let pile = Pile::of(upper)?;
        let seen = extras.hooks.is_some().then(|| show::python(py, &pile)).transpose();
        let seen =
            seen.map_err(|error| Refusal::raised(py, "the settings cannot be shown to hooks", &error))?;
        Ok(Flags { seen, ..Flags::settled(pile, extras)? })
    }
}

impl Sources {
    /// Where a config file can import from: the directory that the server is started in, and what --chdir and --pythonpath name
    /// outside of the file. The last is looked into first.
    fn import_directories(&self, layers: &[Layer]) -> Vec<PathBuf> {
        let value = |id| layers.iter().rev().find_map(|layer| layer.values(id));
        let mut directories = vec![self.folder.clone()];
        if let Some(directory) = value("chdir").unwrap_or_default().first() {
            directories.push(self.folder.join(directory));
        }
        let home = directories[directories.len() - 1].clone();
        for texts in value("pythonpath").unwrap_or_default() {
            directories.extend(texts.to_string_lossy().split(',').map(|directory| home.join(directory)));
        }
        directories
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(told) => layers::sentence(told).fmt(to),
            Self::Refused(refusal) => refusal.fmt(to),
        }
    }
}

impl From<clap::Error> for Unread {
    fn from(error: clap::Error) -> Self {
        Self::Words(error)
    }
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn environment() -> Result<Layer, Refusal> {
    let Ok(text) = std::env::var(ENVIRONMENT) else { return Ok(Layer::default()) };
    let words = shlex::split(&text)
        .ok_or_else(|| Refusal::Usage(format!("{ENVIRONMENT} has a quote that does not end: {text}")))?;
    Layer::of_words(ENVIRONMENT, words.into_iter().map(OsString::from))
        .map_err(|error| layers::told(ENVIRONMENT, &error))
}

/// The folder this process is in, by the name that the shell has for it: a link in that may lead elsewhere by the time of a reload.
fn here() -> PathBuf {
    let known = std::env::var_os("PWD").map(PathBuf::from).filter(|path| {
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        path.is_absolute() && fs::metadata(path).is_ok_and(|a| fs::metadata(".").is_ok_and(|b| same(a, b)))
    });
    // A folder that is gone has no files either.
    known.or_else(|| std::env::current_dir().ok()).unwrap_or_else(|| Path::new(".").to_owned())
}

/// Shows what a shell needs to complete the command.
pub(crate) fn show_completions(shell: Shell) {
    clap_complete::generate(shell, &mut Flags::command(), "mlws", &mut std::io::stdout());
}
