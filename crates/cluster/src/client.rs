//! The client of the projectors: asks them until one answers or the time is over.
//!
//! Keeps no answer. Must not return one that is older than a position that a caller has waited for.

mod exchange;
mod table;

use crate::merge::{answer_found, merge_found};
use crate::protocol::{PeerRequest, Question, decode_reply};
use crate::secret::{Secret, cursor_key_from_text};
use async_trait::async_trait;
use exchange::{NoReply, Shared, keep_polling};
use futures_util::future::{join_all, try_join};
use receipts_fold::view::{MemberFilter, Members, ReadMark, Receipt};
use receipts_metrics::catalogue;
use receipts_query::{Answer, Answers, Conversation, CursorKey, LogTag, Positions, Readiness, Unavailable};
use serde::de::DeserializeOwned;
use serde_json::Value;
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
    awaited: Awaited,
}

/// The positions that one caller waits for, by its questions themselves. Nothing is awaited for a
/// caller that names none.
#[derive(Clone)]
struct Awaited {
    /// Every answer covers them.
    min: Positions,
    /// Those of them that no projector was known to have folded when the wait began.
    unfolded: Positions,
    deadline: Instant,
}

/// A partition that no projector has answered for yet in this call.
#[derive(Clone, Copy)]
struct Open {
    partition: u32,
    /// How many of its holders have been asked in vain in this round.
    tried: usize,
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
        catalogue::LOG_PARTITIONS.get().set(f64::from(partition_count));
        shared.table.write().set_partition_count(partition_count);
        tokio::spawn(keep_polling(Arc::downgrade(&shared), shared.settings.poll_interval));
        let awaited = Awaited { min: Positions::new(), unfolded: Positions::new(), deadline: Instant::now() };
        Ok(Self { shared, partition_count, awaited })
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
    fn floor(&self, partitions: &[u32], awaited: &Awaited) -> Positions {
        let floor = self.shared.floor.lock();
        let least = |partition| floor.next_offset(partition).max(awaited.min.next_offset(partition));
        partitions.iter().map(|&partition| (partition, least(partition))).collect()
    }

    /// Begins a wait for positions.
    fn awaited(&self, min: &Positions, timeout: Duration) -> Awaited {
        let deadline = Instant::now() + timeout;
        let mut folded = self.shared.table.read().positions();
        folded.merge(&self.shared.floor.lock());
        let unfolded = min.iter().filter(|(partition, next_offset)| *next_offset > folded.next_offset(*partition));
        Awaited { min: min.clone(), unfolded: unfolded.collect(), deadline }
    }

    /// Asks a question about one partition. Meanwhile waits for the other partitions that are
    /// awaited.
    async fn ask<T: DeserializeOwned>(&self, partition: u32, question: Question) -> Result<Answer<T>, Unavailable> {
        let partitions = [partition];
        let asking = self.gather(&partitions, &self.awaited, |_| question.clone());
        let waiting = self.wait_for(&self.awaited, |other| other != partition);
        let (answers, ()) = try_join(asking, waiting).await?;
        self.shared.floor.lock().merge(&self.awaited.min);
        let answer = answers.into_iter().next();
        decode_reply(answer.ok_or_else(|| Unavailable::Failed("no partition was asked".into())))
    }

    /// Returns once the awaited partitions that `is_meant` accepts are folded, each by any
    /// projector.
    async fn wait_for(&self, awaited: &Awaited, is_meant: impl Fn(u32) -> bool + Sync) -> Result<(), Unavailable> {
        let unfolded = awaited.unfolded.iter().map(|(partition, _)| partition).filter(|number| is_meant(*number));
        self.gather(&Vec::from_iter(unfolded), awaited, |_| Question::Position).await?;
        Ok(())
    }

