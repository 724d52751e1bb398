//! One stream: first the missed updates, read from the topic, then live updates from the hub, with
//! a heartbeat whenever it is silent. Every event carries the position after it, so that an
//! interrupted stream resumes without a gap (INV-STREAM).
//!
//! It must not run ahead of its client: it reads nothing before it has sent the last batch.

use super::feed::Updates;
use super::hub::Subscription;
use super::redact::redact;
use super::resume::{self, ResumePoint};
use super::update::{Interest, Parsed, Update};
use crate::edge::budget::Held;
use crate::edge::tickets::Ticket;
use crate::problem::{Code, Problem};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
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
    /// The ticket that opened it and resumes it, if one did.
    pub(crate) ticket: Option<Ticket>,
}

/// How far a stream is in one partition of the topic.
struct Progress {
    partition: u32,
    /// Every update below this offset was sent, or is not for this stream.
    next_offset: u64,
    /// The hub delivers every update from this offset on.
    live_from: u64,
}

/// Updates of one read or of the hub, and the people among those whom they name who were erased.
struct Batch {
    updates: Vec<Arc<Update>>,
    /// Erased people, of each run of updates of one partition.
    erased: Vec<HashSet<String>>,
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
    /// The next batch while it is made; `None` from it ends the stream. It lives on while the
    /// stream sends heartbeats.
    pending: Option<BoxFuture<'static, Option<Batch>>>,
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
        let start = match since {
            Some(since) => Some(Start::of(since, &subscription.live_from)?),
            None => None,
        };
        let mut missed = 0;
        let mut progress = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let live_from = subscription.live_from.get(partition as usize).copied().unwrap_or_default();
            let next_offset = match &start {
                None => live_from,
                Some(start) => {
                    let resume = Resume { feed: &feed, answers: &*answers, timeout, tenant: &view.tenant };
                    resume.offset(partition, live_from, start).await?
                }
            };
            missed += live_from.saturating_sub(next_offset);
            progress.push(Progress { partition, next_offset, live_from });
        }
        if missed > REPLAY_RECORDS_MAX {
            return Err(updates_lost());
        }
        Ok(Self { feed, answers, timeout, view, subscription, progress, pending: None, last_sent: None, _held: held })
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
            let first = format!("retry: {RETRY_MS}\n{}", self.position());
            return Some(self.sent(first.into()));
        };
        let heartbeat_at = last_sent + self.feed.heartbeat();
        // Each call does one step at least, so that a short interval cannot leave only heartbeats.
        loop {
            if self.pending.is_none() {
                let behind = self.progress.iter().position(|progress| progress.next_offset < progress.live_from);
                self.pending = Some(match behind {
                    Some(at) => self.read_missed(at).boxed(),
                    None => {
                        let mut updates = Vec::new();
                        let received = self.subscription.updates.recv_many(&mut updates, BATCH_UPDATES);
                        match timeout_at(heartbeat_at, received).await {
                            Ok(0) => return None,
                            Ok(_) => self.live(updates).boxed(),
                            Err(_) => break,
                        }
                    }
                });
            }
            let Some(pending) = &mut self.pending else { continue };
            let Ok(batch) = timeout_at(heartbeat_at, pending).await else { break };
            self.pending = None;
            let text = self.render(&batch?);
            if !text.is_empty() {
                return Some(self.sent(text.into()));
            }
            if Instant::now() >= heartbeat_at {
                break;
            }
        }
        Some(self.heartbeat())
    }

    /// Notes the time of a send.
    fn sent(&mut self, text: Bytes) -> Bytes {
        self.last_sent = Some(Instant::now());
        text
    }

    /// Returns the newest position, so that a client without updates for days need not resume days
    /// back.
    fn heartbeat(&mut self) -> Bytes {
        // Updates of a pending batch have left the subscription, but were not sent.
        if self.pending.is_none()
            && self.progress.iter().all(|progress| progress.next_offset >= progress.live_from)
            && let Some(received) = self.subscription.received()
        {
            for progress in &mut self.progress {
                let next_offset = received.get(progress.partition as usize).copied().unwrap_or_default();
                progress.next_offset = progress.next_offset.max(next_offset);
            }
        }
        let position = self.position();
        self.sent(position.into())
    }

    /// Returns an event that only has the id to resume from. It has a type and data, because many
    /// clients drop the id of a block without data, and some deliver it as an update.
    fn position(&self) -> String {
        format!("event: position\nid: {}\ndata: {{}}\n\n", self.id())
    }

    fn id(&self) -> String {
        let positions = self.progress.iter().map(|progress| (progress.partition, progress.next_offset));
        let since = Since::Stream(StreamId(positions.collect::<Positions>()));
        let id = Token { log: self.feed.log(), since }.to_string();
        match &self.view.ticket {
            Some(ticket) => ticket.sign(&id),
            None => id,
        }
    }

    /// Reads the next missed updates from the topic, up to the first that the hub delivers. Returns
    /// `None` when they cannot be read any more.
    fn read_missed(&self, at: usize) -> impl Future<Output = Option<Batch>> + Send + 'static {
        let &Progress { partition, next_offset, live_from } = &self.progress[at];
        let (tenant, interest) = (self.view.tenant.clone(), self.view.interest.clone());
        let (feed, answers, timeout) = (self.feed.clone(), Arc::clone(&self.answers), self.timeout);
        async move {
            let of = tenant.clone();
            let read = feed.read(move |log| {
                if log.bounds(Topic::Updates, partition)?.start > next_offset {
                    return Err(ReadError::Stop("the next update of the stream was trimmed".to_owned()));
                }
                let records = log.read(Topic::Updates, partition, next_offset, REPLAY_BLOCK_RECORDS)?;
                let is_full = records.len() == REPLAY_BLOCK_RECORDS;
                let after = records.last().filter(|_| is_full).map_or(live_from, |last| live_from.min(last.offset + 1));
                let updates = records.into_iter().filter(|record| record.offset < live_from).filter_map(|record| {
                    let value = record.value?;
                    let parsed = Parsed::parse(&value).filter(|parsed| parsed.is_for(&of, &interest))?;
                    Some(Arc::new(parsed.into_update(partition, record.offset, value.clone())))
                });
                Ok((updates.collect(), after))
            });
            match read.await {
                Ok((updates, after)) => Some(Batch::of(updates, Some((at, after)), &*answers, timeout, &tenant).await),
                Err(error) => {
                    tracing::warn!(partition, %error, "a stream ends because its missed updates cannot be read");
                    None
                }
            }
        }
    }

    /// Makes the batch of updates that the hub delivered.
    fn live(&self, updates: Vec<Arc<Update>>) -> impl Future<Output = Option<Batch>> + Send + 'static {
        let (tenant, answers, timeout) = (self.view.tenant.clone(), Arc::clone(&self.answers), self.timeout);
        async move { Some(Batch::of(updates, None, &*answers, timeout, &tenant).await) }
    }

    /// Renders the events of a batch and moves the progress past them.
    fn render(&mut self, batch: &Batch) -> Vec<u8> {
        let mut text = Vec::new();
        for (updates, erased) in by_partition(&batch.updates).zip(&batch.erased) {
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
                    update.note_sent();
                }
            }
        }
        if let Some((at, next_offset)) = batch.progress_after {
            self.progress[at].next_offset = self.progress[at].next_offset.max(next_offset);
        }
        text
    }
}

