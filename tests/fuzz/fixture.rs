//! A partition in memory with a seeded history: wild events, a group beyond one page of people,
//! erasures, parked records. The same seeds give the same pages in the same order, so a found input
//! names the same page later.

use crate::values::{part_key, payload, values};
use receipts_event::Event;
use receipts_fold::effects::Effects;
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Batch, MemoryBackend, Paged};
use receipts_testkit::history::{History, Shape};
use std::collections::{BTreeMap, BTreeSet};

/// The limits of the fixture's states.
pub const LIMITS: Limits = Limits {
    retention_ms: 30 * 86_400_000,
    parked_max: 20,
    parked_bytes: 1 << 20,
    parked_age_ms: 3_600_000,
    read_times: true,
    unwrap: receipts_event::Unwrap::None,
    erasures_max: 1_000,
    policy_types_max: 1_000,
};
const MEMORY_BYTES: usize = 64 << 20;

/// A partition, and the questions about it.
pub struct Fixture {
    backend: MemoryBackend,
    next_offset: u64,
    /// Keys without parts, and payloads.
    pub pages: Vec<(Vec<u8>, Vec<u8>)>,
    /// Tenant, conversation, message.
    pub messages: Vec<(String, String, String)>,
    /// Tenant, conversation, person.
    pub people: Vec<(String, String, String)>,
}

impl Fixture {
    /// Folds a few histories one after the other, and makes a checkpoint at the end.
    pub fn new() -> Self {
        // Time does not jump, so no message expires. One group in three has more people than a
        // chunk has slots.
        let shape = Shape { events: 250, p_jump: 0.0, p_large_group: 0.3, p_early: 0.1, ..Shape::wild() };
        let backend = MemoryBackend::default();
        let mut state = open(&backend).expect("an empty partition");
        let mut effects = Effects::default();
        let (mut messages, mut people) = (BTreeSet::new(), BTreeSet::new());
        let mut next_offset = 0;
        for (at, event) in History::generate(7, &shape) {
            fold(
                &mut state,
                RecordMetadata { partition: 0, offset: at.offset, timestamp_ms: at.timestamp_ms },
                &event,
                &mut effects,
            );
            next_offset = at.offset + 1;
            note(&event, &mut messages, &mut people);
        }
        state.write_meta();
        let batch = state.pages().batch(next_offset);
        backend.commit(batch).expect("memory takes a batch");
        let pages = pages(&backend);
        Self { backend, next_offset, pages, messages: every(messages, 60), people: every(people, 40) }
    }

    /// Returns the offset of the next record.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Runs `then` on the partition with one page's payload replaced, and restores the page.
    pub fn with_page<T>(&self, page: usize, payload: &[u8], then: impl FnOnce(&MemoryBackend) -> T) -> T {
        let (key, original) = &self.pages[page];
        self.write(key, payload);
        let result = then(&self.backend);
        self.write(key, original);
        result
    }

    fn write(&self, key: &[u8], payload: &[u8]) {
        let mut removed = Batch::new(0, self.next_offset, 0);
        removed.remove(key);
        removed.seal();
        let mut written = Batch::new(0, self.next_offset, 0);
        values(key, self.next_offset, payload).iter().for_each(|(key, value)| written.write(key, value));
        written.seal();
        for batch in [removed, written] {
            self.backend.commit(batch).expect("memory takes a batch");
        }
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

/// Opens the state of a medium.
///
/// # Errors
/// If the store is damaged.
pub fn open(backend: &MemoryBackend) -> receipts_fold::Result<State<Paged<MemoryBackend>>, receipts_store::Error> {
    State::open(Paged::new(backend.clone(), 0, MEMORY_BYTES), LIMITS)
}

/// Folds one event; the error says that the state cannot go on.
pub fn fold(
    state: &mut State<Paged<MemoryBackend>>,
    at: RecordMetadata,
    event: &Event<'_>,
    effects: &mut Effects,
) -> bool {
    let (key, value) = (event.key(), event.to_json());
    let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
    state.apply(at, event, raw, effects).is_ok()
}

/// Returns the pages of a medium, joined as the description of the format says.
fn pages(backend: &MemoryBackend) -> Vec<(Vec<u8>, Vec<u8>)> {
    let keys = backend.keys(&[]).expect("memory has keys");
    let mut found: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for key in keys {
        let page = key[..key.len() - 2].to_vec();
        let part = found.get(&page).map_or(0, Vec::len) as u16;
        let value = backend.get(&part_key(&page, part)).expect("memory has values").expect("parts without a gap");
        found.entry(page).or_default().push(value.to_vec());
    }
    found.into_iter().map(|(key, parts)| (key, payload(&parts))).collect()
}

fn note(
    event: &Event<'_>,
    messages: &mut BTreeSet<(String, String, String)>,
    people: &mut BTreeSet<(String, String, String)>,
) {
    use receipts_event::Body;
    let tenant = event.tenant.to_string();
    match &event.body {
        Body::MessageSent(e) => {
            messages.insert((tenant.clone(), e.conversation_id.to_string(), e.message_id.to_string()));
            people.insert((tenant, e.conversation_id.to_string(), e.sender_id.to_string()));
        }
        Body::ConversationRead(e) => {
            people.insert((tenant, e.conversation_id.to_string(), e.reader_id.to_string()));
        }
        Body::MembersChanged(e) => {
            for id in e.joined.iter().take(3) {
                people.insert((tenant.clone(), e.conversation_id.to_string(), id.to_string()));
            }
        }
        _ => {}
    }
}

/// Returns about `count` members of a set, evenly spread.
fn every<T>(set: BTreeSet<T>, count: usize) -> Vec<T> {
    let step = set.len().div_ceil(count).max(1);
    set.into_iter().step_by(step).collect()
}
