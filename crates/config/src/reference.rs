//! Generates `docs/settings.md` from the definition, and checks that it is current.
//!
//! `MLWS_WRITE_DOCS=1 cargo test -p mlws-config reference` writes the page.

use std::{env, fmt::Write, fs, path::Path};

use clap::Arg;

use crate::Config;

const HEAD: &str = "\
# Settings

Set each option on the command line (`--workers 4`), in the environment variable `GUNICORN_CMD_ARGS` (`--workers 4`), in a config
file (`workers = 4`), or as an argument of `serve()` (`workers=4`). The precedence, from lowest to highest: default, config file,
`GUNICORN_CMD_ARGS`, command line. An option that may be repeated is a list in a config file.

The config file is the argument of `--config`, or else the first of these that exists: `mlws.toml`, `gunicorn.conf.py`, and
`pyproject.toml` with a table `[tool.mylittlewebserver]`. In config files, names have underscores. gunicorn's names also work. In
Python files, if the two names differ, only gunicorn's works (`pidfile`, not `pid`). `mlws --print-config` prints all settings
and their sources as an `mlws.toml`. [gunicorn.md](gunicorn.md) lists the settings of gunicorn that are ignored or rejected.
A reload (HUP) reads the config file again. With `-c python:MODULE`, it imports the module and its submodules again.

";

fn page() -> String {
    let (mut page, mut section) = (HEAD.to_owned(), String::new());
    let definition = Config::command_definition();
    for argument in definition.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let (Some(flag), Some(heading)) = (argument.get_long(), argument.get_help_heading()) else {
            continue;
        };
        if section != heading {
            heading.clone_into(&mut section);
            let gap = if page.ends_with("\n\n") { "" } else { "\n" };
            let _ = writeln!(page, "{gap}## {heading}\n\n| option | default | description |\n|---|---|---|");
        }
        let short = argument.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let value = argument.get_value_names().filter(|_| argument.get_action().takes_values());
        let value =
            value.map(|names| format!(" {}", names.join(" "))).unwrap_or_default().replace('|', "\\|");
        let also: Vec<_> = argument
            .get_all_aliases()
            .unwrap_or_default()
            .into_iter()
            .map(|name| format!("`{name}`"))
            .collect();
        let also = if also.is_empty() { String::new() } else { format!(" (also {})", also.join(", ")) };
        let help =
            argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let help = sentences(&help).replace('|', "\\|");
        let _ = writeln!(page, "| {short}`--{flag}{value}`{also} | {} | {help} |", default(argument));
    }
    page
}

/// Joins the paragraphs of a help text into one line, with a period after the summary.
fn sentences(help: &str) -> String {
    let paragraphs: Vec<_> = help.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    paragraphs.join(". ")
}

fn default(argument: &Arg) -> String {
    let defaults: Vec<_> = argument.get_default_values().iter().map(|text| text.to_string_lossy()).collect();
    match defaults.join(",").as_str() {
        _ if !argument.get_action().takes_values() => "off".into(),
        "" => String::new(),
        text => format!("`{text}`"),
    }
}

#[test]
fn the_settings_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    if env::var_os("MLWS_WRITE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/settings.md is not up to date; see crates/config/src/reference.rs");
}
