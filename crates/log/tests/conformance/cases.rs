//! What every log must do. Each case gets a new log with empty topics.

use crate::support::{
    Call, Fixture, PARTITIONS, Received, RecordingAssignment, TIME_LIMIT, entry, read_all, read_until, read_until_stop,
};
use bytes::Bytes;
use receipts_log::{AppendError, Entry, Polled, ReadError, Record, SLICE_RECORDS_MAX, Tail, Topic, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(crate) fn a_key_goes_to_its_murmur2_partition(fixture: &Fixture) {
    assert_eq!(fixture.log.partition_count(), PARTITIONS);
    let keys: Vec<String> = (0..200).map(|number| format!("default/conversation-{number}")).collect();
    let written = fixture.append(keys.iter().map(|key| entry(None, key, "v")));
    for (key, written) in keys.iter().zip(&written) {
        assert_eq!(written.partition, receipts_event::partition_of(key.as_bytes(), PARTITIONS), "{key}");
    }
    let received = read_all(&mut *fixture.reader());
    assert_eq!(received.records.len(), keys.len());
    for record in &received.records {
        let key = record.key.as_deref().unwrap();
        assert_eq!(record.partition, receipts_event::partition_of(key, PARTITIONS), "{key:?}");
    }
}

pub(crate) fn order_is_kept_within_a_partition(fixture: &Fixture) {
    let written = fixture.append((0..1000).map(|number| entry(number % 3, "k", number)));
    for partition in 0..3 {
        let offsets: Vec<_> = written.iter().filter(|w| w.partition == partition).map(|w| w.offset).collect();
        assert!(offsets.is_sorted_by(|a, b| a < b), "acknowledged out of order: {offsets:?}");
    }
    let received = read_all(&mut *fixture.reader());
    for partition in 0..3 {
        let wanted: Vec<_> = (0..1000).filter(|number| number % 3 == partition).map(|n| n.to_string()).collect();
        assert_eq!(received.values(partition), wanted);
        let offsets =
            received.records.iter().filter(|record| record.partition == partition).map(|record| record.offset);
        assert!(offsets.is_sorted_by(|a, b| a < b));
    }
    assert_eq!(received.values(3), Vec::<String>::new());
}

pub(crate) fn headers_timestamps_and_nulls_round_trip(fixture: &Fixture) {
    let headers = vec![
        ("reason".to_owned(), Some(Bytes::from_static(b"bad-json"))),
        ("none".to_owned(), None),
        ("empty".to_owned(), Some(Bytes::new())),
        ("reason".to_owned(), Some(Bytes::from_static(&[0, 255]))),
    ];
    let values = [None, Some(Bytes::new()), Some(Bytes::from_static(&[0xff, 0, 1]))];
    let entries: Vec<Entry> = values
        .iter()
        .enumerate()
        .map(|(at, value)| Entry {
            topic: Topic::Events,
            partition: Some(1),
            key: (at != 1).then(|| Bytes::from_static(b"\0key")),
            value: value.clone(),
            headers: if at == 1 { Vec::new() } else { headers.clone() },
            timestamp_ms: Some(1_780_000_000_000 + at as u64),
        })
        .collect();
    fixture.append(entries.clone());
    let received = read_all(&mut *fixture.reader());
    let looked = fixture.log.read(Topic::Events, 1, 0, 10).unwrap();
    assert_eq!(received.records, looked, "inspection and the reader see the same records");
    assert_eq!(looked.len(), entries.len());
    for (record, entry) in looked.iter().zip(&entries) {
        assert_eq!(Some(record.timestamp_ms), entry.timestamp_ms);
        assert_eq!((&record.key, &record.value, &record.headers), (&entry.key, &entry.value, &entry.headers));
    }
}

#[expect(clippy::disallowed_methods, reason = "the log stamps records with the time of their append")]
pub(crate) fn a_record_without_a_time_gets_its_append_time(fixture: &Fixture) {
    let now_ms = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let before = now_ms();
    fixture.append([entry(0, "k", "none"), Entry { timestamp_ms: Some(0), ..entry(0, "k", "zero") }]);
    for record in fixture.log.read(Topic::Events, 0, 0, 2).unwrap() {
        assert!((before..=now_ms()).contains(&record.timestamp_ms), "{record:?}");
    }
}

pub(crate) fn a_value_of_1_mib_round_trips(fixture: &Fixture) {
    let value: Bytes = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let written = fixture.append([Entry { value: Some(value.clone()), ..entry(2, "k", "") }, entry(2, "k", "after")]);
    let received = read_all(&mut *fixture.reader());
    assert_eq!(received.records[0].value, Some(value));
    assert_eq!(received.records[0].offset, written[0].offset);
    assert_eq!(received.records.len(), 2);
}

pub(crate) fn a_poll_returns_at_most_the_requested_records(fixture: &Fixture) {
    fixture.append((0..25).map(|number| entry(number % PARTITIONS, "k", number)));
    let (mut reader, mut received) = (fixture.reader(), Received::default());
    let deadline = Instant::now() + crate::support::TIME_LIMIT;
    while received.records.len() < 25 {
        assert!(Instant::now() < deadline);
        assert!(received.poll(&mut *reader, 3, Duration::from_millis(100)).unwrap() <= 3);
    }
    assert_eq!(received.poll(&mut *reader, 0, Duration::ZERO).unwrap(), 0);
}

pub(crate) fn a_poll_of_an_idle_log_returns_after_its_timeout(fixture: &Fixture) {
    let mut reader = fixture.reader();
    read_all(&mut *reader);
    let begun = Instant::now();
    assert_eq!(Received::default().poll(&mut *reader, 10, Duration::from_millis(300)).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(290), "waited only {:?}", begun.elapsed());
    assert_eq!(Received::default().poll(&mut *reader, 10, Duration::ZERO).unwrap(), 0);
}

pub(crate) fn a_poll_does_not_wait_after_its_first_record(fixture: &Fixture) {
    let mut reader = fixture.reader();
    read_all(&mut *reader);
    let writer = fixture.log.writer();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            writer.append(entry(0, "k", "late")).blocking_recv().unwrap().unwrap();
        });
        let (begun, mut received) = (Instant::now(), Received::default());
        while received.records.is_empty() {
            received.poll(&mut *reader, 100, crate::support::TIME_LIMIT).unwrap();
        }
        assert!(begun.elapsed() < crate::support::TIME_LIMIT / 2, "waited {:?} for more", begun.elapsed());
        assert_eq!(received.values(0), ["late"]);
    });
}

