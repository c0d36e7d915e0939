//! `--env` and `--env-file`: variables that are set before the application is loaded.
//!
//! They are set through `os.environ`, so Python and the process see the same. A new master (USR2) is started without them, so that it reads
//! the file again.

use std::{
    cell::Cell,
    ffi::OsString,
    fs,
    io::{self, Read},
    process::Command,
};

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
            let listed = parse(&text).map_err(|line| {
                failed(format!(
                    "line {line}: expected KEY=VALUE, with quotes around a value that contains spaces"
                ))
            })?;
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

/// Parses the file with `dotenvy`. Returns the variables in their order, or the line number of an error. The errors of `dotenvy` contain
/// the line, which may be a secret, so they are not used.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    // Without a line break after it, `dotenvy` rejects white space at the end.
    let text = format!("{}\n", text.strip_prefix('\u{feff}').unwrap_or(text));
    let (at, mut start) = (Cell::new(0), 0);
    let mut found = Vec::new();
    for variable in dotenvy::from_read_iter(LineReader { text: text.as_bytes(), at: &at }) {
        let lines = text[start..at.get()].lines().map(str::trim_start);
        let skipped = lines.clone().take_while(|line| line.is_empty() || line.starts_with('#')).count();
        let first = text[..start].lines().count() + skipped + 1;
        let (name, value) = variable.map_err(|_| first)?;
        // `dotenvy` takes some quotes in comments for the start of a value, and drops the lines up to the next quote.
        if value.matches('\n').count() + 1 < lines.count() - skipped {
            return Err(first);
        }
        found.push((name, value));
        start = at.get();
    }
    Ok(found)
}

/// Reads at most one line at a time, so that the position `at` tells which lines have been parsed.
struct LineReader<'a> {
    text: &'a [u8],
    at: &'a Cell<usize>,
}

impl Read for LineReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let rest = &self.text[self.at.get()..];
        let line = rest.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
        let length = line.len().min(to.len());
        to[..length].copy_from_slice(&line[..length]);
        self.at.set(self.at.get() + length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().map(|(name, value)| format!("{name}:{value}")).collect()
    }

    #[test]
    fn a_line_is_a_name_and_a_value() {
        let text =
            "\u{feff}A=1\r\n\r\n  # B=2\n export C = three\nD=\nexported=x\nE_1.x=a=b#c # don't\nF=last ";
        assert_eq!(values(text), ["A:1", "C:three", "D:", "exported:x", "E_1.x:a=b#c", "F:last"]);
        assert_eq!(values("A= # nothing\nB=caf\u{e9}\n"), ["A:", "B:caf\u{e9}"]);
        let long = format!("A={}\nB=2", "x".repeat(100_000));
        assert_eq!(parse(&long).unwrap()[1].1, "2");
    }

    #[test]
    fn quotes_keep_what_is_in_them_over_many_lines() {
        assert_eq!(values("A=' # a\\n\"\n\nb ' # c\nB=2"), ["A: # a\\n\"\n\nb ", "B:2"]);
        assert_eq!(values("A='\n\n'\nB=2"), ["A:\n\n", "B:2"]);
        assert_eq!(values("A=\"a\\n\\\"\\$\\\\d'\nb\"\nB=\"\""), ["A:a\n\"$\\d'\nb", "B:"]);
    }

    #[test]
    fn variables_are_expanded_except_in_single_quotes() {
        let text = "A_B=1\nC=2\nD=${C}-${A_B} # 3\nE=\"${C}\"\nF='${C} $'\nG=\\$C\nH=${MLWS_NOT_SET}";
        assert_eq!(values(text), ["A_B:1", "C:2", "D:2-1", "E:2", "F:${C} $", "G:$C", "H:"]);
    }

    #[test]
    fn errors_have_the_line_number() {
        for (text, line) in [
            ("A=1\nsecret\nB=2", 2),
            ("=secret", 1),
            ("1A=secret", 1),
            ("\n\nA B=secret", 3),
            ("# a\nA='a\nb'\n\n # b\nB='secret\n\n", 6),
            ("A=\"secret\\", 1),
            ("A='a' secret", 1),
            ("A=two words", 1),
            ("A=1\nB=2  # don't\nC=3\n# it's\nD=4\n", 2),
        ] {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
    }
}
