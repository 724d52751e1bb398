//! One stream: first what was missed, read from the topic, then what the hub hands over, with a sign of life in between.
//! Every event carries the place behind it, so that a stream that broke off goes on without a gap (INV-STREAM).
//!
//! Must not be fed faster than its client reads: nothing is read ahead of what was sent.

use super::feed::Updates;
use super::hub::{Subscription, Update};
use super::redact::{Interest, addressees, people, shown};
use super::resume;
use crate::problem::{Code, Problem};
use bytes::Bytes;
use receipts_log::{ReadError, Topic};
use receipts_query::{Answers, Positions, Since, StreamId, Unavailable};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

/// Updates that are made ready together, at most.
const BATCH_UPDATES: usize = 32;
/// Records that one look into the topic takes.
const REPLAY_BLOCK_RECORDS: usize = 1_024;
/// How far a stream may be behind, records of all its partitions together. Beyond, to ask for the receipts anew costs
/// less than to read all of this, of which most is somebody else's.
pub(crate) const REPLAY_RECORDS_MAX: u64 = 1_000_000;
/// How long to wait before a state that cannot be asked is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a client waits before it connects again, milliseconds; as SSE has it.
const RETRY_MS: u64 = 1_000;

/// Whose stream, and what of.
pub(crate) struct View {
    pub(crate) tenant: String,
    pub(crate) interest: Interest,
    /// Whether it names who newly read.
    pub(crate) names: bool,
    /// When the credential ends, and with it the stream.
    pub(crate) expires: Option<Instant>,
}

/// A partition that feeds a stream.
struct Place {
    partition: u32,
    /// Everything below was sent, or is not for this stream.
    sent: u64,
    /// From here on the hub hands over.
    live: u64,
}

/// Updates on their way to the client.
struct Batch {
    updates: Vec<Arc<Update>>,
    /// Once they are sent: which place stands where.
    then: Option<(usize, u64)>,
}

