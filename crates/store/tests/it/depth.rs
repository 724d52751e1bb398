//! INV-PAGING: counts the values and bytes that a page of a list of 100,000 members reads from the
//! medium. The last page reads about as much as the first one.

use receipts_event::{Body, Event, MembersChanged, MessageRead, MessageSent, TENANT_DEFAULT};
use receipts_fold::effects::Effects;
use receipts_fold::view::MemberFilter;
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Batch, Error, MemoryBackend, Paged};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PEOPLE: usize = 100_000;
const LIMIT: usize = 100;

/// A medium that counts its reads.
#[derive(Default)]
struct Counting {
    inner: MemoryBackend,
    values: AtomicUsize,
    bytes: AtomicUsize,
}

impl Backend for Counting {
    type Value = Arc<[u8]>;

    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>, Error> {
        let value = self.inner.get(key)?;
        self.values.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(value.as_deref().map_or(0, <[u8]>::len), Ordering::Relaxed);
        Ok(value)
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.inner.keys(prefix)
    }

    fn commit(&self, batch: Batch) -> Result<u64, Error> {
        self.inner.commit(batch)
    }

    fn applied(&self) -> u64 {
        self.inner.applied()
    }
}

fn user(n: usize) -> String {
    format!("user-{n:06}")
}

/// Returns a group in which four of ten people have read and one person has left. No page is in
/// memory.
fn folded() -> State<Paged<Counting>> {
    folded_without(&[PEOPLE / 2 + 9])
}

/// Returns a group in which four of ten people have read and these people have left, one after the
/// other.
fn folded_without(departed: &[usize]) -> State<Paged<Counting>> {
    let backend = MemoryBackend::default();
    let mut state = State::open(Paged::new(backend.clone(), 0, 256 << 20), Limits::default()).unwrap();
    let (mut offset, mut effects) = (0, Effects::default());
    let mut apply = |state: &mut State<_>, body: Body<'static>| {
        let event = Event { tenant: TENANT_DEFAULT.into(), event_id: None, body };
        let (key, value) = (event.key(), event.to_json());
        let at = RecordMetadata { partition: 0, offset, timestamp_ms: 1_780_000_000_000 };
        state
            .apply(at, &event, RawRecord { key: Some(&key), value: &value, headers: &Vec::new }, &mut effects)
            .unwrap();
        effects.clear();
        offset += 1;
    };
    let roster = |joined: Vec<usize>, left: Vec<usize>| {
        let names = |people: Vec<usize>| people.into_iter().map(|n| user(n).into()).collect();
        let (joined, left) = (names(joined), names(left));
        Body::MembersChanged(MembersChanged { conversation_id: "g".into(), joined, left, observers: Vec::new() })
    };
    for first in (0..PEOPLE).step_by(10_000) {
        apply(&mut state, roster((first..first + 10_000).collect(), Vec::new()));
    }
    apply(
        &mut state,
        Body::MessageSent(MessageSent {
            conversation_id: "g".into(),
            message_id: "m".into(),
            sender_id: user(0).into(),
            sent_at_ms: 1_780_000_000_000,
            need_read_receipt: true,
            recipients: None,
        }),
    );
    for n in (0..PEOPLE).filter(|n| n % 10 < 4) {
        apply(
            &mut state,
            Body::MessageRead(MessageRead {
                conversation_id: "g".into(),
                reader_id: user(n).into(),
                message_ids: vec!["m".into()],
                read_at_ms: None,
                hidden: false,
            }),
        );
    }
    for n in departed {
        apply(&mut state, roster(Vec::new(), vec![*n]));
    }
    state.write_meta();
    let batch = state.pages().batch(state.next_offset());
    backend.commit(batch).unwrap();
    let cold = Counting { inner: backend, ..Counting::default() };
    State::open(Paged::new(cold, 0, 0), Limits::default()).unwrap()
}

/// Returns the values and bytes that each page of a whole walk reads from the medium.
fn walk(state: &State<Paged<Counting>>, filter: MemberFilter) -> Vec<(usize, usize)> {
    let mut read = Vec::new();
    let mut from = Some(0);
    let mut walked = 0;
    while let Some(slot) = from {
        let backend = state.pages().backend();
        backend.values.store(0, Ordering::Relaxed);
        backend.bytes.store(0, Ordering::Relaxed);
        let page = state.members(TENANT_DEFAULT, "g", "m", filter, slot, LIMIT).unwrap();
        read.push((backend.values.load(Ordering::Relaxed), backend.bytes.load(Ordering::Relaxed)));
        walked += page.members.len();
        from = page.next_slot;
    }
    let counts = state.receipt(TENANT_DEFAULT, "g", "m").unwrap().counts.unwrap();
    let count = match filter {
        MemberFilter::Read => counts.read_count,
        MemberFilter::Unread => counts.unread_count,
        MemberFilter::Departed => counts.departed_count,
    };
    assert_eq!(walked, count as usize, "a whole walk");
    read
}

/// INV-PAGING
#[test]
fn last_page_of_100_000_costs_the_first() {
    let state = folded();
    for filter in [MemberFilter::Read, MemberFilter::Unread] {
        let pages = walk(&state, filter);
        assert!(pages.len() > 300, "{}", pages.len());
        let (first, last) = (pages[0], pages[pages.len() - 1]);
        let most = pages.iter().max().unwrap();
        // A list page that begins within a page of people or bits reads one more of each.
        assert!(first.0 > 5 && most.0 <= first.0 + 3, "{filter:?}: the first reads {first:?}, one reads {most:?}");
        assert!(last.0 <= first.0 + 3 && last.1 <= first.1 * 3 / 2, "{filter:?}: {first:?}, the last {last:?}");
        let (half, rest) = pages[..pages.len() - 1].split_at(pages.len() / 2);
        let mean =
            |pages: &[(usize, usize)]| pages.iter().map(|page| page.1).sum::<usize>() as f64 / pages.len() as f64;
        let ratio = mean(rest) / mean(half);
        assert!((0.9..1.1).contains(&ratio), "{filter:?}: the second half reads {ratio} times the bytes of the first");
    }
}

/// INV-PAGING: one departed member among 100,000 is found by the departure record, not by a scan of
/// all unread members.
#[test]
fn departed_members_are_found_by_departure_records() {
    let pages = walk(&folded(), MemberFilter::Departed);
    assert!(pages.len() == 1 && (5..20).contains(&pages[0].0), "{pages:?}");
}

/// INV-PAGING: departures after a message are searched once; a repeated question searches only
/// newer ones.
#[test]
fn repeated_question_reads_newer_departures_only() {
    let left: Vec<usize> = (0..500).map(|n| n * 199 + 1).collect();
    let state = folded_without(&left);
    let ask = || {
        state.pages().backend().values.store(0, Ordering::Relaxed);
        let counts = state.receipt(TENANT_DEFAULT, "g", "m").unwrap().counts.unwrap();
        (counts.departed_count as usize, state.pages().backend().values.load(Ordering::Relaxed))
    };
    let departed = left.iter().filter(|n| *n % 10 >= 4).count();
    let (first, again) = (ask(), ask());
    assert_eq!((first.0, again.0), (departed, departed));
    // The bits of all departed members are read each time.
    assert!(first.1 > again.1 + 400, "{} values the first time, {} the second", first.1, again.1);
}
