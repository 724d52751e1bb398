//! The binary `receipts`: all parts in one process, the demo, and the operator's commands. Reads the command line and hands over; what the parts
//! do is theirs.

mod analysis;
mod backfill;
mod control;
mod demo;
mod erase;
mod export;
mod policy;
mod rebuild;
mod replay;
mod service;
mod snapshot;
mod stats;
mod verify;

use backfill::Backfill;
use clap::{Args, Parser, Subcommand};
use erase::Erase;
use export::Export;
use policy::Policy;
use rebuild::Rebuild;
use receipts_runtime::command_line::{self, CommandLine};
use receipts_runtime::config::{self, Named};
use receipts_runtime::exit::{self, Failure};
use replay::Replay;
use service::{AllInOne, NAME};
use snapshot::Snapshot;
use stats::Stats;
use std::process::ExitCode;
use verify::Verify;

/// Pages come and go by the million: glibc's allocator would spend a third of the time on it (docs/performance-log.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings that show in `-h`; `--help` shows all.
const FIRST: [Named; 4] = [
    Named::usual("http.listen"),
    Named::usual("data_dir"),
    Named::usual("kafka.bootstrap"),
    Named::usual("telemetry.log_filter"),
];

/// Who has read what: exact read receipts for chats, folded from an event log.
#[derive(Parser)]
#[command(name = "receipts", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// Prints results as JSON lines.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs all parts in one process: takes events, folds them, answers over HTTP.
    ///
    /// Without --kafka-bootstrap the event log is the embedded one, in the data directory: for one process. A line on
    /// standard output says when it answers and has caught up with its log. The first SIGINT or SIGTERM ends it in
    /// order, the second at once.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve,
    /// Serves, feeds a lively seeded chat, and shows the receipts and lists of it.
    ///
    /// Keeps its data in a temporary directory unless --data-dir is given, and listens on a free port unless
    /// --http-listen or --stay is. What it shows are answers of the running service.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Says which group types support receipts.
    #[command(subcommand)]
    Policy(Policy),
    /// Takes a person's id and read times out of every answer, for ever. Counts stay.
    ///
    /// This cannot be undone: an erased id stays unnamed even where it joins or reads again. On a terminal it asks first.
    /// The person's records stay in the event log for as long as that keeps them; no answer names the person.
    ///
    /// One event is written into every partition of the event log. Exit code 0 says that every partition has
    /// acknowledged it; after 1 the same command may be run again. A data directory that `receipts serve` uses is
    /// refused: what to send to that service is said then.
    #[command(after_help = erase::EXAMPLES)]
    Erase(Erase),
    /// Folds the log up to now, a time or a position, and answers from that, or tells of a stretch of it.
    ///
    /// The state is folded aside, by a consumer of its own without a group: a running service on the same Kafka notices
    /// nothing, and nothing is written but in a temporary directory (TMPDIR). It begins at the newest snapshot that fits,
    /// where snapshot.url says where they are, else where the log begins. Without a question all partitions are
    /// folded, and what they hold is told with a digest that is the same for every fold of the same prefix. The settings
    /// of the projector decide answers here too: give those of the service.
    #[command(after_help = replay::EXAMPLES)]
    Replay(Replay),
    /// Writes messages, reads, rosters and events as files for analysts: Parquet, NDJSON or CSV.
    ///
    /// Files lie in DIR/DATASET/tenant=TENANT/day=YYYY-MM-DD/, each whole or not there. The same prefix of the log gives
    /// the same files, byte for byte; files of an earlier export of the same datasets that do not belong to this one are
    /// removed at the end. Nobody who was erased and nobody who read hidden is named. schemas/export/v1.md has the columns.
    #[command(after_help = export::EXAMPLES)]
    Export(Export),
    /// Counts how messages are read: rates, times to read, unread after 24 hours, hours of the day, what is largest.
    ///
    /// The log is folded aside as by `replay`. Tables go to standard output; --html writes a page with plots besides. No
    /// reader is named. People who were erased are in counts only, as in every receipt, and so are hidden readers; neither
    /// has a time. Quantiles are within 0.1 % of the exact ones, different readers of an hour within some 2 %.
    /// schemas/stats/v1.schema.json is what --json prints.
    #[command(after_help = stats::EXAMPLES)]
    Stats(Stats),
    /// Imports receipts that a table holds: members, messages and reads, from CSV, NDJSON or Parquet.
    ///
    /// A row of --reads is a message and who read it, one of --messages a message, one of --members somebody in a
    /// conversation; schemas/backfill/v1.md has their columns. They become events: members and messages first, then reads. Each
    /// is acknowledged by the log before the command ends. Rows that no event could say are written into a report with the
    /// reason. A run that was interrupted goes on where it was, by its progress file; what is done already is not done
    /// again. Exit code 1 says that rows were rejected; all others are in the log then. The embedded log must not be in use
    /// by a service.
    #[command(after_help = backfill::EXAMPLES)]
    Backfill(Backfill),
    /// Compares the store of a data directory with what its log folds to, and every message with itself.
    ///
    /// The log is folded aside exactly up to where the store stands. Exit code 0 says that nothing differs; 1 that
    /// something does, and names the first difference of each partition with what either side says. Nothing is repaired.
    /// A data directory that a service uses is refused: stop it first, or verify a copy.
    #[command(after_help = verify::EXAMPLES)]
    Verify(Verify),
    /// Folds the log into a new store beside the one in use, compares the two, and has the next start take the new one.
    ///
    /// On a Kafka the service goes on meanwhile; an embedded log is its service's alone, which has to be stopped first. What is
    /// compared is the store where no service uses it, else its newest snapshot. Where the two differ nothing is switched and
    /// the exit code is 1: after a change of settings or of the program that may be meant (--even-if-different). The
    /// replaced store is kept until --confirm, and --undo brings it back.
    #[command(after_help = rebuild::EXAMPLES)]
    Rebuild(Rebuild),
    /// Keeps states elsewhere, and brings them back: lists, takes, restores and verifies snapshots.
    ///
    /// A snapshot is one partition's state as of one offset, in a directory or a bucket (--snapshot-url). A service takes them
    /// on a schedule by itself; schemas/snapshot/v1.md has the format.
    #[command(subcommand)]
    Snapshot(Snapshot),
}

