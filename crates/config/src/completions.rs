use clap::CommandFactory;
use clap_complete::Shell;

use crate::config::Config;

/// Prints what a shell needs to complete the options of the command.
pub fn show_completions(shell: Shell) {
    clap_complete::generate(shell, &mut Config::command(), "mlws", &mut std::io::stdout());
}
