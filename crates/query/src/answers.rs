//! The port between an edge and the owner of the state, in the same process or in a projector
//! elsewhere.
//!
//! It must not decide which callers may ask; the edge does.

use crate::{LogTag, Positions};
use async_trait::async_trait;
use receipts_fold::view::{MemberFilter, Members, ReadMark, Receipt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A conversation and the partition that holds its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation<'a> {
    /// The partition of the key of its events.
    pub partition: u32,
    /// The tenant.
    pub tenant: &'a str,
    /// The conversation.
    pub conversation_id: &'a str,
}

impl<'a> Conversation<'a> {
    /// Finds the partition of a conversation by the rule of all producers. `partition_count` must
    /// be at least 1.
    pub fn locate(tenant: &'a str, conversation_id: &'a str, partition_count: u32) -> Self {
        let key = receipts_event::key(tenant, conversation_id);
        Self { partition: receipts_event::partition_of(&key, partition_count), tenant, conversation_id }
    }
}

/// An answer, and how far the log was folded for it. `value` includes every event before
/// `positions`, of the partitions that were asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// How far each asked partition was folded.
    pub positions: Positions,
    /// If the owner has not heard from the log for a while: for how long, whole seconds. The log
    /// may hold newer events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<u64>,
}

impl<T> Answer<T> {
    /// Creates an answer from a state that follows the log.
    pub const fn fresh(value: T, positions: Positions) -> Self {
        Self { value, positions, stale_s: None }
    }
}

/// Why there is no answer at the moment. All of these are transient: the caller asks again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// The requested position is not folded yet.
    #[error("the position is not folded yet")]
    Behind,
    /// The requested position waits for a transaction that some producer has open.
    #[error(
        "the position waits for a producer's transaction, which is open: in partition {partition} the records from \
         offset {offset} on wait, for {seconds} s"
    )]
    Held {
        /// The partition.
        partition: u32,
        /// The first offset that waits.
        offset: u64,
        /// The whole seconds since then.
        seconds: u64,
    },
    /// No process owns the partition at the moment, because it moves or is being restored.
    #[error("partition {partition} has no owner at the moment")]
    NoOwner {
        /// The partition.
        partition: u32,
    },
    /// The owner has not heard from the log for longer than it may answer without it.
    #[error("the log has not been heard from for {seconds} s, longer than projector.stale_ms_max allows")]
    Stale {
        /// The whole seconds since then.
        seconds: u64,
    },
    /// The owner could not answer. The text is for the log, never for the caller.
    #[error("the owner could not answer: {0}")]
    Failed(String),
}

/// How far the state is behind the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether every partition is folded to within the configured lag, as far as the log was heard
    /// from.
    pub caught_up: bool,
    /// Partitions that the service answers for.
    pub partitions: u32,
    /// Partitions within the lag.
    pub partitions_caught_up: u32,
    /// Records that are written and not yet folded, of all partitions, counted by offsets (which
    /// may have gaps). `None` while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// Partitions that nobody answers for.
    #[serde(skip_serializing_if = "is_zero")]
    pub partitions_missing: u32,
    /// Partitions that are answered without hearing from the log.
    #[serde(skip_serializing_if = "is_zero")]
    pub partitions_stale: u32,
    /// The longest silence of the log, whole seconds, while it is not heard from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<u64>,
    /// True for a projector that the group gave no partition: it is ready to get one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
    /// Why the process is not ready, for an operator.
    #[serde(skip)]
    pub reason: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Answers questions about the partitions of one log.
