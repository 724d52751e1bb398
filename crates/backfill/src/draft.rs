//! The judgement before an import: its events are drafted in a temporary log and folded behind the
//! real one, so that a person sees what the import would do. The real log is only read.
//!
//! The fold alone decides which reads reach nobody; this file only counts what it says.

use crate::columns::Input;
use crate::import::{ImportReport, Plan, import};
use crate::overlay::Overlay;
use crate::{Counts, Error};
use receipts_analytics::{ProgressMonitor, Scratch, Span, TemporaryFolder, UpTo, span};
use receipts_event::{Body, Event};
use receipts_fold::effects::{Counters, Effects};
use receipts_fold::view::{Receipt, Status};
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Inspect, Log as _, Topic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Examples of each reason.
const EXAMPLES: usize = 3;

/// Why a read or a mark reaches nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreached {
    /// The reader is not in the audience: joined later, sent the message, or was never a member.
    NotInAudience,
    /// Neither the log nor the tables have the message.
    UnknownMessage,
    /// The reader has read the message already; of a mark: it reads no further message.
    Repeated,
    /// The retention of the message is over.
    Expired,
}

impl std::fmt::Display for Unreached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotInAudience => "not_in_audience",
            Self::UnknownMessage => "unknown_message",
            Self::Repeated => "repeated",
            Self::Expired => "expired",
        })
    }
}

/// The reads, or the marks, of one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreaching {
    /// Their number.
    pub count: u64,
    /// The first three events with such reads.
    pub examples: Vec<UnreachedExample>,
}

/// An event with reads that reach nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreachedExample {
    /// The conversation.
    pub conversation_id: String,
    /// The reader.
    pub reader_id: String,
    /// The messages of the event, at most three; at least one of the event's is meant.
    pub message_ids: Vec<String>,
}

/// The effect of an import's reads or marks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Messages that they read, by person: those that change a receipt.
    pub read: u64,
    /// Those that reach nobody, by reason.
    pub unreached: BTreeMap<Unreached, Unreaching>,
    /// The first and last read time of the tables, Unix milliseconds.
    pub times_ms: Option<(u64, u64)>,
}

/// What an import would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The effect of reads.
    pub reads: Reached,
    /// The effect of marks.
    pub marks: Reached,
    /// The first and last send time of the tables, Unix milliseconds.
    pub sent_ms: Option<(u64, u64)>,
    /// The receipts of the first, the middle and the most read message, as the service would answer
    /// them after the import.
    pub receipts: Vec<Receipt>,
}

/// The events of an import, in a temporary log.
pub struct Draft {
    log: EmbeddedLog,
    /// The counts of the tables.
    pub counts: Counts,
    ends: Vec<u64>,
    _dir: TemporaryFolder,
}

impl Draft {
    /// Reads all tables into a draft, and writes the report of rejects. Costs as much room in
    /// TMPDIR as the events take.
    ///
    /// # Errors
    /// If a table, a file or the temporary directory fails, or the monitor stops it.
    pub fn of(log: &dyn Inspect, plan: &Plan, monitor: &dyn ProgressMonitor) -> Result<Self, Error> {
        let bounds = (0..log.partition_count()).map(|partition| log.bounds(Topic::Events, partition));
        let ends = bounds.map(|bounds| Ok(bounds?.end)).collect::<Result<Vec<u64>, Error>>()?;
        let dir = TemporaryFolder::new()?;
        let draft = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(log.partition_count()))
            .map_err(|error| Error::Append(error.to_string()))?;
        let plan = Plan { progress: dir.path().join("progress.json"), dry_run: false, ..plan.clone() };
        let ImportReport { counts, .. } = import(&draft, &plan, monitor)?;
        Ok(Self { log: draft, counts, ends, _dir: dir })
    }

    /// Returns how many offsets [`Self::judge`] folds at most.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub fn offsets(&self, log: &dyn Inspect) -> Result<u64, Error> {
        Ok(self.spans(log)?.iter().map(Span::offsets).sum())
    }

    /// The ranges of partitions that the draft changes.
    fn spans(&self, log: &dyn Inspect) -> Result<Vec<Span>, Error> {
        let overlay = Overlay { base: log, draft: &self.log, ends: &self.ends };
        let mut spans = Vec::new();
        for partition in 0..self.log.partition_count() {
            if !self.log.bounds(Topic::Events, partition)?.is_empty() {
                spans.push(span(&overlay, partition, UpTo::End)?);
            }
        }
        Ok(spans)
    }

    /// Folds the draft behind the log, one partition after another.
    ///
    /// # Errors
    /// If a log, the temporary directory or the state fails, or the monitor stops it.
    pub fn judge(
        &self,
        log: &dyn Inspect,
        scratch: &Scratch,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Judgement, Error> {
        let overlay = Overlay { base: log, draft: &self.log, ends: &self.ends };
        let mut judgement = Judgement::default();
        let mut samples = Samples::default();
        for span in self.spans(log)? {
            let end = self.ends[span.partition as usize];
            let (mut before, mut messages) = (Counters::default(), None);
            let folded = scratch.fold_watched(&overlay, &span, monitor, &mut |_, record, event, effects| {
                if record.offset >= end {
                    judgement.observe(event, &before, effects);
                    if let (Body::MessageSent(_), Some(changed)) = (&event.body, effects.changed.first()) {
                        let (first, _) = messages.unwrap_or((changed.message, 0));
                        messages = Some((first, changed.message + 1));
                    }
                }
                before = effects.counters;
                Ok(())
            })?;
            // Without messages of its own an import is about those of the log.
            let (first, end) = messages.unwrap_or((folded.state.first_message(), folded.state.messages()));
            for number in first..end {
                if let Some(receipt) =
                    folded.state.receipt_of(number).map_err(|error| Error::Judge(error.to_string()))?
                {
                    samples.offer(receipt, number == first, number == first + (end - first) / 2);
                }
            }
        }
        if self.counts.repeated > 0 {
            // Rows that the tables themselves repeat give no event.
            judgement.reads.unreached.entry(Unreached::Repeated).or_default().count += self.counts.repeated;
        }
        judgement.receipts = samples.into_receipts();
        Ok(judgement)
    }
}