/// A stream that was accepted.
pub(crate) struct Stream {
    feed: Updates,
    answers: Arc<dyn Answers>,
    /// How long the state may take to answer.
    timeout: Duration,
    view: View,
    subscription: Subscription,
    places: Vec<Place>,
    /// What could not be made ready yet.
    waiting: Option<Batch>,
    /// When anything was last sent; `None` before the first bytes.
    said: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// Registers a stream and finds where it begins.
    ///
    /// # Errors
    /// The problem to be answered: what was missed is not there any more, or cannot be asked for just now.
    pub(crate) async fn open(
        feed: Updates,
        answers: Arc<dyn Answers>,
        timeout: Duration,
        view: View,
        since: Option<Since>,
        permit: OwnedSemaphorePermit,
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
            places: Vec::with_capacity(partitions.len()),
            waiting: None,
            said: None,
            _permit: permit,
        };
        let mut missed = 0;
        for partition in partitions {
            let live = stream.subscription.next.get(partition as usize).copied().unwrap_or_default();
            let sent = match &since {
                None => live,
                Some(since) => stream.find(partition, live, since).await?,
            };
            missed += live.saturating_sub(sent);
            stream.places.push(Place { partition, sent, live });
        }
        if missed > REPLAY_RECORDS_MAX {
            return Err(gone());
        }
        Ok(stream)
    }

    /// Where the stream goes on in a partition.
    async fn find(&self, partition: u32, live: u64, since: &Since) -> Result<u64, Problem> {
        let place = since.positions().next_offset(partition);
        let found = match since {
            Since::Stream(_) if place == live => return Ok(live),
            Since::Stream(_) => self.feed.read(move |log| resume::by_offset(log, partition, place)).await,
            Since::Events(_) => {
                self.feed.read(move |log| resume::by_position(log, partition, place, REPLAY_RECORDS_MAX)).await
            }
        };
        let found = found.map_err(|error| {
            tracing::warn!(partition, %error, "the updates that a stream has missed cannot be read");
            Problem::new(Code::Unavailable)
        })?;
        match (found, since) {
            (resume::Found::From(offset), _) => Ok(offset),
            (resume::Found::Gone { end }, Since::Events(_)) => {
                // Nobody knows what was published before the first update that is kept. Where nothing was folded since,
                // nothing was published either.
                let folded = timeout(self.timeout, self.answers.are_erased(&self.view.tenant, partition, &[])).await;
                let folded = folded.unwrap_or(Err(Unavailable::NoOwner { partition }))?;
                if folded.positions.next_offset(partition) <= place { Ok(end) } else { Err(gone()) }
            }
            (resume::Found::Gone { .. }, Since::Stream(_)) => Err(gone()),
        }
    }

    /// The next bytes for the client; `None` ends the stream.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self.view.expires {
            // Asked first: whoever always has something to say would never be asked behind it.
            Some(expires) if Instant::now() >= expires => None,
            Some(expires) => timeout_at(expires, self.go_on()).await.unwrap_or(None),
            None => self.go_on().await,
        }
    }

    async fn go_on(&mut self) -> Option<Bytes> {
        let Some(said) = self.said else {
            return Some(self.say(format!("retry: {RETRY_MS}\n: connected\nid: {}\n\n", self.id()).into()));
        };
        let silent_until = said + self.feed.heartbeat();
        loop {
            let batch = match self.waiting.take() {
                Some(batch) => batch,
                None => match self.places.iter().position(|place| place.sent < place.live) {
                    Some(_) if Instant::now() >= silent_until => return Some(self.sign_of_life()),
                    Some(at) => self.replay(at).await?,
                    None => {
                        let mut updates = Vec::new();
                        let received = self.subscription.updates.recv_many(&mut updates, BATCH_UPDATES);
                        match timeout_at(silent_until, received).await {
                            Ok(0) => return None,
                            Ok(_) => Batch { updates, then: None },
                            Err(_) => return Some(self.sign_of_life()),
                        }
                    }
                },
            };
            match self.render(&batch).await {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(self.say(text.into())),
                Err(unavailable) => {
                    tracing::debug!(%unavailable, "a stream waits for the state");
                    self.waiting = Some(batch);
                    tokio::time::sleep(PAUSE).await;
                    return Some(self.say(Bytes::from_static(b": waiting\n\n")));
                }
            }
        }
    }

    fn say(&mut self, text: Bytes) -> Bytes {
        self.said = Some(Instant::now());
        text
    }

    /// A comment, and the newest place: so that who hears nothing for days need not go back by days.
    fn sign_of_life(&mut self) -> Bytes {
        if self.places.iter().all(|place| place.sent >= place.live)
            && let Some(received) = self.subscription.received()
        {
            for place in &mut self.places {
                place.sent = place.sent.max(received.get(place.partition as usize).copied().unwrap_or_default());
            }
        }
        self.say(format!(": \nid: {}\n\n", self.id()).into())
    }

    fn id(&self) -> StreamId {
        StreamId(self.places.iter().map(|place| (place.partition, place.sent)).collect::<Positions>())
    }

    /// Reads on in the topic, up to what the hub hands over; `None` where that is not possible any more.
    async fn replay(&self, at: usize) -> Option<Batch> {
        let &Place { partition, sent, live } = &self.places[at];
        let addressee = self.view.interest.addressee(&self.view.tenant);
        let read = self.feed.read(move |log| {
            if log.bounds(Topic::Updates, partition)?.start > sent {
                return Err(ReadError::Stop("what the stream has to send next was trimmed".to_owned()));
            }
            let records = log.read(Topic::Updates, partition, sent, REPLAY_BLOCK_RECORDS)?;
            let whole = records.len() == REPLAY_BLOCK_RECORDS;
            let next = records.last().filter(|_| whole).map_or(live, |last| live.min(last.offset + 1));
            let updates = records.into_iter().filter(|record| record.offset < live).filter_map(|record| {
                let value = record.value?;
                let is_ours = addressees(&value)?.any(|other| other == addressee);
                is_ours.then(|| Arc::new(Update { partition, offset: record.offset, value }))
            });
            Ok(Batch { updates: updates.collect(), then: Some((at, next)) })
        });
        match read.await {
            Ok(batch) => Some(batch),
            Err(error) => {
                tracing::warn!(partition, %error, "a stream ends: what it has missed cannot be read");
                None
            }
        }
    }

    /// The events of a batch, and everything that goes with having sent them.
    async fn render(&mut self, batch: &Batch) -> Result<Vec<u8>, Unavailable> {
        let mut text = Vec::new();
        for updates in batch.updates.chunk_by(|a, b| a.partition == b.partition) {
            let partition = updates[0].partition;
            let erased = self.erased(partition, updates).await?;
            let Some(at) = self.places.iter().position(|place| place.partition == partition) else { continue };
            for update in updates {
                if update.offset < self.places[at].sent {
                    continue;
                }
                self.places[at].sent = update.offset + 1;
                if let Some(shown) = shown(&update.value, &self.view.interest, self.view.names, &erased) {
                    text.extend_from_slice(format!("event: {}\nid: {}\ndata: ", shown.r#type, self.id()).as_bytes());
                    text.extend_from_slice(&shown.json);
                    text.extend_from_slice(b"\n\n");
                }
            }
        }
        if let Some((at, next)) = batch.then {
            self.places[at].sent = self.places[at].sent.max(next);
        }
        Ok(text)
    }

    /// Who of the people that updates name was erased.
    async fn erased(&self, partition: u32, updates: &[Arc<Update>]) -> Result<HashSet<String>, Unavailable> {
        let named: BTreeSet<String> = updates.iter().flat_map(|update| people(&update.value)).collect();
        let named: Vec<String> = named.into_iter().collect();
        if named.is_empty() {
            return Ok(HashSet::new());
        }
        let asked = timeout(self.timeout, self.answers.are_erased(&self.view.tenant, partition, &named)).await;
        let erased = asked.unwrap_or(Err(Unavailable::NoOwner { partition }))?.value;
        Ok(named.into_iter().zip(erased).filter_map(|(id, erased)| erased.then_some(id)).collect())
    }
}

fn gone() -> Problem {
    Problem::new(Code::UpdatesGone).detail(
        "updates since then are not kept any more, or too many: open a stream without it, then ask for the receipts",
    )
}
