//! `receipts config`: checks the settings, prints those in force with their origins, and prints the
//! JSON Schema of the file. Starts nothing, and connects to nothing.

use clap::{Args, Subcommand};
use receipts_runtime::config::{self, InForce, Mistake, Mistakes, Origin, Settings};
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde_json::{Value, json};
use std::io::{self, Write};

pub(crate) const CHECK_EXAMPLES: &str = "Examples:
  receipts config check --config receipts.toml
  RECEIPTS_CONFIG=receipts.toml receipts config check --json";

pub(crate) const PRINT_EXAMPLES: &str = "Examples:
  receipts config print --config receipts.toml
  receipts config print --changed --json";

pub(crate) const SCHEMA_EXAMPLES: &str = "Examples:
  receipts config schema";

/// The commands of `receipts config`.
#[derive(Subcommand)]
pub(crate) enum Config {
    /// Checks file, environment and flags, and names all mistakes.
    ///
    /// Finds what a start would refuse: unknown keys, values that are not allowed or contradict one
    /// another, unknown properties of the Kafka client, and files of secrets that cannot be read.
    /// Connects to nothing.
    #[command(after_help = CHECK_EXAMPLES)]
    Check,
    /// Prints the settings in force, each with its origin.
    ///
    /// The origin is a file and its line, an environment variable, a flag, or the default. Secrets
    /// are printed as (secret). The output is TOML, so it may begin a configuration file.
    #[command(after_help = PRINT_EXAMPLES)]
    Print(Print),
    /// Prints the JSON Schema of the configuration file, by which editors complete and check it.
    ///
    /// docs/configuration.md says how an editor finds it. The output is JSON with and without
    /// --json.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
}

/// Arguments of `receipts config print`.
#[derive(Args)]
pub(crate) struct Print {
    /// Leaves out settings whose value is the default
    #[arg(long)]
    changed: bool,
}

/// Runs a command. The settings may have mistakes.
///
/// # Errors
/// All mistakes, as a usage failure.
pub(crate) fn run(command: &Config, settings: Result<Settings, Mistakes>, json: bool) -> Result<(), Failure> {
    match command {
        Config::Check => check(settings, json),
        Config::Print(print) => self::print(&settings?, print, json),
        Config::Schema => {
            let schema = config::schema();
            let text = |to: &mut dyn Write| writeln!(to, "{}", serde_json::to_string_pretty(&schema)?);
            Ok(Output::stdout(json).write(&schema, text)?)
        }
    }
}

fn check(settings: Result<Settings, Mistakes>, json: bool) -> Result<(), Failure> {
    let settings = match settings {
        Ok(settings) => settings,
        Err(mistakes) => {
            if json {
                let mistakes: Vec<Value> = mistakes.as_slice().iter().map(shown).collect();
                Output::stdout(true).write(&json!({"ok": false, "mistakes": mistakes}), |_| Ok(()))?;
            }
            return Err(mistakes.into());
        }
    };
    let checked = receipts_assembly::check_settings(&settings);
    let mut warnings = settings.warnings();
    match checked {
        Ok(more) => warnings.extend(more),
        Err(failure) => {
            if json {
                let mistake =
                    json!({"origin": null, "key": null, "problem": failure.message().trim_start_matches("error: ")});
                Output::stdout(true).write(&json!({"ok": false, "mistakes": [mistake]}), |_| Ok(()))?;
            }
            return Err(failure);
        }
    }
    let set = settings.in_force.iter().filter(|setting| setting.is_set()).count();
    let data = json!({"ok": true, "set": set, "warnings": warnings});
    Output::stdout(json).write(&data, |to| {
        for warning in &warnings {
            writeln!(to, "warning: {}", printable(warning))?;
        }
        writeln!(to, "the configuration is right: {set} settings are set, all others have their default")
    })?;
    Ok(())
}

fn shown(mistake: &Mistake) -> Value {
    json!({"origin": mistake.origin.to_string(), "key": mistake.key, "problem": mistake.problem})
}

fn print(settings: &Settings, print: &Print, json: bool) -> Result<(), Failure> {
    let mut output = Output::stdout(json);
    let in_force = settings.in_force.iter().filter(|setting| !print.changed || !setting.is_default);
    let in_force: Vec<&InForce> = in_force.collect();
    // Origins stand below one another as long as the lines are short.
    let width = in_force.iter().map(|setting| setting.toml().chars().count()).filter(|width| *width <= 60).max();
    for setting in in_force {
        output.write(setting, |to| line(to, setting, width.unwrap_or(0)))?;
    }
    Ok(())
}

fn line(to: &mut dyn Write, setting: &InForce, width: usize) -> io::Result<()> {
    let toml = printable(&setting.toml()).into_owned();
    match &setting.origin {
        Origin::Default if setting.value.is_none() => writeln!(to, "{toml}"),
        origin => writeln!(to, "{toml:width$}  # {}", printable(&origin.to_string())),
    }
}