const SERVE_EXAMPLES: &str = "Examples:
  receipts serve
  receipts serve --http-listen 127.0.0.1:0 --data-dir /var/lib/receipts --json
  receipts serve --kafka-bootstrap localhost:9092 --data-dir /var/lib/receipts
  RECEIPTS_KAFKA__BOOTSTRAP=localhost:9092 receipts serve --config receipts.toml

  curl -s localhost:8080/readyz";

const DEMO_EXAMPLES: &str = "Examples:
  receipts demo
  receipts demo --stay
  receipts demo --seed 42 --json
  receipts demo --kafka-bootstrap localhost:9092";

/// What the demo may be told.
#[derive(Args)]
struct Demo {
    /// Stays up until Ctrl-C, at 127.0.0.1:8080 if that is free.
    #[arg(long)]
    stay: bool,
    /// Which chat: the same seed gives the same people, messages and delays.
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    seed: u64,
}

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> Result<(), Failure> {
    let CommandLine { cli, settings, matches } = command_line::read::<Cli>(&FIRST)?;
    match cli.command {
        Command::Serve => receipts_assembly::serve(NAME, &settings, cli.json, async |metrics| {
            AllInOne::start(&settings, metrics).await
        }),
        Command::Policy(Policy::Set(set)) => policy::set(&settings, &set, cli.json),
        Command::Erase(erase) => erase::run(&settings, &erase, cli.json),
        Command::Replay(replay) => replay::run(settings, replay, cli.json),
        Command::Export(export) => export::run(settings, export, cli.json),
        Command::Stats(stats) => stats::run(settings, stats, cli.json),
        Command::Backfill(backfill) => backfill::run(settings, backfill, cli.json),
        Command::Verify(verify) => verify::run(settings, verify, cli.json),
        Command::Rebuild(rebuild) => rebuild::run(settings, rebuild, cli.json),
        Command::Snapshot(command) => snapshot::run(settings, command, cli.json),
        Command::Demo(Demo { stay, seed }) => {
            let (env, flags) = (config::environment(), config::overrides(&matches));
            let set = |key: &str| {
                let variable = format!("{}{}", config::ENV_PREFIX, key.replace('.', "__").to_uppercase());
                flags.iter().any(|flag| flag.key == key) || env.iter().any(|(name, _)| *name == variable)
            };
            let filter_set = set("telemetry.log_filter") || env.iter().any(|(name, _)| name == config::FILTER_ENV);
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        config::with_flags(Cli::command(), &FIRST).debug_assert();
    }

    #[test]
    fn settings_may_stand_before_and_after_the_command() {
        for line in [["receipts", "--data-dir", "d", "serve"], ["receipts", "serve", "--data-dir", "d"]] {
            let matches = config::with_flags(Cli::command(), &FIRST).get_matches_from(line);
            let settings = config::load(None, [], &config::overrides(&matches)).expect("no mistake");
            assert_eq!(settings.data_dir.to_str(), Some("d"), "{line:?}");
        }
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        let examples = [
            SERVE_EXAMPLES,
            DEMO_EXAMPLES,
            policy::EXAMPLES,
            erase::EXAMPLES,
            replay::EXAMPLES,
            export::EXAMPLES,
            stats::EXAMPLES,
            backfill::EXAMPLES,
            verify::EXAMPLES,
            rebuild::EXAMPLES,
            snapshot::EXAMPLES,
        ];
        for line in examples.iter().flat_map(|examples| examples.lines()) {
            let Some((_, arguments)) = line.split_once("receipts ").filter(|_| !line.contains("curl")) else {
                continue;
            };
            let words =
                ["receipts"].into_iter().chain(arguments.split_whitespace().map(|word| word.trim_matches('\'')));
            let parsed = config::with_flags(Cli::command(), &FIRST).try_get_matches_from(words);
            let matches = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            config::load(None, [], &config::overrides(&matches))
                .unwrap_or_else(|mistakes| panic!("{line}: {mistakes}"));
        }
    }
}
