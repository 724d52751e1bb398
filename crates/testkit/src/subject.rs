//! What can be put to the same questions: the oracle here, the fold elsewhere. No behaviour of its own.

use receipts_event::Event;
use receipts_fold::view::{Member, MemberFilter, ReadMark, Receipt, Status};

/// Where and when a record stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The partition.
    pub partition: u32,
    /// The record's offset; offsets grow, but not by one.
    pub offset: u64,
    /// The record's Kafka timestamp, Unix milliseconds; need not grow.
    pub timestamp_ms: u64,
}

/// Why a folded record is a dead letter: the stable codes of `dead-letter-reason`.
pub mod reason {
    /// A send in a conversation that never had a roster, without recipients (rule 8).
    pub const NO_ROSTER: &str = "no-roster";
    /// Parked for longer than the age allowed (rule 5).
    pub const PARKED_EXPIRED: &str = "parked-expired";
    /// Parked, and pushed out by younger ones (rule 5).
    pub const PARKED_OVERFLOW: &str = "parked-overflow";
}

/// What one record caused beside the new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OracleEffect {
    /// A record, this one or an earlier one that was parked, goes to the dead letters.
    DeadLetter {
        /// The offset of the record that goes there.
        offset: u64,
        /// One of [`reason`].
        reason: &'static str,
        /// The messages in its detail, in the record's order, each once.
        ids: Vec<String>,
    },
    /// An event changed the message itself (send, counted read, recall): an update is due.
    Changed {
        /// Whose.
        tenant: String,
        /// Where.
        conversation_id: String,
        /// Which message; named once per record.
        message_id: String,
        /// Who newly read it, with the read time in Unix milliseconds; no hidden reader, no erased one.
        newly_read: Vec<(String, u64)>,
    },
    /// A read mark of a direct conversation moved: an update is due.
    MarkMoved {
        /// Whose.
        tenant: String,
        /// Where.
        conversation_id: String,
        /// The mark as it now stands.
        mark: ReadMark,
    },
}

impl OracleEffect {
    /// Orders effects, and what stands in them, so that two implementations can be compared: the contract gives the
    /// effects of one record no order.
    pub fn canonical(mut effects: Vec<Self>) -> Vec<Self> {
        for effect in &mut effects {
            match effect {
                Self::DeadLetter { ids, .. } => ids.sort_unstable(),
                Self::Changed { newly_read, .. } => newly_read.sort_unstable(),
                Self::MarkMoved { .. } => {}
            }
        }
        effects.sort_by_cached_key(|effect| match effect {
            Self::DeadLetter { offset, .. } => (0, *offset, String::new(), String::new(), String::new()),
            Self::Changed { tenant, conversation_id, message_id, .. } => {
                (1, 0, tenant.clone(), conversation_id.clone(), message_id.clone())
            }
            Self::MarkMoved { tenant, conversation_id, mark } => {
                (2, 0, tenant.clone(), conversation_id.clone(), mark.reader_id.clone())
            }
        });
        effects
    }
}

/// The state of one partition, as the contract lets it be asked.
///
/// Implemented by [`crate::Oracle`] here and by an adapter of the fold where that is tested: then text cases, laws and
/// random histories run against either.
pub trait Subject {
    /// Folds one event. The caller gives growing offsets of one partition.
    fn apply(&mut self, at: At, event: &Event<'_>) -> Vec<OracleEffect>;

    /// Folds a record that holds no event: it moves the partition's time and changes nothing else.
    fn pass(&mut self, at: At) -> Vec<OracleEffect>;

    /// The receipt of a message; `not_found` where there is none.
    fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Receipt;

    /// The receipt of the message of that id in whichever conversation.
    fn find(&self, tenant: &str, message_id: &str) -> Receipt;

    /// The whole list, in any order.
    ///
    /// # Errors
    /// The receipt's status where that is not `ok`.
    fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
    ) -> Result<Vec<Member>, Status>;

    /// Up to where a person has read a conversation.
    fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Option<ReadMark>;

    /// Whether a person is on a conversation's roster now, as a member or an observer.
    fn is_member(&self, tenant: &str, conversation_id: &str, user_id: &str) -> bool;
}