    /// Asks the holders of partitions until each partition is answered for, with one request per
    /// projector at a time. `question` makes the question about the partitions of one request.
    ///
    /// A request carries the positions that its answer must cover, and the wait for them, so that a
    /// wait costs no exchange of its own.
    async fn gather(
        &self,
        partitions: &[u32],
        awaited: &Awaited,
        question: impl Fn(&[u32]) -> Question + Sync,
    ) -> Result<Vec<Answer<Value>>, Unavailable> {
        let search_until = Instant::now() + SEARCH_TIMEOUT;
        let waits = |partition| awaited.unfolded.next_offset(partition) > 0;
        let mut open: Vec<Open> = partitions.iter().map(|&partition| Open { partition, tried: 0 }).collect();
        let mut answers = Vec::new();
        loop {
            // Partitions that are waited for are asked apart from those that only move.
            let mut requests: BTreeMap<(String, bool), Vec<Open>> = BTreeMap::new();
            let mut in_vain = Vec::new();
            for of in open.drain(..) {
                // Not in the scrutinee: its guard would live on in the arm that locks again.
                let holder = self.shared.table.read().candidates(of.partition).into_iter().nth(of.tried);
                match holder {
                    Some(url) => requests.entry((url, waits(of.partition))).or_default().push(of),
                    None => in_vain.push((of.partition, self.no_owner(of.partition))),
                }
            }
            let replies = join_all(requests.into_iter().map(async |((url, waits), asked)| {
                let partitions: Vec<u32> = asked.iter().map(|of| of.partition).collect();
                let left = awaited.deadline.saturating_duration_since(Instant::now());
                let wait = if waits { left.min(WAIT_ROUND) } else { CATCH_UP_WAIT };
                let wait_ms = wait.as_millis() as u64;
                let request =
                    PeerRequest { min: self.floor(&partitions, awaited), wait_ms, question: question(&partitions) };
                let sent = Instant::now();
                let reply = self.shared.send(&url, &request).await;
                (reply, waits && sent.elapsed() < Duration::from_millis(wait_ms), asked)
            }));
            for (reply, is_early, asked) in replies.await {
                let why = match reply {
                    Ok(Ok(answer)) => {
                        answers.push(answer);
                        continue;
                    }
                    // Sooner than it had to: the log ends before the position.
                    Ok(Err(Unavailable::Behind)) if is_early => return Err(Unavailable::Behind),
                    Ok(Err(why)) => why,
                    Err(NoReply(cause)) => Unavailable::Failed(cause),
                };
                for Open { partition, tried } in asked {
                    if tried + 1 < self.shared.table.read().candidates(partition).len() {
                        open.push(Open { partition, tried: tried + 1 });
                    } else {
                        in_vain.push((partition, why.clone()));
                    }
                }
            }
            if open.is_empty() && in_vain.is_empty() {
                return Ok(answers);
            }
            let is_round_over = open.is_empty();
            for (partition, why) in in_vain {
                let now = Instant::now();
                match why {
                    why if !waits(partition) && now >= search_until => return Err(why),
                    Unavailable::Failed(_) | Unavailable::Held { .. }
                        if waits(partition) && now >= awaited.deadline =>
                    {
                        return Err(why);
                    }
                    _ if waits(partition) && now >= awaited.deadline => return Err(Unavailable::Behind),
                    // The next round begins with the best holder again.
                    _ => open.push(Open { partition, tried: 0 }),
                }
            }
            if is_round_over {
                self.shared.pause().await;
            }
        }
    }

    /// Returns why a partition without a holder has none.
    fn no_owner(&self, partition: u32) -> Unavailable {
        match self.shared.table.read().too_stale(partition) {
            Some(seconds) => Unavailable::Stale { seconds },
            None => Unavailable::NoOwner { partition },
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
        self.wait_for(&self.awaited(min, timeout), |_| true).await?;
        self.shared.floor.lock().merge(min);
        Ok(())
    }

    /// Asks one question of each projector, and none where the folded positions say enough.
    async fn ends(&self, most: &Positions) -> Result<Positions, Unavailable> {
        let mut folded = self.shared.table.read().positions();
        folded.merge(&self.shared.floor.lock());
        let is_folded = |&(partition, most): &(u32, u64)| folded.next_offset(partition) >= most;
        let mut ends: Positions = most.iter().filter(is_folded).collect();
        let unknown: Vec<u32> = most.iter().filter(|of| !is_folded(of)).map(|(partition, _)| partition).collect();
        let nothing = Awaited { min: Positions::new(), unfolded: Positions::new(), deadline: Instant::now() };
        let question = |partitions: &[u32]| Question::Ends {
            most: partitions.iter().map(|&partition| (partition, most.next_offset(partition))).collect(),
        };
        for answer in self.gather(&unknown, &nothing, question).await? {
            ends.merge(&decode_reply::<Positions>(Ok(answer))?.value);
        }
        Ok(ends)
    }

    fn after(&self, min: &Positions, timeout: Duration) -> Option<Arc<dyn Answers>> {
        let awaited = self.awaited(min, timeout);
        (!awaited.unfolded.is_empty()).then(|| Arc::new(Self { awaited, ..self.clone() }) as _)
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
        let all: Vec<u32> = (0..self.partition_count).collect();
        let answers = self.gather(&all, &self.awaited, |partitions| Question::Find {
            partitions: partitions.to_vec(),
            tenant: tenant.to_owned(),
            message_ids: message_ids.to_vec(),
            sender_id: sender_id.map(str::to_owned),
            candidates_max,
        });
        let answers = answers.await?;
        self.shared.floor.lock().merge(&self.awaited.min);
        let found = answers.into_iter().map(|answer| decode_reply(Ok(answer)));
        let found: Vec<_> = found.collect::<Result<_, _>>()?;
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

    async fn read_marks(
        &self,
        conversation: Conversation<'_>,
        user_ids: &[String],
    ) -> Result<Answer<Vec<Option<ReadMark>>>, Unavailable> {
        let question = Question::ReadMarks {
            tenant: conversation.tenant.to_owned(),
            conversation_id: conversation.conversation_id.to_owned(),
            user_ids: user_ids.to_vec(),
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