impl Batch {
    /// Makes a batch. Waits until the state says of every partition who was erased: none of its
    /// updates is sent before.
    async fn of(
        updates: Vec<Arc<Update>>,
        progress_after: Option<(usize, u64)>,
        answers: &dyn Answers,
        answer_timeout: Duration,
        tenant: &str,
    ) -> Self {
        loop {
            match erased(&updates, answers, answer_timeout, tenant).await {
                Ok(erased) => return Self { updates, erased, progress_after },
                Err(unavailable) => {
                    tracing::debug!(%unavailable, "a stream waits until the state can be asked");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Returns the people whom the updates name and who were erased, of each run of one partition.
async fn erased(
    updates: &[Arc<Update>],
    answers: &dyn Answers,
    answer_timeout: Duration,
    tenant: &str,
) -> Result<Vec<HashSet<String>>, Unavailable> {
    let mut all = Vec::new();
    for updates in by_partition(updates) {
        let (partition, named) = (updates[0].partition, updates.iter().flat_map(|update| update.people()));
        let named: Vec<String> = named.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect();
        if named.is_empty() {
            all.push(HashSet::new());
            continue;
        }
        let asked = timeout(answer_timeout, answers.are_erased(tenant, partition, &named)).await;
        let erased = asked.unwrap_or(Err(Unavailable::NoOwner { partition }))?.value;
        all.push(named.into_iter().zip(erased).filter_map(|(id, erased)| erased.then_some(id)).collect());
    }
    Ok(all)
}

/// Returns the runs of updates of one partition.
fn by_partition(updates: &[Arc<Update>]) -> impl Iterator<Item = &[Arc<Update>]> {
    updates.chunk_by(|a, b| a.partition == b.partition)
}

/// Where a stream resumes.
enum Start {
    /// At the first update after a position of the event topic.
    Position(Positions),
    /// At offsets of the topic of updates.
    Offsets(Positions),
}

impl Start {
    /// Reads a token. `live_from` has the ends of the topic's partitions, or nearly so.
    fn of(since: Since, live_from: &[u64]) -> Result<Self, Problem> {
        let near = |partition: u32| live_from.get(partition as usize).copied().unwrap_or_default();
        Ok(match since {
            Since::Events(positions) => Self::Position(positions),
            // Somewhat earlier, so some updates come again.
            Since::Rounded(rounded) => Self::Position(rounded.least()),
            Since::Stream(StreamId(positions)) => Self::Offsets(positions),
            Since::Remainders(remainders) => Self::Offsets(remainders.resolve(near).ok_or_else(updates_lost)?),
        })
    }
}

/// What the resume of a stream asks.
struct Resume<'a> {
    feed: &'a Updates,
    answers: &'a dyn Answers,
    /// How long the state may take to answer.
    timeout: Duration,
    tenant: &'a str,
}

impl Resume<'_> {
    /// Returns the offset at which the stream resumes in a partition.
    async fn offset(&self, partition: u32, live_from: u64, start: &Start) -> Result<u64, Problem> {
        let point = match start {
            Start::Offsets(offsets) => {
                let offset = offsets.next_offset(partition);
                if offset == live_from {
                    return Ok(live_from);
                }
                self.feed.read(move |log| resume::by_offset(log, partition, offset)).await
            }
            Start::Position(positions) => {
                let position = positions.next_offset(partition);
                self.feed.read(move |log| resume::by_position(log, partition, position, REPLAY_RECORDS_MAX)).await
            }
        };
        let point = point.map_err(|error| {
            tracing::warn!(partition, %error, "the missed updates of a stream cannot be read");
            Problem::new(Code::Unavailable)
        })?;
        match (point, start) {
            (ResumePoint::At(offset), _) => Ok(offset),
            (ResumePoint::Lost { end }, Start::Position(positions)) => {
                // The topic does not show the updates before its first kept one. If no
                // event was folded since, no update was published either.
                let folded = timeout(self.timeout, self.answers.are_erased(self.tenant, partition, &[])).await;
                let folded = folded.unwrap_or(Err(Unavailable::NoOwner { partition }))?.positions;
                let is_quiet = folded.next_offset(partition) <= positions.next_offset(partition);
                if is_quiet { Ok(end) } else { Err(updates_lost()) }
            }
            (ResumePoint::Lost { .. }, Start::Offsets(_)) => Err(updates_lost()),
        }
    }
}

fn updates_lost() -> Problem {
    Problem::new(Code::UpdatesGone).detail(
        "the updates since then are no longer kept, or there are too many: open a stream without a position, then query \
         the receipts",
    )
}
