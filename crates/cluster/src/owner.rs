//! The owner's side of the protocol: answers an edge's question from the partitions of this
//! process.
//!
//! Knows no transport. Must not answer from a state older than the position that the edge names.

use crate::protocol::{PeerReply, PeerRequest, Question};
use receipts_fold::view::FoundReceipt;
use receipts_query::{Answer, Answers, Conversation, Positions, Unavailable};
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

/// Returns once this process has folded every partition of `request.min` that far.
///
/// # Errors
/// If this process does not own one of them, or has not folded that far in time.
pub async fn catch_up(owner: &dyn Owner, request: &PeerRequest) -> Result<(), Unavailable> {
    let owned = owner.owned_partitions();
    if let Some((partition, _)) = request.min.iter().find(|(partition, _)| !owned.contains(partition)) {
        let stale = owner.stale_seconds().into_iter().find(|(stale, _)| *stale == partition);
        return Err(match stale {
            Some((_, seconds)) => Unavailable::Stale { seconds },
            None => Unavailable::NoOwner { partition },
        });
    }
    owner.wait(&request.min, Duration::from_millis(request.wait_ms)).await
}

/// Answers an edge's question after [`catch_up`].
///
/// # Errors
/// If this process does not own an asked partition, or has lost one since.
pub async fn answer_request(owner: &dyn Owner, request: &PeerRequest) -> PeerReply {
    let count = owner.partition_count();
    let answer = match &request.question {
        Question::Position => to_json(Answer::fresh((), owner.positions())),
        Question::Ends { most } => to_json(Answer::fresh(owner.ends(most).await?, Positions::new())),
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
        Question::ReadMarks { tenant, conversation_id, user_ids } => {
            to_json(owner.read_marks(Conversation::locate(tenant, conversation_id, count), user_ids).await?)
        }
        Question::AreErased { partition, tenant, user_ids } => {
            to_json(owner.are_erased(tenant, *partition, user_ids).await?)
        }
        Question::IsMember { tenant, conversation_id, user_id } => {
            to_json(owner.is_member(Conversation::locate(tenant, conversation_id, count), user_id).await?)
        }
    };
    // Since the wait, a partition may have been lost and assigned again, and restarted from an
    // earlier checkpoint. That is no `Behind`, which an edge may take for the end of the log.
    let answer = answer?;
    let lost = answer.positions.iter().find(|(partition, next)| *next < request.min.next_offset(*partition));
    match lost {
        Some((partition, _)) => Err(Unavailable::NoOwner { partition }),
        None => Ok(answer),
    }
}

fn to_json<T: Serialize>(answer: Answer<T>) -> PeerReply {
    let Answer { value, positions, stale_s } = answer;
    let value = serde_json::to_value(value).map_err(|error| Unavailable::Failed(error.to_string()))?;
    Ok(Answer { value, positions, stale_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use receipts_fold::view::{MemberFilter, Members, ReadMark, Receipt};
    use receipts_query::Readiness;

    /// Has folded one partition up to 9 when a wait ends, and to 5 when it is asked.
    struct Moved;

    #[async_trait]
    impl Owner for Moved {
        fn owned_partitions(&self) -> Vec<u32> {
            vec![0]
        }

        fn stale_seconds(&self) -> Vec<(u32, u64)> {
            Vec::new()
        }

        fn find_in(
            &self,
            _: &[u32],
            _: &str,
            _: Option<&str>,
            _: &[String],
            _: u32,
        ) -> Result<Answer<Vec<FoundReceipt>>, Unavailable> {
            Ok(Answer::fresh(Vec::new(), Positions::applied(0, 5)))
        }
    }

    #[async_trait]
    impl Answers for Moved {
        fn partition_count(&self) -> u32 {
            1
        }

        fn positions(&self) -> Positions {
            Positions::applied(0, 5)
        }

        fn ready(&self) -> Readiness {
            Readiness::default()
        }

        async fn wait(&self, min: &Positions, _: Duration) -> Result<(), Unavailable> {
            if Positions::applied(0, 9).covers(min) { Ok(()) } else { Err(Unavailable::Behind) }
        }

        async fn ends(&self, most: &Positions) -> Result<Positions, Unavailable> {
            Ok(most.clone())
        }

        async fn receipts(
            &self,
            _: Conversation<'_>,
            _: Option<&str>,
            _: &[String],
        ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
            Ok(Answer::fresh(Vec::new(), self.positions()))
        }

        async fn find(&self, _: &str, _: Option<&str>, _: &[String]) -> Result<Answer<Vec<Receipt>>, Unavailable> {
            Ok(Answer::fresh(Vec::new(), self.positions()))
        }

        async fn members(
            &self,
            _: Conversation<'_>,
            _: &str,
            _: MemberFilter,
            _: u32,
            _: usize,
        ) -> Result<Answer<Members>, Unavailable> {
            Err(Unavailable::Behind)
        }

        async fn read_mark(&self, _: Conversation<'_>, _: &str) -> Result<Answer<Option<ReadMark>>, Unavailable> {
            Ok(Answer::fresh(None, self.positions()))
        }

        async fn read_marks(
            &self,
            _: Conversation<'_>,
            _: &[String],
        ) -> Result<Answer<Vec<Option<ReadMark>>>, Unavailable> {
            Ok(Answer::fresh(Vec::new(), self.positions()))
        }

        async fn is_member(&self, _: Conversation<'_>, _: &str) -> Result<Answer<bool>, Unavailable> {
            Ok(Answer::fresh(true, self.positions()))
        }

        async fn are_erased(&self, _: &str, _: u32, ids: &[String]) -> Result<Answer<Vec<bool>>, Unavailable> {
            Ok(Answer::fresh(vec![false; ids.len()], self.positions()))
        }
    }

    /// INV-POSITION
    #[tokio::test]
    async fn answer_of_a_restarted_state_is_refused() {
        let question = Question::IsMember { tenant: "t".into(), conversation_id: "g".into(), user_id: "u".into() };
        let request = |partition, next_offset| PeerRequest {
            min: Positions::applied(partition, next_offset),
            wait_ms: 0,
            question: question.clone(),
        };
        assert_eq!(catch_up(&Moved, &request(0, 9)).await, Ok(()));
        let refused = answer_request(&Moved, &request(0, 9)).await;
        assert_eq!(refused, Err(Unavailable::NoOwner { partition: 0 }), "an edge asks again");
        assert_eq!(answer_request(&Moved, &request(0, 5)).await.expect("an answer").positions, Moved.positions());
        assert_eq!(catch_up(&Moved, &request(0, 10)).await, Err(Unavailable::Behind));
        assert_eq!(catch_up(&Moved, &request(1, 1)).await, Err(Unavailable::NoOwner { partition: 1 }));
    }
}
