//! What only Kafka does: groups, partitioning by other clients, broker failures, topics of other
//! makers.

use crate::support::{Fixture, PARTITIONS, Received, TIME_LIMIT, admin, entry, settings};
use parking_lot::Mutex;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use receipts_log::kafka::{BoundTopic, ConnectError, CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, enabled, unique};
use receipts_log::{AppendError, Assignment, Entry, Inspect, Log, Peek, Polled, ReadError, Reader, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn create(bootstrap: &str, name: &str, partitions: i32, properties: &[(&str, &str)]) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = properties.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let results = futures_executor::block_on(admin(bootstrap).create_topics([&topic], &options)).unwrap();
    results.into_iter().for_each(|result| _ = result.unwrap());
}

/// Checks the golden vectors of the event crate against librdkafka.
#[test]
fn librdkafka_and_partition_of_choose_the_same_partition() {
    let Some(broker) = Broker::shared() else { return };
    let golden = include_str!("../../../event/testdata/murmur2.txt");
    let rows: Vec<Vec<&str>> = golden
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|row| row.len() > 2)
        .collect();
    assert!(rows.len() > 50);
    for (column, partitions) in [1, 3, 4, 12, 64, 256].into_iter().enumerate() {
        let settings = settings(broker);
        create(&settings.bootstrap, &settings.dead_letters, 1, &[]);
        let create_topics = Some(CreateTopics { partitions, replication: None });
        let log = KafkaLog::connect(KafkaSettings { create_topics, ..settings }).unwrap();
        assert_eq!(log.partition_count(), partitions);
        let writer = log.writer();
        let appended: Vec<_> = rows.iter().map(|row| writer.append(entry(None, row[0], ""))).collect();
        for (row, appended) in rows.iter().zip(appended) {
            let written = appended.blocking_recv().unwrap().unwrap();
            assert_eq!(written.partition.to_string(), row[2 + column], "{} of {partitions}", row[0]);
            assert_eq!(written.partition, receipts_event::partition_of(row[0].as_bytes(), partitions));
        }
    }
}

#[test]
fn an_update_topic_with_other_partitions_is_refused() {
    let Some(broker) = Broker::shared() else { return };
    let settings = settings(broker);
    create(&settings.bootstrap, &settings.updates, 2, &[]);
    let refused = KafkaLog::connect(settings.clone()).err().unwrap();
    assert!(matches!(refused, ConnectError::Partitions { held: 2, events: PARTITIONS, .. }), "{refused}");
    assert!(refused.to_string().contains("--log-updates-topic"), "{refused}");
    // A process that only reads events does not need the topic.
    KafkaLog::connect(KafkaSettings { required: &[Topic::Events], ..settings }).unwrap();
}

/// State that two readers of a group pass on to each other, as projectors do through their stores.
#[derive(Default)]
struct SharedState {
    /// By partition: the next offset, and the applied values.
    state: Mutex<BTreeMap<u32, (u64, Vec<String>)>>,
    owners: Mutex<BTreeMap<u32, u32>>,
}

/// One of the readers.
struct Member {
    name: u32,
    all: Arc<SharedState>,
    /// True while a poll passes records on; no assignment call may come then.
    in_hand: AtomicBool,
    held: AtomicU32,
}

impl Assignment for Member {
    fn assigned(
        &self,
        partition: u32,
        _: u64,
        _: u64,
        _: &dyn Peek,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        assert!(!self.in_hand.load(Ordering::SeqCst), "assigned between two records of a poll");
        let owner = self.all.owners.lock().insert(partition, self.name);
        assert_eq!(owner, None, "partition {partition} was still owned");
        self.held.fetch_add(1, Ordering::SeqCst);
        Ok(self.all.state.lock().entry(partition).or_default().0)
    }

