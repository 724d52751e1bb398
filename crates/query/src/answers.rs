//! The port between an edge and whoever keeps the state: in the same process, or a projector elsewhere.
//!
//! Must not decide who may ask: an edge does, before it shows an answer.

use crate::Positions;
use async_trait::async_trait;
use receipts_fold::view::{MemberFilter, Members, ReadMark, Receipt};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One conversation and the partition that its events stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation<'a> {
    /// By the key of its events.
    pub partition: u32,
    /// Whose.
    pub tenant: &'a str,
    /// Which.
    pub conversation_id: &'a str,
}

impl<'a> Conversation<'a> {
    /// Finds the partition of a conversation as every producer does. `partition_count` is at least 1.
    pub fn locate(tenant: &'a str, conversation_id: &'a str, partition_count: u32) -> Self {
        let key = receipts_event::key(tenant, conversation_id);
        Self { partition: receipts_event::partition_of(&key, partition_count), tenant, conversation_id }
    }
}

/// What was answered, and up to where the log was folded when it was: everything before `positions` is in `value`, of
/// the partitions that had a say in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// Where it stands.
    pub positions: Positions,
}

/// Why there is no answer just now. All of these pass: the caller asks again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// The position that was waited for is not folded yet.
    #[error("not folded that far yet")]
    Behind,
    /// Nobody owns the partition just now; it is moving, or being restored.
    #[error("partition {partition} has no owner just now")]
    NoOwner {
        /// Which.
        partition: u32,
    },
    /// The owner could not answer; the text is for the log, never for the caller.
    #[error("the owner could not answer: {0}")]
    Failed(String),
}

/// How far behind the log the state is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether every partition is folded up to within the configured lag.
    pub caught_up: bool,
    /// Partitions that are to be answered for.
    pub partitions: u32,
    /// Those of them that are caught up.
    pub partitions_caught_up: u32,
    /// Records written and not yet folded, over all partitions, by offsets (which may have gaps); `None` while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
}

/// Answers for the partitions of one log. Implementations answer in microseconds where the state is in the process, and
/// never block on a checkpoint; whoever asks across a network sets a deadline of his own.
///
/// Every answer comes from one state of each partition it involves. An answer without a position that was waited for is
/// never given: [`wait`](Self::wait) first, then ask; state never moves back between the two.
#[async_trait]
pub trait Answers: Send + Sync + 'static {
    /// Partitions of the event topic, at least 1; never changes.
    fn partition_count(&self) -> u32;

    /// Up to where every partition is folded just now.
    fn positions(&self) -> Positions;

    /// How far behind the log the state is.
    fn ready(&self) -> Readiness;

    /// Returns once everything before `min` is folded; at once where it is, with a `timeout` of zero too.
    ///
    /// # Errors
    /// [`Unavailable::Behind`] once `timeout` is over.
    async fn wait(&self, min: &Positions, timeout: Duration) -> Result<(), Unavailable>;

    /// Returns the receipts of messages of one conversation: one each, in the order of `message_ids`, repetitions included.
    ///
    /// With a `sender_id`, only messages that this person sent are answered; all others are `not_found`. If the conversation
    /// has never had that person, the work is the same for every message id, whether the message exists or not.
    ///
    /// # Errors
    /// When the partition cannot be asked.
    async fn receipts(
        &self,
        conversation: Conversation<'_>,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable>;

    /// Returns the receipts of messages of any conversation of a tenant: one each, in the order of `message_ids`. With a
    /// `sender_id`, only messages that this person sent are searched.
    ///
    /// When an id exists in several conversations, the message with the greatest `sent_at_ms` is answered. If two in one
    /// partition are equal, the one sent later in the log is. If two partitions are equal, the conversation id that sorts last
    /// by bytes is. When there is none, the receipt is `not_found` without a conversation id.
    ///
    /// # Errors
    /// When any partition cannot be asked, because it might hold an id.
    async fn find(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable>;

    /// A stretch of a member list in slot order: at most `limit` members (at least 1) from `from_slot` on, and the
    /// receipt in the same state. A message that is not `ok` has no members and no next slot. A slot beyond the last
    /// is the end of the list.
    ///
    /// # Errors
    /// Where the partition cannot be asked.
    async fn members(
        &self,
        conversation: Conversation<'_>,
        message_id: &str,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Answer<Members>, Unavailable>;

    /// Up to where a reader has read; `None` where there is no mark, or the reader is erased.
    ///
    /// # Errors
    /// Where the partition cannot be asked.
    async fn read_mark(
        &self,
        conversation: Conversation<'_>,
        user_id: &str,
    ) -> Result<Answer<Option<ReadMark>>, Unavailable>;

    /// Whether a user is on the roster now, as a member or an observer.
    ///
    /// # Errors
    /// Where the partition cannot be asked.
    async fn is_member(&self, conversation: Conversation<'_>, user_id: &str) -> Result<Answer<bool>, Unavailable>;

    /// Which people of a tenant were erased, as this partition has heard: one each, in the order asked for. Nobody at all is
    /// a question too: then only the position is wanted.
    ///
    /// # Errors
    /// Where the partition cannot be asked.
    async fn are_erased(
        &self,
        tenant: &str,
        partition: u32,
        user_ids: &[String],
    ) -> Result<Answer<Vec<bool>>, Unavailable>;
}
