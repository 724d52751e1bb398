//! Adds a flag for every key to the command line of a binary. Must not define the binary's own
//! arguments: they stand in its own clap struct. The binary chooses the flags that its short help
//! shows.

use super::reader::{BOOLEAN, boolean_of, env_name};
use super::sources::NAMED_BY_USER;
use super::{FILE_ENV, KeyDoc, Override, reference};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// The flag that names the configuration file.
pub const FILE_FLAG: &str = "config";

/// A key that the short help of a binary shows, by its name there.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// The key: `projector.listen`.
    pub key: &'static str,
    /// Its flag without dashes, if it differs from the usual one, which remains as an alias
    /// (`projector-listen`).
    pub flag: Option<&'static str>,
}

impl Named {
    /// A key with its usual flag.
    #[must_use]
    pub const fn usual(key: &'static str) -> Self {
        Self { key, flag: None }
    }

    /// A key with a flag of the binary's own.
    #[must_use]
    pub const fn by(key: &'static str, flag: &'static str) -> Self {
        Self { key, flag: Some(flag) }
    }
}

/// Adds `--config` and a flag for every key to a command and its subcommands. `-h` shows the keys
/// of `first` only; `--help` shows all.
///
/// ```
/// use clap::{CommandFactory, FromArgMatches, Parser};
/// use receipts_runtime::config::{self, Named};
///
/// /// Folds the log.
/// #[derive(Parser)]
/// struct Cli {
///     /// Prints results as JSON lines.
///     #[arg(long)]
///     json: bool,
/// }
///
/// let first = [Named::by("projector.listen", "listen"), Named::usual("kafka.bootstrap")];
/// let command = config::with_flags(Cli::command(), &first);
/// let line = ["receipts-projector", "--listen", "127.0.0.1:7000", "--json"];
/// let matches = command.get_matches_from(line);
/// let cli = Cli::from_arg_matches(&matches).expect("matches its own command");
/// let settings = config::load(None, [], &config::overrides(&matches)).expect("no mistake");
/// assert!(cli.json);
/// assert_eq!(settings.projector.listen.port(), 7000);
/// ```
#[must_use]
pub fn with_flags(command: Command, first: &[Named]) -> Command {
    reference().into_iter().fold(command.arg(file_argument()), |command, doc| {
        let named = first.iter().find(|named| named.key == doc.key);
        command.arg(argument(&doc, named))
    })
}

/// Returns the argument that names the configuration file.
pub(super) fn file_argument() -> Arg {
    Arg::new(FILE_FLAG)
        .long(FILE_FLAG)
        .value_name("FILE")
        .help(format!("Configuration file, TOML [env: {FILE_ENV}]"))
        .value_parser(clap::value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .display_order(901)
        .global(true)
}

pub(super) fn argument(doc: &KeyDoc, named: Option<&Named>) -> Arg {
    let usual = flag_name(doc.key);
    let default = doc.default.as_ref().map_or_else(String::new, |value| format!(" [default: {value}]"));
    let help = format!("{}{default} [env: {}] [allowed: {}]", doc.help, env_name(doc.key), doc.allowed);
    let is_switch = is_switch(doc);
    let argument = Arg::new(doc.key)
        .long(usual.clone())
        .help(doc.help)
        .long_help(help)
        .help_heading("Settings")
        .hide_short_help(named.is_none())
        .value_name(if NAMED_BY_USER.contains(&doc.key) { "NAME=VALUE" } else { "VALUE" })
        .allow_hyphen_values(true)
        .action(ArgAction::Append)
        .global(true);
    let argument = match named.and_then(|named| named.flag) {
        Some(flag) => argument.long(flag).alias(usual),
        None => argument,
    };
    // A switch needs no value: `--http-insecure-listen`. If it has one, `=` precedes it; `joined`
    // puts it there.
    if is_switch { argument.num_args(0..=1).require_equals(true).default_missing_value("true") } else { argument }
}

fn is_switch(doc: &KeyDoc) -> bool {
    doc.allowed == BOOLEAN
}

/// Joins a switch and its value, `--projector-updates false`, by `=`. clap cannot tell such a value
/// from a subcommand or another argument that follows a switch without one.
pub fn joined(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let switches: Vec<String> =
        reference().iter().filter(|doc| is_switch(doc)).map(|doc| format!("--{}", flag_name(doc.key))).collect();
    let mut all: Vec<OsString> = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            all.push(argument);
            all.extend(arguments);
            break;
        }
        let follows_switch =
            all.last().and_then(|last| last.to_str()).is_some_and(|last| switches.iter().any(|switch| switch == last));
        match argument.to_str().filter(|value| follows_switch && boolean_of(value).is_some()) {
            Some(value) => {
                let switch = all.last_mut().expect("it follows a switch");
                switch.push("=");
                switch.push(value);
            }
            None => all.push(argument),
        }
    }
    all
}

/// Collects the settings of the command line. The last of a repeated flag wins, except for entries
/// that the user names, which add up.
#[must_use]
pub fn overrides(matches: &ArgMatches) -> Vec<Override> {
    let matches = innermost(matches);
    let mut overrides = Vec::new();
    for doc in reference() {
        let Ok(Some(values)) = matches.try_get_many::<String>(doc.key) else { continue };
        overrides.extend(values.map(|value| Override {
            key: doc.key.to_owned(),
            value: value.clone(),
            flag: flag_name(doc.key),
        }));
    }
    overrides
}

/// Returns the path of the configuration file: named by flag, or else by [`FILE_ENV`] in `env`.
#[must_use]
pub fn file(matches: &ArgMatches, env: &[(String, String)]) -> Option<PathBuf> {
    let by_flag = innermost(matches).try_get_one::<PathBuf>(FILE_FLAG).ok().flatten().cloned();
    let by_env = || env.iter().find(|(name, value)| name == FILE_ENV && !value.is_empty());
    by_flag.or_else(|| by_env().map(|(_, value)| value.into()))
}

/// Returns the matches of the innermost subcommand: clap keeps global flags there, also those
/// before it.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, nested)| innermost(nested))
}

fn flag_name(key: &str) -> String {
    key.replace(['.', '_'], "-")
}
