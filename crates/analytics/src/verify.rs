//! Compares a store with the fold of its log: stored pages byte by byte, indexes by lookups, and
//! every message for inner contradictions. It repairs nothing.
//!
//! Keeps INV-VERIFY.

use crate::pages::{PagesDigest, each_page};
use crate::{Error, FoldReport, ProgressMonitor, Scratch, Span, UpTo, span};
use receipts_event::hex;
use receipts_fold::pages::{MESSAGES_PER_PAGE, PageKey, TableId};
use receipts_fold::view::MemberFilter;
use receipts_fold::{Limits, State};
use receipts_log::Inspect;
use receipts_store::{Paged, SledBackend, SledStore};
use serde::Serialize;

type Stored = State<Paged<SledBackend>>;
type StateError = receipts_fold::Error<receipts_store::Error>;

/// The result for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The records that were read: the log up to the store's offset.
    #[serde(flatten)]
    pub report: FoldReport,
    /// The end of the log. Records that the store has not folded yet are not compared.
    pub end_offset: u64,
    /// Digest of the fold of the log, if the log was folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_of_log: Option<String>,
    /// Digest of the store's pages, if all of them could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_of_store: Option<String>,
    /// The first difference between the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<Difference>,
    /// The number of messages whose counts, bits and lists contradict one another in the store.
    pub contradictions: u64,
    /// The first contradiction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_contradiction: Option<Difference>,
}

impl Verdict {
    /// Returns true if there is no difference and no contradiction.
    pub fn is_good(&self) -> bool {
        self.first_difference.is_none() && self.contradictions == 0
    }
}

/// One difference: where it is, and the content of both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The message, conversation or page. (Printed as `place`.)
    #[serde(rename = "place")]
    pub location: String,
    /// The fold of the log.
    pub log: String,
    /// The store.
    pub store: String,
}

impl Difference {
    fn new(location: impl Into<String>, log: impl Into<String>, store: impl Into<String>) -> Self {
        Self { location: location.into(), log: log.into(), store: store.into() }
    }
}

/// Folds a partition of the log up to the store's offset and compares the two. An unreadable store
/// is a difference, not an error.
///
/// # Errors
/// If the log or the temporary disk fails, the log has lost its beginning, or the monitor stops the
/// run.
pub fn partition(
    log: &dyn Inspect,
    store: &SledStore,
    partition: u32,
    scratch: &Scratch,
    monitor: &dyn ProgressMonitor,
) -> Result<Verdict, Error> {
    let mut verdict = Verdict {
        report: FoldReport { partition, ..FoldReport::default() },
        end_offset: 0,
        digest_of_log: None,
        digest_of_store: None,
        first_difference: None,
        contradictions: 0,
        first_contradiction: None,
    };
    let damaged = |error: &dyn std::fmt::Display| {
        Difference::new(format!("partition {partition}"), "a state", format!("cannot be read: {error}"))
    };
    let stored = match open(store, partition, scratch.memory_bytes / 4, scratch.limits) {
        Ok(stored) => stored,
        Err(error) => {
            verdict.first_difference = Some(damaged(&error));
            return Ok(verdict);
        }
    };
    let end = span(log, partition, UpTo::End)?;
    verdict.end_offset = end.end_offset;
    if end.first_offset > 0 && stored.next_offset() > 0 {
        return Err(Error::Trimmed { partition, first: end.first_offset });
    }
    if stored.next_offset() > end.end_offset {
        let (log, store) = (format!("ends at offset {}", end.end_offset), format!("is at {}", stored.next_offset()));
        verdict.first_difference = Some(Difference::new(format!("partition {partition}"), log, store));
        return Ok(verdict);
    }
    monitor.skipped(end.end_offset - stored.next_offset().max(end.first_offset));
    let folded = scratch.fold(log, &Span { end_offset: stored.next_offset().max(end.first_offset), ..end }, monitor)?;
    verdict.report = folded.report.clone();
    compare(&folded.state, &stored, monitor, &mut verdict)?;
    // Different settings explain every other difference, so they come first.
    verdict.first_difference = other_settings(&stored, &scratch.limits, partition).or(verdict.first_difference);
    Ok(verdict)
}

/// Restores the newest usable snapshot of a partition into a temporary store and compares it with
/// the fold of the log from its beginning up to the same offset. The snapshot shows the store of a
/// running service at that offset. Returns `None` if no snapshot is usable; warnings in the log say
/// why.
///
/// # Errors
/// As for [`partition`], and if the snapshot destination fails.
pub fn snapshot(
    log: &dyn Inspect,
    partition: u32,
    scratch: &Scratch,
    monitor: &dyn ProgressMonitor,
) -> Result<Option<Verdict>, Error> {
    let whole = span(log, partition, UpTo::End)?;
    if whole.first_offset > 0 {
        return Err(Error::Trimmed { partition, first: whole.first_offset });
    }
    let Some((_dir, store)) = scratch.newest_snapshot(&whole, log.partition_count(), monitor)? else { return Ok(None) };
    let from_the_beginning = Scratch { snapshots: None, ..scratch.clone() };
    self::partition(log, &store, partition, &from_the_beginning, monitor).map(Some)
}

