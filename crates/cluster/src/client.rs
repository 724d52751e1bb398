//! The client of the projectors: asks them until one answers or the time is over.
//!
//! Keeps no answer. Must not return one that is older than a position that a caller has waited for.

mod exchange;
mod table;

use crate::merge::{answer_found, merge_found};
use crate::protocol::{PeerReply, PeerRequest, Question, decode_reply};
use crate::secret::{Secret, cursor_key_from_text};
use async_trait::async_trait;
use exchange::{NoReply, Shared, keep_polling};
use futures_util::future::join_all;
use receipts_fold::view::{MemberFilter, Members, ReadMark, Receipt};
use receipts_query::{Answer, Answers, Conversation, CursorKey, LogTag, Positions, Readiness, Unavailable};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an edge looks for a projector that answers while partitions move.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an edge lets a projector that is slightly behind catch up before it asks another one.
const CATCH_UP_WAIT: Duration = Duration::from_millis(100);
/// How long one projector is asked to wait for a position before the edge looks at all projectors
/// again.
const WAIT_ROUND: Duration = Duration::from_millis(500);
/// How often a starting edge logs that no projector answers.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The projectors to ask, and the settings of the exchange with them.
#[derive(Clone)]
pub struct PeerSettings {
    /// Each `HOST:PORT`. A name may have many addresses, and is looked up again at every poll.
    pub projectors: Vec<String>,
    /// How often the projectors are asked which partitions they own.
    pub poll_interval: Duration,
    /// The secret that they share with the edges.
    pub secret: Option<Secret>,
    /// The messages of an id that a search in all conversations looks at, per partition.
    pub candidates_max: u32,
}

/// The projectors of a service as one implementation of [`Answers`]. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
    partition_count: u32,
}

impl Peers {
    /// Polls the projectors until one answers. From then on, as long as the runtime runs, a task
    /// polls them for the partitions that they own.
    ///
    /// # Errors
    /// If no HTTP client can be made, or the projectors fold logs of different partition counts.
    pub async fn find(settings: PeerSettings) -> Result<Self, String> {
        let shared = Arc::new(Shared::new(settings)?);
        let mut logged = Instant::now();
        let counts = loop {
            shared.poll().await;
            let counts = shared.table.read().partition_counts();
            if !counts.is_empty() {
                break counts;
            }
            if logged.elapsed() >= LOG_INTERVAL {
                logged = Instant::now();
                tracing::warn!(projectors = ?shared.settings.projectors, "no projector answers yet");
            }
            tokio::time::sleep(shared.settings.poll_interval).await;
        };
        let partition_count = match Vec::from_iter(counts)[..] {
            [count] => count,
            ref counts => {
                return Err(format!("the projectors fold logs of {counts:?} partitions: name those of one log"));
            }
        };
        shared.table.write().set_partition_count(partition_count);
        tokio::spawn(keep_polling(Arc::downgrade(&shared), shared.settings.poll_interval));
        Ok(Self { shared, partition_count })
    }

    /// Returns the cursor key that all edges of this service agree on: derived from the secret or,
    /// without one, the smallest key of any projector.
    pub fn cursor_key(&self) -> Option<CursorKey> {
        match &self.shared.settings.secret {
            Some(secret) => Some(secret.cursor_key()),
            None => self.shared.table.read().cursor_key().as_deref().and_then(cursor_key_from_text),
        }
    }

    /// Returns the positions that an answer about these partitions must cover.
    fn floor(&self, partitions: &[u32]) -> Positions {
        let floor = self.shared.floor.lock();
        partitions.iter().map(|&partition| (partition, floor.next_offset(partition))).collect()
    }

