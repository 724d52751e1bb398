//! Answers queries from the partitions that this process owns. Knows no other process.

use crate::partition::{Fold, FoldError};
use crate::partitions::Partitions;
use async_trait::async_trait;
use receipts_cluster::{Owner, answer_found, merge_found};
use receipts_fold::view::{FoundReceipt, MemberFilter, Members, ReadMark, Receipt};
use receipts_query::{Answer, Answers, Conversation, LogTag, Positions, Readiness, Unavailable};
use std::time::Duration;

impl Partitions {
    /// Queries an owned partition. Damage that the query finds is recorded, so that the next start
    /// rebuilds the partition.
    fn ask<T>(
        &self,
        partition: u32,
        ask: impl FnOnce(&Fold) -> Result<T, FoldError>,
    ) -> Result<Answer<T>, Unavailable> {
        // Read before the state: an answer is never staler than it says.
        let stale_s = self.may_be_silent(self.silence(partition)).map_err(|seconds| Unavailable::Stale { seconds })?;
        let answer = self.read(partition, |fold, position| {
            ask(fold).map(|value| Answer { value, positions: Positions::applied(partition, position), stale_s })
        });
        let answer = answer.ok_or(Unavailable::NoOwner { partition })?;
        answer.map_err(|e| {
            tracing::error!(partition, error = %e, "a query failed because the partition's state cannot be read");
            self.damage().record(partition, &e);
            Unavailable::Failed("its store failed; see its log".into())
        })
    }
}

#[async_trait]
impl Answers for Partitions {
    fn partition_count(&self) -> u32 {
        self.count()
    }

    fn positions(&self) -> Positions {
        Partitions::positions(self)
    }

    fn log(&self) -> Option<LogTag> {
        self.log_tag()
    }

    fn ready(&self) -> Readiness {
        self.readiness()
    }

    async fn wait(&self, min: &Positions, timeout: Duration) -> Result<(), Unavailable> {
        if Partitions::wait(self, min, timeout).await { Ok(()) } else { Err(self.why_behind(min)) }
    }

    async fn ends(&self, most: &Positions) -> Result<Positions, Unavailable> {
        self.log_ends(most).await.ok_or(Unavailable::Behind)
    }

    async fn receipts(
        &self,
        conversation: Conversation<'_>,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        let Conversation { partition, tenant, conversation_id } = conversation;
        self.ask(partition, |fold| match sender_id {
            None => fold.receipts(tenant, conversation_id, message_ids),
            Some(sender) => {
                message_ids.iter().map(|id| fold.receipt_sent_by(tenant, conversation_id, sender, id)).collect()
            }
        })
    }

    async fn find(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        let all: Vec<u32> = (0..self.count()).collect();
        let candidates_max = self.candidates_max();
        let found = self.find_in(&all, tenant, sender_id, message_ids, candidates_max)?;
        Ok(answer_found(found, sender_id, candidates_max))
    }

    async fn members(
        &self,
        conversation: Conversation<'_>,
        message_id: &str,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Answer<Members>, Unavailable> {
        self.ask(conversation.partition, |fold| {
            fold.members(conversation.tenant, conversation.conversation_id, message_id, filter, from_slot, limit)
        })
    }

    async fn read_mark(
        &self,
        conversation: Conversation<'_>,
        user_id: &str,
    ) -> Result<Answer<Option<ReadMark>>, Unavailable> {
        self.ask(conversation.partition, |fold| {
            fold.read_mark(conversation.tenant, conversation.conversation_id, user_id)
        })
    }

    async fn read_marks(
        &self,
        conversation: Conversation<'_>,
        user_ids: &[String],
    ) -> Result<Answer<Vec<Option<ReadMark>>>, Unavailable> {
        let Conversation { partition, tenant, conversation_id } = conversation;
        self.ask(partition, |fold| user_ids.iter().map(|id| fold.read_mark(tenant, conversation_id, id)).collect())
    }

    async fn is_member(&self, conversation: Conversation<'_>, user_id: &str) -> Result<Answer<bool>, Unavailable> {
        self.ask(conversation.partition, |fold| {
            fold.is_member(conversation.tenant, conversation.conversation_id, user_id)
        })
    }

    async fn are_erased(
        &self,
        tenant: &str,
        partition: u32,
        user_ids: &[String],
    ) -> Result<Answer<Vec<bool>>, Unavailable> {
        self.ask(partition, |fold| Ok(user_ids.iter().map(|id| fold.is_erased(tenant, id)).collect()))
    }
}

#[async_trait]
impl Owner for Partitions {
    fn owned_partitions(&self) -> Vec<u32> {
        self.answered()
    }

    fn stale_seconds(&self) -> Vec<(u32, u64)> {
        Partitions::stale_seconds(self)
    }

    fn find_in(
        &self,
        partitions: &[u32],
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
        candidates_max: u32,
    ) -> Result<Answer<Vec<FoundReceipt>>, Unavailable> {
        let found = partitions.iter().map(|&partition| {
            self.ask(partition, |fold| fold.find_receipts(tenant, sender_id, message_ids, candidates_max))
        });
        let found: Vec<_> = found.collect::<Result<_, _>>()?;
        merge_found(found).ok_or_else(|| Unavailable::Failed("no partition was named".into()))
    }
}