/// Returns the difference if the store was folded with other settings than `now`.
fn other_settings(stored: &Stored, now: &Limits, partition: u32) -> Option<Difference> {
    let words = |limits: &Limits| {
        let Limits {
            retention_ms,
            parked_max,
            parked_bytes,
            parked_age_ms,
            read_times,
            unwrap,
            erasures_max,
            policy_types_max,
        } = limits;
        format!(
            "folded with projector.retention_ms {retention_ms}, parked_count {parked_max}, parked_bytes {parked_bytes}, \
             parked_age_ms {parked_age_ms}, read_times {read_times}, unwrap {}, erasures_max {erasures_max}, policy_types_max \
             {policy_types_max}",
            unwrap.name()
        )
    };
    let then = &stored.origin()?.limits;
    (then != now).then(|| Difference::new(format!("settings of partition {partition}"), words(now), words(then)))
}

fn open(store: &SledStore, partition: u32, memory_bytes: usize, limits: Limits) -> Result<Stored, StateError> {
    State::open(Paged::new(store.partition(partition)?, partition, memory_bytes), limits)
}

fn compare(truth: &Stored, stored: &Stored, monitor: &dyn ProgressMonitor, verdict: &mut Verdict) -> Result<(), Error> {
    let number = verdict.report.partition;
    let (mut of_log, mut of_store) = (PagesDigest::default(), Some(PagesDigest::default()));
    let mut first = None;
    let failed = Error::state(number);
    // An error of this walk is an error of the scratch state; an error of the store is a
    // difference.
    each_page(truth, number, monitor, &mut |table, key| {
        let wanted = truth.page_bytes(table, key).map_err(&failed)?;
        of_log.add(table, key, wanted.as_deref());
        match stored.page_bytes(table, key) {
            Ok(held) => {
                if let Some(sum) = &mut of_store {
                    sum.add(table, key, held.as_deref());
                }
                if held != wanted && first.is_none() {
                    first = Some(difference(truth, stored, table, key).map_err(&failed)?);
                }
            }
            Err(error) => {
                of_store = None;
                if first.is_none() {
                    let name = page_name(truth, table, key).map_err(&failed)?;
                    first = Some(Difference::new(name, "a page", error.to_string()));
                }
            }
        }
        Ok(())
    })?;
    verdict.digest_of_log = Some(of_log.hex());
    verdict.digest_of_store = of_store.map(PagesDigest::hex);
    if first.is_none() {
        first = unequal_keys(truth, stored).map_err(&failed)?;
    }
    for message in truth.first_message()..truth.messages() {
        if monitor.is_stopped() {
            return Err(Error::Stopped);
        }
        if first.is_none() {
            first = found_differently(truth, stored, message).map_err(&failed)?;
        }
        let wrong = match stored.audit(message) {
            Ok(None) => continue,
            Ok(Some(sentence)) => sentence,
            Err(error) => error.to_string(),
        };
        verdict.contradictions += 1;
        if verdict.first_contradiction.is_none() {
            let location = message_name(truth, message).map_err(&failed)?;
            verdict.first_contradiction =
                Some(Difference::new(location, "counts, bits and lists agree with one another", wrong));
        }
    }
    if first.is_none() {
        first = rosters_found_differently(truth, stored, number, monitor)?;
    }
    verdict.first_difference = first;
    Ok(())
}

/// Compares the keys of the partition's own pages, to find a page that only the store has: the walk
/// over the pages of the log's fold does not meet it.
fn unequal_keys(truth: &Stored, stored: &Stored) -> Result<Option<Difference>, StateError> {
    let wanted = truth.pages_of_partition()?;
    let held = match stored.pages_of_partition() {
        Ok(held) => held,
        Err(error) => {
            return Ok(Some(Difference::new("the partition's own pages", "can be listed", error.to_string())));
        }
    };
    Ok((wanted != held)
        .then(|| Difference::new("parked records", format!("{} pages", wanted.len()), format!("{} pages", held.len()))))
}

