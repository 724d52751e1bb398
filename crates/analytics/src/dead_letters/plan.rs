//! Decides which dead letters a replay writes, into which partition, in which order, and what is
//! harmful about them. Writes nothing.
//!
//! A replay leaves a header with each record that it writes, and the plan looks for these headers
//! in the topic of events. So no note of the progress is needed: a replay that was killed at any
//! moment goes on with the same command, and one that is complete writes nothing again.
//!
//! Keeps INV-LETTER-REPLAY.

use super::letter::{Filter, Letter, Origin, REPLAYED_FROM};
use super::read;
use crate::fold::{read_topic, retrying};
use crate::{Error, ProgressMonitor, Span};
use receipts_event::{Body, Decoder, Event, Reason, UpTo, decode};
use receipts_log::{Inspect, Topic};
use std::collections::{BTreeMap, BTreeSet};

/// The most letters of one replay. All of them are in memory, about a kilobyte each.
pub const LETTERS_MAX: usize = 1_000_000;

/// How letters are judged.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How the projector decodes records now.
    pub decoder: Decoder,
    /// Gives records whose key is wrong the key of their own fields.
    pub rekey: bool,
    /// Leaves letters out that may harm.
    pub only_harmless: bool,
}

/// Why the replay of a right record may give answers that the record would not have given in its
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// The letters of its conversation come from several partitions, so their order is a guess by
    /// their times.
    OrderLost,
    /// It changes the roster, and the log holds a later event of its conversation: the roster of
    /// today may be undone.
    LateRoster,
    /// It sends to the roster, and the roster has changed since: its audience is that of today.
    LateSend,
}

impl Harm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OrderLost, Self::LateRoster, Self::LateSend];

    /// Returns a stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OrderLost => "order-lost",
            Self::LateRoster => "late-roster",
            Self::LateSend => "late-send",
        }
    }

    /// Returns what to know, as the rest of a sentence about letters.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::OrderLost => {
                "belong to conversations whose letters come from several partitions: their order is a guess by their times"
            }
            Self::LateRoster => {
                "change a roster although later events of the conversation are in the log: they may undo those"
            }
            Self::LateSend => "send to a roster that has changed since: their audience is the roster of today",
        }
    }
}

/// A letter that a replay writes.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The letter.
    pub letter: Letter,
    /// The location of its record.
    pub origin: Origin,
    /// The key to write it under.
    pub key: Vec<u8>,
    /// The partition to write it to.
    pub partition: u32,
    /// Why it may harm.
    pub harm: Option<Harm>,
}

/// Letters that would be wrong again, of one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Their number.
    pub count: u64,
    /// The sentence about the last of them.
    pub detail: String,
}

/// The plan of a replay.
#[derive(Debug, Default)]
pub struct Plan {
    /// The letters that the filter admits.
    pub selected: u64,
    /// The letters to write, in the order of writing.
    pub planned: Vec<Planned>,
    /// The letters that an earlier replay has written.
    pub replayed: u64,
    /// The letters that are in their topic more than once, without the first of each.
    pub repeated: u64,
    /// The letters that would be wrong again, by reason.
    pub refused: BTreeMap<String, Refused>,
}

/// The part of an event that later letters and the log are compared with.
enum Act {
    Roster,
    Send {
        message: String,
        needs_roster: bool,
    },
    /// Names messages, and does nothing without them.
    Names(Vec<String>),
    Other,
}

struct Candidate {
    planned: Planned,
    act: Act,
}

/// What the log holds of one conversation.
#[derive(Default)]
struct Known {
    newest_event_ms: Option<u64>,
    newest_roster_ms: Option<u64>,
    has_roster: bool,
    /// The messages that letters name, and whether the log or another letter sends them.
    messages: BTreeMap<String, bool>,
}

