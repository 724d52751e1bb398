//! Asks projectors, and keeps asking until one answers or the time is over.

use crate::peer::{ASK_PATH, Ask, Held, Question, Reply, STATE_PATH, Secret, cursor_key_of, merge_found, read};
use crate::table::Table;
use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use receipts_fold::view::{MemberFilter, Members, ReadMark, Receipt};
use receipts_query::{Answer, Answers, Conversation, CursorKey, Positions, Readiness, Unavailable};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long an edge looks for somebody who answers, while partitions move.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one projector may take beyond the wait that it is asked for; one that is stopped takes for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection is kept that is not used: less than a projector keeps it by default (`http.head_timeout_ms`), so that
/// no question meets its end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a projector that is a little behind is waited for before another one is asked.
const CATCH_UP_WAIT: Duration = Duration::from_millis(100);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one projector is asked to wait for a position before all are looked at again.
const WAIT_ROUND: Duration = Duration::from_millis(500);

/// Whom to ask.
#[derive(Clone)]
pub struct Settings {
    /// Each `HOST:PORT`; a name may stand for many addresses, and is looked up again each time.
    pub projectors: Vec<String>,
    /// How often they are asked what they hold.
    pub poll: Duration,
    /// What they share with the edges.
    pub secret: Option<Secret>,
}

/// The projectors of a service, as one that answers. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
    partition_count: u32,
}

struct Shared {
    settings: Settings,
    client: reqwest::Client,
    credential: Option<String>,
    table: RwLock<Table>,
    /// What was waited for: no answer is from before it.
    floor: Mutex<Positions>,
    look: Notify,
}

/// A projector that gave no reply at all.
struct NoReply(String);

impl Peers {
    /// Looks for projectors until one answers, and keeps looking who holds what from then on, as long as the runtime runs.
    ///
    /// # Errors
    /// Where no client can be made, or the projectors fold logs of different partition counts.
    pub async fn find(settings: Settings) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        let credential = settings.secret.as_ref().map(Secret::credential);
        let shared = Arc::new(Shared {
            settings,
            client,
            credential,
            table: RwLock::default(),
            floor: Mutex::default(),
            look: Notify::new(),
        });
        let mut said = Instant::now();
        let counts = loop {
            shared.look_around().await;
            let counts = shared.table.read().partition_counts();
            if !counts.is_empty() {
                break counts;
            }
            if said.elapsed() >= Duration::from_secs(10) {
                said = Instant::now();
                tracing::warn!(projectors = ?shared.settings.projectors, "no projector answers yet");
            }
            tokio::time::sleep(shared.settings.poll).await;
        };
        let partition_count = match Vec::from_iter(counts)[..] {
            [count] => count,
            ref counts => {
                return Err(format!("the projectors fold logs of {counts:?} partitions: name those of one log"));
            }
        };
        tokio::spawn(keep_looking(Arc::downgrade(&shared), shared.settings.poll));
        Ok(Self { shared, partition_count })
    }

    /// The key of cursors that the edges of this service agree on: by the secret, or else the smallest that a projector
    /// has.
    pub fn cursor_key(&self) -> Option<CursorKey> {
        match &self.shared.settings.secret {
            Some(secret) => Some(secret.cursor_key()),
            None => self.shared.table.read().cursor_key().as_deref().and_then(cursor_key_of),
        }
    }

    /// The positions that an answer about these partitions must have at least.
    fn floor(&self, partitions: &[u32]) -> Positions {
        let floor = self.shared.floor.lock();
        partitions.iter().map(|&partition| (partition, floor.next_offset(partition))).collect()
    }

    /// Asks about one partition.
    async fn ask<T: DeserializeOwned>(&self, partition: u32, question: Question) -> Result<Answer<T>, Unavailable> {
        let wait_ms = CATCH_UP_WAIT.as_millis() as u64;
        let ask = Ask { min: self.floor(&[partition]), wait_ms, question };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ask_each(partition, &ask).await {
                Ok(reply) => return read(Ok(reply)),
                Err(why) if Instant::now() >= deadline => return Err(why),
                Err(_) => self.shared.pause().await,
            }
        }
    }

    /// Asks all who hold a partition, one after the other, until one answers.
    async fn ask_each(&self, partition: u32, ask: &Ask) -> Reply {
        let candidates = self.shared.table.read().candidates(partition);
        let mut why = Unavailable::NoOwner { partition };
        for url in candidates {
            match self.shared.send(&url, ask).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(other)) => why = other,
                Err(NoReply(cause)) => why = Unavailable::Failed(cause),
            }
        }
        Err(why)
    }

    /// Returns once a partition is folded as far as asked for somewhere.
    async fn wait_for(&self, partition: u32, next_offset: u64, deadline: Instant) -> Result<(), Unavailable> {
        let min = Positions::applied(partition, next_offset);
        loop {
            if self.shared.table.read().positions().covers(&min) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let wait_ms = left.min(WAIT_ROUND).as_millis() as u64;
            let ask = Ask { min: min.clone(), wait_ms, question: Question::Position };
            match self.ask_each(partition, &ask).await {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() >= deadline => return Err(Unavailable::Behind),
                Err(_) => self.shared.pause().await,
            }
        }
    }

    async fn ask_receipts(
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

    /// One question to each projector, however many ids and partitions: each looks in its own indexes, which are by the
    /// hash of the id.
    async fn find_everywhere(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        let deadline = Instant::now() + PATIENCE;
        let mut open: Vec<u32> = (0..self.partition_count).collect();
        let mut found = Vec::new();
        loop {
            let mut by_peer: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            let mut why = None;
            for partition in std::mem::take(&mut open) {
                match self.shared.table.read().candidates(partition).into_iter().next() {
                    Some(url) => by_peer.entry(url).or_default().push(partition),
                    None => {
                        why = Some(Unavailable::NoOwner { partition });
                        open.push(partition);
                    }
                }
            }
            let replies = join_all(by_peer.into_iter().map(async |(url, partitions)| {
                let (tenant, sender_id) = (tenant.to_owned(), sender_id.map(str::to_owned));
                let message_ids = message_ids.to_vec();
                let question = Question::Find { partitions: partitions.clone(), tenant, message_ids, sender_id };
                let wait_ms = CATCH_UP_WAIT.as_millis() as u64;
                let ask = Ask { min: self.floor(&partitions), wait_ms, question };
                (self.shared.send(&url, &ask).await, partitions)
            }));
            for (reply, partitions) in replies.await {
                let missing = match reply {
                    Ok(Ok(answer)) => {
                        found.push(read(Ok(answer))?);
                        continue;
                    }
                    Ok(Err(why)) => why,
                    Err(NoReply(cause)) => Unavailable::Failed(cause),
                };
                why = Some(missing);
                open.extend(partitions);
            }
            match why {
                None => break,
                Some(why) if Instant::now() >= deadline => return Err(why),
                Some(_) => self.shared.pause().await,
            }
        }
        merge_found(found).ok_or_else(|| Unavailable::Failed("the log has no partition".into()))
    }
}