/// Compares the lookup of a message by its id, which checks the index of message ids.
fn found_differently(truth: &Stored, stored: &Stored, message: u64) -> Result<Option<Difference>, StateError> {
    let Some(receipt) = truth.receipt_of(message)? else { return Ok(None) };
    let conversation_id = receipt.conversation_id.as_deref().unwrap_or_default();
    let wanted = truth.receipt(&receipt.tenant, conversation_id, &receipt.message_id)?;
    let held = match stored.receipt(&receipt.tenant, conversation_id, &receipt.message_id) {
        Ok(held) if held == wanted => return Ok(None),
        Ok(held) => json(&held),
        Err(error) => error.to_string(),
    };
    Ok(Some(Difference::new(message_name(truth, message)?, json(&wanted), held)))
}

/// Looks up everybody on a roster by id, which checks the indexes of people.
fn rosters_found_differently(
    truth: &Stored,
    stored: &Stored,
    partition: u32,
    monitor: &dyn ProgressMonitor,
) -> Result<Option<Difference>, Error> {
    let failed = Error::state(partition);
    for number in 0..truth.conversations() {
        let conversation = truth.conversation(number).map_err(&failed)?;
        let mut next = Some(0);
        while let Some(slot) = next {
            if monitor.is_stopped() {
                return Err(Error::Stopped);
            }
            let roster = truth.roster_page(number, slot).map_err(&failed)?;
            next = roster.next_slot;
            for (user_id, _) in roster.people {
                let held = stored.is_member(&conversation.tenant, &conversation.conversation_id, &user_id);
                if !matches!(held, Ok(true)) {
                    let conversation = conversation_name(truth, number).map_err(&failed)?;
                    let location = format!("{} of {conversation}", user_id.escape_debug());
                    let held = held.map_or_else(|error| error.to_string(), |_| "is not found on the roster".to_owned());
                    return Ok(Some(Difference::new(location, "is on the roster", held)));
                }
            }
        }
    }
    Ok(None)
}

/// Describes two unequal pages by the first answer that differs, or else by the page's bytes.
fn difference(truth: &Stored, stored: &Stored, table: TableId, key: PageKey) -> Result<Difference, StateError> {
    let messages = match table {
        TableId::Messages => key.a * MESSAGES_PER_PAGE..((key.a + 1) * MESSAGES_PER_PAGE).min(truth.messages()),
        TableId::Chunks => key.a..key.a + 1,
        _ => 0..0,
    };
    for message in messages {
        let (wanted, held) = (answers(truth, message)?, answers(stored, message));
        match held {
            Ok(held) if held == wanted => {}
            Ok(held) => {
                let at = wanted.iter().zip(&held).position(|(wanted, held)| wanted != held).unwrap_or(0);
                return Ok(Difference::new(message_name(truth, message)?, &*wanted[at], &*held[at]));
            }
            Err(error) => {
                return Ok(Difference::new(message_name(truth, message)?, &*wanted[0], error.to_string()));
            }
        }
    }
    let bytes = |state: &Stored| -> Result<String, StateError> {
        let bytes = state.page_bytes(table, key)?;
        Ok(bytes.map_or("absent".to_owned(), |bytes| format!("{} bytes {}", bytes.len(), hex(&bytes))))
    };
    Ok(Difference::new(page_name(truth, table, key)?, bytes(truth)?, bytes(stored)?))
}

/// Returns the answers about a message: its receipt, then its three lists.
fn answers(state: &Stored, message: u64) -> Result<Vec<String>, StateError> {
    let Some(receipt) = state.receipt_of(message)? else { return Ok(vec!["expired".to_owned(); 4]) };
    let mut answers = vec![json(&receipt)];
    for filter in [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed] {
        let list = state.members_of(message, filter, 0, usize::MAX)?;
        answers.push(json(&list.map(|list| list.members)));
    }
    Ok(answers)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("answers have string keys only")
}

fn message_name(truth: &Stored, message: u64) -> Result<String, StateError> {
    Ok(match truth.receipt_of(message)? {
        Some(r) => format!(
            "message {} of conversation {} of tenant {}",
            r.message_id.escape_debug(),
            r.conversation_id.unwrap_or_default().escape_debug(),
            r.tenant.escape_debug()
        ),
        None => format!("message number {message}, expired"),
    })
}

fn conversation_name(truth: &Stored, number: u32) -> Result<String, StateError> {
    let c = truth.conversation(number)?;
    Ok(format!("conversation {} of tenant {}", c.conversation_id.escape_debug(), c.tenant.escape_debug()))
}

fn page_name(truth: &Stored, table: TableId, key: PageKey) -> Result<String, StateError> {
    let of = match table {
        TableId::Conversations | TableId::People | TableId::ReadMarks | TableId::Departures => {
            match u32::try_from(key.a) {
                Ok(number) => format!(" of {}", conversation_name(truth, number)?),
                Err(_) => String::new(),
            }
        }
        _ => String::new(),
    };
    Ok(format!("table {table:?}, page ({}, {}){of}", key.a, key.b))
}
