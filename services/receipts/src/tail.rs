//! `receipts tail`: reads its arguments, prints the newest records of a topic, and follows it.
//! [`newest`] finds them, [`row`] says what a record holds.
//!
//! Must not hide a record that it cannot read, join a group, or write.

mod filter;
mod newest;
mod row;

use crate::analysis::{self, Progress};
use crate::ids::{id, tenant};
use clap::{Args, ValueEnum};
use filter::{Filter, Verdict};
use receipts_analytics::ProgressMonitor as _;
use receipts_log::{Inspect, OwnedRecord, Polled, ReadError, Topic};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use row::{Reader, Row};
use std::io;
use std::time::Duration;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts tail events --kafka-bootstrap localhost:9092
  receipts tail events --conversation g1 --type message.read --lines 50 --kafka-bootstrap localhost:9092
  receipts tail updates --follow --user alice --kafka-bootstrap localhost:9092
  receipts tail dead-letters --lines 3 --json --data-dir /var/lib/receipts";

/// How long a poll waits for a record. The command ends that soon after Ctrl-C.
const POLL: Duration = Duration::from_millis(200);
/// Records of one poll.
const POLL_RECORDS: usize = 1_000;
/// The wait after a failed poll.
const RETRY: Duration = Duration::from_millis(500);

/// Arguments of `receipts tail`.
#[derive(Args)]
pub(crate) struct Tail {
    /// Topic to read
    #[arg(value_name = "TOPIC")]
    topic: Named,
    /// Newest records to print, of those that pass the filters; 0 prints none of them
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=100_000))]
    lines: u32,
    /// Goes on with new records until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Records of this conversation
    #[arg(long, value_name = "CONVERSATION", value_parser = id)]
    conversation: Option<String>,
    /// Records that name this message
    #[arg(long, value_name = "MESSAGE", value_parser = id)]
    message: Option<String>,
    /// Records that name this person, in any role
    #[arg(long, value_name = "USER", value_parser = id)]
    user: Option<String>,
    /// Records of this type: message.read, receipt.updated, …
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Records of this tenant; without it those of all tenants
    #[arg(long, value_name = "TENANT", value_parser = tenant)]
    tenant: Option<String>,
}

/// The topics by their names here.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Named {
    /// The topic of events
    Events,
    /// The topic of updates of receipts and read marks
    Updates,
    /// The topic of records that could not be applied
    DeadLetters,
}

impl Named {
    fn topic(self) -> Topic {
        match self {
            Self::Events => Topic::Events,
            Self::Updates => Topic::Updates,
            Self::DeadLetters => Topic::DeadLetters,
        }
    }

    fn types(self) -> &'static [&'static str] {
        match self {
            Self::Events | Self::DeadLetters => &receipts_event::TYPES,
            Self::Updates => &["receipt.updated", "read_mark.updated"],
        }
    }
}

impl Tail {
    fn filter(&self) -> Result<Filter, Failure> {
        if let Some(kind) = self.kind.as_deref().filter(|kind| !self.topic.types().contains(kind)) {
            let known = self.topic.types().join(", ");
            return Err(Failure::usage(format!("--type {kind}: the topic has no such type; its types are {known}")));
        }
        Ok(Filter {
            conversation: self.conversation.clone(),
            message: self.message.clone(),
            user: self.user.clone(),
            kind: self.kind.clone(),
            tenant: self.tenant.clone(),
        })
    }
}

/// Prints the newest records, and follows the topic.
///
/// # Errors
/// Wrong usage, or a log that cannot be read. Ctrl-C is no error.
pub(crate) fn run(settings: Settings, tail: Tail, json: bool) -> Result<(), Failure> {
    let filter = tail.filter()?;
    if tail.follow && settings.kafka.bootstrap.is_none() {
        return Err(Failure::usage(
            "--follow waits for new records, but nobody can write an embedded log while this command has it open: leave \
             --follow out, or name a Kafka with --kafka-bootstrap. GET /v1/updates of a running service is the stream of \
             its updates",
        ));
    }
    analysis::run(settings, move |settings, progress| {
        let opened = receipts_assembly::open_existing_log(settings)?;
        let (log, topic) = (&*opened.log, tail.topic.topic());
        let decoder = receipts_assembly::fold_limits(settings).decoder(log.partition_count());
        let reader = Reader { topic, decoder, filter };
        let mut output = Output::stdout(json);
        let found = newest::find(log, &reader, tail.lines as usize, progress)?;
        progress.clear();
        for row in &found.rows {
            print(&mut output, row)?;
        }
        if progress.is_stopped() {
            tracing::warn!("stopped before all records were looked at: there may be newer ones that pass the filters");
            return Ok(());
        }
        tell_unjudged(found.unjudged);
        if tail.follow { follow(log, &reader, &found.ends, &mut output, progress) } else { Ok(()) }
    })
}

fn print(output: &mut Output, row: &Row) -> io::Result<()> {
    output.write(row, |to| writeln!(to, "{}", row.line()))
}

/// Says how many records a filter could not judge, so that none of them is hidden.
fn tell_unjudged(count: u64) {
    if count > 0 {
        tracing::warn!(
            count,
            "records that cannot be read are not shown, because --message, --user and --type look into records: \
             `receipts tail` without these filters shows them"
        );
    }
}

/// Prints records as they come. `ends` holds pairs of partition and first offset.
fn follow(
    log: &dyn Inspect,
    reader: &Reader,
    ends: &[(u32, u64)],
    output: &mut Output,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut tail = log.tail(reader.topic, ends)?;
    let (mut failing, mut unjudged) = (false, 0);
    tracing::info!(partitions = ends.len(), "following the topic until Ctrl-C");
    while !progress.is_stopped() && !output.is_closed() {
        let mut written = Ok(());
        let polled = tail.poll(POLL_RECORDS, POLL, &mut |polled| {
            let Polled::Records(records) = polled else { return };
            for record in records.iter().map(OwnedRecord::from) {
                match reader.read(record) {
                    Verdict::Passes(row) if written.is_ok() => written = print(output, &row),
                    Verdict::Unjudged => unjudged += 1,
                    _ => {}
                }
            }
        });
        written?;
        match polled {
            Ok(records) => {
                if failing && records > 0 {
                    tracing::info!("the log is read again");
                    failing = false;
                }
            }
            Err(ReadError::Retry(why)) => {
                if !failing {
                    tracing::warn!(why, "the log cannot be read just now; the command goes on trying");
                    failing = true;
                }
                std::thread::sleep(RETRY);
            }
            Err(stop) => return Err(stop.into()),
        }
    }
    tell_unjudged(unjudged);
    Ok(())
}
