//! Generates `docs/settings.md` from the definition, and checks that it is current.
//!
//! `MLWS_WRITE_DOCS=1 cargo test -p mlws-config reference` writes the page.

use std::{env, fmt::Write, fs, path::Path};

use clap::Arg;

use crate::{Config, variables::name_of};

const HEAD: &str = "\
# Settings

Set each option on the command line (`--workers 4`), in an environment variable (`MLWS_WORKERS=4`), in a config file (`workers = 4`), or
as an argument of `serve()` (`workers=4`). The precedence, from lowest to highest:

1. the default
2. `WEB_CONCURRENCY`, `PORT` and `FORWARDED_ALLOW_IPS`, which change the default of one setting
3. the config file
4. `GUNICORN_CMD_ARGS`: options as on the command line
5. the variable of the setting, `MLWS_...`
6. `MLWS_CMD_ARGS`: options as on the command line
7. the command line

An option that may be repeated is a list in a config file. A source replaces the lists of lower ones.

The config file is the argument of `--config`, or else the first of these that exists: `mlws.toml`, `gunicorn.conf.py`, and
`pyproject.toml` with a table `[tool.mylittlewebserver]`. In config files, names have underscores. gunicorn's names also work. In
Python files, if the two names differ, only gunicorn's works (`pidfile`, not `pid`). `mlws --print-config` prints all settings
and their sources as an `mlws.toml`. [gunicorn.md](gunicorn.md) lists the settings of gunicorn that are ignored or rejected.
A reload (HUP) reads the config file again. With `-c python:MODULE`, it imports the module and its submodules again.

The variable of a setting is `MLWS_` and the option in upper case, with underscores. `MLWS_APP` is the application.

- An option without a value is turned on by `1`, `true`, `yes` or `on`, and off by `0`, `false`, `no` or `off`.
- The values of an option that may be repeated are separated by spaces. Quotes work as in a shell: `MLWS_ENV=\"A=1 'B=two words'\"`.
- An empty variable counts as unset. To set an empty value, use `MLWS_CMD_ARGS`: `--forwarded-allow-ips=`.
- An unknown variable that begins with `MLWS_` is ignored, and a warning names the nearest known one.
- A reload reads the variables with which the server was started. Those of `--env` and `--env-file` are for the application, and set no options.
- `serve()` reads the variables that change a default, but neither the `MLWS_` variables nor `GUNICORN_CMD_ARGS`.

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
            let _ = writeln!(
                page,
                "{gap}## {heading}\n\n| option | variable | default | description |\n|---|---|---|---|"
            );
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
        let variable = name_of(argument).map(|name| format!("`{name}`")).unwrap_or_default();
        let default = default(argument);
        let _ = writeln!(page, "| {short}`--{flag}{value}`{also} | {variable} | {default} | {help} |");
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
