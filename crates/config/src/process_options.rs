//! The master process: its directory, user, PID file and name.

use std::path::PathBuf;

use clap::Args;

use crate::values::file_mask;

#[derive(Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessOptions {
    /// Change to this directory first; modules are imported from it
    #[arg(long, value_name = "DIR")]
    pub chdir: Option<PathBuf>,

    /// Directories to add to the front of the module search path, separated by commas
    #[arg(long, value_name = "DIRS", value_delimiter = ',')]
    pub pythonpath: Vec<PathBuf>,

    /// Write the PID of the master to this file; removed at exit
    #[arg(short, long, value_name = "FILE", alias = "pidfile")]
    pub pid: Option<PathBuf>,

    /// Run in the background
    ///
    /// The command returns when all workers are ready, or prints the reason why they are not. Afterwards stdin,
    /// stdout and stderr are /dev/null; set --error-logfile.
    #[arg(short = 'D', long)]
    pub daemon: bool,

    /// Run workers as this user, and in the user's primary group unless --group is set
    ///
    /// Requires root. A UID that is not in the user database also requires --group.
    #[arg(short, long, value_name = "NAME|UID")]
    pub user: Option<String>,

    /// Run workers in this group, without supplementary groups
    #[arg(short, long, value_name = "NAME|GID")]
    pub group: Option<String>,

    /// File mode creation mask
    ///
    /// 022 and 0o22 are octal; 18 is the same value in decimal. By default the mask is inherited, and Unix sockets
    /// are created with mode 0777. 007 lets only their owner and group connect.
    #[arg(short = 'm', long, value_name = "MASK", value_parser = file_mask)]
    pub umask: Option<u32>,

    /// With --user: add the supplementary groups of the user
    #[arg(long)]
    pub initgroups: bool,

    /// Process title; requires the package setproctitle
    #[arg(short, long, value_name = "NAME", alias = "proc_name")]
    pub name: Option<String>,
}
