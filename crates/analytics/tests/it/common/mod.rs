//! Seeded histories in an embedded log of two partitions, and per partition an oracle of the same
//! records.

use receipts_analytics::Scratch;
use receipts_event::{Body, Event, MembersChanged, MessageSent, copies, decode, partition_of};
use receipts_fold::effects::Effects;
use receipts_fold::view::{Member, MemberFilter};
use receipts_fold::{Limits, RawRecord, State};
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Inspect as _, Log as _, Topic};
use receipts_store::{Backend as _, Paged, SledBackend, SledSettings, SledStore};
use receipts_testkit::compare::Questions;
use receipts_testkit::history::{History, Shape};
use receipts_testkit::oracle::Limits as OracleLimits;
use receipts_testkit::{At, Oracle};
use std::num::NonZeroU32;
use std::path::Path;

pub(crate) const PARTITIONS: u32 = 2;

pub(crate) type Stored = State<Paged<SledBackend>>;

pub(crate) const SLED: SledSettings = SledSettings { cache_bytes: 8 << 20, sync: false };

pub(crate) fn with_state<T>(dir: &Path, change: impl FnOnce(&mut Stored) -> T) -> T {
    let store = SledStore::open(dir, SLED).unwrap();
    let pages = Paged::new(store.partition(0).unwrap(), 0, 8 << 20);
    let mut state = State::open(pages, scratch().limits).unwrap();
    let result = change(&mut state);
    let next_offset = state.next_offset();
    let batch = state.pages().batch(next_offset);
    state.pages().backend().commit(batch).unwrap();
    state.pages().backend().wait().unwrap();
    drop(state);
    result
}

/// Fills a store with the first records of the log, as the projector does.
pub(crate) fn folded(history: &LoggedHistory, records: usize, dir: &Path) {
    with_state(dir, |state| {
        for (at, event) in &history.records[0][..records] {
            let at = receipts_fold::RecordMetadata { partition: 0, offset: at.offset, timestamp_ms: at.timestamp_ms };
            let mut effects = Effects::default();
            match event {
                Some(event) => {
                    let (key, value) = (event.key(), Event::to_json(event));
                    let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
                    state.apply(at, event, raw, &mut effects).unwrap();
                }
                None => state.skip(at, receipts_event::Reason::InvalidJson, String::new(), &mut effects).unwrap(),
            }
        }
        state.write_meta();
    });
}

/// The retention is never reached, because the oracle remembers expired ids for ever and the fold
/// does not.
pub(crate) fn shape() -> Shape {
    Shape { events: 400, tenants: 2, p_jump: 0.0, ..Shape::wild() }
}

pub(crate) fn scratch() -> Scratch {
    let shape = shape();
    let limits =
        Limits { retention_ms: shape.retention_ms, parked_max: 20, parked_age_ms: 60_000, ..Limits::default() };
    Scratch { limits, memory_bytes: 8 << 20, snapshots: None }
}

pub(crate) fn oracle() -> Oracle {
    let limits = scratch().limits;
    Oracle::new(OracleLimits {
        retention_ms: limits.retention_ms,
        parked_count: limits.parked_max,
        parked_age_ms: limits.parked_age_ms,
        ..OracleLimits::default()
    })
}

