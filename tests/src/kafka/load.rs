//! Load on a real Kafka for the tests that kill: histories written by `kcat`, and questions put to
//! the service about what the log holds. Must not kill anything itself.

use super::{Kafka, PARTITIONS, produce};
use crate::witness::http::{Answer, Client};
use crate::witness::judge::Judge;
use crate::witness::questions::Question;
use crate::{eventually, receipt_path};
use receipts_event::Event;
use receipts_log::{Inspect as _, Topic};
use receipts_query::Positions;
use receipts_testkit::At;
use receipts_testkit::history::Shape;
use receipts_testkit::random::Random;
use serde_json::{Value, json};
use std::time::Duration;

/// Waits until the service has folded the whole log, then asks each question with the probability
/// `part` and compares the answer with the judge's. Returns the number of questions asked.
///
/// # Panics
/// If an answer is wrong.
pub fn check(kafka: &Kafka, judge: &Judge, address: &str, random: &mut Random, part: f64) -> usize {
    check_by(kafka, judge, address, random, part, |question, client| question.ask(client))
}

/// As [`check`], but `ask` puts the questions.
///
/// # Panics
/// If an answer is wrong.
pub fn check_by(
    kafka: &Kafka,
    judge: &Judge,
    address: &str,
    random: &mut Random,
    part: f64,
    mut ask: impl FnMut(&Question, &mut Client) -> Vec<Answer>,
) -> usize {
    let log = kafka.log();
    let mut ends = Positions::default();
    for partition in 0..PARTITIONS {
        ends.merge(&Positions::applied(partition, log.bounds(Topic::Events, partition).expect("bounds").end));
    }
    let mut client = Client::new(address);
    let wait = || client.get("default", &receipt_path("none", "none"), Some(&ends.to_string())).expect("an answer");
    // The edge answers 503 while a partition has no owner.
    eventually("the whole log must be folded", wait, |waited| waited.status == 404);
    let questions = judge.questions().into_iter().filter(|_| random.chance(part)).collect::<Vec<_>>();
    for question in &questions {
        judge.check(question, &ask(question, &mut client));
    }
    questions.len()
}

/// The shape of the histories of the tests that kill: few large groups, and no jump in time,
/// because Kafka sets the timestamps.
#[must_use]
pub fn shape(events: usize) -> Shape {
    Shape { events, p_jump: 0.0, p_large_group: 0.05, ..Shape::wild() }
}

/// Produces events under their keys, slowly, then one copy of each control event per partition.
///
/// # Panics
/// If `kcat` fails.
pub fn produce_history(kafka: &Kafka, history: &[(At, Event<'static>)]) {
    let mut keyed = String::new();
    let mut copies = vec![String::new(); PARTITIONS as usize];
    for (_, event) in history {
        let key = String::from_utf8(event.key()).expect("UTF-8");
        let mut json: Value = serde_json::from_slice(&event.to_json()).expect("JSON");
        if event.conversation_id().is_some() {
            keyed += &format!("{key}\t{json}\n");
            continue;
        }
        for (partition, lines) in (0..).zip(&mut copies) {
            if event.partition().is_none_or(|own| own == partition) {
                json["partition"] = json!(partition);
                *lines += &format!("{key}\t{json}\n");
            }
        }
    }
    produce(&kafka.bootstrap, &kafka.events, &["-K", "\t"], &keyed, Duration::from_millis(20));
    for (partition, lines) in copies.iter().enumerate().filter(|(_, lines)| !lines.is_empty()) {
        kafka.produce(&["-K", "\t", "-p", &partition.to_string()], lines);
    }
}

/// The longest time between two records of the log, by their timestamps.
///
/// # Panics
/// If the log cannot be read.
#[must_use]
pub fn longest_gap_ms(kafka: &Kafka) -> u64 {
    let log = kafka.log();
    let of = |partition| log.read(Topic::Events, partition, 0, usize::MAX).expect("readable");
    let mut times: Vec<u64> = (0..PARTITIONS).flat_map(of).map(|record| record.timestamp_ms).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
