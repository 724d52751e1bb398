//! One stream: first the missed updates, read from the topic, then live updates from the hub, with
//! a heartbeat in between. Every event carries the position after it, so that an interrupted stream
//! resumes without a gap (INV-STREAM).
//!
//! It must not run ahead of its client: it reads nothing before it has sent the last batch.

use super::feed::Updates;
use super::hub::Subscription;
use super::redact::redact;
use super::resume::{self, ResumePoint};
use super::update::{Interest, Parsed, Update};
use crate::edge::budget::Held;
use crate::problem::{Code, Problem};
use bytes::Bytes;
use receipts_log::{ReadError, Topic};
use receipts_query::{Answers, Positions, Since, StreamId, Token, Unavailable};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// The most updates that are rendered together.
const BATCH_UPDATES: usize = 32;
/// The most records of one read from the topic.
const REPLAY_BLOCK_RECORDS: usize = 1_024;
/// How far a stream may be behind, in records of all its partitions together. Beyond this, asking
/// for the receipts again costs less than reading a topic that mostly holds other streams' updates.
const REPLAY_RECORDS_MAX: u64 = 1_000_000;
/// The pause before a state that cannot be asked is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a client waits before it connects again, milliseconds; the `retry` field of SSE.
const RETRY_MS: u64 = 1_000;

/// The updates of a stream, and the fields of them that it shows.
pub(crate) struct View {
    pub(crate) tenant: String,
    pub(crate) interest: Interest,
    /// Whether it names new readers.
    pub(crate) show_readers: bool,
    /// When the credential expires. The stream ends with it.
    pub(crate) expires: Option<Instant>,
}

/// How far a stream is in one partition of the topic.
struct Progress {
    partition: u32,
    /// Every update below this offset was sent, or is not for this stream.
    next_offset: u64,
    /// The hub delivers every update from this offset on.
    live_from: u64,
}

/// Updates that are about to be sent.
struct Batch {
    updates: Vec<Arc<Update>>,
    /// The progress that moves after they are sent, by its index, and its next offset.
    progress_after: Option<(usize, u64)>,
}

/// An accepted stream.
pub(crate) struct Stream {
    feed: Updates,
    answers: Arc<dyn Answers>,
    /// How long the state may take to answer.
    timeout: Duration,
    view: View,
    subscription: Subscription,
    progress: Vec<Progress>,
    /// A batch that could not be rendered yet.
    pending: Option<Batch>,
    /// When bytes were last sent; `None` before the first.
    last_sent: Option<Instant>,
    _held: Held,
}

impl Stream {
    /// Registers a stream and finds the offsets at which it begins.
    ///
    /// # Errors
    /// The problem to answer with: the missed updates are no longer kept, or cannot be read now.
    pub(crate) async fn open(
        feed: Updates,
        answers: Arc<dyn Answers>,
        timeout: Duration,
        view: View,
        since: Option<Since>,
        held: Held,
    ) -> Result<Self, Problem> {
        let addressee = view.interest.addressee(&view.tenant);
        let subscription = feed.subscribe(&addressee).ok_or_else(|| Problem::new(Code::Unavailable))?;
        let partitions = match &view.interest {
            Interest::Conversation(id) => {
                let key = receipts_event::key(&view.tenant, id);
                let partition = receipts_event::partition_of(&key, answers.partition_count());
                partition..partition + 1
            }
            Interest::Sender(_) => 0..answers.partition_count(),
        };
        let mut stream = Self {
            feed,
            answers,
            timeout,
            view,
            subscription,
            progress: Vec::with_capacity(partitions.len()),
            pending: None,
            last_sent: None,
            _held: held,
        };
        let mut missed = 0;
        for partition in partitions {
            let live_from = stream.subscription.live_from.get(partition as usize).copied().unwrap_or_default();
            let next_offset = match &since {
                None => live_from,
                Some(since) => stream.resume(partition, live_from, since).await?,
            };
            missed += live_from.saturating_sub(next_offset);
            stream.progress.push(Progress { partition, next_offset, live_from });
        }
        if missed > REPLAY_RECORDS_MAX {
            return Err(updates_lost());
        }
        Ok(stream)
    }

