//! The binary `receipts`: the service in one process, the demo, and the operator's commands. Reads
//! the command line and runs one command, and does nothing else.

mod analysis;
mod backfill;
mod bench;
mod compare;
mod completions;
mod config;
mod consent;
mod control;
mod dead_letters;
mod demo;
mod doctor;
mod ephemeral;
mod erase;
mod export;
mod help;
mod ids;
mod live;
mod policy;
mod rebuild;
mod replay;
mod service;
mod snapshot;
mod stats;
mod support_bundle;
mod tables;
mod tail;
mod token;
mod topics;
mod verify;

use backfill::Backfill;
use bench::Bench;
use clap::{Args, Parser, Subcommand};
use compare::Compare;
use completions::{Completions, Man};
use config::Config;
use dead_letters::DeadLetters;
use doctor::Doctor;
use erase::Erase;
use export::Export;
use policy::Policy;
use rebuild::Rebuild;
use receipts_runtime::command_line::{self, Parsed};
use receipts_runtime::config::{ENV_PREFIX, FILTER_ENV, Named, Settings, environment, overrides};
use receipts_runtime::exit::{self, Failure};
use replay::Replay;
use service::{AllInOne, BUILD, Medium};
use snapshot::Snapshot;
use stats::Stats;
use std::process::ExitCode;
use support_bundle::SupportBundle;
use tail::Tail;
use token::Token;
use topics::Topics;
use verify::Verify;

/// Pages are allocated and freed by the million, on which glibc's allocator would spend a third of
/// the time (docs/performance-log.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings that `-h` shows; `--help` shows all that a command uses.
const FIRST: [Named; 4] = [
    Named::usual("http.listen"),
    Named::usual("data_dir"),
    Named::usual("kafka.bootstrap"),
    Named::usual("telemetry.log_filter"),
];

