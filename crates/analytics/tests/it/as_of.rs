//! INV-ASOF: an answer as of a time equals the answer at that time.

use crate::common::{LoggedHistory, PARTITIONS, assert_agree, oracle, scratch, take};
use receipts_analytics::{Error, Folded, Span, UpTo, digest, offset_at, span};

/// INV-ASOF, INV-PREFIX: the oracle answers while the log grows. A later fold up to a record's time
/// or offset gives the same answers.
#[test]
fn answers_as_of_a_time_equal_the_answers_then() {
    for seed in 0..4 {
        let history = LoggedHistory::new(seed);
        for partition in 0..PARTITIONS {
            let records = &history.records[partition as usize];
            let questions = history.questions(partition);
            let mut live = oracle();
            for (at, taken) in records.iter().enumerate() {
                take(&mut live, taken);
                let ms = taken.0.timestamp_ms;
                let is_last_of_its_time = records.get(at + 1).is_none_or(|next| next.0.timestamp_ms > ms);
                if !is_last_of_its_time || at % 40 != 0 && at + 1 < records.len() {
                    continue;
                }
                let then = span(&history.log, partition, UpTo::Time(ms)).unwrap();
                assert_eq!(then, span(&history.log, partition, UpTo::Offset(taken.0.offset + 1)).unwrap());
                let folded = scratch().fold(&history.log, &then, &()).unwrap();
                assert_agree(&questions, &folded.state, &live, &format!("seed {seed}, as of {ms}"));
            }
            let before = span(&history.log, partition, UpTo::Time(0)).unwrap();
            assert_eq!(before.offsets(), 0, "nothing had happened yet");
            let beyond = span(&history.log, partition, UpTo::Offset(1 << 40));
            assert!(matches!(beyond, Err(Error::Beyond { .. })));
        }
    }
}

/// INV-PREFIX: a fold that reports from an offset on has the state of the whole prefix. The reports
/// of both sides of the offset add up to the report of the whole, including dead letters that need
/// the state.
#[test]
fn reports_of_both_sides_add_up_to_the_whole() {
    for seed in 0..4 {
        let history = LoggedHistory::new(seed);
        for partition in 0..PARTITIONS {
            let records = &history.records[partition as usize];
            let whole = span(&history.log, partition, UpTo::End).unwrap();
            let all = scratch().fold(&history.log, &whole, &()).unwrap();
            assert!(
                all.report.dead_letters.contains_key("parked-expired"),
                "some follow from the state: {:?}",
                all.report
            );
            for from in
                [0, records.len() / 3, 2 * records.len() / 3, records.len() - 1, records.len(), records.len() + 7]
            {
                let from_offset = from as u64;
                let end_offset = from_offset.min(whole.end_offset);
                let before = scratch().fold(&history.log, &Span { end_offset, ..whole }, &()).unwrap().report;
                let rest = scratch().fold_from(&history.log, &whole, from_offset, &()).unwrap();
                assert_eq!(digest(&rest.state, 0, &()).unwrap(), digest(&all.state, 0, &()).unwrap());
                let Folded { report: rest, .. } = rest;
                assert_eq!(
                    (rest.first_offset, rest.from_offset, rest.next_offset),
                    (0, Some(end_offset), whole.end_offset)
                );
                assert_eq!((before.events + rest.events, rest.messages), (all.report.events, all.report.messages));
                let mut sum = before.dead_letters;
                rest.dead_letters.into_iter().for_each(|(reason, count)| *sum.entry(reason).or_default() += count);
                assert_eq!(sum, all.report.dead_letters, "seed {seed}, from {from}");
                assert_eq!(rest.first_timestamp_ms, records.get(from).map(|(at, _)| at.timestamp_ms));
                assert_eq!(
                    rest.newest_timestamp_ms.is_some(),
                    from < records.len(),
                    "of the range, if it has a record"
                );
            }
        }
    }
}

/// A time selects the first record that is at least as late, or the end if there is none.
#[test]
fn a_range_begins_at_the_first_late_enough_record() {
    let history = LoggedHistory::of_sends(20);
    let (first, last) = (history.records[0][0].0.timestamp_ms, history.records[0][20].0.timestamp_ms);
    for (ms, wanted) in [(0, 0), (first, 0), (first + 1, 1), (last, 20), (last + 1, 21)] {
        assert_eq!(offset_at(&history.log, 0, ms).unwrap(), wanted, "{ms}");
    }
}

/// INV-PREFIX: the digest depends on the prefix alone, not on the memory of the fold, and differs
/// between prefixes.
#[test]
fn the_digest_depends_on_the_prefix_alone() {
    let history = LoggedHistory::new(7);
    let whole = span(&history.log, 0, UpTo::End).unwrap();
    let fold = |memory_bytes, span| {
        let scratch = receipts_analytics::Scratch { memory_bytes, ..scratch() };
        scratch.fold(&history.log, span, &()).unwrap()
    };
    let (roomy, tight) = (fold(64 << 20, &whole), fold(16 << 10, &whole));
    assert_eq!(digest(&roomy.state, 0, &()).unwrap(), digest(&tight.state, 0, &()).unwrap());
    assert_eq!(roomy.report, tight.report);
    assert_eq!(roomy.report.dead_letters.get("invalid-json"), Some(&1), "{:?}", roomy.report);
    assert_eq!(roomy.report.next_offset, whole.end_offset);
    let shorter = Span { end_offset: whole.end_offset / 2, ..whole };
    assert_ne!(digest(&fold(64 << 20, &shorter).state, 0, &()).unwrap(), digest(&roomy.state, 0, &()).unwrap());
}
