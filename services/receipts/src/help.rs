//! What `--help` of each command says of settings and exit codes. Decides nothing: a setting that a
//! command does not use is taken all the same.

use receipts_runtime::config::CommandHelp;

/// How to find the log, and how to log.
const LOG: &[&str] = &[
    "data_dir",
    "secret_files_strict",
    "log.",
    "!log.accept_unbounded_time",
    "!log.accept_missing_beginning",
    "!log.partitions",
    "kafka.",
    "!kafka.replication",
    "telemetry.",
];
/// How records become events, and what they mean.
const FOLD: &[&str] = &[
    "projector.retention_ms",
    "projector.parked_count",
    "projector.parked_bytes",
    "projector.parked_age_ms",
    "projector.read_times",
    "projector.unwrap",
    "projector.erasures_max",
    "projector.policy_types_max",
];
/// How records become events.
const DECODE: &[&str] = &["projector.unwrap"];
/// How to reach a running service that has the data directory.
const SERVICE: &[&str] = &["query.secret_file"];
/// All of the process that has all parts.
const ALL: &[&str] = &[
    "data_dir",
    "drain_ms",
    "secret_files_strict",
    "http.",
    "auth.",
    "access.",
    "log.",
    "kafka.",
    "projector.",
    "!projector.listen",
    "!projector.insecure_listen",
    "!projector.advertise",
    "snapshot.",
    "query.candidates_max",
    "query.secret_file",
    "telemetry.",
];
const TELEMETRY: &[&str] = &["telemetry."];