/// Exact read receipts for chats, folded from an event log.
#[derive(Parser)]
#[command(
    name = "receipts",
    version,
    long_version = receipts_assembly::long_version(&BUILD),
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// Prints results as JSON lines.
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service in one process: takes events, folds them, and answers over HTTP.
    ///
    /// Without --kafka-bootstrap, the event log is the embedded one in the data directory, which
    /// one process at a time can use. Prints one line on standard output once it answers and has
    /// caught up with its log. The first SIGINT or SIGTERM stops it in order, the second at once.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Starts the service, feeds it a generated chat, and shows receipts and member lists.
    ///
    /// Keeps its data in a temporary directory unless --data-dir is given, and listens on a free
    /// port unless --http-listen or --stay is given. All receipts and lists that it shows are
    /// answers of the running service.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Sets which group types support receipts.
    #[command(subcommand)]
    Policy(Policy),
    /// Erases a person: removes the id and the read times from all answers for ever. Counts stay.
    ///
    /// This cannot be undone: no answer names an erased id again, even if it joins or reads later.
    /// On a terminal the command asks for confirmation. The person's records stay in the event log
    /// for as long as the log keeps them.
    ///
    /// The command writes one event into every partition of the event log. Exit code 0 means that
    /// every partition has acknowledged it; after exit code 1 the same command may be run again. If
    /// `receipts serve` uses the data directory, the command writes nothing and prints the request
    /// to send to that service.
    #[command(after_help = erase::EXAMPLES)]
    Erase(Erase),
    /// Folds the log up to now, a time or a position, and answers a question from that state.
    ///
    /// The command has its own consumer without a group, so a running service on the same Kafka is
    /// not disturbed. It writes only into a temporary directory (TMPDIR). It begins at the newest
    /// snapshot that fits if snapshot.url is set, and otherwise where the log begins. Without a
    /// question it folds all partitions and prints a summary of each, with a digest that is the
    /// same for every fold of the same prefix; --from limits the summary to later records. The
    /// projector's settings affect answers, so use those of the service.
    #[command(after_help = replay::EXAMPLES)]
    Replay(Replay),
    /// Exports messages, reads, members, rosters, read marks and events as files for analysts:
    /// Parquet, NDJSON or CSV.
    ///
    /// Writes sorted files DIR/DATASET/part-NUMBER; each is there whole or not at all. The same
    /// prefix of the log gives the same files, byte for byte. At the end the command removes files
    /// of an earlier export of the same datasets that are not part of this one, and writes
    /// DIR/_manifest.json with checksums and the position. No file names erased people or hidden
    /// readers. Sorting needs room in DIR for a copy of the rows. schemas/export/v2.md describes
    /// the columns.
    #[command(after_help = export::EXAMPLES)]
    Export(Export),
    /// Computes statistics of reading: read rates, times to read, unread after 24 hours, hours of
    /// the day, largest conversations.
    ///
    /// Folds the log as `replay` does. Prints tables on standard output; --html also writes a page
    /// with plots. Names no reader. Erased people and hidden readers are in counts only, as in
    /// every receipt; neither has read times. Quantiles are within 0.1 % of the exact values,
    /// distinct readers per hour within about 2 %. schemas/stats/v1.schema.json describes the
    /// output of --json.
    #[command(after_help = stats::EXAMPLES)]
    Stats(Stats),
    /// Imports members, messages, reads and read marks from tables: CSV, NDJSON or Parquet.
    ///
    /// A row of --reads names a message and its reader, a row of --messages a message, a row of
    /// --members a member of a conversation; schemas/backfill/v1.md describes the columns. Rows
    /// become events: members and messages first, then reads, then marks. The log has acknowledged
    /// every event before the command ends. Rows that cannot become events are written to a file of
    /// rejects, each with its reason. An interrupted import continues from its progress file and
    /// repeats nothing. Exit code 1 means that rows were rejected; all other rows are then in the
    /// log. No service may use the embedded log meanwhile.
    #[command(after_help = backfill::EXAMPLES)]
    Backfill(Backfill),
    /// Lists, shows and replays dead letters: records that could not be applied.
    ///
    /// The commands read the topic of dead letters, without a group. With an embedded log no
    /// service may use the data directory meanwhile.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Compares a running service with another system's tables of reads and read marks.
    ///
    /// Takes the tables that `backfill` takes; members are not compared. Asks the service over HTTP
    /// for the receipt and the lists of each message, and reports differences by kind:
    /// missing_message, no_receipt, missing_read, extra_read, time_differs, not_in_audience,
    /// shown_though_hidden, missing_mark, mark_behind, mark_ahead, unreadable_row. Rows are sorted
    /// in TMPDIR; memory holds one of up to 512 parts of them, and all marks. Exit code 0 means
    /// that there are no differences, 1 that there are some. docs/migrating.md describes when to
    /// run it.
    #[command(after_help = compare::EXAMPLES)]
    Compare(Compare),
    /// Measures one's own service under a bounded load of events and reads, over HTTP.
    ///
    /// Posts messages, each with a first read, at a steady rate, and asks for the receipt of each
    /// with the position of its post. Reports throughput, p50 and p99 of posts and reads, failures,
    /// and wrong receipts. Says before it begins what it writes: the events stay in the service's
    /// log, in a tenant of their own unless a token decides the tenant. Run it against a service of
    /// yours, and not where people chat.
    #[command(after_help = bench::EXAMPLES)]
    Bench(Bench),
    /// Verifies the store of a data directory: compares it with a new fold of its log.
    ///
    /// Folds the log in a temporary directory, exactly up to the store's position, and compares
    /// every page. Also checks the counts of every message against its bits and lists. Exit code 0
    /// means that both are equal; 1 means that they differ, with the first difference of each
    /// partition. Repairs nothing. A service must not use the data directory: stop it first, or
    /// verify a copy.
    #[command(after_help = verify::EXAMPLES)]
    Verify(Verify),
    /// Rebuilds the store: folds the log into a new store, compares it with the one in use, and
    /// switches at the next start.
    ///
    /// With Kafka the service runs on meanwhile; a service with an embedded log must be stopped
    /// first. The comparison uses the store if no service uses it, and otherwise its newest
    /// snapshot. If the two differ, nothing is switched and the exit code is 1; after a change of
    /// settings or of the program a difference may be intended (--even-if-different). The replaced
    /// store is kept until --confirm; --undo brings it back.
    #[command(after_help = rebuild::EXAMPLES)]
    Rebuild(Rebuild),
    /// Lists, takes, restores and verifies snapshots.
    ///
    /// A snapshot is one partition's state at one offset, kept in a directory or a bucket
    /// (--snapshot-url). A service takes snapshots by itself on a schedule. schemas/snapshot/v2.md
    /// describes the format.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Signs a token for trying `receipts serve` with tokens, without an identity provider.
    ///
    /// The first run makes a key pair in a directory (--keys), later runs use it; no key is ever
    /// overwritten. Prints the token on standard output, and on standard error the flags with which
    /// `receipts serve` takes it. Everybody who can read the private key can sign tokens, so use it
    /// for trying only. Issuer, audience and the names of claims are those of the settings.
    #[command(after_help = token::EXAMPLES)]
    Token(Token),
    /// Checks the settings, prints those in force, or prints the schema of the file.
    #[command(subcommand)]
    Config(Config),
    /// Prints completions for a shell, to be loaded by it.
    #[command(after_help = completions::EXAMPLES)]
    Completions(Completions),
    /// Writes the manual pages of all commands into a directory.
    #[command(after_help = completions::MAN_EXAMPLES)]
    Man(Man),
    /// Checks the set-up of a service: settings, disk, memory, descriptors, clock, store, Kafka,
    /// snapshots, keys of tokens, and peers.
    ///
    /// Prints one line for each check: ok, warning, problem or skipped; for a warning or a problem
    /// also what to type. Changes nothing and joins no group; the service may run. The only object
    /// that it writes, into the destination of snapshots, it removes again. docs/operating.md lists
    /// the checks. --json prints one object for each finding and a last one with the counts.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Doctor),
    /// Packs what a maintainer asks for into one archive, without ids and secrets.
    ///
    /// Version, settings in force with their origins, the doctor's findings, topics, metrics and
    /// readiness of the service at --url, sizes in the data directory, and facts of the system.
    /// Only its owner may read the archive. A part that cannot be had is told in its file. Names of
    /// hosts, topics and folders are in it: look through it before you send it.
    #[command(after_help = support_bundle::EXAMPLES)]
    SupportBundle(SupportBundle),
    /// Creates and describes the topics of a Kafka, and prints the rights that they need.
    #[command(subcommand)]
    Topics(Topics),
    /// Prints the newest records of a topic, one line each, and follows it.
    ///
    /// Reads the topic without a group, so no service notices it. Shows the newest records that
    /// pass the filters, by their time, oldest first. A record that cannot be read is shown with
    /// its reason. With an embedded log no service may use the data directory meanwhile, and
    /// --follow is not possible. Ctrl-C ends the command with exit code 0.
    #[command(after_help = tail::EXAMPLES)]
    Tail(Tail),
}