///
/// An implementation in the process of the state answers in microseconds and never blocks on a
/// checkpoint. A caller across a network sets its own deadline.
///
/// Each answer comes from a single state of each partition that it involves. An answer after
/// [`wait`](Self::wait) includes the awaited position, because state never moves back between the
/// two.
#[async_trait]
pub trait Answers: Send + Sync + 'static {
    /// Returns the number of partitions of the event topic, at least 1. It never changes.
    fn partition_count(&self) -> u32;

    /// Returns how far every partition is folded now.
    fn positions(&self) -> Positions;

    /// Returns the log of the positions, if it is known.
    fn log(&self) -> Option<LogTag> {
        None
    }

    /// Returns how far the state is behind the log.
    fn ready(&self) -> Readiness;

    /// Returns after every event before `min` is folded: at once if it already is, even with a
    /// `timeout` of zero.
    ///
    /// # Errors
    /// [`Unavailable::Behind`] or [`Unavailable::Held`] after `timeout`.
    async fn wait(&self, min: &Positions, timeout: Duration) -> Result<(), Unavailable>;

    /// Returns positions that cover every record which the log holds below `most` when this is
    /// called, and that are not beyond the log's end: for a caller that knows a position only
    /// roughly.
    ///
    /// # Errors
    /// If the log does not say where it ends.
    async fn ends(&self, most: &Positions) -> Result<Positions, Unavailable>;

    /// Returns answers whose questions wait by themselves: each covers `min`, or fails as
    /// [`wait`](Self::wait) does once `timeout` has passed since this call.
    ///
    /// `None`, the default, where a wait costs no exchange with another process: the caller waits
    /// first, and then asks.
    fn after(&self, min: &Positions, timeout: Duration) -> Option<Arc<dyn Answers>> {
        _ = (min, timeout);
        None
    }

    /// Returns the receipts of messages of one conversation: one each, in the order of
    /// `message_ids`, repetitions included.
    ///
    /// With a `sender_id`, only messages that this person sent are answered; all others are
    /// `not_found`. If the conversation has never had that person, the work is the same for every
    /// message id, whether the message exists or not.
    ///
    /// # Errors
    /// If the partition cannot be asked.
    async fn receipts(
        &self,
        conversation: Conversation<'_>,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable>;

    /// Returns the receipts of messages of any conversation of a tenant: one each, in the order of
    /// `message_ids`. With a `sender_id`, only messages that this person sent are searched.
    ///
    /// When an id exists in several conversations, a live message is answered before a recalled
    /// one, and then the message with the greatest `sent_at_ms`. When it exists in more messages
    /// than a search looks at, the status is `ambiguous`; with a `sender_id`, only where that
    /// person sent one of them. If two in one partition are equal, the one sent later in the log
    /// is. If two partitions are equal, the conversation id that sorts last by bytes is. When there
    /// is none, the receipt is `not_found` without a conversation id.
    ///
    /// # Errors
    /// If any partition cannot be asked, because it might hold an id.
    async fn find(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable>;

    /// Returns a page of a member list in slot order: at most `limit` members (at least 1) from
    /// `from_slot` on, and the receipt of the same state. A message that is not `ok` has no members
    /// and no next slot. A slot beyond the last is the end of the list.
    ///
    /// # Errors
    /// If the partition cannot be asked.
    async fn members(
        &self,
        conversation: Conversation<'_>,
        message_id: &str,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Answer<Members>, Unavailable>;

    /// Returns the read mark of a reader. `None` if there is no mark, or the reader is erased.
    ///
    /// # Errors
    /// If the partition cannot be asked.
    async fn read_mark(
        &self,
        conversation: Conversation<'_>,
        user_id: &str,
    ) -> Result<Answer<Option<ReadMark>>, Unavailable>;

    /// Returns the read marks of readers of one conversation: one each, in the order of `user_ids`,
    /// repetitions included.
    ///
    /// # Errors
    /// If the partition cannot be asked.
    async fn read_marks(
        &self,
        conversation: Conversation<'_>,
        user_ids: &[String],
    ) -> Result<Answer<Vec<Option<ReadMark>>>, Unavailable>;

    /// Returns whether a user is on the roster now, as a member or an observer.
    ///
    /// # Errors
    /// If the partition cannot be asked.
    async fn is_member(&self, conversation: Conversation<'_>, user_id: &str) -> Result<Answer<bool>, Unavailable>;

    /// Returns whether each person of a tenant was erased, as far as this partition is folded, in
    /// the order of `user_ids`. With no ids, only the position of the answer is of use.
    ///
    /// # Errors
    /// If the partition cannot be asked.
    async fn are_erased(
        &self,
        tenant: &str,
        partition: u32,
        user_ids: &[String],
    ) -> Result<Answer<Vec<bool>>, Unavailable>;
}