    fn revoked(&self, partitions: &[u32]) {
        assert!(!self.in_hand.load(Ordering::SeqCst), "revoked between two records of a poll");
        for partition in partitions {
            assert_eq!(self.all.owners.lock().remove(partition), Some(self.name));
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Member {
    fn new(name: u32, all: &Arc<SharedState>) -> Arc<Self> {
        Arc::new(Member { name, all: all.clone(), in_hand: AtomicBool::new(false), held: AtomicU32::new(0) })
    }

    fn step(&self, reader: &mut dyn Reader) {
        let polled = reader.poll(500, Duration::from_millis(20), &mut |polled| {
            self.in_hand.store(true, Ordering::SeqCst);
            let Polled::Records(records) = polled else { return };
            let mut state = self.all.state.lock();
            for record in records {
                let (next, values) = state.get_mut(&record.partition).unwrap();
                assert!(record.offset >= *next, "a record came twice");
                *next = record.offset + 1;
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
        });
        self.in_hand.store(false, Ordering::SeqCst);
        if let Err(ReadError::Stop(sentence)) = polled {
            panic!("{sentence}");
        }
    }
}

#[test]
fn readers_of_a_group_skip_nothing_in_a_handover() {
    let Some(fixture) = Fixture::kafka() else { return };
    let (all, done) = (Arc::new(SharedState::default()), AtomicBool::new(false));
    let written = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let (writer, mut appended) = (fixture.log.writer(), Vec::new());
            while !done.load(Ordering::SeqCst) {
                for partition in 0..PARTITIONS {
                    let number = appended.len();
                    appended.push((partition, writer.append(entry(partition, "k", number))));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            appended.into_iter().map(|(p, a)| (p, a.blocking_recv().unwrap().unwrap())).collect::<Vec<_>>()
        });
        // Ends the producer if an assertion fails; otherwise the scope would wait for it for ever.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let ends = Ends(&done);
        let deadline = Instant::now() + 3 * TIME_LIMIT;
        let first = Member::new(1, &all);
        let mut one = fixture.log.reader(&fixture.group, first.clone()).unwrap();
        while first.held.load(Ordering::SeqCst) < PARTITIONS {
            first.step(&mut *one);
            assert!(Instant::now() < deadline, "the first reader is not given all");
        }
        let second = Member::new(2, &all);
        let mut two = fixture.log.reader(&fixture.group, second.clone()).unwrap();
        while second.held.load(Ordering::SeqCst) < PARTITIONS / 2 {
            first.step(&mut *one);
            second.step(&mut *two);
            assert!(Instant::now() < deadline, "the second reader is not given half");
        }
        assert_eq!(first.held.load(Ordering::SeqCst), PARTITIONS / 2);
        // The second reader is dropped while the first one does not poll, and does not wait for it.
        drop(two);
        assert_eq!(second.held.load(Ordering::SeqCst), 0);
        while first.held.load(Ordering::SeqCst) < PARTITIONS {
            first.step(&mut *one);
            assert!(Instant::now() < deadline, "the first reader is not given all back");
        }
        drop(ends);
        let written = producer.join().unwrap();
        let received = |all: &SharedState| all.state.lock().values().map(|(_, values)| values.len()).sum::<usize>();
        while received(&all) < written.len() {
            first.step(&mut *one);
            assert!(Instant::now() < deadline, "received {} of {}", received(&all), written.len());
        }
        written
    });
    for partition in 0..PARTITIONS {
        let wanted = written.iter().enumerate().filter(|(_, (of, _))| *of == partition).map(|(at, _)| at.to_string());
        assert_eq!(all.state.lock()[&partition].1, wanted.collect::<Vec<_>>(), "in order, none skipped, none twice");
    }
}

#[test]
fn everything_acknowledged_survives_a_broker_restart() {
    if !enabled() {
        return;
    }
    let broker = Broker::start(1).unwrap_or_else(|error| panic!("{error}"));
    let delivery_timeout = Duration::from_secs(90);
    let log = KafkaLog::connect(KafkaSettings { delivery_timeout, ..settings(&broker) }).unwrap();
    // The group may revoke partitions while the broker is down, so this reader resumes at its own
    // state.
    let all = Arc::new(SharedState::default());
    let member = Member::new(1, &all);
    let mut reader = log.reader(&unique("group"), member.clone()).unwrap();
    let deadline = Instant::now() + TIME_LIMIT;
    while member.held.load(Ordering::SeqCst) < PARTITIONS {
        member.step(&mut *reader);
        assert!(Instant::now() < deadline, "the reader is not given all");
    }
    let (writer, mut appended) = (log.writer(), Vec::new());
    let mut go_on = |rounds: usize, appended: &mut Vec<_>| {
        for _ in 0..rounds {
            let number = appended.len();
            appended.push(writer.append(entry(number as u32 % PARTITIONS, "k", number)));
            member.step(&mut *reader);
            // A step returns at once while every broker is down.
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    go_on(200, &mut appended);
    broker.kill(1).unwrap();
    go_on(200, &mut appended);
    broker.restart(1).unwrap();
    go_on(200, &mut appended);
    log.writer().flush(delivery_timeout).unwrap();
    let received = || all.state.lock().values().map(|(_, values)| values.len()).sum::<usize>();
    let deadline = Instant::now() + TIME_LIMIT;
    while received() < appended.len() {
        assert!(Instant::now() < deadline, "received {} of {}", received(), appended.len());
        member.step(&mut *reader);
    }
    for partition in 0..PARTITIONS {
        let wanted = (0..appended.len()).filter(|number| *number as u32 % PARTITIONS == partition);
        let wanted: Vec<_> = wanted.map(|number| number.to_string()).collect();
        let end = log.bounds(Topic::Events, partition).unwrap().end;
        assert_eq!(end, wanted.len() as u64, "each is in the log exactly once");
        assert_eq!(all.state.lock()[&partition], (end, wanted), "in order, without a gap");
        // So the records are at 0, 1, 2. If a record was acknowledged only after a retry, the
        // writer may know only that it is before the end.
        for (own, appended) in (0..).zip(appended.iter_mut().skip(partition as usize).step_by(PARTITIONS as usize)) {
            let written = appended.try_recv().expect("resolved before the flush returned").unwrap();
            assert_eq!(written.partition, partition);
            assert!((own..end).contains(&written.offset), "{written:?} of {own}, end {end}");
        }
    }
}

#[test]
fn an_unanswered_append_has_an_unknown_outcome() {
    if !enabled() {
        return;
    }
    let broker = Broker::start(1).unwrap_or_else(|error| panic!("{error}"));
    let delivery_timeout = Duration::from_secs(2);
    let log = KafkaLog::connect(KafkaSettings { delivery_timeout, ..settings(&broker) }).unwrap();
    log.writer().append(entry(0, "k", "before")).blocking_recv().unwrap().unwrap();
    broker.kill(1).unwrap();
    let error = log.writer().append(entry(0, "k", "after")).blocking_recv().unwrap().unwrap_err();
    assert!(matches!(error, AppendError::Unknown(_)), "{error}");
    assert!(matches!(log.writer().flush(TIME_LIMIT), Err(AppendError::Unknown(_))));
}

#[test]
fn a_log_trimmed_during_a_read_stops_the_reader() {
    let Some(fixture) = Fixture::kafka() else { return };
    // Twice the size of a reader's fetch queue, and incompressible.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    let mut value = || (0..2500).flat_map(|_| noise()).collect::<Vec<u8>>();
    fixture.append((0..3200).map(|_| Entry { value: Some(value().into()), ..entry(0, "k", "") }));
    let mut reader = fixture.reader();
    let mut received = Received::default();
    while received.records.is_empty() {
        received.poll(&mut *reader, 1, Duration::from_millis(100)).unwrap();
    }
    (fixture.trim)(0, 3200);
    let deadline = Instant::now() + TIME_LIMIT;
    let sentence = loop {
        assert!(Instant::now() < deadline, "read {} records and did not stop", received.records.len());
        if let Err(ReadError::Stop(sentence)) = received.poll(&mut *reader, 1000, Duration::from_millis(100)) {
            break sentence;
        }
    };
    assert!(sentence.contains("not in the log any more"), "{sentence}");
    let offsets: Vec<u64> = received.records.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (0..offsets.len() as u64).collect::<Vec<_>>(), "nothing was skipped before it stopped");
}

#[test]
fn a_compacted_event_topic_is_refused() {
    let Some(broker) = Broker::shared() else { return };
    for policy in ["compact", "compact,delete"] {
        let settings = settings(broker);
        create(&settings.bootstrap, &settings.events, 1, &[("cleanup.policy", policy)]);
        let error = KafkaLog::connect(settings).err().unwrap();
        assert!(matches!(error, ConnectError::Compacted(_)), "{error}");
        assert!(error.to_string().contains("Set cleanup.policy=delete"), "{error}");
    }
}

/// INV-SAME-LOG, INV-PARTITION-COUNT
#[test]
fn refusals_leave_no_topic_behind() {
    let Some(broker) = Broker::shared() else { return };
    let settings = settings(broker);
    let bound = |cluster_id: Option<&str>, partitions| {
        let bound = Some(BoundTopic { cluster_id: cluster_id.map(Into::into), partitions, topic_id: None });
        KafkaLog::connect(KafkaSettings { bound, ..settings.clone() }).err()
    };
    let missing = |required| {
        let existing = KafkaSettings { create_topics: None, required, ..settings.clone() };
        matches!(KafkaLog::connect(existing).err(), Some(ConnectError::Missing { .. }))
    };
    let refused = bound(Some("another"), PARTITIONS);
    assert!(matches!(refused, Some(ConnectError::OtherCluster { .. })), "{refused:?}");
    assert!(missing(&[Topic::Events]));
    let bound_to_deleted = BoundTopic { cluster_id: None, partitions: PARTITIONS, topic_id: Some("gone".into()) };
    let refused = KafkaLog::connect(KafkaSettings { bound: Some(bound_to_deleted), ..settings.clone() }).err();
    assert!(matches!(refused, Some(ConnectError::OtherTopic(_))), "{refused:?}");
    assert!(missing(&[Topic::Events]), "a topic in its place would be another one");
    create(&settings.bootstrap, &settings.events, 9, &[]);
    let refused = bound(None, PARTITIONS).expect("refused").to_string();
    assert!(refused.contains("(4 before, 9 now)") && refused.contains(&settings.events), "{refused}");
    assert!(missing(&Topic::ALL), "the other topics are not made");
    // Missing topics get the partition count of the events.
    assert_eq!(KafkaLog::connect(settings.clone()).unwrap().partition_count(), 9);
    drop(KafkaLog::connect(KafkaSettings { create_topics: None, ..settings }).unwrap());
}

#[test]
fn missing_topics_are_named_with_a_remedy() {
    let Some(broker) = Broker::shared() else { return };
    let settings = KafkaSettings { create_topics: None, ..settings(broker) };
    let events = settings.events.clone();
    let error = KafkaLog::connect(settings).err().unwrap().to_string();
    assert!(error.contains(&events) && error.contains("retention.ms=-1"), "{error}");
}

#[test]
fn existing_topics_keep_their_partition_counts() {
    let Some(broker) = Broker::shared() else { return };
    let settings = settings(broker);
    let first = KafkaLog::connect(settings.clone()).unwrap();
    let create_topics = Some(CreateTopics { partitions: 9, replication: None });
    let second = KafkaLog::connect(KafkaSettings { create_topics, ..settings }).unwrap();
    assert_eq!((first.partition_count(), second.partition_count()), (PARTITIONS, PARTITIONS));
    assert!(second.bounds(Topic::Events, PARTITIONS).is_err());
}

#[test]
fn an_unreachable_broker_is_named() {
    let settings = KafkaSettings {
        bootstrap: "127.0.0.1:9".into(),
        connect_timeout: Duration::from_secs(1),
        ..KafkaSettings::default()
    };
    let error = KafkaLog::connect(settings).err().unwrap();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:9 within 1 s"), "{error}");
}

#[test]
fn a_log_connects_within_an_async_runtime() {
    let Some(broker) = Broker::shared() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = settings(broker);
    runtime.block_on(async { assert!(KafkaLog::connect(settings).is_ok()) });
}