const SERVE_EXAMPLES: &str = "Examples:
  receipts serve
  receipts serve --http-listen 127.0.0.1:0 --data-dir /var/lib/receipts --json
  receipts serve --kafka-bootstrap localhost:9092 --data-dir /var/lib/receipts
  RECEIPTS_KAFKA__BOOTSTRAP=localhost:9092 receipts serve --config receipts.toml
  receipts serve --ephemeral

  curl -s localhost:8080/readyz";

const DEMO_EXAMPLES: &str = "Examples:
  receipts demo
  receipts demo --stay
  receipts demo --seed 42 --json
  receipts demo --kafka-bootstrap localhost:9092";

/// Arguments of the service.
#[derive(Args)]
struct Serve {
    /// Keeps log and state in memory, for tests; listens on a free port
    ///
    /// For the tests of a program that uses the service. Writes no file, so nothing remains, even
    /// after a kill. Listens on a free port of the loopback unless --http-listen is given, prints
    /// the ready line as JSON, and logs warnings only unless --telemetry-log-filter is given.
    /// Contradicts --data-dir, --kafka-bootstrap and --snapshot-url.
    #[arg(long)]
    ephemeral: bool,
    /// Ends once standard input closes, so that it does not outlive the test that started it
    #[arg(long, requires = "ephemeral")]
    until_stdin_closes: bool,
}

/// Arguments of the demo.
#[derive(Args)]
struct Demo {
    /// Keeps serving until Ctrl-C, at 127.0.0.1:8080 if that is free.
    #[arg(long)]
    stay: bool,
    /// Seed of the chat: the same seed gives the same people, messages and delays
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    seed: u64,
}

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> Result<(), Failure> {
    let parsed = command_line::parse::<Cli>(&FIRST, help::COMMANDS)?;
    // These commands must not fail because a setting is wrong.
    let described = || command_line::described::<Cli>(&FIRST, help::COMMANDS);
    match &parsed.cli.command {
        Command::Config(command) => return config::run(command, parsed.settings(), parsed.cli.json),
        Command::Completions(shell) => return completions::print(shell, described(), parsed.cli.json),
        Command::Man(man) => return completions::man(man, described(), parsed.cli.json),
        _ => {}
    }
    let settings = parsed.settings()?;
    let Parsed { cli, matches } = parsed;
    // These commands write files for others; the files of all others are the service's own.
    let writes_for_others = matches!(
        cli.command,
        Command::Export(_) | Command::Stats(_) | Command::Backfill(_) | Command::Compare(_) | Command::Replay(_)
    );
    if !writes_for_others {
        receipts_runtime::private_files();
    }
    match cli.command {
        Command::Serve(serve) => run_service(settings, &serve, cli.json),
        Command::Config(_) | Command::Completions(_) | Command::Man(_) => Ok(()),
        Command::Policy(Policy::Set(set)) => policy::set(&settings, &set, cli.json),
        Command::Erase(erase) => erase::run(&settings, &erase, cli.json),
        Command::Replay(replay) => replay::run(settings, replay, cli.json),
        Command::Export(export) => export::run(settings, export, cli.json),
        Command::Stats(stats) => stats::run(settings, stats, cli.json),
        Command::DeadLetters(command) => dead_letters::run(settings, command, cli.json),
        Command::Backfill(backfill) => backfill::run(settings, backfill, cli.json),
        Command::Compare(compare) => compare::run(settings, compare, cli.json),
        Command::Bench(bench) => bench::run(&settings, &bench, cli.json),
        Command::Verify(verify) => verify::run(settings, verify, cli.json),
        Command::Rebuild(rebuild) => rebuild::run(settings, rebuild, cli.json),
        Command::Snapshot(command) => snapshot::run(settings, command, cli.json),
        Command::Doctor(doctor) => doctor::run(settings, &doctor, cli.json),
        Command::SupportBundle(bundle) => support_bundle::run(settings, &bundle, cli.json),
        Command::Topics(command) => topics::run(&settings, &command, cli.json),
        Command::Tail(tail) => tail::run(settings, tail, cli.json),
        Command::Token(token) => token::run(&settings, &token, cli.json),
        Command::Demo(Demo { stay, seed }) => {
            let (env, flags) = (environment(), overrides(&matches));
            let set = |key: &str| {
                let variable = format!("{}{}", ENV_PREFIX, key.replace('.', "__").to_uppercase());
                flags.iter().any(|flag| flag.key == key) || env.iter().any(|(name, _)| *name == variable)
            };
            let filter_set = set("telemetry.log_filter") || env.iter().any(|(name, _)| name == FILTER_ENV);
            let plan = demo::Plan {
                stay,
                seed,
                json: cli.json,
                listen_set: set("http.listen"),
                data_dir_set: set("data_dir"),
                filter_set,
            };
            demo::run(settings, plan)
        }
    }
}