pub(crate) fn each_catch_up_reports_the_end_of_a_partition(fixture: &Fixture) {
    let mut reader = fixture.reader();
    let received = read_all(&mut *reader);
    assert_eq!(received.ends.into_iter().collect::<BTreeSet<_>>(), (0..PARTITIONS).map(|p| (p, 0)).collect());
    for round in 1..4 {
        let written = fixture.append([entry(2, "k", round)]);
        let received = read_until(&mut *reader, |received| !received.ends.is_empty());
        assert_eq!(received.values(2), [round.to_string()], "the record comes before its end");
        assert_eq!(received.ends, [(2, written[0].offset + 1)]);
    }
}

pub(crate) fn a_reader_starts_at_the_offset_of_the_assignment(fixture: &Fixture) {
    let written = fixture.append((0..10).map(|number| entry(1, "k", number)));
    let end = written[9].offset + 1;
    for start in [written[7].offset, end] {
        let assignment =
            Arc::new(RecordingAssignment { starts: BTreeMap::from([(1, start)]), ..RecordingAssignment::default() });
        let mut reader = fixture.log.reader(&fixture.group, assignment.clone()).unwrap();
        let received = read_all(&mut *reader);
        assert_eq!(received.records.iter().map(|r| r.offset).collect::<Vec<_>>(), (start..end).collect::<Vec<_>>());
        assert!(received.ends.contains(&(1, end)), "{:?}", received.ends);
        reader.commit(1, end);
        assert!(assignment.calls.lock().contains(&Call::Assigned { partition: 1, first: 0, end }));
    }
}

pub(crate) fn a_flush_returns_once_everything_is_acknowledged(fixture: &Fixture) {
    let writer = fixture.log.writer();
    let appended: Vec<_> = (0..500).map(|number| writer.append(entry(number % 4, "k", number))).collect();
    writer.flush(crate::support::TIME_LIMIT).unwrap();
    for mut appended in appended {
        appended.try_recv().expect("resolved before the flush returned").unwrap();
    }
}

