//! `receipts replay`: reads its arguments and prints answers from a prefix of the log.
//! `receipts_analytics` folds it.

use crate::analysis::{self, Prefix, Progress, Start, shown, start, write_summary};
use crate::ids::id;
use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use receipts_analytics::{FoldReport, Folded, Span, digest};
use receipts_event::TENANT_DEFAULT;
use receipts_fold::view::{self, Member, Members, Receipt, Status};
use receipts_query::Conversation;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts replay
  receipts replay --from 2026-05-28T00:00:00Z --as-of 2026-05-28T23:59:59.999Z
  receipts replay --from 0:1200,3:950 --position 0:1500,3:1000 --json
  receipts replay --as-of 2026-05-28T20:26:40Z receipt g1 m1 m2
  receipts replay --as-of 1780000000000 members g1 m1 --filter unread --json
  receipts replay read-mark g1 bob --tenant acme --kafka-bootstrap localhost:9092
  receipts replay --position AQABAAEAAQABSHigHA receipt g1 m1 --data-dir /var/lib/receipts";

/// Members of a list that are read from the state at a time.
const MEMBERS_AT_ONCE: usize = 1_000;

/// Arguments of `receipts replay`.
#[derive(Args)]
pub(crate) struct Replay {
    /// Summarizes only records from here on: RFC 3339, Unix milliseconds, a token, or
    /// PARTITION:OFFSET,…
    ///
    /// Earlier records are folded too, from the newest snapshot at or before this point if there is
    /// one, so that the state is complete. Not allowed with a question.
    #[arg(long, value_name = "TIME-OR-POSITION", value_parser = start)]
    from: Option<Start>,
    #[command(flatten)]
    prefix: Prefix,
    /// Tenant of the conversation.
    #[arg(long, global = true, value_name = "TENANT", default_value = TENANT_DEFAULT, value_parser = id)]
    tenant: String,
    #[command(subcommand)]
    question: Option<Question>,
}

/// A question about one conversation, for which only its partition is folded.
#[derive(Subcommand)]
enum Question {
    /// Prints the receipts of messages, one line each; `not_found` for a message that is not in the
    /// state.
    Receipt {
        #[arg(value_name = "CONVERSATION", value_parser = id)]
        conversation: String,
        #[arg(required = true, value_name = "MESSAGE", value_parser = id)]
        messages: Vec<String>,
    },
    /// Prints a whole member list of a message: read, unread, or departed without having read.
    Members {
        #[arg(value_name = "CONVERSATION", value_parser = id)]
        conversation: String,
        #[arg(value_name = "MESSAGE", value_parser = id)]
        message: String,
        /// The list.
        #[arg(long)]
        filter: MemberFilter,
    },
    /// Prints a person's read mark in a conversation.
    ReadMark {
        #[arg(value_name = "CONVERSATION", value_parser = id)]
        conversation: String,
        #[arg(value_name = "USER", value_parser = id)]
        user: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum MemberFilter {
    Read,
    Unread,
    Departed,
}

impl From<MemberFilter> for view::MemberFilter {
    fn from(filter: MemberFilter) -> Self {
        match filter {
            MemberFilter::Read => Self::Read,
            MemberFilter::Unread => Self::Unread,
            MemberFilter::Departed => Self::Departed,
        }
    }
}

/// A member list as HTTP answers it, in one page.
#[derive(Serialize)]
struct Page<'a> {
    members: &'a [Member],
    next_cursor: Option<&'a str>,
    is_finished: bool,
    receipt: &'a Receipt,
}

/// The summary of a partition that was folded without a question.
#[derive(Serialize)]
struct State<'a> {
    #[serde(flatten)]
    report: &'a FoldReport,
    digest: &'a str,
    offsets_per_s: u64,
}

