//! The interface that the oracle and the fold share in tests. Has no behaviour of its own.

use receipts_event::Event;
use receipts_fold::view::{Member, MemberFilter, ReadMark, Receipt, Status};

/// The position and the time of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The partition.
    pub partition: u32,
    /// The record's offset. Offsets grow, with gaps.
    pub offset: u64,
    /// The record's Kafka timestamp, Unix milliseconds. It need not grow.
    pub timestamp_ms: u64,
}

/// The reasons for dead letters of the fold: the stable codes of `dead-letter-reason`.
pub mod reason {
    /// A send in a conversation that never had a roster, without recipients (rule 8).
    pub const NO_ROSTER: &str = "no-roster";
    /// Parked for longer than the limit (rule 5).
    pub const PARKED_EXPIRED: &str = "parked-expired";
    /// Parked, and dropped for newer records (rule 5).
    pub const PARKED_OVERFLOW: &str = "parked-overflow";
    /// An erasure or a policy beyond its budget (ADR 0036).
    pub const OVER_BUDGET: &str = "over-budget";
}

/// An effect of one record beside the new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OracleEffect {
    /// This record, or a parked earlier one, is a dead letter.
    DeadLetter {
        /// The offset of the dead record.
        offset: u64,
        /// One of [`reason`].
        reason: &'static str,
        /// The message ids in its detail, in the record's order, each once.
        ids: Vec<String>,
    },
    /// An event changed the message itself (send, counted read, recall), so an update is due.
    Changed {
        /// The tenant.
        tenant: String,
        /// The conversation.
        conversation_id: String,
        /// The message, once per record.
        message_id: String,
        /// The new readers with read times in Unix milliseconds; neither hidden nor erased ones.
        newly_read: Vec<(String, u64)>,
    },
    /// A read mark of a direct conversation moved, so an update is due.
    MarkMoved {
        /// The tenant.
        tenant: String,
        /// The conversation.
        conversation_id: String,
        /// The moved mark.
        mark: ReadMark,
    },
}

impl OracleEffect {
    /// Sorts effects and their lists, so that two implementations can be compared. The contract
    /// gives the effects of one record no order.
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

/// The state of one partition, with the questions of the contract.
///
/// [`crate::Oracle`] implements it, and so does an adapter of the fold in its tests. Text cases,
/// laws and random histories run against both.
pub trait Subject {
    /// Folds one event. Offsets must grow.
    fn apply(&mut self, at: At, event: &Event<'_>) -> Vec<OracleEffect>;

    /// Folds a record without an event. It moves the partition's time and changes nothing else.
    fn pass(&mut self, at: At) -> Vec<OracleEffect>;

    /// Returns the receipt of a message; `not_found` if there is none.
    fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Receipt;

    /// Returns the receipt of a message by its id in any conversation.
    fn find(&self, tenant: &str, message_id: &str) -> Receipt;

    /// Returns a whole member list, in any order.
    ///
    /// # Errors
    /// The receipt's status if that is not `ok`.
    fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
    ) -> Result<Vec<Member>, Status>;

    /// Returns the read mark of a person in a conversation.
    fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Option<ReadMark>;

    /// Tells whether a person is on a conversation's roster now, as a member or an observer.
    fn is_member(&self, tenant: &str, conversation_id: &str, user_id: &str) -> bool;
}