fn run_service(mut settings: Settings, serve: &Serve, json: bool) -> Result<(), Failure> {
    let medium = if serve.ephemeral { Medium::Memory } else { Medium::Settings };
    if serve.ephemeral {
        ephemeral::prepare(&mut settings)?;
    }
    receipts_assembly::serve(BUILD, &settings, json || serve.ephemeral, async |metrics| {
        let service = AllInOne::start(&settings, medium, metrics).await?;
        if serve.until_stdin_closes {
            ephemeral::end_with_stdin(service.ends())?;
        }
        Ok(service)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use receipts_runtime::config::{load, overrides, with_flags, with_help};

    #[test]
    fn the_command_line_is_consistent() {
        with_help(Cli::command(), &FIRST, help::COMMANDS).debug_assert();
        command_line::described::<Cli>(&FIRST, help::COMMANDS).debug_assert();
    }

    #[test]
    fn settings_stand_before_or_after_the_command() {
        for line in [["receipts", "--data-dir", "d", "serve"], ["receipts", "serve", "--data-dir", "d"]] {
            let matches = with_flags(Cli::command(), &FIRST).get_matches_from(line);
            let settings = load(None, [], &overrides(&matches)).expect("no mistake");
            assert_eq!(settings.data_dir.to_str(), Some("d"), "{line:?}");
        }
    }

    #[test]
    fn every_example_of_the_help_parses() {
        let examples = [
            SERVE_EXAMPLES,
            DEMO_EXAMPLES,
            policy::EXAMPLES,
            erase::EXAMPLES,
            replay::EXAMPLES,
            export::EXAMPLES,
            stats::EXAMPLES,
            backfill::EXAMPLES,
            dead_letters::LIST_EXAMPLES,
            dead_letters::SHOW_EXAMPLES,
            dead_letters::REPLAY_EXAMPLES,
            compare::EXAMPLES,
            completions::EXAMPLES,
            completions::MAN_EXAMPLES,
            crate::config::CHECK_EXAMPLES,
            crate::config::PRINT_EXAMPLES,
            crate::config::SCHEMA_EXAMPLES,
            bench::EXAMPLES,
            verify::EXAMPLES,
            rebuild::EXAMPLES,
            snapshot::EXAMPLES,
            tail::EXAMPLES,
            token::EXAMPLES,
            topics::EXAMPLES,
            doctor::EXAMPLES,
            support_bundle::EXAMPLES,
            topics::CREATE_EXAMPLES,
            topics::DESCRIBE_EXAMPLES,
        ];
        for line in examples.iter().flat_map(|examples| examples.lines()) {
            let Some((_, arguments)) = line.split_once("receipts ").filter(|_| !line.contains("curl")) else {
                continue;
            };
            // Behind these the line belongs to the shell.
            let own = arguments.split_whitespace().take_while(|word| !["|", ">", "&&"].contains(word));
            let words = ["receipts"].into_iter().chain(own.map(|word| word.trim_matches('\'')));
            let parsed = with_flags(Cli::command(), &FIRST).try_get_matches_from(words);
            let matches = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            load(None, [], &overrides(&matches)).unwrap_or_else(|mistakes| panic!("{line}: {mistakes}"));
        }
    }
}