fn widen(times: &mut Option<(u64, u64)>, at: u64) {
    let (first, last) = times.unwrap_or((at, at));
    *times = Some((first.min(at), last.max(at)));
}

impl Judgement {
    fn observe(&mut self, event: &Event<'_>, before: &Counters, effects: &Effects) {
        let now = &effects.counters;
        let read = now.reads - before.reads;
        let repeated = now.repeated - before.repeated;
        let stranger = now.not_in_audience - before.not_in_audience;
        let expired = now.expired - before.expired;
        match &event.body {
            Body::MessageSent(sent) => widen(&mut self.sent_ms, sent.sent_at_ms),
            Body::MessageRead(e) => {
                if let Some(at) = e.read_at_ms {
                    widen(&mut self.reads.times_ms, at);
                }
                self.reads.read += read;
                // Each message of the event has exactly one outcome; one that is not in the log
                // waits.
                let unknown = (e.message_ids.len() as u64).saturating_sub(read + repeated + stranger + expired);
                let example = || UnreachedExample {
                    conversation_id: e.conversation_id.to_string(),
                    reader_id: e.reader_id.to_string(),
                    message_ids: e.message_ids.iter().take(EXAMPLES).map(ToString::to_string).collect(),
                };
                self.reads.add(Unreached::NotInAudience, stranger, &example);
                self.reads.add(Unreached::UnknownMessage, unknown, &example);
                self.reads.add(Unreached::Repeated, repeated, &example);
                self.reads.add(Unreached::Expired, expired, &example);
            }
            Body::ConversationRead(e) => {
                if let Some(at) = e.read_at_ms {
                    widen(&mut self.marks.times_ms, at);
                }
                self.marks.read += read;
                let is_parked = now.parked > before.parked || !effects.dead_letters.is_empty();
                let reason = match (read, is_parked) {
                    (1.., _) => return,
                    (0, true) => Unreached::UnknownMessage,
                    (0, false) if expired > 0 => Unreached::Expired,
                    // A sender's own messages count here too, beside messages read before.
                    (0, false) if stranger > 0 && repeated == 0 => Unreached::NotInAudience,
                    (0, false) => Unreached::Repeated,
                };
                self.marks.add(reason, 1, &|| UnreachedExample {
                    conversation_id: e.conversation_id.to_string(),
                    reader_id: e.reader_id.to_string(),
                    message_ids: match &e.up_to {
                        receipts_event::UpTo::Message(id) => vec![id.to_string()],
                        receipts_event::UpTo::SentAt(_) => Vec::new(),
                    },
                });
            }
            _ => {}
        }
    }
}

impl Reached {
    fn add(&mut self, reason: Unreached, count: u64, example: &dyn Fn() -> UnreachedExample) {
        if count == 0 {
            return;
        }
        let held = self.unreached.entry(reason).or_default();
        held.count += count;
        if held.examples.len() < EXAMPLES {
            held.examples.push(example());
        }
    }
}

/// The first, the middle and the most read message over all partitions.
#[derive(Default)]
struct Samples {
    first: Option<Receipt>,
    middle: Option<Receipt>,
    most_read: Option<Receipt>,
}

impl Samples {
    fn offer(&mut self, receipt: Receipt, is_first: bool, is_middle: bool) {
        let read = |receipt: &Receipt| receipt.counts.map_or(0, |counts| counts.read_count);
        if receipt.status == Status::Ok && self.most_read.as_ref().is_none_or(|held| read(&receipt) > read(held)) {
            self.most_read = Some(receipt.clone());
        }
        if is_first && self.first.as_ref().is_none_or(|held| receipt.sent_at_ms < held.sent_at_ms) {
            self.first = Some(receipt.clone());
        }
        if is_middle && self.middle.is_none() {
            self.middle = Some(receipt);
        }
    }

    /// Returns them without repetitions.
    fn into_receipts(self) -> Vec<Receipt> {
        let mut receipts: Vec<Receipt> = Vec::new();
        for receipt in [self.first, self.middle, self.most_read].into_iter().flatten() {
            if !receipts.contains(&receipt) {
                receipts.push(receipt);
            }
        }
        receipts
    }
}

/// Returns how many rows of members were rejected: an import without them has smaller audiences.
pub fn rejected_members(counts: &Counts) -> u64 {
    counts.rejected.get(&Input::Members).copied().unwrap_or(0)
}