    /// Returns the offset at which the stream resumes in a partition.
    async fn resume(&self, partition: u32, live_from: u64, since: &Since) -> Result<u64, Problem> {
        let position = since.positions().next_offset(partition);
        let point = match since {
            Since::Stream(_) if position == live_from => return Ok(live_from),
            Since::Stream(_) => self.feed.read(move |log| resume::by_offset(log, partition, position)).await,
            Since::Events(_) => {
                self.feed.read(move |log| resume::by_position(log, partition, position, REPLAY_RECORDS_MAX)).await
            }
        };
        let point = point.map_err(|error| {
            tracing::warn!(partition, %error, "the missed updates of a stream cannot be read");
            Problem::new(Code::Unavailable)
        })?;
        match (point, since) {
            (ResumePoint::At(offset), _) => Ok(offset),
            (ResumePoint::Lost { end }, Since::Events(_)) => {
                // The topic does not show the updates before its first kept one. If no
                // event was folded since, no update was published either.
                let folded = timeout(self.timeout, self.answers.are_erased(&self.view.tenant, partition, &[])).await;
                let folded = folded.unwrap_or(Err(Unavailable::NoOwner { partition }))?;
                if folded.positions.next_offset(partition) <= position { Ok(end) } else { Err(updates_lost()) }
            }
            (ResumePoint::Lost { .. }, Since::Stream(_)) => Err(updates_lost()),
        }
    }