impl Shared {
    /// Asks every projector what it holds.
    async fn look_around(&self) {
        let mut addresses = BTreeSet::new();
        for name in &self.settings.projectors {
            match tokio::net::lookup_host(name).await {
                Ok(found) => addresses.extend(found),
                Err(error) => tracing::warn!(name, %error, "a projector's name cannot be looked up"),
            }
        }
        self.table.write().retain(&addresses);
        join_all(addresses.into_iter().map(|address| self.hear(address))).await;
    }

    async fn hear(&self, address: SocketAddr) {
        let request = self.client.get(format!("http://{address}{STATE_PATH}"));
        let held = self.exchange::<Held>(request, ANSWER_TIMEOUT).await;
        if let Err(NoReply(cause)) = &held {
            tracing::debug!(%address, cause, "a projector does not say what it holds");
        }
        self.table.write().heard(address, held.ok());
    }

    /// Puts a question to a projector.
    async fn send(&self, url: &str, ask: &Ask) -> Result<Reply, NoReply> {
        let request = self.client.post(format!("{url}{ASK_PATH}")).json(ask);
        let reply = self.exchange(request, ANSWER_TIMEOUT + Duration::from_millis(ask.wait_ms)).await;
        let outcome = match &reply {
            Ok(Ok(_)) => "answered",
            Ok(Err(_)) => "unavailable",
            Err(_) => "no_reply",
        };
        metrics::counter!("receipts_peer_questions_total", "outcome" => outcome).increment(1);
        match &reply {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => self.look.notify_one(),
            Err(NoReply(cause)) => {
                tracing::debug!(url, cause, "a projector does not answer");
                self.table.write().suspect(url);
                self.look.notify_one();
            }
        }
        reply
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        timeout: Duration,
    ) -> Result<T, NoReply> {
        let request = match &self.credential {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        };
        let exchanged = async { request.timeout(timeout).send().await?.error_for_status()?.json().await };
        exchanged.await.map_err(|error: reqwest::Error| {
            if error.status() == Some(reqwest::StatusCode::UNAUTHORIZED) {
                tracing::error!("a projector does not know this edge: query.secret_file must hold the same on both");
            }
            NoReply(error.to_string())
        })
    }

    /// Lets some time pass in which others may take over.
    async fn pause(&self) {
        self.look.notify_one();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks around from time to time, and whenever somebody did not answer. A projector that hangs holds up no look at the
/// others: each look is a task of its own.
async fn keep_looking(shared: std::sync::Weak<Shared>, poll: Duration) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        _ = tokio::time::timeout(poll, shared.look.notified()).await;
        tokio::spawn(async move { shared.look_around().await });
        // However many ask for it, a look around is not begun more often than this.
        tokio::time::sleep(PAUSE).await;
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

    fn ready(&self) -> Readiness {
        let answered = self.shared.table.read().answered();
        Readiness {
            caught_up: answered == self.partition_count,
            partitions: self.partition_count,
            partitions_caught_up: answered,
            lag_records: None,
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
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        self.ask_receipts(conversation, None, message_ids).await
    }

    async fn find(&self, tenant: &str, message_ids: &[String]) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        self.find_everywhere(tenant, None, message_ids).await
    }

    async fn receipts_sent_by(
        &self,
        conversation: Conversation<'_>,
        sender_id: &str,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        self.ask_receipts(conversation, Some(sender_id), message_ids).await
    }

    async fn find_sent_by(
        &self,
        tenant: &str,
        sender_id: &str,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        self.find_everywhere(tenant, Some(sender_id), message_ids).await
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