/// Folds and answers.
///
/// # Errors
/// Wrong usage; if there is no log, it cannot be read, or there is no such answer.
pub(crate) fn run(settings: Settings, replay: Replay, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |settings, progress| {
        if let Some(from) = &replay.from {
            if replay.question.is_some() {
                return Err(Failure::usage(
                    "--from is for a replay without a question: an answer covers all records before --as-of or --position",
                ));
            }
            if replay.prefix.ends_before(from) {
                return Err(Failure::usage("--from is later than --as-of: no record lies between them"));
            }
        }
        let opened = receipts_assembly::open_existing_log(settings)?;
        let log = &*opened.log;
        let mut output = Output::stdout(json);
        let scratch = replay.prefix.memory.scratch(settings, &opened.identity)?;
        let Some(question) = &replay.question else {
            let spans = replay.prefix.spans(log, 0..log.partition_count())?;
            let from_offset = |span: &Span| match &replay.from {
                Some(from) => replay.prefix.start_in(log, from, span).map(Some),
                None => Ok(None),
            };
            let from_offsets = spans.iter().map(from_offset).collect::<Result<Vec<_>, Failure>>()?;
            progress.begin(spans.iter().map(|span| span.offsets()).sum());
            let mut all = Vec::new();
            for (span, from_offset) in spans.iter().zip(from_offsets) {
                let folded = match from_offset {
                    Some(from_offset) => scratch.fold_from(log, span, from_offset, progress)?,
                    None => scratch.fold(log, span, progress)?,
                };
                let Folded { state, report, .. } = &folded;
                print_summary(&mut output, report, &digest(state, span.partition, progress)?, progress)?;
                all.push(report.clone());
            }
            progress.end(&all);
            return Ok(());
        };
        let conversation = match question {
            Question::Receipt { conversation, .. }
            | Question::Members { conversation, .. }
            | Question::ReadMark { conversation, .. } => conversation,
        };
        let conversation = Conversation::locate(&replay.tenant, conversation, log.partition_count());
        let spans = replay.prefix.spans(log, [conversation.partition])?;
        progress.begin(spans.iter().map(|span| span.offsets()).sum());
        for span in &spans {
            let folded = scratch.fold(log, span, progress)?;
            progress.end(std::slice::from_ref(&folded.report));
            answer(&mut output, &folded, conversation, question)?;
        }
        Ok(())
    })
}

fn print_summary(output: &mut Output, report: &FoldReport, digest: &str, progress: &Progress) -> Result<(), Failure> {
    let shown = State { report, digest, offsets_per_s: progress.rate() };
    let write = || {
        output.write(&shown, |to| {
            write_summary(to, report)?;
            writeln!(to, "  digest {digest}, {} offsets/s so far", shown.offsets_per_s)
        })
    };
    Ok(progress.aside(write)?)
}

fn answer(
    output: &mut Output,
    folded: &Folded,
    Conversation { tenant, conversation_id, .. }: Conversation<'_>,
    question: &Question,
) -> Result<(), Failure> {
    let state = &folded.state;
    match question {
        Question::Receipt { messages, .. } => {
            for message in messages {
                let receipt = state.receipt(tenant, conversation_id, message)?;
                output.write(&receipt, |to| writeln!(to, "{}", line(&receipt)))?;
            }
        }
        Question::Members { message, filter, .. } => {
            let (mut members, mut from_slot) = (Vec::new(), Some(0));
            let mut last = None;
            while let Some(slot) = from_slot {
                let list = state.members(tenant, conversation_id, message, (*filter).into(), slot, MEMBERS_AT_ONCE)?;
                let Members { members: more, next_slot, receipt } = list;
                members.extend(more);
                from_slot = next_slot;
                last = Some(receipt);
            }
            let receipt = last.ok_or_else(|| anyhow!("a list has a receipt"))?;
            if receipt.status != Status::Ok {
                return Err(anyhow!("there is no such list: {}", line(&receipt)).into());
            }
            let page = Page { members: &members, next_cursor: None, is_finished: true, receipt: &receipt };
            output.write(&page, |to| {
                writeln!(to, "{}", line(&receipt))?;
                for member in &members {
                    write!(to, "  {}", printable(&member.user_id))?;
                    if let Some(at) = member.read_at_ms {
                        write!(to, ", read {}", shown(at))?;
                    }
                    writeln!(to, "{}", if member.left { ", left" } else { "" })?;
                }
                Ok(())
            })?;
        }
        Question::ReadMark { user, .. } => {
            let mark = state.read_mark(tenant, conversation_id, user)?.ok_or_else(|| {
                anyhow!("there is no read mark of {} in {}", printable(user), printable(conversation_id))
            })?;
            output.write(&mark, |to| {
                let message =
                    mark.up_to_message_id.as_ref().map(|id| format!("{}, ", printable(id))).unwrap_or_default();
                let (sent, read) = (shown(mark.up_to_sent_at_ms), shown(mark.read_at_ms));
                let (reader, conversation) = (printable(&mark.reader_id), printable(conversation_id));
                writeln!(to, "{reader} has read {conversation} up to {message}sent {sent}; read {read}")
            })?;
        }
    }
    Ok(())
}

/// Formats a receipt for people.
fn line(receipt: &Receipt) -> String {
    let status = serde_json::to_value(receipt.status).unwrap_or_default();
    let name = format!("{} {}", printable(&receipt.message_id), status.as_str().unwrap_or_default());
    match &receipt.counts {
        None => name,
        Some(c) => format!(
            "{name}: {} of {} read, {} unread, {} hidden, {} departed",
            c.read_count, c.audience_count, c.unread_count, c.hidden_count, c.departed_count
        ),
    }
}
