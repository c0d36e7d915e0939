//! `--env` and `--env-file`: variables that are set before the application is loaded.
//!
//! They are set through `os.environ`, so Python and the process see the same. A new master (USR2) is started without them, so that it reads
//! the file again.

use std::{ffi::OsString, fs, process::Command};

use mlws_config::Config;
use pyo3::prelude::*;

use crate::error::StartupError;

/// The variables that were set, with their values before. Restores those when dropped, unless [`keep`](Self::keep) is called.
#[derive(Default)]
pub(crate) struct Environment {
    before: Vec<(String, Option<OsString>)>,
    is_kept: bool,
}

/// The step from one environment to another. Dropping it undoes the step.
pub(crate) struct EnvironmentChange {
    // Invariant: dropped in this order, the reverse of the order in which they were made.
    set: Environment,
    restored: Environment,
}

impl EnvironmentChange {
    /// Makes the step permanent. Returns the variables that are set now.
    pub(crate) fn commit(self) -> Environment {
        self.restored.keep();
        self.set
    }
}

impl Environment {
    /// Sets the variables of the settings. A relative path of the file starts at `--chdir`.
    pub(crate) fn set(py: Python<'_>, config: &Config) -> Result<Self, StartupError> {
        let mut variables: Vec<(String, String)> = Vec::new();
        if let Some(file) = &config.source.env_file {
            let path = config.process.chdir.as_ref().map_or_else(|| file.clone(), |chdir| chdir.join(file));
            let failed =
                |error: String| StartupError::Usage(format!("--env-file {}: {error}", path.display()));
            let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
            let listed = parse(&text).map_err(|(line, error)| failed(format!("line {line}: {error}")))?;
            variables.extend(listed.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
        }
        variables.extend(config.source.env.iter().cloned());
        let mut environment = Self::default();
        for (name, value) in &variables {
            environment.set_variable(py, name, Some(value.into()))?;
        }
        Ok(environment)
    }

    /// Restores the variables of `self`, then sets those of other settings.
    pub(crate) fn replace(&self, py: Python<'_>, config: &Config) -> Result<EnvironmentChange, StartupError> {
        let mut restored = Self::default();
        for (name, value) in &self.before {
            restored.set_variable(py, name, value.clone())?;
        }
        Ok(EnvironmentChange { set: Self::set(py, config)?, restored })
    }

    /// Makes the change permanent: a drop restores nothing.
    pub(crate) fn keep(mut self) -> Self {
        self.is_kept = true;
        self
    }

    /// A command that is started without these variables.
    pub(crate) fn without(&self, mut command: Command) -> Command {
        for (name, value) in &self.before {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn set_variable(
        &mut self,
        py: Python<'_>,
        name: &str,
        value: Option<OsString>,
    ) -> Result<(), StartupError> {
        if self.before.iter().all(|(known, _)| known != name) {
            self.before.push((name.to_owned(), std::env::var_os(name)));
        }
        set_in_python(py, name, value)
            .map_err(|error| StartupError::Usage(format!("cannot set {name}: {}", error.value(py))))
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if self.is_kept || self.before.is_empty() {
            return;
        }
        Python::attach(|py| {
            for (name, value) in std::mem::take(&mut self.before) {
                if let Err(error) = set_in_python(py, &name, value) {
                    log::warn!("restoring the variable {name} failed: {error}");
                }
            }
        });
    }
}

fn set_in_python(py: Python<'_>, name: &str, value: Option<OsString>) -> PyResult<()> {
    let environ = py.import("os")?.getattr("environ")?;
    match value {
        Some(value) => environ.set_item(name, value),
        None => environ.call_method1("pop", (name, py.None())).map(drop),
    }
}

/// Parses the file. Returns the variables in their order, or a line number and an error. Values may be secrets, so errors do not contain
/// them.
fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let mut found = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while !rest.is_empty() {
        let number = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let line = rest.lines().next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        let (key, value) = rest
            .split_once('=')
            .filter(|(key, _)| !key.contains('\n'))
            .ok_or((number, "expected KEY=VALUE"))?;
        let key = key.trim();
        let key = key.strip_prefix("export").filter(|key| key.starts_with([' ', '\t'])).unwrap_or(key).trim();
        let is_word =
            |mut key: std::str::Chars<'_>| key.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !is_word(key.chars()) {
            return Err((number, "invalid variable name"));
        }
        let (value, after) =
            parse_value(value.trim_start_matches([' ', '\t'])).map_err(|error| (number, error))?;
        if value.contains('\0') {
            return Err((number, "a variable cannot contain NUL"));
        }
        found.push((key.to_owned(), value));
        rest = after;
    }
    Ok(found)
}

/// Parses a value. Returns it with the text after its line.
fn parse_value(text: &str) -> Result<(String, &str), &'static str> {
    let (value, after) = match text.chars().next() {
        Some('\'') => {
            let (value, after) = text[1..].split_once('\'').ok_or("the quote is not closed")?;
            (value.to_owned(), after)
        }
        Some('"') => double_quoted(&text[1..])?,
        _ => {
            let line = text.lines().next().unwrap_or_default();
            let comment =
                line.match_indices('#').map(|(at, _)| at).find(|at| line[..*at].ends_with([' ', '\t']));
            let comment = comment.or_else(|| line.starts_with('#').then_some(0));
            let value = &line[..comment.unwrap_or(line.len())];
            (value.trim().to_owned(), &text[value.len()..])
        }
    };
    let (line, after) = after.split_once('\n').unwrap_or((after, ""));
    match line.trim() {
        "" => Ok((value, after)),
        comment if comment.starts_with('#') => Ok((value, after)),
        _ => Err("unexpected text after the closing quote"),
    }
}