const fn of(
    command: &'static str,
    uses: &'static [&'static [&'static str]],
    done: &'static str,
    failed: &'static str,
) -> CommandHelp {
    CommandHelp { command, uses, done, failed }
}

const DONE: &str = "done";
const READ_FAILED: &str = "the log could not be read, or Ctrl-C stopped the command";

/// The commands.
pub(crate) const COMMANDS: &[CommandHelp] = &[
    of(
        "serve",
        &[ALL],
        "a signal has stopped it in order",
        "it could not start, a part of it ended, or it could not stop in order",
    ),
    of("demo", &[ALL], DONE, "it could not start, or a part of it ended"),
    of(
        "policy set",
        &[LOG, &["log.partitions", "http.listen"]],
        "every partition has acknowledged the event",
        "it may be written; run the same command again",
    ),
    of(
        "erase",
        &[LOG, &["log.partitions", "http.listen"]],
        "every partition has acknowledged the event",
        "it may be written, or nobody confirmed it; the same command may be run again",
    ),
    of("replay", &[LOG, FOLD, &["snapshot.url"]], DONE, READ_FAILED),
    of("replay receipt", &[LOG, FOLD, &["snapshot.url"]], DONE, READ_FAILED),
    of("replay members", &[LOG, FOLD, &["snapshot.url"]], DONE, READ_FAILED),
    of("replay read-mark", &[LOG, FOLD, &["snapshot.url"]], DONE, READ_FAILED),
    of(
        "export",
        &[LOG, FOLD, &["snapshot.url"]],
        "the files are whole",
        "the log could not be read or a file not be written, or Ctrl-C stopped the command",
    ),
    of("stats", &[LOG, FOLD, &["snapshot.url"]], DONE, READ_FAILED),
    of(
        "backfill",
        &[LOG, &["log.partitions", "kafka.replication"], FOLD],
        "all rows are in the log",
        "rows were rejected, or the import was interrupted; the same command goes on",
    ),
    of("dead-letters list", &[LOG, DECODE], DONE, READ_FAILED),
    of("dead-letters show", &[LOG, FOLD], DONE, "there is no such letter, or the log could not be read"),
    of(
        "dead-letters replay",
        &[LOG, FOLD],
        "all letters that are right are written",
        "the log failed, or nobody confirmed it; the same command goes on",
    ),
    of(
        "compare",
        &[TELEMETRY],
        "there are no differences",
        "there are differences, or the service or a table could not be read",
    ),
    of(
        "bench",
        &[TELEMETRY],
        "all requests succeeded, and every receipt was right",
        "requests failed, receipts were wrong, nobody confirmed it, or it was interrupted",
    ),
    of(
        "verify",
        &[LOG, FOLD, &["projector.memory_bytes"]],
        "store and log agree",
        "they differ, or one of them could not be read",
    ),
    of(
        "rebuild",
        &[LOG, FOLD, &["projector.memory_bytes", "snapshot.url"], SERVICE],
        "the next start uses the new store",
        "the stores differ, or the log could not be read; nothing is switched",
    ),
    of("snapshot list", &[LOG, &["snapshot.url"]], DONE, "a snapshot or the destination could not be read"),
    of(
        "snapshot take",
        &[LOG, FOLD, &["snapshot.", "projector.memory_bytes"], SERVICE],
        "the snapshots are taken",
        "a snapshot could not be taken",
    ),
    of(
        "snapshot restore",
        &[LOG, FOLD, &["snapshot.url", "projector.memory_bytes"]],
        "the store is restored",
        "there is no snapshot that fits, or it could not be restored",
    ),
    of(
        "snapshot verify",
        &[LOG, FOLD, &["snapshot.url"]],
        "snapshots and log agree",
        "a snapshot differs, or could not be read",
    ),
    of(
        "token",
        &[
            &[
                "auth.issuer",
                "auth.audience",
                "auth.tenant_claim",
                "auth.user_claim",
                "auth.scope_claims",
                "auth.scope_map",
            ],
            TELEMETRY,
        ],
        DONE,
        "the keys could not be read or written",
    ),
    of(
        "config check",
        &[ALL, &["projector.", "query."]],
        "the configuration is right",
        "standard output could not be written",
    ),
    of("config print", &[ALL, &["projector.", "query."]], DONE, "standard output could not be written"),
    of("config schema", &[], DONE, "standard output could not be written"),
    of("completions", &[], DONE, "standard output could not be written"),
    of("man", &[], DONE, "the directory could not be written"),
    of("doctor", &[ALL, &["projector.", "query."]], "no problem", "a problem, with --strict also a warning"),
    of(
        "support-bundle",
        &[ALL, &["projector.", "query."]],
        "the archive is written",
        "the archive could not be written",
    ),
    of(
        "topics create",
        &[&["log.", "kafka."], TELEMETRY],
        "all topics exist",
        "a topic does not fit or cannot be created",
    ),
    of("topics describe", &[&["log.", "kafka.", "projector.group"], TELEMETRY], DONE, "no broker answers"),
    of(
        "topics acl",
        &[
            &[
                "log.events_topic",
                "log.updates_topic",
                "log.dead_letters_topic",
                "kafka.",
                "!kafka.replication",
                "projector.group",
                "projector.standby",
            ],
            TELEMETRY,
        ],
        DONE,
        "standard output could not be written",
    ),
    of("tail", &[LOG, DECODE], "done, also after Ctrl-C", "the log could not be read"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cli;
    use clap::{Command, CommandFactory as _};
    use receipts_runtime::config::reference;

    /// Collects the commands that do something.
    fn collect(command: &Command, path: &str, into: &mut Vec<String>) {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name()).trim_start().to_owned();
            if !below.is_subcommand_required_set() {
                into.push(path.clone());
            }
            collect(below, &path, into);
        }
    }

    #[test]
    fn every_command_has_its_help() {
        let mut found = Vec::new();
        collect(&Cli::command(), "", &mut found);
        let mut named: Vec<&str> = COMMANDS.iter().map(|help| help.command).collect();
        found.sort();
        named.sort_unstable();
        assert_eq!(found, named, "add the command to COMMANDS in services/receipts/src/help.rs");
    }

    #[test]
    fn every_setting_of_the_help_exists() {
        for used in COMMANDS.iter().flat_map(|help| help.uses).copied().flatten() {
            let name = used.trim_start_matches('!');
            let is = |key: &str| key == name || name.ends_with('.') && key.starts_with(name);
            assert!(reference().iter().any(|doc| is(doc.key)), "{used}");
        }
    }
}
