//! Effects: the updates and dead letters that the caller must write after a fold. Effects are data;
//! the fold performs none of them.

use crate::pages::Parked;
use receipts_event::Reason;

/// The effects of a range of the log.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages that were sent, read or recalled, in the order of their records. A message may
    /// occur often. A read mark reads its messages from the newest to the oldest.
    pub changed: Vec<MessageChanged>,
    /// Read marks of direct conversations that moved.
    pub marks: Vec<MarkMoved>,
    /// Records that could not be applied.
    pub dead_letters: Vec<DeadLetter>,
    /// Counts for metrics.
    pub counters: Counters,
}

impl Effects {
    /// Empties the lists and keeps their memory. The counters go on.
    pub fn clear(&mut self) {
        self.changed.clear();
        self.marks.clear();
        self.dead_letters.clear();
    }

    /// Refuses the record being folded, because a budget of the partition is used up. `detail` says
    /// the number and the setting.
    pub(crate) fn refuse_over_budget(&mut self, detail: String) {
        self.dead_letters.push(DeadLetter { reason: Reason::OverBudget, detail, ids: Vec::new(), parked: None });
    }
}

/// A message that was sent, read or recalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageChanged {
    /// Number of the message in the partition.
    pub message: u64,
    /// The number of people who must read it.
    pub audience: u32,
    /// The slot that read it openly, and when, Unix milliseconds.
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

/// A record that belongs in the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stable code.
    pub reason: Reason,
    /// A sentence that says why. For a parked record it names the missing ids.
    pub detail: String,
    /// The messages to which the record could not be applied.
    pub ids: Vec<Box<str>>,
    /// The record itself if it was parked; `None` if it is the record being folded.
    pub parked: Option<Box<Parked>>,
}

/// Counts of events and their outcomes, for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Records folded.
    pub records: u64,
    /// Messages sent.
    pub messages: u64,
    /// First reads, hidden ones included.
    pub reads: u64,
    /// Reads by a reader who had read before.
    pub repeated: u64,
    /// Reads by a reader outside the audience, or of a message without an audience.
    pub not_in_audience: u64,
    /// Reads and recalls of expired messages, parked ones included.
    pub expired: u64,
    /// Records parked.
    pub parked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleared_effects_keep_their_counters() {
        let mut effects = Effects::default();
        effects.changed.push(MessageChanged { message: 1, audience: 2, newly_read: None });
        effects.marks.push(MarkMoved { conversation: 1, slot: 2 });
        let letter = DeadLetter { reason: Reason::NoRoster, detail: String::new(), ids: Vec::new(), parked: None };
        effects.dead_letters.push(letter);
        effects.counters.reads = 3;
        effects.clear();
        assert!(effects.changed.is_empty() && effects.marks.is_empty() && effects.dead_letters.is_empty());
        assert_eq!(effects.counters.reads, 3);
    }
}
