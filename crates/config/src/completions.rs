//! `--completions`.

use clap_complete::Shell;

use crate::config::Config;

/// Prints the completion script for `shell`.
pub fn show_completions(shell: Shell) {
    clap_complete::generate(shell, &mut Config::command_line(), "mlws", &mut std::io::stdout());
}
