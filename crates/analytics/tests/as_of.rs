//! INV-ASOF: an answer as of a time is the one that was given then.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod common;

use common::{Alone, PARTITIONS, Told, assert_agree, oracle, scratch, take};
use receipts_analytics::{Error, UpTo, digest, span};

/// INV-ASOF, INV-PREFIX: the oracle answers while the log grows; a fold up to a record's time, or up to its offset, says the
/// same later.
#[test]
fn answers_as_of_a_time_are_those_that_were_given_then() {
    for seed in 0..4 {
        let told = Told::new(seed);
        for partition in 0..PARTITIONS {
            let records = &told.records[partition as usize];
            let questions = told.questions(partition);
            let mut live = oracle();
            for (at, taken) in records.iter().enumerate() {
                take(&mut live, taken);
                let ms = taken.0.timestamp_ms;
                let is_last_of_its_time = records.get(at + 1).is_none_or(|next| next.0.timestamp_ms > ms);
                if !is_last_of_its_time || at % 40 != 0 && at + 1 < records.len() {
                    continue;
                }
                let then = span(&told.log, partition, UpTo::Time(ms)).unwrap();
                assert_eq!(then, span(&told.log, partition, UpTo::Offset(taken.0.offset + 1)).unwrap());
                let folded = scratch().fold(&told.log, &then, &Alone).unwrap();
                assert_agree(&questions, &folded.state, &live, &format!("seed {seed}, as of {ms}"));
            }
            let before = span(&told.log, partition, UpTo::Time(0)).unwrap();
            assert_eq!(before.offsets(), 0, "nothing had happened yet");
            let beyond = span(&told.log, partition, UpTo::Offset(1 << 40));
            assert!(matches!(beyond, Err(Error::Beyond { .. })));
        }
    }
}

/// INV-PREFIX: the digest follows from the prefix alone, not from the memory that the fold had, and another prefix has
/// another one.
#[test]
fn the_digest_is_that_of_the_prefix_whatever_the_memory() {
    let told = Told::new(7);
    let whole = span(&told.log, 0, UpTo::End).unwrap();
    let fold = |memory_bytes, span| {
        let scratch = receipts_analytics::Scratch { memory_bytes, ..scratch() };
        scratch.fold(&told.log, span, &Alone).unwrap()
    };
    let (roomy, tight) = (fold(64 << 20, &whole), fold(16 << 10, &whole));
    assert_eq!(digest(&roomy.state).unwrap(), digest(&tight.state).unwrap());
    assert_eq!(roomy.told, tight.told);
    assert_eq!(roomy.told.dead_letters.get("invalid-json"), Some(&1), "{:?}", roomy.told);
    assert_eq!(roomy.told.next_offset, whole.end_offset);
    let shorter = receipts_analytics::Span { end_offset: whole.end_offset / 2, ..whole };
    assert_ne!(digest(&fold(64 << 20, &shorter).state).unwrap(), digest(&roomy.state).unwrap());
}
