//! What a fold asks its caller to do. Effects are data: the fold performs none of them.

use crate::small::Parked;
use receipts_event::Reason;

/// What the events of a stretch of the log brought about.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages that changed themselves, in log order; the same one may come often.
    pub changed: Vec<Changed>,
    /// Read marks of direct conversations that moved.
    pub marks: Vec<MarkMoved>,
    /// Records that could not be applied.
    pub dead_letters: Vec<DeadLetter>,
    /// What happened, for metrics.
    pub counters: Counters,
}

impl Effects {
    /// Empties the lists and keeps their memory; counters go on.
    pub fn clear(&mut self) {
        self.changed.clear();
        self.marks.clear();
        self.dead_letters.clear();
    }
}

/// A message that was sent, read or recalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Its number in the partition.
    pub message: u64,
    /// How many must read it.
    pub audience: u32,
    /// Who read it openly, by slot, and when, Unix milliseconds.
    pub newly_read: Option<(u32, u64)>,
}

/// A read mark that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkMoved {
    /// Number of the conversation.
    pub conversation: u32,
    /// Slot of the reader.
    pub slot: u32,
}

/// A record to be written to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: Reason,
    /// A sentence; of parked records it names the ids.
    pub detail: String,
    /// The messages that the record could not be applied for.
    pub ids: Vec<Box<str>>,
    /// The record, where it is an earlier one than that being applied.
    pub parked: Option<Box<Parked>>,
}

/// How often something happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Records folded.
    pub records: u64,
    /// Messages sent.
    pub messages: u64,
    /// Reads that counted, hidden ones included.
    pub reads: u64,
    /// Reads by somebody who had read before.
    pub repeated: u64,
    /// Reads by somebody outside the audience, or of a message that has none.
    pub not_in_audience: u64,
    /// Reads of expired messages.
    pub expired: u64,
    /// Records parked.
    pub parked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emptied_keeps_its_counters() {
        let mut effects = Effects::default();
        effects.changed.push(Changed { message: 1, audience: 2, newly_read: None });
        effects.marks.push(MarkMoved { conversation: 1, slot: 2 });
        let letter = DeadLetter { reason: Reason::NoRoster, detail: String::new(), ids: Vec::new(), parked: None };
        effects.dead_letters.push(letter);
        effects.counters.reads = 3;
        effects.clear();
        assert!(effects.changed.is_empty() && effects.marks.is_empty() && effects.dead_letters.is_empty());
        assert_eq!(effects.counters.reads, 3);
    }
}
