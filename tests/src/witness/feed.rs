//! Sends a history into the log and knows exactly which events the log holds. After a kill it reads
//! the log and sends only the missing events again; it fails where the log has lost, doubled or
//! reordered one.

use super::http::Client;
use receipts_event::{Body, Event, partition_of};
use receipts_testkit::history::{History, Shape};
use receipts_testkit::random::Random;
use std::borrow::Cow;

/// A history, and how many of its events the log holds. An event is one record in the partition of
/// its key; a control event without a partition is one record in each partition.
pub struct Feed {
    events: Vec<Event<'static>>,
    /// By partition: the numbers of the events that belong there, in order.
    wanted: Vec<Vec<usize>>,
    /// By partition: how many of those were acknowledged, or were found in the log after an open
    /// outcome.
    acknowledged: Vec<usize>,
    /// By partition: how many of those the log was seen to hold.
    held: Vec<usize>,
    /// By event: its index in the list of each partition that it belongs to.
    places: Vec<Vec<(u32, usize)>>,
    next: usize,
}

/// The events of one request.
pub struct Batch {
    /// The tenant of all its events.
    pub tenant: String,
    /// The body of the request: a JSON array.
    pub json: String,
    /// The number of events of the history; a control event counts once.
    pub events: usize,
    next: usize,
    reached: Vec<(u32, usize)>,
}

impl Feed {
    /// Generates the history of a seed. Each event's `event_id` is its number.
    #[must_use]
    pub fn new(seed: u64, shape: &Shape, partitions: u32) -> Self {
        let mut events: Vec<_> = History::generate(seed, shape).into_iter().map(|(_, event)| event).collect();
        let mut wanted = vec![Vec::new(); partitions as usize];
        let mut places = Vec::with_capacity(events.len());
        for (number, event) in events.iter_mut().enumerate() {
            event.event_id = Some(Cow::Owned(number.to_string()));
            let all = event.conversation_id().is_none() && event.partition().is_none();
            let own = event.partition().unwrap_or_else(|| partition_of(&event.key(), partitions));
            let of_event = (0..partitions).filter(|partition| all || *partition == own).map(|partition| {
                let list = &mut wanted[partition as usize];
                list.push(number);
                (partition, list.len() - 1)
            });
            places.push(of_event.collect());
        }
        let none = vec![0; partitions as usize];
        Self { events, wanted, acknowledged: none.clone(), held: none, places, next: 0 }
    }

    /// Counts the records that were found in the log.
    #[must_use]
    pub fn records(&self) -> usize {
        self.held.iter().sum()
    }

    /// The next events of one tenant that are not acknowledged, at most `max`; `None` where all
    /// are.
    ///
    /// # Panics
    /// Never: events are UTF-8.
    #[must_use]
    pub fn batch(&self, max: usize) -> Option<Batch> {
        let mut batch =
            Batch { tenant: String::new(), json: String::new(), events: 0, next: self.next, reached: vec![] };
        for (event, places) in self.events[self.next..].iter().zip(&self.places[self.next..]) {
            let missing: Vec<_> =
                places.iter().copied().filter(|(p, place)| *place >= self.acknowledged[*p as usize]).collect();
            if !missing.is_empty() {
                if batch.events >= max || batch.events > 0 && batch.tenant != event.tenant {
                    break;
                }
                batch.tenant = event.tenant.to_string();
                let whole = missing.len() == places.len();
                let copies =
                    if whole { vec![event.clone()] } else { missing.iter().map(|(p, _)| copy(event, *p)).collect() };
                for copy in copies {
                    batch.json.push(if batch.json.is_empty() { '[' } else { ',' });
                    batch.json.push_str(&String::from_utf8(copy.to_json()).expect("JSON is UTF-8"));
                }
                batch.events += 1;
                batch.reached.extend(missing);
            }
            batch.next += 1;
        }
        batch.json.push(']');
        (batch.events > 0).then_some(batch)
    }

    /// Marks a batch as acknowledged by the log.
    pub fn acknowledge(&mut self, batch: Batch) {
        for (partition, place) in batch.reached {
            self.acknowledged[partition as usize] = place + 1;
        }
        self.next = batch.next;
    }

    /// Posts bodies of up to `body_max` events until a request fails, all events are acknowledged,
    /// or `max` are. Returns true if the last request may have written its events or not.
    ///
    /// # Panics
    /// If the service refuses a body.
    pub fn post(&mut self, address: &str, random: &mut Random, body_max: u64, max: usize) -> bool {
        let mut client = Client::new(address);
        let mut left = max;
        while left > 0
            && let Some(batch) = self.batch(random.between(1, body_max) as usize)
        {
            match client.post(&batch.tenant, "/v1/events", &batch.json) {
                Ok(answer) if answer.status == 202 => {
                    left = left.saturating_sub(batch.events);
                    self.acknowledge(batch);
                }
                Ok(answer) if answer.status == 503 => return true,
                Ok(answer) => panic!("{}: {} to {}", answer.status, answer.body, batch.json),
                Err(_) => return true,
            }
        }
        false
    }

    /// Takes the next record of a partition of the log.
    ///
    /// # Panics
    /// If another event belongs there (INV-ACK).
    pub fn found(&mut self, partition: u32, event: &Event<'_>) {
        let (wanted, held) = (&self.wanted[partition as usize], &mut self.held[partition as usize]);
        let number = event.event_id.as_deref().and_then(|id| id.parse::<usize>().ok());
        assert_eq!(
            number,
            wanted.get(*held).copied(),
            "INV-ACK: in partition {partition} at its record {held} stands another event"
        );
        *held += 1;
    }

    /// Takes every event that the log does not hold as not written. Call it after the log was read
    /// to its end and its writer is dead.
    ///
    /// # Panics
    /// If an acknowledged record is missing (INV-ACK).
    pub fn resync(&mut self) {
        for (partition, (held, acknowledged)) in self.held.iter().zip(&mut self.acknowledged).enumerate() {
            assert!(
                held >= acknowledged,
                "INV-ACK: partition {partition} lost {} acknowledged records",
                *acknowledged - held
            );
            *acknowledged = *held;
        }
    }
}

/// The copy of a control event for one partition.
fn copy(event: &Event<'static>, partition: u32) -> Event<'static> {
    let mut copy = event.clone();
    match &mut copy.body {
        Body::PolicyChanged(body) => body.partition = Some(partition),
        Body::UserErased(body) => body.partition = Some(partition),
        _ => {}
    }
    copy
}