    /// Asks a question about one partition.
    async fn ask<T: DeserializeOwned>(&self, partition: u32, question: Question) -> Result<Answer<T>, Unavailable> {
        let wait_ms = CATCH_UP_WAIT.as_millis() as u64;
        let request = PeerRequest { min: self.floor(&[partition]), wait_ms, question };
        let deadline = Instant::now() + SEARCH_TIMEOUT;
        loop {
            match self.ask_each(partition, &request).await {
                Ok(reply) => return decode_reply(Ok(reply)),
                Err(why) if Instant::now() >= deadline => return Err(why),
                Err(_) => self.shared.pause().await,
            }
        }
    }

    /// Asks all holders of a partition, one after the other, until one answers.
    async fn ask_each(&self, partition: u32, request: &PeerRequest) -> PeerReply {
        let candidates = self.shared.table.read().candidates(partition);
        let mut why = self.no_owner(partition);
        for url in candidates {
            match self.shared.send(&url, request).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(other)) => why = other,
                Err(NoReply(cause)) => why = Unavailable::Failed(cause),
            }
        }
        Err(why)
    }

    /// Returns why a partition without a holder has none.
    fn no_owner(&self, partition: u32) -> Unavailable {
        match self.shared.table.read().too_stale(partition) {
            Some(seconds) => Unavailable::Stale { seconds },
            None => Unavailable::NoOwner { partition },
        }
    }

    /// Returns once any projector has folded a partition up to `next_offset`.
    async fn wait_for(&self, partition: u32, next_offset: u64, deadline: Instant) -> Result<(), Unavailable> {
        let min = Positions::applied(partition, next_offset);
        loop {
            if self.shared.table.read().positions().covers(&min) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let wait_ms = left.min(WAIT_ROUND).as_millis() as u64;
            let request = PeerRequest { min: min.clone(), wait_ms, question: Question::Position };
            let asked = Instant::now();
            match self.ask_each(partition, &request).await {
                Ok(_) => return Ok(()),
                // Sooner than it had to: the log ends before the position.
                Err(Unavailable::Behind) if asked.elapsed() < Duration::from_millis(wait_ms) => {
                    return Err(Unavailable::Behind);
                }
                Err(_) if Instant::now() >= deadline => return Err(Unavailable::Behind),
                Err(_) => self.shared.pause().await,
            }
        }
    }
}

#[async_trait]
impl Answers for Peers {
    fn partition_count(&self) -> u32 {
        self.partition_count
    }

    fn positions(&self) -> Positions {
        self.shared.table.read().positions()
    }

    fn log(&self) -> Option<LogTag> {
        self.shared.table.read().log()
    }

    fn ready(&self) -> Readiness {
        let answered = self.shared.table.read().answered();
        let missing: Vec<u32> = (0..self.partition_count).filter(|number| !answered.contains_key(number)).collect();
        let stale = answered.values().flatten();
        Readiness {
            caught_up: missing.is_empty(),
            partitions: self.partition_count,
            partitions_caught_up: self.partition_count - missing.len() as u32,
            partitions_missing: missing.len() as u32,
            partitions_stale: stale.clone().count() as u32,
            stale_seconds: stale.max().copied(),
            reason: (!missing.is_empty()).then(|| format!("no projector answers for the partitions {missing:?}")),
            ..Readiness::default()
        }
    }

    async fn wait(&self, min: &Positions, timeout: Duration) -> Result<(), Unavailable> {
        let deadline = Instant::now() + timeout;
        let waits = min.iter().map(|(partition, next_offset)| self.wait_for(partition, next_offset, deadline));
        join_all(waits).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        self.shared.floor.lock().merge(min);
        Ok(())
    }

