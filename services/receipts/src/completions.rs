//! `receipts completions` and `receipts man`: print completions for shells, and write manual pages.
//! Knows no command.

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use serde_json::json;
use std::path::PathBuf;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts completions bash
  receipts completions zsh

  receipts completions bash > /etc/bash_completion.d/receipts
  receipts completions fish > ~/.config/fish/completions/receipts.fish";

pub(crate) const MAN_EXAMPLES: &str = "Examples:
  receipts man /usr/local/share/man/man1
  receipts man pages --json";

/// Arguments of `receipts completions`.
#[derive(Args)]
pub(crate) struct Completions {
    /// Shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Arguments of `receipts man`.
#[derive(Args)]
pub(crate) struct Man {
    /// Directory for the pages; it is made if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the completions of a shell.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn print(asked: &Completions, mut command: Command, json: bool) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut command, "receipts", &mut script);
    let script = String::from_utf8(script).context("the completions are no text")?;
    let data = json!({"shell": asked.shell.to_string(), "script": script});
    Ok(Output::stdout(json).write(&data, |to| to.write_all(script.as_bytes()))?)
}

/// Writes the manual pages of all commands.
///
/// # Errors
/// If the directory cannot be made or written.
pub(crate) fn man(asked: &Man, command: Command, json: bool) -> Result<(), Failure> {
    let dir = asked.dir.display();
    std::fs::create_dir_all(&asked.dir).with_context(|| format!("cannot make {dir}"))?;
    clap_mangen::generate_to(command, &asked.dir).with_context(|| format!("cannot write the pages into {dir}"))?;
    let entries = std::fs::read_dir(&asked.dir).with_context(|| format!("cannot read {dir}"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pages: Vec<String> = names.filter(|name| name.starts_with("receipts") && name.ends_with(".1")).collect();
    pages.sort();
    let data = json!({"dir": asked.dir, "pages": pages});
    let count = pages.len();
    let text = |to: &mut dyn std::io::Write| writeln!(to, "{count} pages in {dir}: man {dir}/receipts.1");
    Ok(Output::stdout(json).write(&data, text)?)
}
