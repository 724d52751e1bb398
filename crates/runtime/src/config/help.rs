//! The help of each command: shows the settings that the command uses, names the others, and tells
//! exit codes. Parses nothing.

use super::flags::{Named, argument, file_argument};
use super::{KeyDoc, reference, with_flags};
use clap::Command;
use std::fmt::Write as _;

/// The settings that a command uses, and the meaning of its exit codes.
#[derive(Debug, Clone, Copy)]
pub struct CommandHelp {
    /// Its words after the binary's name, `dead-letters list`; empty for a binary without commands.
    pub command: &'static str,
    /// The settings that it uses: keys, sections (`kafka.`), and `!KEY` for those that it does not
    /// use of a section that stands before.
    pub uses: &'static [&'static [&'static str]],
    /// The meaning of exit code 0.
    pub done: &'static str,
    /// The meaning of exit code 1.
    pub failed: &'static str,
}

/// The meaning of exit code 2, which is the same everywhere.
const USAGE: &str = "wrong usage or configuration, and nothing was done";

/// As [`with_flags`], with help by command. A command that `commands` does not name is shown with
/// all settings.
#[must_use]
pub fn with_help(command: Command, first: &[Named], commands: &[CommandHelp]) -> Command {
    let docs = reference();
    described(with_flags(command, first), "", &Helped { first, commands, docs, is_parsed: true })
}

/// As [`with_help`], but without the settings that a command does not use. For completions and
/// manual pages, which need not take them.
#[must_use]
pub fn with_used_flags(command: Command, first: &[Named], commands: &[CommandHelp]) -> Command {
    let docs = reference();
    described(command.arg(file_argument()), "", &Helped { first, commands, docs, is_parsed: false })
}

struct Helped<'a> {
    first: &'a [Named],
    commands: &'a [CommandHelp],
    docs: Vec<KeyDoc>,
    /// True if settings that a command does not use must be taken too.
    is_parsed: bool,
}

fn described(mut command: Command, path: &str, helped: &Helped<'_>) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let help = helped.commands.iter().find(|help| help.command == path);
    // A command with commands below may do something by itself, and then it has help of its own.
    let is_group = !below.is_empty() && help.is_none();
    for name in below {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |below| described(below, &path, helped));
    }
    let is_used = |key: &str| !is_group && help.is_none_or(|help| is_used(help.uses, key));
    for doc in &helped.docs {
        let (is_used, named) = (is_used(doc.key), helped.first.iter().find(|named| named.key == doc.key));
        if !helped.is_parsed {
            // Commands below have their own.
            command = if is_used { command.arg(argument(doc, named).global(false)) } else { command };
        } else if path.is_empty() {
            // A hidden argument is taken as any other.
            command = command.mut_arg(doc.key, |argument| argument.hide(!is_used));
        } else {
            command = command.arg(argument(doc, named).hide(!is_used));
        }
    }
    let mut after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if let Some(help) = help {
        let gap = if after.is_empty() { "" } else { "\n\n" };
        _ = write!(after, "{gap}Exit codes:\n  0  {}\n  1  {}\n  2  {USAGE}", help.done, help.failed);
        command = command.after_help(after.clone());
    }
    let unused = sections(&helped.docs, &is_used);
    if !unused.is_empty() {
        let what = if is_group {
            "Settings may stand before or after a command; `--help` of a command shows those that it uses. The sections are"
        } else {
            "Settings that this command does not use may be given too:"
        };
        let gap = if after.is_empty() { "" } else { "\n\n" };
        _ = write!(after, "{gap}{what} {unused}. docs/configuration.md describes them");
        let is_service = path.is_empty() && !is_group;
        after += if is_service { "." } else { ", and `receipts config print` shows those in force." };
        command = command.after_long_help(after);
    }
    command
}

fn is_used(uses: &[&[&str]], key: &str) -> bool {
    let is = |named: &str| named == key || (named.ends_with('.') && key.starts_with(named));
    uses.iter().copied().flatten().fold(false, |used, named| match named.strip_prefix('!') {
        Some(named) => used && !is(named),
        None => used || is(named),
    })
}

/// Lists the sections of settings that are not used: `auth.*, other projector.*, data_dir`.
fn sections(docs: &[KeyDoc], is_used: &dyn Fn(&str) -> bool) -> String {
    let mut names: Vec<String> = Vec::new();
    for doc in docs.iter().filter(|doc| !is_used(doc.key)) {
        let name = match doc.key.split_once('.') {
            None => doc.key.to_owned(),
            Some((section, _)) => {
                let within = format!("{section}.");
                let is_partly = docs.iter().any(|doc| doc.key.starts_with(&within) && is_used(doc.key));
                format!("{}{section}.*", if is_partly { "other " } else { "" })
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: [Named; 2] = [Named::usual("http.listen"), Named::by("query.projectors", "projectors")];
    const HELP: [CommandHelp; 1] = [CommandHelp {
        command: "show one",
        uses: &[&["kafka.", "!kafka.replication", "query.projectors"]],
        done: "all is shown",
        failed: "nothing is there",
    }];

    fn help(words: &[&str]) -> String {
        let one =
            Command::new("one").after_help("Examples:\n  receipts show one").arg(clap::Arg::new("own").long("own"));
        let command =
            Command::new("receipts").subcommand(Command::new("show").subcommand(one)).subcommand(Command::new("other"));
        let mut command = with_help(command, &FIRST, &HELP);
        command.build();
        let found =
            words.iter().fold(&mut command, |command, word| command.find_subcommand_mut(word).expect("a command"));
        found.render_long_help().to_string()
    }

    #[test]
    fn a_command_shows_the_settings_it_uses() {
        let text = help(&["show", "one"]);
        for shown in
            ["--kafka-bootstrap", "--projectors", "--config", "other kafka.*", "0  all is shown", "1  nothing is"]
        {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        for hidden in ["--kafka-replication", "--http-listen"] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
        assert!(text.find("--own") < text.find("--kafka-bootstrap"), "{text}");
        assert!(text.find("Examples:") < text.find("Exit codes:"), "{text}");
    }

    #[test]
    fn groups_show_none_and_unnamed_commands_all() {
        assert!(!help(&["show"]).contains("--http-listen") && help(&["show"]).contains("http.*"));
        assert!(!help(&[]).contains("--http-listen"));
        assert!(help(&["other"]).contains("--http-listen"));
    }

    #[test]
    fn hidden_settings_are_taken_anywhere() {
        let show = Command::new("show").subcommand(Command::new("one"));
        for line in [["--http-listen", "127.0.0.1:7", "show", "one"], ["show", "one", "--http-listen", "127.0.0.1:7"]] {
            let command = with_help(Command::new("receipts").subcommand(show.clone()), &FIRST, &HELP);
            let matches = command.try_get_matches_from([&["receipts"], &line[..]].concat()).expect("known");
            let settings = super::super::load(None, [], &super::super::overrides(&matches)).expect("no mistake");
            assert_eq!(settings.http.listen.port(), 7, "{line:?}");
        }
    }
}