/// A record of the log for the oracle; `None` if it is not an event.
pub(crate) type Taken = (At, Option<Event<'static>>);

/// A log with a history, one record of which is not an event.
pub(crate) struct LoggedHistory {
    pub(crate) log: EmbeddedLog,
    /// By partition.
    pub(crate) records: Vec<Vec<Taken>>,
    _dir: tempfile::TempDir,
}

impl LoggedHistory {
    pub(crate) fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), NonZeroU32::new(PARTITIONS)).unwrap();
        let writer = log.writer();
        let mut last = None;
        let mut append = |partition, key: Vec<u8>, value: Vec<u8>, timestamp_ms| {
            let entry = Entry { timestamp_ms: Some(timestamp_ms), ..Entry::event(key, value, Some(partition)) };
            last = Some(writer.append(entry));
        };
        for (number, (at, event)) in History::generate(seed, &shape()).into_iter().enumerate() {
            let (key, value) = (event.key(), event.to_json());
            match event.conversation_id() {
                Some(_) => append(partition_of(&key, PARTITIONS), key, value, at.timestamp_ms),
                None => copies(&value, PARTITIONS)
                    .for_each(|(partition, copy)| append(partition, key.clone(), copy.to_vec(), at.timestamp_ms)),
            }
            if number == 100 {
                append(0, b"k".to_vec(), b"no event".to_vec(), at.timestamp_ms);
            }
        }
        last.unwrap().blocking_recv().unwrap().unwrap();
        Self::read(log, dir)
    }

    /// Returns a log of `count` sends in one conversation of partition 0, one millisecond apart.
    pub(crate) fn of_sends(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), NonZeroU32::new(PARTITIONS)).unwrap();
        let writer = log.writer();
        let conversation =
            (0..).map(|n| format!("c{n}")).find(|id| partition_of(&receipts_event::key("t", id), PARTITIONS) == 0);
        let conversation = conversation.unwrap();
        let roster = Body::MembersChanged(MembersChanged {
            conversation_id: conversation.clone().into(),
            joined: vec!["a".into(), "b".into()],
            left: Vec::new(),
            observers: Vec::new(),
        });
        let sends = (0..count).map(|number| {
            Body::MessageSent(MessageSent {
                conversation_id: conversation.clone().into(),
                message_id: format!("m{number}").into(),
                sender_id: "a".into(),
                sent_at_ms: 1_780_000_000_000 + number as u64,
                need_read_receipt: true,
                recipients: None,
            })
        });
        let mut last = None;
        for (number, body) in std::iter::once(roster).chain(sends).enumerate() {
            let event = Event { tenant: "t".into(), event_id: None, body };
            let entry = Entry::event(event.key(), event.to_json(), None);
            last = Some(writer.append(Entry { timestamp_ms: Some(1_780_000_000_000 + number as u64), ..entry }));
        }
        last.unwrap().blocking_recv().unwrap().unwrap();
        Self::read(log, dir)
    }

    /// Returns a log in which each tenant has a group `c` with a message `m1` that `b` has read,
    /// and a read mark of `b`.
    pub(crate) fn of_tenants(tenants: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), NonZeroU32::new(PARTITIONS)).unwrap();
        let writer = log.writer();
        let events = [
            r#"{"type": "members.changed", "conversation_id": "c", "joined": ["a", "b", "0042"]}"#,
            r#"{"type": "message.sent", "conversation_id": "c", "message_id": "m1", "sender_id": "a",
                "sent_at_ms": 1780000000000, "need_read_receipt": true}"#,
            r#"{"type": "conversation.read", "conversation_id": "c", "reader_id": "b", "up_to_message_id": "m1"}"#,
        ];
        let mut last = None;
        for tenant in tenants {
            for event in events {
                let mut event: serde_json::Value = serde_json::from_str(event).unwrap();
                event["tenant"] = (*tenant).into();
                let entry = Entry::event(receipts_event::key(tenant, "c"), event.to_string().into_bytes(), None);
                last = Some(writer.append(Entry { timestamp_ms: Some(1_780_000_001_000), ..entry }));
            }
        }
        last.unwrap().blocking_recv().unwrap().unwrap();
        Self::read(log, dir)
    }

    fn read(log: EmbeddedLog, dir: tempfile::TempDir) -> Self {
        let records = (0..PARTITIONS).map(|partition| {
            let records = log.read(Topic::Events, partition, 0, usize::MAX).unwrap();
            let taken = records.into_iter().map(|record| {
                let at = At { partition, offset: record.offset, timestamp_ms: record.timestamp_ms };
                (at, decode(&record.value.unwrap()).ok().map(Event::into_owned))
            });
            taken.collect()
        });
        let records = records.collect();
        Self { log, records, _dir: dir }
    }

    /// Returns all questions about a partition.
    pub(crate) fn questions(&self, partition: u32) -> Questions {
        Questions::of(self.records[partition as usize].iter().filter_map(|(_, event)| event.as_ref()))
    }
}

pub(crate) fn take(oracle: &mut Oracle, (at, event): &Taken) {
    match event {
        Some(event) => _ = oracle.apply(*at, event),
        None => _ = oracle.pass(*at),
    }
}

/// Returns the oracle of all records of a partition.
pub(crate) fn oracle_of(records: &[Taken]) -> Oracle {
    let mut oracle = oracle();
    records.iter().for_each(|taken| take(&mut oracle, taken));
    oracle
}

pub(crate) fn by_id(mut members: Vec<Member>) -> Vec<Member> {
    members.sort_by(|a, b| a.user_id.cmp(&b.user_id));
    members
}

/// Compares all answers of the state with those of the oracle.
pub(crate) fn assert_agree(questions: &Questions, state: &State<Paged<SledBackend>>, oracle: &Oracle, when: &str) {
    for (tenant, conversation, message) in &questions.messages {
        let wanted = oracle.receipt(tenant, conversation, message);
        assert_eq!(state.receipt(tenant, conversation, message).unwrap(), wanted, "{when}");
        for filter in [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed] {
            let list = state.members(tenant, conversation, message, filter, 0, usize::MAX).unwrap();
            let wanted = oracle.members(tenant, conversation, message, filter).unwrap_or_default();
            assert_eq!(by_id(list.members), by_id(wanted), "{when}: {filter:?} of {message} in {conversation}");
        }
    }
    for (tenant, conversation, user) in &questions.people {
        let wanted = oracle.read_mark(tenant, conversation, user);
        assert_eq!(state.read_mark(tenant, conversation, user).unwrap(), wanted, "{when}");
    }
}
