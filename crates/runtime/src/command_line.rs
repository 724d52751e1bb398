//! Reads the command line of a process, and with it the configuration. Runs nothing.

use crate::config::{self, Named, Settings};
use crate::exit::Failure;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

/// A process's command line: its own arguments, and the settings.
pub struct CommandLine<C> {
    /// The arguments of the binary.
    pub cli: C,
    /// The settings from file, environment and flags.
    pub settings: Settings,
    /// The matches that both were read from.
    pub matches: ArgMatches,
}

/// Reads the command line of this process. The settings of `first` show in `-h`, all in `--help`.
/// Like clap, exits after printing help or the version, and after refusing an unknown argument.
///
/// # Errors
/// All configuration mistakes, as a usage failure.
pub fn read<C: CommandFactory + FromArgMatches>(first: &[Named]) -> Result<CommandLine<C>, Failure> {
    let matches = config::with_flags(C::command(), first).get_matches_from(config::joined(std::env::args_os()));
    let cli = C::from_arg_matches(&matches)?;
    let settings = config::of_process(&matches)?;
    Ok(CommandLine { cli, settings, matches })
}