    /// Returns the next bytes for the client; `None` ends the stream.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self.view.expires {
            // Checked first, because a busy stream would otherwise never reach its timeout.
            Some(expires) if Instant::now() >= expires => None,
            Some(expires) => timeout_at(expires, self.next_bytes()).await.unwrap_or(None),
            None => self.next_bytes().await,
        }
    }

    async fn next_bytes(&mut self) -> Option<Bytes> {
        let Some(last_sent) = self.last_sent else {
            return Some(self.sent(format!("retry: {RETRY_MS}\n: connected\nid: {}\n\n", self.id()).into()));
        };
        let heartbeat_at = last_sent + self.feed.heartbeat();
        loop {
            let batch = match self.pending.take() {
                Some(batch) => batch,
                None => match self.progress.iter().position(|progress| progress.next_offset < progress.live_from) {
                    Some(_) if Instant::now() >= heartbeat_at => return Some(self.heartbeat()),
                    Some(at) => self.replay(at).await?,
                    None => {
                        let mut updates = Vec::new();
                        let received = self.subscription.updates.recv_many(&mut updates, BATCH_UPDATES);
                        match timeout_at(heartbeat_at, received).await {
                            Ok(0) => return None,
                            Ok(_) => Batch { updates, progress_after: None },
                            Err(_) => return Some(self.heartbeat()),
                        }
                    }
                },
            };
            match self.render(&batch).await {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(self.sent(text.into())),
                Err(unavailable) => {
                    tracing::debug!(%unavailable, "a stream waits until the state can be asked");
                    self.pending = Some(batch);
                    tokio::time::sleep(PAUSE).await;
                    return Some(self.sent(Bytes::from_static(b": waiting\n\n")));
                }
            }
        }
    }

    /// Notes the time of a send.
    fn sent(&mut self, text: Bytes) -> Bytes {
        self.last_sent = Some(Instant::now());
        text
    }

    /// Returns a comment with the newest id, so that a client without updates for days need not
    /// resume days back.
    fn heartbeat(&mut self) -> Bytes {
        if self.progress.iter().all(|progress| progress.next_offset >= progress.live_from)
            && let Some(received) = self.subscription.received()
        {
            for progress in &mut self.progress {
                let next_offset = received.get(progress.partition as usize).copied().unwrap_or_default();
                progress.next_offset = progress.next_offset.max(next_offset);
            }
        }
        self.sent(format!(": \nid: {}\n\n", self.id()).into())
    }

    fn id(&self) -> Token {
        let positions = self.progress.iter().map(|progress| (progress.partition, progress.next_offset));
        Token { log: self.feed.log(), since: Since::Stream(StreamId(positions.collect::<Positions>())) }
    }

    /// Reads the next missed updates from the topic, up to the first that the hub delivers. Returns
    /// `None` when they cannot be read any more.
    async fn replay(&self, at: usize) -> Option<Batch> {
        let &Progress { partition, next_offset, live_from } = &self.progress[at];
        let (tenant, interest) = (self.view.tenant.clone(), self.view.interest.clone());
        let read = self.feed.read(move |log| {
            if log.bounds(Topic::Updates, partition)?.start > next_offset {
                return Err(ReadError::Stop("the next update of the stream was trimmed".to_owned()));
            }
            let records = log.read(Topic::Updates, partition, next_offset, REPLAY_BLOCK_RECORDS)?;
            let is_full = records.len() == REPLAY_BLOCK_RECORDS;
            let after = records.last().filter(|_| is_full).map_or(live_from, |last| live_from.min(last.offset + 1));
            let updates = records.into_iter().filter(|record| record.offset < live_from).filter_map(|record| {
                let value = record.value?;
                let parsed = Parsed::parse(&value).filter(|parsed| parsed.is_for(&tenant, &interest))?;
                Some(Arc::new(parsed.into_update(partition, record.offset, value.clone())))
            });
            Ok(Batch { updates: updates.collect(), progress_after: Some((at, after)) })
        });
        match read.await {
            Ok(batch) => Some(batch),
            Err(error) => {
                tracing::warn!(partition, %error, "a stream ends because its missed updates cannot be read");
                None
            }
        }
    }

    /// Renders the events of a batch and moves the progress past them. On an error the progress
    /// stays where it is, in every partition, so that the batch can be rendered again.
    async fn render(&mut self, batch: &Batch) -> Result<Vec<u8>, Unavailable> {
        let by_partition = || batch.updates.chunk_by(|a, b| a.partition == b.partition);
        let mut erased = Vec::new();
        for updates in by_partition() {
            erased.push(self.erased(updates[0].partition, updates).await?);
        }
        let mut text = Vec::new();
        for (updates, erased) in by_partition().zip(&erased) {
            let partition = updates[0].partition;
            let Some(at) = self.progress.iter().position(|progress| progress.partition == partition) else { continue };
            for update in updates {
                if update.offset < self.progress[at].next_offset {
                    continue;
                }
                self.progress[at].next_offset = update.offset + 1;
                if let Some(json) = redact(update, &self.view.interest, self.view.show_readers, erased) {
                    text.extend_from_slice(format!("event: {}\nid: {}\ndata: ", update.r#type, self.id()).as_bytes());
                    text.extend_from_slice(&json);
                    text.extend_from_slice(b"\n\n");
                }
            }
        }
        if let Some((at, next_offset)) = batch.progress_after {
            self.progress[at].next_offset = self.progress[at].next_offset.max(next_offset);
        }
        Ok(text)
    }

    /// Returns the people whom the updates name and who were erased.
    async fn erased(&self, partition: u32, updates: &[Arc<Update>]) -> Result<HashSet<String>, Unavailable> {
        let named: BTreeSet<&str> = updates.iter().flat_map(|update| update.people()).collect();
        let named: Vec<String> = named.into_iter().map(str::to_owned).collect();
        if named.is_empty() {
            return Ok(HashSet::new());
        }
        let asked = timeout(self.timeout, self.answers.are_erased(&self.view.tenant, partition, &named)).await;
        let erased = asked.unwrap_or(Err(Unavailable::NoOwner { partition }))?.value;
        Ok(named.into_iter().zip(erased).filter_map(|(id, erased)| erased.then_some(id)).collect())
    }
}

fn updates_lost() -> Problem {
    Problem::new(Code::UpdatesGone).detail(
        "the updates since then are no longer kept, or there are too many: open a stream without a position, then query \
         the receipts",
    )
}