    async fn receipts(
        &self,
        conversation: Conversation<'_>,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        let question = Question::Receipts {
            tenant: conversation.tenant.to_owned(),
            conversation_id: conversation.conversation_id.to_owned(),
            message_ids: message_ids.to_vec(),
            sender_id: sender_id.map(str::to_owned),
        };
        self.ask(conversation.partition, question).await
    }

    /// Sends one question to each projector, however many ids and partitions it is about: each
    /// projector searches its own indexes, which are by the hash of the id.
    async fn find(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        let candidates_max = self.shared.settings.candidates_max;
        let deadline = Instant::now() + SEARCH_TIMEOUT;
        // By partition: how many of its holders have been asked in vain in this round.
        let mut open: Vec<(u32, usize)> = (0..self.partition_count).map(|partition| (partition, 0)).collect();
        let mut found = Vec::new();
        loop {
            let mut by_peer: BTreeMap<String, Vec<(u32, usize)>> = BTreeMap::new();
            let mut why = None;
            let mut is_round_over = true;
            for (partition, tried) in std::mem::take(&mut open) {
                match self.shared.table.read().candidates(partition).into_iter().nth(tried) {
                    Some(url) => by_peer.entry(url).or_default().push((partition, tried)),
                    None => {
                        why = Some(self.no_owner(partition));
                        open.push((partition, 0));
                    }
                }
            }
            let replies = join_all(by_peer.into_iter().map(async |(url, asked)| {
                let partitions: Vec<u32> = asked.iter().map(|(partition, _)| *partition).collect();
                let (tenant, sender_id) = (tenant.to_owned(), sender_id.map(str::to_owned));
                let message_ids = message_ids.to_vec();
                let min = self.floor(&partitions);
                let question = Question::Find { partitions, tenant, message_ids, sender_id, candidates_max };
                let wait_ms = CATCH_UP_WAIT.as_millis() as u64;
                let request = PeerRequest { min, wait_ms, question };
                (self.shared.send(&url, &request).await, asked)
            }));
            for (reply, asked) in replies.await {
                let missing = match reply {
                    Ok(Ok(answer)) => {
                        found.push(decode_reply(Ok(answer))?);
                        continue;
                    }
                    Ok(Err(why)) => why,
                    Err(NoReply(cause)) => Unavailable::Failed(cause),
                };
                why = Some(missing);
                // The next round begins with the best holder again.
                open.extend(asked.into_iter().map(|(partition, tried)| {
                    let is_last = self.shared.table.read().candidates(partition).len() <= tried + 1;
                    is_round_over &= is_last;
                    (partition, if is_last { 0 } else { tried + 1 })
                }));
            }
            match why {
                None => break,
                Some(why) if Instant::now() >= deadline => return Err(why),
                Some(_) if !is_round_over => {}
                Some(_) => self.shared.pause().await,
            }
        }
        let found = merge_found(found).ok_or_else(|| Unavailable::Failed("the log has no partition".into()))?;
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
        let question = Question::Members {
            tenant: conversation.tenant.to_owned(),
            conversation_id: conversation.conversation_id.to_owned(),
            message_id: message_id.to_owned(),
            filter,
            from_slot,
            limit,
        };
        self.ask(conversation.partition, question).await
    }

    async fn read_mark(
        &self,
        conversation: Conversation<'_>,
        user_id: &str,
    ) -> Result<Answer<Option<ReadMark>>, Unavailable> {
        let question = Question::ReadMark {
            tenant: conversation.tenant.to_owned(),
            conversation_id: conversation.conversation_id.to_owned(),
            user_id: user_id.to_owned(),
        };
        self.ask(conversation.partition, question).await
    }

    async fn is_member(&self, conversation: Conversation<'_>, user_id: &str) -> Result<Answer<bool>, Unavailable> {
        let question = Question::IsMember {
            tenant: conversation.tenant.to_owned(),
            conversation_id: conversation.conversation_id.to_owned(),
            user_id: user_id.to_owned(),
        };
        self.ask(conversation.partition, question).await
    }

    async fn are_erased(
        &self,
        tenant: &str,
        partition: u32,
        user_ids: &[String],
    ) -> Result<Answer<Vec<bool>>, Unavailable> {
        let (tenant, user_ids) = (tenant.to_owned(), user_ids.to_vec());
        self.ask(partition, Question::AreErased { partition, tenant, user_ids }).await
    }
}
