//! Tests a stream of updates from a real Kafka through a kill of the service. The projector then
//! publishes some updates again, and positions step back.

use super::end_to_end::{SENT_AT_MS, read, sent};
use receipts_tests::kafka::{Kafka, broker};
use receipts_tests::process::{Service, Stream};
use receipts_tests::receipt_path;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The newest updates of messages, by id.
type Held = BTreeMap<String, Value>;

fn hear(stream: &mut Stream, held: &mut Held, until: impl Fn(&Held) -> bool) {
    while !until(held) {
        let update = stream.next_update().expect("an update before the end").update;
        let message = update["message_id"].as_str().expect("an id").to_owned();
        let newest = held.entry(message).or_default();
        if newest["version"].as_u64() <= update["version"].as_u64() {
            *newest = update;
        }
    }
}

fn read_by(held: &Held, messages: usize, count: u64) -> bool {
    held.len() == messages && held.values().all(|update| update["read_count"] == count)
}

/// INV-STREAM
#[test]
fn stream_from_kafka_has_no_gap_after_a_kill() {
    const MESSAGES: usize = 40;
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "stream");
    let data = tempfile::tempdir().expect("a folder");
    let mut flags = kafka.flags();
    flags.extend(
        ["--projector-update-window-ms", "20", "--kafka-properties", "session.timeout.ms=6000"].map(str::to_owned),
    );
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let service = Service::serve(data.path(), &flags);

    let mut stream = service.listen("sender_id=alice", &[("Receipts-Caller", "alice")]);
    stream.wait_for_id();
    let begun = service.write(&json!({"type": "members.changed", "conversation_id": "g1",
        "joined": ["alice", "bob", "carol", "dave"]}));
    let ids: Vec<String> = (0..MESSAGES).map(|n| format!("m{n}")).collect();
    let messages: Vec<Value> = ids.iter().map(|id| sent("g1", id, "alice")).collect();
    _ = service.write(&json!(messages));
    let reads = |reader: &str| json!(ids.iter().map(|id| read("g1", id, reader)).collect::<Vec<_>>());
    let first = service.write(&reads("bob"));
    let mut held = Held::new();
    hear(&mut stream, &mut held, |held| read_by(held, MESSAGES, 1));
    // When the service dies, these events may be published or not, and the stream may have carried
    // them or not.
    _ = service.write(&reads("carol"));
    hear(&mut stream, &mut held, |held| held.values().any(|update| update["read_count"] == 2));
    let last_id = stream.last_id.clone();
    service.kill();

    let service = Service::serve(data.path(), &flags);
    let mut resumed = service.listen("sender_id=alice", &[("Last-Event-ID", &last_id)]);
    hear(&mut resumed, &mut held, |held| read_by(held, MESSAGES, 2));
    // By positions of the event log: all reads of carol and dave are beyond the first one, and none
    // of them is missing.
    let token = service.write(&reads("dave"));
    for since in [&begun, &first] {
        let mut held = Held::new();
        let mut by_position = service.listen(&format!("conversation_id=g1&since={since}"), &[]);
        hear(&mut by_position, &mut held, |held| read_by(held, MESSAGES, 3));
        for id in &ids {
            let receipt = service.get_after(&receipt_path("g1", id), &token).body;
            let update = &held[id];
            let same =
                receipt.as_object().expect("a receipt").iter().all(|(name, value)| update.get(name) == Some(value));
            assert!(same, "{update} is not {receipt}");
            assert_eq!(update["last_read_at_ms"], SENT_AT_MS + 4_000);
        }
    }
    // Every update carries its events' position.
    let updates = kafka.consume(&kafka.updates);
    let positions = updates.iter().map(|update| update["headers"][1].as_str().expect("a position").parse::<u64>());
    assert!(positions.into_iter().all(|position| position.is_ok_and(|position| position > 0)));
    assert_eq!(service.terminate(), Some(0));
}