impl Plan {
    /// Makes the plan for the letters in `letters` that the filter admits.
    ///
    /// # Errors
    /// If a topic cannot be read, too many letters are admitted, the end of a partition cannot be
    /// read because of an open transaction, or the monitor stops it.
    pub fn make(
        log: &dyn Inspect,
        letters: &[Span],
        filter: &Filter,
        options: Options,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Self, Error> {
        let mut plan = Self::default();
        let mut candidates = BTreeMap::<Origin, Candidate>::new();
        read(log, letters, filter, options.decoder, monitor, &mut |letter| {
            plan.selected += 1;
            let Some(candidate) = plan.judge(letter, options) else { return Ok(()) };
            if candidates.contains_key(&candidate.planned.origin) {
                plan.repeated += 1;
            } else if candidates.len() == LETTERS_MAX {
                return Err(Error::Refused(format!(
                    "more than {LETTERS_MAX} dead letters are to be replayed: replay them in parts, oldest first, with --until"
                )));
            } else {
                candidates.insert(candidate.planned.origin.clone(), candidate);
            }
            Ok(())
        })?;
        let targets: BTreeSet<u32> = candidates.values().map(|candidate| candidate.planned.partition).collect();
        let events: Vec<Span> = targets.into_iter().map(|target| whole(log, target)).collect::<Result<_, _>>()?;
        monitor.added(events.iter().map(Span::offsets).sum());
        let mut known = BTreeMap::<Vec<u8>, Known>::new();
        for Candidate { planned, act } in candidates.values() {
            let known = known.entry(planned.key.clone()).or_default();
            if let Act::Names(ids) = act {
                known.messages.extend(ids.iter().map(|id| (id.clone(), false)));
            }
        }
        for span in &events {
            plan.replayed += look(log, span, options.decoder, monitor, &mut candidates, &mut known)?;
        }
        let trimmed: BTreeSet<u32> =
            events.iter().filter(|span| span.first_offset > 0).map(|span| span.partition).collect();
        plan.order(candidates.into_values().collect(), known, &trimmed, options.only_harmless);
        Ok(plan)
    }

    fn refuse(&mut self, reason: &str, detail: impl Into<String>) {
        let refused = self.refused.entry(reason.to_owned()).or_default();
        refused.count += 1;
        refused.detail = detail.into();
    }

    /// Decodes a letter as the projector would decode its record now.
    fn judge(&mut self, letter: Letter, options: Options) -> Option<Candidate> {
        let Some(origin) = letter.origin.clone() else {
            self.refuse("no-origin", "no projector wrote this record: the headers of a dead letter are missing");
            return None;
        };
        if let Some(parts) = &letter.left_out {
            let sentence = format!("the letter lacks the record's {parts}: copy the record from {origin}");
            self.refuse("left-out", sentence);
            return None;
        }
        let (decoder, value) = (options.decoder, letter.record.value.as_deref());
        let mut key = letter.record.key.as_deref().unwrap_or_default().to_vec();
        let mut judged = decoder.decode_anywhere(Some(&key), value);
        if options.rekey && judged.as_ref().is_err_and(|rejection| rejection.reason == Reason::WrongKey) {
            if let Ok(event) = decode(decoder.unwrap.event_of(value.unwrap_or_default())) {
                key = event.key();
            }
            judged = decoder.decode_anywhere(Some(&key), value);
        }
        match judged {
            Ok((event, partition)) if partition < decoder.partition_count => {
                let act = act_of(&event);
                Some(Candidate { planned: Planned { letter, origin, key, partition, harm: None }, act })
            }
            Ok((_, partition)) => {
                let sentence = format!("the event names partition {partition}, which the log does not have");
                self.refuse(Reason::WrongPolicyPartition.code(), sentence);
                None
            }
            Err(rejection) => {
                self.refuse(rejection.reason.code(), rejection.to_string());
                None
            }
        }
    }

    /// Orders the letters, and refuses those that would be wrong again in this order.
    fn order(
        &mut self,
        mut candidates: Vec<Candidate>,
        mut known: BTreeMap<Vec<u8>, Known>,
        trimmed: &BTreeSet<u32>,
        only_harmless: bool,
    ) {
        let mut sources = BTreeMap::<Vec<u8>, BTreeSet<u32>>::new();
        for Candidate { planned, act } in &candidates {
            sources.entry(planned.key.clone()).or_default().insert(planned.origin.partition);
            if let (Act::Send { message, .. }, Some(known)) = (act, known.get_mut(&planned.key)) {
                known.messages.insert(message.clone(), true);
            }
        }
        let has_order = |planned: &Planned| sources.get(&planned.key).is_none_or(|sources| sources.len() == 1);
        candidates.sort_by_cached_key(|Candidate { planned, .. }| {
            // Offsets of several partitions cannot be compared.
            let time_ms = if has_order(planned) { 0 } else { planned.letter.time_ms() };
            (planned.partition, planned.key.clone(), time_ms, planned.origin.partition, planned.origin.offset)
        });
        for Candidate { mut planned, act } in candidates {
            let Some(known) = known.get_mut(&planned.key) else { continue };
            let is_whole = !trimmed.contains(&planned.partition);
            let time_ms = planned.letter.time_ms();
            let is_late = |newest: Option<u64>| newest.is_some_and(|newest| newest > time_ms);
            let harm = match &act {
                _ if !has_order(&planned) => Some(Harm::OrderLost),
                Act::Roster if is_late(known.newest_event_ms) => Some(Harm::LateRoster),
                Act::Send { needs_roster: true, .. } if is_late(known.newest_roster_ms) => Some(Harm::LateSend),
                _ => None,
            };
            if let Some(harm) = harm.filter(|_| only_harmless) {
                self.refuse(harm.code(), format!("such letters {}", harm.meaning()));
                continue;
            }
            match &act {
                Act::Roster => known.has_roster = true,
                Act::Send { needs_roster: true, .. } if !known.has_roster && is_whole => {
                    self.refuse(
                        Reason::NoRoster.code(),
                        "the conversation still has no roster: write one, or replay it too",
                    );
                    continue;
                }
                Act::Names(ids) if is_whole && !ids.iter().any(|id| known.messages.get(id) == Some(&true)) => {
                    self.refuse(
                        Reason::ParkedExpired.code(),
                        "the messages that it names are still not in the log: replay their sends too",
                    );
                    continue;
                }
                _ => {}
            }
            planned.harm = harm;
            self.planned.push(planned);
        }
    }
}

fn act_of(event: &Event<'_>) -> Act {
    match &event.body {
        Body::MembersChanged(_) => Act::Roster,
        Body::MessageSent(sent) => {
            Act::Send { message: sent.message_id.clone().into_owned(), needs_roster: sent.recipients.is_none() }
        }
        Body::MessageRead(read) => Act::Names(read.message_ids.iter().map(|id| id.clone().into_owned()).collect()),
        Body::ConversationRead(read) => match &read.up_to {
            UpTo::Message(id) => Act::Names(vec![id.clone().into_owned()]),
            UpTo::SentAt(_) => Act::Other,
        },
        Body::MessageRecalled(recalled) => Act::Names(vec![recalled.message_id.clone().into_owned()]),
        _ => Act::Other,
    }
}

/// Returns the whole range of a partition of events.
///
/// # Errors
/// If a transaction is open: records of an earlier replay may stand behind it, unseen.
fn whole(log: &dyn Inspect, partition: u32) -> Result<Span, Error> {
    let written = match log.ends() {
        Some(ends) => retrying(|| ends.ends(&[partition]))?.first().copied(),
        None => None,
    };
    let bounds = retrying(|| log.bounds(Topic::Events, partition))?;
    if written.is_some_and(|written| written > bounds.end) {
        return Err(Error::Refused(format!(
            "a producer's transaction is open in partition {partition}: the records from offset {} on wait for it, \
             and nobody can see which letters are among them. Run the same command when the transaction is over",
            bounds.end
        )));
    }
    Ok(Span { partition, first_offset: bounds.start, end_offset: bounds.end })
}

/// Reads a partition of events: removes the candidates that an earlier replay has written, and
/// notes what the log holds of the conversations of the others. Returns the number of the removed
/// ones.
fn look(
    log: &dyn Inspect,
    span: &Span,
    decoder: Decoder,
    monitor: &dyn ProgressMonitor,
    candidates: &mut BTreeMap<Origin, Candidate>,
    known: &mut BTreeMap<Vec<u8>, Known>,
) -> Result<u64, Error> {
    let mut replayed = 0;
    read_topic(log, Topic::Events, span, monitor, &mut |records| {
        for record in records {
            let Some(known) = record.key.and_then(|key| known.get_mut(key)) else { continue };
            let headers = record.headers.to_vec();
            let copied = headers.iter().rev().find(|(name, _)| name == REPLAYED_FROM);
            let text = copied.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok());
            if let Some(origin) = text.and_then(|text| text.parse::<Origin>().ok()) {
                replayed += u64::from(candidates.remove(&origin).is_some());
            }
            let Ok(event) = decoder.decode(record.partition, record.key, record.value) else { continue };
            let act = act_of(&event);
            if let Act::Send { message, .. } = &act
                && let Some(is_sent) = known.messages.get_mut(message)
            {
                *is_sent = true;
            }
            let is_roster = matches!(act, Act::Roster);
            known.has_roster |= is_roster;
            // A copy belongs to its record's time, even if the topic gave it another one.
            if copied.is_none() {
                let newest = |held: &mut Option<u64>| *held = (*held).max(Some(record.timestamp_ms));
                newest(&mut known.newest_event_ms);
                if is_roster {
                    newest(&mut known.newest_roster_ms);
                }
            }
        }
        Ok(())
    })?;
    Ok(replayed)
}
