//! The process among others, and what helps to develop.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::values::file_mask;

#[derive(Args)]
#[command(next_help_heading = "ProcessOptions")]
pub struct ProcessOptions {
    /// Go to this folder first of all; modules are looked for in it
    #[arg(long, value_name = "FOLDER")]
    pub chdir: Option<PathBuf>,

    /// Folders where modules are looked for before anywhere else, separated by commas
    #[arg(long, value_name = "FOLDERS", value_delimiter = ',')]
    pub pythonpath: Vec<PathBuf>,

    /// Write the process id of the master to this file, and remove it at the end
    #[arg(short, long, value_name = "FILE", alias = "pidfile")]
    pub pid: Option<PathBuf>,

    /// Go on in the background. The command returns when all workers are ready, or tells why they cannot be. After
    /// that stdin, stdout and stderr are /dev/null: use --error-logfile
    #[arg(short = 'D', long)]
    pub daemon: bool,

    /// Run the workers as this user, and in its own group unless --group is given. Only root can. A UID without an entry
    /// in the list of users needs --group
    #[arg(short, long, value_name = "NAME|UID")]
    pub user: Option<String>,

    /// Run the workers in this group, and in no other
    #[arg(short, long, value_name = "NAME|GID")]
    pub group: Option<String>,

    /// What nobody may do with new files: 022 and 0o22 are octal, 18 is the same in decimal. Unless given it is as
    /// found, but everybody may connect to a Unix socket
    #[arg(short = 'm', long, value_name = "MASK", value_parser = file_mask)]
    pub umask: Option<u32>,

    /// With --user: run the workers in all groups of that user
    #[arg(long)]
    pub initgroups: bool,

    /// What the processes are called in lists of processes, if the package setproctitle is installed
    #[arg(short, long, value_name = "NAME", alias = "proc_name")]
    pub name: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "DevOptions")]
pub struct DevOptions {
    /// Load the application again whenever one of its files changes; while it cannot be loaded, clients are config_error why
    #[arg(long)]
    pub reload: bool,

    /// With --reload: how changes are noticed. `inotify` is config_error of them by the system, `poll` looks at all files twice a
    /// second, and `auto` polls only where the system cannot tell
    #[arg(long, value_name = "ENGINE", value_enum, default_value = "auto")]
    pub reload_engine: Engine,

    /// With --reload: another file to watch, or a pattern such as 'templates/**/*.html'; may be repeated
    #[arg(long, value_name = "FILE", alias = "reload_extra_files")]
    pub reload_extra_file: Vec<glob::Pattern>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Engine {
    Auto,
    Poll,
    Inotify,
}
