//! Exports a prefix of the log as files for analysts:
//! `DIR/<dataset>/tenant=<…>/day=<YYYY-MM-DD>/part-<…>` (`schemas/export/v1.md`).
//!
//! Each partition is folded into a temporary state and walked. At most [`ROWS_BYTES_MAX`] bytes of
//! rows are buffered; they are written as complete files. One prefix gives the same files, byte for
//! byte.
//!
//! Keeps INV-EXPORT.

mod files;
mod resume;
mod rows;
mod target;

pub use files::Format;
pub use rows::{Column, Dataset, Type};
pub use target::Target;

use crate::{Error, FoldReport, ProgressMonitor, Scratch, Span, read};
use files::Files;
use receipts_event::decode_record;
use receipts_event::{Body, Event};
use receipts_fold::pages::Role;
use receipts_fold::view::{MemberFilter, Receipt};
use receipts_fold::{Conversation, Pages, State};
use receipts_log::Inspect;
use resume::{FinishedPartition, Progress};
use rows::{Row, Value, flag, integer, maybe, text};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Maximum size of the buffered rows of one dataset, bytes. A constant, because it decides which
/// rows share a file.
pub const ROWS_BYTES_MAX: usize = 64 << 20;
/// Readers of one message that are loaded from the state at a time.
const READERS_AT_ONCE: usize = 1_000;

/// The content and the target of an export.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the files are written.
    pub out: Target,
    /// The identity of the log: an interrupted export resumes only for the same log.
    pub log: String,
    /// The format of the files.
    pub format: Format,
    /// The datasets to export.
    pub datasets: Vec<Dataset>,
}

/// The sums of one exported dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetReport {
    /// The dataset.
    pub dataset: Dataset,
    /// Rows in all files.
    pub rows: u64,
    /// The number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Removed files of earlier exports of this dataset.
    pub removed: u64,
}

/// Exports ranges of the log. `spans` has at most one range per partition, each from the
/// partition's beginning. At the end it removes files of earlier exports of the same datasets in
/// the same target.
///
/// # Errors
/// If the log, a state or a file fails, or the monitor stops the run. Then the target may hold
/// files of both exports, each of them complete, and the same export resumes after the written
/// partitions.
pub fn export(
    log: &dyn Inspect,
    spans: &[Span],
    scratch: &Scratch,
    plan: &Plan,
    monitor: &dyn ProgressMonitor,
) -> Result<(Vec<FoldReport>, Vec<DatasetReport>), Error> {
    let mut progress = Progress::load(plan, spans, scratch)?;
    export_on(log, spans, scratch, plan, monitor, &mut progress).map_err(|error| match error {
        Error::Stopped => Error::ExportStopped { done: progress.partitions(), all: spans.len() },
        other => other,
    })
}

fn export_on(
    log: &dyn Inspect,
    spans: &[Span],
    scratch: &Scratch,
    plan: &Plan,
    monitor: &dyn ProgressMonitor,
    progress: &mut Progress<'_>,
) -> Result<(Vec<FoldReport>, Vec<DatasetReport>), Error> {
    let mut reports = Vec::new();
    let mut all: Vec<Files<'_>> =
        plan.datasets.iter().map(|dataset| Files::new(&plan.out, *dataset, plan.format)).collect();
    for span in spans {
        if let Some(finished) = progress.finished(span.partition) {
            reports.push(finished.report.clone());
            all.iter_mut().zip(&finished.written).for_each(|(files, (written, names))| files.adopt(written, names));
            monitor.skipped(offsets(std::slice::from_ref(span), &plan.datasets));
            continue;
        }
        let folded = scratch.fold(log, span, monitor)?;
        reports.push(folded.report.clone());
        let mut written = Vec::new();
        for files in &mut all {
            files.begin(span.partition);
            match files.dataset() {
                Dataset::Messages => messages(&folded.state, files, monitor),
                Dataset::Reads => reads(&folded.state, files, monitor),
                Dataset::Rosters => rosters(&folded.state, files, monitor),
                Dataset::Events => events(log, span, &folded.state, files, monitor),
            }?;
            written.push(files.end()?);
        }
        progress.add(span.partition, FinishedPartition { report: folded.report.clone(), written })?;
    }
    let written = all.into_iter().map(Files::finish).collect::<Result<_, _>>()?;
    progress.finish()?;
    Ok((reports, written))
}

/// Returns the number of offsets that an export reads. Each range is folded once, and read once
/// more for the dataset of raw events.
pub fn offsets(spans: &[Span], datasets: &[Dataset]) -> u64 {
    let passes = 1 + u64::from(datasets.contains(&Dataset::Events));
    passes * spans.iter().map(Span::offsets).sum::<u64>()
}

fn is_stopped(monitor: &dyn ProgressMonitor) -> Result<(), Error> {
    if monitor.is_stopped() { Err(Error::Stopped) } else { Ok(()) }
}