pub(crate) fn a_flush_reports_a_failure_once(fixture: &Fixture) {
    let writer = fixture.log.writer();
    drop(writer.append(Entry { value: Some(vec![0; 5 << 20].into()), ..entry(0, "k", "") }));
    let error = writer.flush(crate::support::TIME_LIMIT).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge(_)), "{error}");
    writer.flush(crate::support::TIME_LIMIT).unwrap();
}

pub(crate) fn concurrent_appends_are_acknowledged_in_order(fixture: &Fixture) {
    let written = fixture.append((0..10_000).map(|number| entry(number % PARTITIONS, "k", number)));
    for partition in 0..PARTITIONS {
        let offsets = written.iter().filter(|written| written.partition == partition).map(|written| written.offset);
        assert!(offsets.is_sorted_by(|a, b| a < b));
    }
    assert_eq!(read_all(&mut *fixture.reader()).records.len(), 10_000);
}

fn failure(writer: &dyn Writer, entry: Entry) -> AppendError {
    writer.append(entry).blocking_recv().unwrap().unwrap_err()
}

pub(crate) fn an_entry_for_an_unknown_partition_is_not_written(fixture: &Fixture) {
    let error = failure(&*fixture.log.writer(), entry(PARTITIONS, "k", "v"));
    assert!(matches!(error, AppendError::NotWritten(_)), "{error}");
}

pub(crate) fn an_entry_that_is_too_large_is_not_written(fixture: &Fixture) {
    let error = failure(&*fixture.log.writer(), Entry { value: Some(vec![0; 5 << 20].into()), ..entry(0, "k", "") });
    assert!(matches!(error, AppendError::TooLarge(_)), "{error}");
    assert_eq!(fixture.log.bounds(Topic::Events, 0).unwrap(), 0..0);
}

pub(crate) fn the_topics_are_kept_apart(fixture: &Fixture) {
    let of = |topic, value: &str| Entry { topic, ..entry(3, "k", value) };
    fixture.append([of(Topic::Updates, "u"), of(Topic::DeadLetters, "d"), of(Topic::Events, "e")]);
    for (topic, value) in [(Topic::Updates, "u"), (Topic::DeadLetters, "d"), (Topic::Events, "e")] {
        let records = fixture.log.read(topic, 3, 0, 10).unwrap();
        assert_eq!(
            records.iter().map(|record| record.value.as_deref().unwrap()).collect::<Vec<_>>(),
            [value.as_bytes()]
        );
    }
    assert_eq!(read_all(&mut *fixture.reader()).values(3), ["e"]);
}

pub(crate) fn an_offset_is_found_by_time(fixture: &Fixture) {
    let at = |time| Entry { timestamp_ms: Some(time), ..entry(1, "k", time) };
    let written = fixture.append([1000, 2000, 2000, 3000].map(at));
    let wanted = [(1, 0), (1000, 0), (1001, 1), (2000, 1), (2001, 3), (3000, 3)];
    for (time, index) in wanted {
        assert_eq!(fixture.log.offset_at(Topic::Events, 1, time).unwrap(), written[index].offset, "{time}");
    }
    assert_eq!(fixture.log.offset_at(Topic::Events, 1, 3001).unwrap(), written[3].offset + 1);
    assert_eq!(fixture.log.offset_at(Topic::Events, 0, 1).unwrap(), 0);
}

