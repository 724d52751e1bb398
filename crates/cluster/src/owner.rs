//! The owner's side of the protocol: answers an edge's question from the partitions of this
//! process.
//!
//! Knows no transport. Must not answer from a state older than the position that the edge names.

use crate::protocol::{PeerReply, PeerRequest, Question};
use receipts_fold::view::FoundReceipt;
use receipts_query::{Answer, Answers, Conversation, Unavailable};
use serde::Serialize;
use std::time::Duration;

/// A process that owns partitions and answers for them.
pub trait Owner: Answers {
    /// Returns the partitions that this process answers for.
    fn owned_partitions(&self) -> Vec<u32>;

    /// Returns the owned partitions for which the log has been silent for a while, and for how many
    /// whole seconds.
    fn stale_seconds(&self) -> Vec<(u32, u64)>;

    /// As [`Answers::find`], within some partitions, each of which looks at no more than
    /// `candidates_max` messages of an id. [`answer_found`](crate::answer_found) makes the answer
    /// of it.
    ///
    /// # Errors
    /// If any of the partitions cannot be asked.
    fn find_in(
        &self,
        partitions: &[u32],
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
        candidates_max: u32,
    ) -> Result<Answer<Vec<FoundReceipt>>, Unavailable>;
}

/// Answers an edge's question.
///
/// # Errors
/// If this process does not own a partition of `request.min`, or no answer is fresh enough in
/// time.
pub async fn answer_request(owner: &dyn Owner, request: &PeerRequest) -> PeerReply {
    let count = owner.partition_count();
    let owned = owner.owned_partitions();
    if let Some((partition, _)) = request.min.iter().find(|(partition, _)| !owned.contains(partition)) {
        let stale = owner.stale_seconds().into_iter().find(|(stale, _)| *stale == partition);
        return Err(match stale {
            Some((_, seconds)) => Unavailable::Stale { seconds },
            None => Unavailable::NoOwner { partition },
        });
    }
    owner.wait(&request.min, Duration::from_millis(request.wait_ms)).await?;
    let answer = match &request.question {
        Question::Position => to_json(Answer::fresh((), owner.positions())),
        Question::Receipts { tenant, conversation_id, message_ids, sender_id } => {
            let conversation = Conversation::locate(tenant, conversation_id, count);
            to_json(owner.receipts(conversation, sender_id.as_deref(), message_ids).await?)
        }
        Question::Find { partitions, tenant, message_ids, sender_id, candidates_max } => {
            to_json(owner.find_in(partitions, tenant, sender_id.as_deref(), message_ids, *candidates_max)?)
        }
        Question::Members { tenant, conversation_id, message_id, filter, from_slot, limit } => {
            let conversation = Conversation::locate(tenant, conversation_id, count);
            to_json(owner.members(conversation, message_id, *filter, *from_slot, *limit).await?)
        }
        Question::ReadMark { tenant, conversation_id, user_id } => {
            to_json(owner.read_mark(Conversation::locate(tenant, conversation_id, count), user_id).await?)
        }
        Question::AreErased { partition, tenant, user_ids } => {
            to_json(owner.are_erased(tenant, *partition, user_ids).await?)
        }
        Question::IsMember { tenant, conversation_id, user_id } => {
            to_json(owner.is_member(Conversation::locate(tenant, conversation_id, count), user_id).await?)
        }
    };
    // Since the wait, a partition may have been lost and assigned again, and restarted from an
    // earlier checkpoint.
    let answer = answer?;
    let behind = answer.positions.iter().any(|(partition, next)| next < request.min.next_offset(partition));
    if behind { Err(Unavailable::Behind) } else { Ok(answer) }
}

fn to_json<T: Serialize>(answer: Answer<T>) -> PeerReply {
    let Answer { value, positions, stale_s } = answer;
    let value = serde_json::to_value(value).map_err(|error| Unavailable::Failed(error.to_string()))?;
    Ok(Answer { value, positions, stale_s })
}