fn messages<S: Pages<Error = receipts_store::Error>>(
    state: &State<S>,
    files: &mut Files<'_>,
    monitor: &dyn ProgressMonitor,
) -> Result<(), Error> {
    let partition = files.partition();
    for number in state.first_message()..state.messages() {
        is_stopped(monitor)?;
        let Some(m) = state.located_receipt(number).map_err(Error::state(partition))? else { continue };
        let c = state.conversation(m.conversation).map_err(Error::state(partition))?;
        let counts = |count: fn(&receipts_fold::view::Counts) -> u32| maybe(m.receipt.counts.as_ref().map(count));
        let r = &m.receipt;
        let row = vec![
            text(&r.tenant),
            text(&c.conversation_id),
            text(&r.message_id),
            text(name_of(&r.status)),
            text(name_of(&r.kind)),
            text(&c.group_type),
            r.sender_id.as_deref().map_or(Value::Null, text),
            maybe(r.sent_at_ms),
            counts(|c| c.audience_count),
            counts(|c| c.read_count),
            counts(|c| c.unread_count),
            counts(|c| c.hidden_count),
            counts(|c| c.departed_count),
            r.counts.as_ref().map_or(Value::Null, |c| flag(c.all_read)),
            maybe(r.last_read_at_ms),
            r.user_id.as_deref().map_or(Value::Null, text),
            maybe(r.read_at_ms),
            maybe(r.version),
            integer(partition),
            integer(m.offset),
            integer(m.timestamp_ms),
        ];
        files.push(&r.tenant, r.sent_at_ms.unwrap_or(m.timestamp_ms), row)?;
    }
    Ok(())
}

/// Writes one row per reader that a list names, by the day of the message's send.
fn reads<S: Pages<Error = receipts_store::Error>>(
    state: &State<S>,
    files: &mut Files<'_>,
    monitor: &dyn ProgressMonitor,
) -> Result<(), Error> {
    let partition = files.partition();
    for number in state.first_message()..state.messages() {
        let mut slot = Some(0);
        while let Some(from) = slot {
            is_stopped(monitor)?;
            let list = state.members_of(number, MemberFilter::Read, from, READERS_AT_ONCE);
            let Some(list) = list.map_err(Error::state(partition))? else { break };
            slot = list.next_slot;
            let Receipt { tenant, conversation_id, message_id, sent_at_ms, .. } = &list.receipt;
            for reader in &list.members {
                let row = vec![
                    text(tenant),
                    text(conversation_id.as_deref().unwrap_or_default()),
                    text(message_id),
                    text(&reader.user_id),
                    maybe(reader.read_at_ms),
                    maybe(*sent_at_ms),
                    integer(partition),
                ];
                files.push(tenant, sent_at_ms.unwrap_or_default(), row)?;
            }
        }
    }
    Ok(())
}

/// Writes the rosters at the end of the range, by the day of the partition's newest record.
fn rosters<S: Pages<Error = receipts_store::Error>>(
    state: &State<S>,
    files: &mut Files<'_>,
    monitor: &dyn ProgressMonitor,
) -> Result<(), Error> {
    let partition = files.partition();
    for number in 0..state.conversations() {
        let Conversation { tenant, conversation_id, kind, group_type, .. } =
            state.conversation(number).map_err(Error::state(partition))?;
        let mut slot = Some(0);
        while let Some(from) = slot {
            is_stopped(monitor)?;
            let roster = state.roster_page(number, from).map_err(Error::state(partition))?;
            slot = roster.next_slot;
            for (user_id, role) in roster.people {
                let role = if role == Role::Member { "member" } else { "observer" };
                let row = vec![
                    text(&tenant),
                    text(&conversation_id),
                    text(name_of(&kind)),
                    text(&group_type),
                    text(&user_id),
                    text(role),
                    integer(partition),
                ];
                files.push(&tenant, state.newest_timestamp_ms(), row)?;
            }
        }
    }
    Ok(())
}

/// Writes the records that are events, by the day of the record. The state knows every person
/// erased within the range, later records included.
fn events<S: Pages>(
    log: &dyn Inspect,
    span: &Span,
    state: &State<S>,
    files: &mut Files<'_>,
    monitor: &dyn ProgressMonitor,
) -> Result<(), Error> {
    let partitions = log.partition_count();
    read(log, span, monitor, &mut |records| {
        for record in records {
            let Ok(event) = decode_record(record.partition, record.key, record.value, partitions) else { continue };
            let row: Row = vec![
                integer(record.partition),
                integer(record.offset),
                integer(record.timestamp_ms),
                text(&event.tenant),
                event.conversation_id().map_or(Value::Null, text),
                text(event.type_name()),
                event.event_id.as_deref().map_or(Value::Null, text),
                text(shown(&event, state)),
            ];
            files.push(&event.tenant, record.timestamp_ms, row)?;
        }
        Ok(())
    })
}

/// Returns an event as JSON without erased people and hidden readers.
fn shown<S: Pages>(event: &Event<'_>, state: &State<S>) -> String {
    let is_hidden = match &event.body {
        Body::MessageRead(read) => read.hidden,
        Body::ConversationRead(read) => read.hidden,
        _ => false,
    };
    let is_erased = |id: &Json| id.as_str().is_some_and(|id| state.is_erased(&event.tenant, id));
    let mut json = serde_json::to_value(event).expect("an event has string keys only");
    let fields = json.as_object_mut().expect("an event is an object");
    for field in ["reader_id", "sender_id", "user_id"] {
        if fields.get(field).is_some_and(|id| is_erased(id) || is_hidden) {
            fields.remove(field);
        }
    }
    for field in ["joined", "left", "observers", "recipients"] {
        if let Some(Json::Array(ids)) = fields.get_mut(field) {
            ids.retain(|id| !is_erased(id));
        }
    }
    json.to_string()
}

/// Returns the name of a kind or status in the contract's JSON.
fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Json::String(name)) => name,
        _ => String::new(),
    }
}