pub(crate) fn a_scan_returns_a_range_in_slices(fixture: &Fixture) {
    fixture.append((0..10_000).map(|number| entry(1, "k", number)));
    (fixture.trim)(1, 10);
    let scan = |offsets: Range<u64>, max: usize| {
        let mut scanned = Vec::new();
        let mut each = |records: &[Record<'_>]| {
            assert!(records.len() <= SLICE_RECORDS_MAX);
            for record in records {
                assert_eq!(record.value, Some(record.offset.to_string().as_bytes()));
                scanned.push(record.offset);
            }
            if scanned.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        fixture.log.scan(Topic::Events, 1, offsets, &mut each).unwrap();
        scanned
    };
    let wanted = |offsets: Range<u64>| offsets.collect::<Vec<_>>();
    assert_eq!(scan(0..u64::MAX, usize::MAX), wanted(10..10_000), "from the first one kept to the end");
    assert_eq!(scan(77..5_003, usize::MAX), wanted(77..5_003));
    assert_eq!(scan(500..500, usize::MAX), wanted(0..0));
    assert_eq!(scan(20_000..30_000, usize::MAX), wanted(0..0), "no records beyond the end");
    let broken_off = scan(10..10_000, 100);
    assert_eq!(broken_off, wanted(10..10 + broken_off.len() as u64));
    assert!((100..100 + SLICE_RECORDS_MAX).contains(&broken_off.len()), "no slice after the break");
    let nothing = fixture.log.scan(Topic::Events, 2, 0..10, &mut |_| panic!("an empty partition"));
    assert!(nothing.is_ok());
    assert!(fixture.log.scan(Topic::Events, PARTITIONS, 0..10, &mut |_| ControlFlow::Continue(())).is_err());
}

pub(crate) fn dropping_a_reader_revokes_its_partitions(fixture: &Fixture) {
    let assignment = Arc::new(RecordingAssignment::default());
    let mut reader = fixture.log.reader(&fixture.group, assignment.clone()).unwrap();
    read_all(&mut *reader);
    assert!(!assignment.calls.lock().iter().any(|call| matches!(call, Call::Revoked(_))));
    drop(reader);
    let calls = assignment.calls.lock();
    let mut revoked: Vec<u32> = calls
        .iter()
        .filter_map(|call| if let Call::Revoked(partitions) = call { Some(partitions.clone()) } else { None })
        .flatten()
        .collect();
    revoked.sort_unstable();
    assert_eq!(revoked, (0..PARTITIONS).collect::<Vec<_>>(), "each once");
    drop(calls);
    // A reader that never polled holds nothing.
    let assignment = Arc::new(RecordingAssignment::default());
    drop(fixture.log.reader(&fixture.group, assignment.clone()).unwrap());
    assert_eq!(*assignment.calls.lock(), []);
}

pub(crate) fn a_refused_partition_stops_the_reader(fixture: &Fixture) {
    let assignment = Arc::new(RecordingAssignment { refuses: Some(2), ..RecordingAssignment::default() });
    let mut reader = fixture.log.reader(&fixture.group, assignment.clone()).unwrap();
    let sentence = read_until_stop(&mut *reader);
    assert!(sentence.contains("partition 2") && sentence.contains("the disk is full"), "{sentence}");
    let again = Received::default().poll(&mut *reader, 10, Duration::ZERO).unwrap_err();
    assert!(matches!(&again, ReadError::Stop(same) if *same == sentence), "{again}");
    drop(reader);
    let calls = assignment.calls.lock();
    let (mut assigned, mut revoked) = (BTreeSet::new(), BTreeSet::new());
    for call in calls.iter() {
        match call {
            Call::Assigned { partition, .. } => _ = assigned.insert(*partition),
            Call::Revoked(partitions) => revoked.extend(partitions.iter().copied()),
        }
    }
    assert_eq!(assigned, revoked, "opened partitions are released");
}

pub(crate) fn an_assignment_may_look_at_records(fixture: &Fixture) {
    fixture.append((0..3).map(|number| entry(1, "k", number)));
    (fixture.trim)(1, 1);
    let assignment = Arc::new(RecordingAssignment { looks: true, ..RecordingAssignment::default() });
    let received = read_all(&mut *fixture.log.reader(&fixture.group, assignment.clone()).unwrap());
    let seen = assignment.seen.lock();
    let read: Vec<_> = received.records.iter().filter(|record| record.partition == 1).collect();
    for (offset, record) in [(1, read[0]), (2, read[1])] {
        let seen = seen[&(1, offset)].as_ref().unwrap();
        assert_eq!((seen, seen.fingerprint()), (record, record.fingerprint()));
    }
    assert_ne!(read[0].fingerprint(), read[1].fingerprint());
    assert_eq!((&seen[&(1, 3)], &seen[&(0, 0)]), (&None, &None), "no records beyond the end");
}

pub(crate) fn a_start_beyond_the_end_stops_the_reader(fixture: &Fixture) {
    fixture.append([entry(1, "k", "v")]);
    let assignment =
        Arc::new(RecordingAssignment { starts: BTreeMap::from([(1, 7)]), ..RecordingAssignment::default() });
    let mut reader = fixture.log.reader(&fixture.group, assignment).unwrap();
    let sentence = read_until_stop(&mut *reader);
    assert!(sentence.contains("ends at offset 1") && sentence.contains("stands at 7"), "{sentence}");
}

pub(crate) fn a_start_that_was_trimmed_stops_the_reader(fixture: &Fixture) {
    fixture.append((0..10).map(|number| entry(1, "k", number)));
    (fixture.trim)(1, 5);
    let assignment =
        Arc::new(RecordingAssignment { starts: BTreeMap::from([(1, 4)]), ..RecordingAssignment::default() });
    let mut reader = fixture.log.reader(&fixture.group, assignment).unwrap();
    let sentence = read_until_stop(&mut *reader);
    assert!(sentence.contains("begins at offset 5") && sentence.contains("trimmed"), "{sentence}");
}

pub(crate) fn a_trimmed_log_begins_at_its_first_offset(fixture: &Fixture) {
    fixture.append((0..10).map(|number| entry(1, "k", number)));
    (fixture.trim)(1, 5);
    assert_eq!(fixture.log.bounds(Topic::Events, 1).unwrap(), 5..10);
    assert_eq!(fixture.log.read(Topic::Events, 1, 0, 1).unwrap()[0].offset, 5);
    assert_eq!(read_all(&mut *fixture.reader()).values(1), ["5", "6", "7", "8", "9"]);
    (fixture.trim)(1, 10);
    let written = fixture.append([entry(1, "k", "after")]);
    assert_eq!(written[0].offset, 10, "offsets continue after all records are trimmed");
}

/// Polls a tail until `enough` returns true.
fn follow(tail: &mut dyn Tail, mut enough: impl FnMut(&[String], &[(u32, u64)]) -> bool) -> Vec<String> {
    let (mut values, mut ends, deadline) = (Vec::new(), Vec::new(), Instant::now() + TIME_LIMIT);
    while !enough(&values, &ends) {
        assert!(Instant::now() < deadline, "too late, received only {values:?}, {ends:?}");
        let polled = tail.poll(100, Duration::from_millis(100), &mut |polled| match polled {
            Polled::Records(records) => {
                let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
                values.extend(
                    records.iter().map(|record| format!("{} {}", record.partition, text(record.value.unwrap()))),
                );
            }
            Polled::End { partition, next_offset } => ends.push((partition, next_offset)),
        });
        assert!(matches!(polled, Ok(_) | Err(ReadError::Retry(_))), "{polled:?}");
    }
    values
}

pub(crate) fn a_tail_begins_at_its_start_and_follows_appends(fixture: &Fixture) {
    let update = |partition: u32, value: &str| Entry { topic: Topic::Updates, ..entry(partition, "k", value) };
    let written =
        fixture.append([update(0, "a"), update(0, "b"), update(1, "c"), update(2, "d"), entry(0, "k", "event")]);
    let starts = [(0, written[1].offset), (1, written[2].offset + 1)];
    let mut tail = fixture.log.tail(Topic::Updates, &starts).unwrap();
    let received =
        follow(&mut *tail, |_, ends| [0, 1].iter().all(|partition| ends.iter().any(|end| end.0 == *partition)));
    assert_eq!(received, ["0 b"]);
    fixture.append([update(2, "e"), update(1, "f"), update(0, "g")]);
    let mut received = follow(&mut *tail, |values, _| values.len() >= 2);
    received.sort();
    assert_eq!(received, ["0 g", "1 f"], "and no record of another partition");
    assert!(fixture.log.tail(Topic::Updates, &[(PARTITIONS, 0)]).is_err());
}

pub(crate) fn a_tail_below_the_first_offset_stops(fixture: &Fixture) {
    let written = fixture.append((0..5).map(|number| entry(0, "k", number)));
    (fixture.trim)(0, written[3].offset);
    let stopped = fixture.log.tail(Topic::Events, &[(0, written[1].offset)]).and_then(|mut tail| {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            match tail.poll(10, Duration::from_millis(100), &mut |_| {}) {
                Err(ReadError::Retry(_)) | Ok(0) if Instant::now() < deadline => {}
                ended => return ended,
            }
        }
    });
    assert!(matches!(stopped, Err(ReadError::Stop(_))), "{stopped:?}");
}
