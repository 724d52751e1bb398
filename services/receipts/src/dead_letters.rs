//! `receipts dead-letters`: reads its arguments. `list`, `show` and `replay` do the work.

mod list;
mod replay;
mod show;

use crate::analysis::{self, Progress, time};
use clap::{Args, Subcommand};
use list::List;
use receipts_analytics::Span;
use receipts_analytics::dead_letters::{self, Filter};
use receipts_assembly::EventLog;
use receipts_event::{Decoder, Reason};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use replay::Replay;
use show::Show;

pub(crate) const LIST_EXAMPLES: &str = "Examples:
  receipts dead-letters list
  receipts dead-letters list --reason wrong-partition --since 2026-05-01T00:00:00Z --kafka-bootstrap localhost:9092
  receipts dead-letters list --tenant acme --limit 0 --json";

pub(crate) const SHOW_EXAMPLES: &str = "Examples:
  receipts dead-letters show 3:17 --kafka-bootstrap localhost:9092
  receipts dead-letters show 0:4 --data-dir /var/lib/receipts --json";

pub(crate) const REPLAY_EXAMPLES: &str = "Examples:
  receipts dead-letters replay --dry-run --kafka-bootstrap localhost:9092
  receipts dead-letters replay --reason wrong-partition --yes --kafka-bootstrap localhost:9092
  receipts dead-letters replay --reason wrong-key --rekey --only-harmless --yes
  receipts dead-letters replay --conversation g1 --data-dir /var/lib/receipts --yes --json";

/// The commands of `receipts dead-letters`.
#[derive(Subcommand)]
pub(crate) enum DeadLetters {
    /// Lists dead letters: their number by reason, and the newest of them.
    ///
    /// A row has the time and the location of the letter, its reason, the location of the record in
    /// the topic of events, its key, and the sentence that says why it is dead.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Shows one dead letter: headers, key and value, and what a replay would do with it.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Writes dead letters that are right now into the topic of events.
    ///
    /// Decodes each letter as the projector would now, with the settings of this command. Writes
    /// those that are right to the partition of their key, per key in the order of their first
    /// offsets, with their headers and times, and refuses the others by reason. A record's header
    /// receipts-replayed-from names the letter's first location, so that no letter is replayed
    /// twice: an interrupted replay goes on with the same command, and a complete one writes
    /// nothing again.
    ///
    /// A replayed event takes effect now, and not in its time. The command counts letters that may
    /// harm, by kind: order-lost, late-roster, late-send. It asks before it writes; without a
    /// terminal it needs --yes. Run one replay at a time.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),
}

/// The dead letters that a command is about.
#[derive(Args, Clone)]
pub(crate) struct Which {
    /// Letters of this reason, a code such as wrong-partition; may be repeated
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Vec<Reason>,
    /// Letters of this time or later: RFC 3339 or Unix milliseconds
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Letters before this time: RFC 3339 or Unix milliseconds
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// Letters of this tenant, by their event or else by their key
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Letters of this conversation, by their event or else by their key
    #[arg(long, value_name = "CONVERSATION")]
    conversation: Option<String>,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            reasons: self.reason.iter().map(|reason| reason.code().to_owned()).collect(),
            since_ms: self.since,
            until_ms: self.until,
            tenant: self.tenant.clone(),
            conversation: self.conversation.clone(),
            at: None,
        }
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::from_code(text).ok_or_else(|| {
        let codes = Reason::ALL.map(|reason| reason.code()).join(", ");
        format!("is no reason; the reasons are {codes}")
    })
}

/// A log that is open for a command.
struct Opened {
    log: EventLog,
    /// How the projector decodes records with these settings.
    decoder: Decoder,
    /// The ranges of the topic of dead letters.
    spans: Vec<Span>,
}

fn open(settings: &Settings, filter: &Filter) -> Result<Opened, Failure> {
    let log = receipts_assembly::open_existing_log(settings)?;
    let decoder = receipts_assembly::fold_limits(settings).decoder(log.log.partition_count());
    let spans = dead_letters::spans(&*log.log, filter.since_ms)?;
    Ok(Opened { log, decoder, spans })
}

/// Begins the progress over the topic of dead letters.
fn begin(progress: &mut Progress, spans: &[Span]) {
    progress.begin(spans.iter().map(Span::offsets).sum());
}

/// Returns bytes as text; bytes that are no UTF-8 as their escapes.
pub(crate) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Runs a command.
///
/// # Errors
/// If there is no log or another process has it, the log fails, or the operator stops it.
pub(crate) fn run(settings: Settings, command: DeadLetters, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |settings, progress| match command {
        DeadLetters::List(list) => list::run(settings, &list, progress, json),
        DeadLetters::Show(show) => show::run(settings, &show, progress, json),
        DeadLetters::Replay(replay) => replay::run(settings, &replay, progress, json),
    })
}
