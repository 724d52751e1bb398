//! Reads the command line of a process, and with it the configuration. Runs nothing.

use crate::config::{self, CommandHelp, Mistakes, Named, Settings};
use crate::exit::Failure;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::ffi::OsStr;

/// A process's command line: its own arguments, and the settings.
pub struct CommandLine<C> {
    /// The arguments of the binary.
    pub cli: C,
    /// The settings from file, environment and flags.
    pub settings: Settings,
    /// The matches that both were read from.
    pub matches: ArgMatches,
}

/// A command line whose settings are not read yet.
pub struct Parsed<C> {
    /// The arguments of the binary.
    pub cli: C,
    /// The matches that they were read from.
    pub matches: ArgMatches,
}

impl<C> Parsed<C> {
    /// Reads the settings.
    ///
    /// # Errors
    /// All configuration mistakes.
    pub fn settings(&self) -> Result<Settings, Mistakes> {
        config::of_process(&self.matches)
    }
}

/// Reads the command line of this process. The settings of `first` show in `-h`; `commands` says
/// which ones `--help` shows. Like clap, exits after printing help or the version, and after
/// refusing an unknown argument.
///
/// # Errors
/// All configuration mistakes, as a usage failure.
pub fn read<C: CommandFactory + FromArgMatches>(
    first: &[Named],
    commands: &[CommandHelp],
) -> Result<CommandLine<C>, Failure> {
    let parsed = parse::<C>(first, commands)?;
    let settings = parsed.settings()?;
    Ok(CommandLine { cli: parsed.cli, settings, matches: parsed.matches })
}

/// As [`read`], but does not read the settings, so that their mistakes do not matter.
///
/// # Errors
/// If the arguments do not fit their definition, which is a mistake in this code.
pub fn parse<C: CommandFactory + FromArgMatches>(
    first: &[Named],
    commands: &[CommandHelp],
) -> Result<Parsed<C>, Failure> {
    let arguments = config::joined(std::env::args_os());
    // Only the help needs the settings of each command, which take a moment to lay out.
    let is_help = |argument: &OsStr| ["-h", "--help", "help"].iter().any(|help| argument == *help);
    let command = if arguments.iter().any(|argument| is_help(argument)) {
        config::with_help(C::command(), first, commands)
    } else {
        config::with_flags(C::command(), first)
    };
    let matches = command.get_matches_from(arguments);
    let cli = C::from_arg_matches(&matches)?;
    Ok(Parsed { cli, matches })
}

/// Returns the command with the settings that each command uses, for completions and manual pages.
#[must_use]
pub fn described<C: CommandFactory>(first: &[Named], commands: &[CommandHelp]) -> Command {
    config::with_used_flags(C::command(), first, commands)
}