/// The value before the closing quote, and the text after it. Supports the common backslash escapes.
fn double_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().ok_or("the quote is not closed")?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                '\n' => {}
                same @ ('"' | '\\' | '$' | '`') => value.push(same),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    Err("the quote is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().map(|(name, value)| format!("{name}:{value}")).collect()
    }

    #[test]
    fn a_line_is_a_name_and_a_value() {
        let text = "\u{feff}A=1\r\n\r\n  # B=2\n export C = three words \nD=\nexported=x\nE_1.x-y=a=b#c # no\nF=last";
        assert_eq!(values(text), ["A:1", "C:three words", "D:", "exported:x", "E_1.x-y:a=b#c", "F:last"]);
        assert_eq!(values("A= # nothing\nB=#nothing\n"), ["A:", "B:"]);
        assert_eq!(values("A=caf\u{e9} ${HOME} `x`\n"), ["A:caf\u{e9} ${HOME} `x`"]);
    }

    #[test]
    fn quotes_keep_what_is_in_them_over_many_lines() {
        assert_eq!(values("A=' # a\\n\"\nb ' # c\nB=2"), ["A: # a\\n\"\nb ", "B:2"]);
        assert_eq!(values("A=\"a\\n\\\"\\$\\\\\\d'\nb\\\nc\"\nB=\"\""), ["A:a\n\"$\\\\d'\nbc", "B:"]);
    }

    #[test]
    fn errors_have_the_line_number_and_not_the_value() {
        for (text, line) in [
            ("A=1\nsecret\nB=2", 2),
            ("=secret", 1),
            ("1A=secret", 1),
            ("\n\nA B=secret", 3),
            ("A='a\nb'\nB='secret\n", 3),
            ("A=\"secret\\", 1),
            ("A='a' secret", 1),
            ("A=\"a\"secret\nB=1", 1),
            ("A='\0'", 1),
        ] {
            let (number, error) = parse(text).unwrap_err();
            assert_eq!(number, line, "{text:?}");
            assert!(!error.contains("secret"));
        }
    }
}
