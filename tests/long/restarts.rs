//! Measures how long a killed process on Kafka leaves its partitions without answers. Prints
//! figures and asserts none: `tests/kafka` proves that nothing waits for a session.
//!
//! With `RECEIPTS_TEST_BIN_DIR` it measures the binaries of another build.

use receipts_testkit::property::{Replay, number, scaled};
use receipts_tests::kafka::{Kafka, broker};
use receipts_tests::process::request;
use receipts_tests::witness::victim::Victim;
use receipts_tests::{eventually, receipt_path};
use serde_json::json;
use std::net::TcpListener;
use std::time::Instant;

/// Events of one conversation, and the message of the last one.
fn write(address: &str, number: usize) {
    let id = format!("g{number}");
    let events = json!([
        {"type": "members.changed", "conversation_id": id, "joined": ["alice", "bob"]},
        {"type": "message.sent", "conversation_id": id, "message_id": "m", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
        {"type": "message.read", "conversation_id": id, "reader_id": "bob", "message_ids": ["m"]},
    ]);
    let headers = [("Content-Type", "application/json")];
    let post = || request(address, "POST", "/v1/events", &headers, &events.to_string()).map(|answer| answer.status);
    eventually("events are written", || post().ok(), |status| *status == Some(202));
}

/// INV-MEMBER: kills `receipts serve` and starts it again at once, and waits until it answers for
/// every conversation.
#[test]
fn killed_service_is_back_with_its_answers() {
    let kills = number("RECEIPTS_TEST_KILLS", scaled(2, 30)) as usize;
    let _replay = Replay::with(&format!("RECEIPTS_TEST_KILLS={kills}"));
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "restarts");
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    // This port was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").to_string();
    let mut flags = kafka.flags();
    flags.extend(["--http-listen", &address].map(str::to_owned));
    let start = || Victim::start("receipts", &["serve"], &data, &flags);
    let mut victim = start();
    let mut waits_ms = Vec::new();
    for life in 0..kills {
        (0..8).for_each(|number| write(&address, 8 * life + number));
        let is_answered = |number: usize| {
            let ask = || request(&address, "GET", &receipt_path(&format!("g{number}"), "m"), &[], "").ok();
            let answer = eventually("it is answered", ask, |answer| answer.as_ref().is_some_and(|a| a.status == 200));
            assert_eq!(answer.expect("some").body["read_count"], 1);
        };
        (0..8 * (life + 1)).for_each(is_answered);
        victim.kill();
        let killed = Instant::now();
        victim = start();
        (0..8 * (life + 1)).for_each(is_answered);
        waits_ms.push(killed.elapsed().as_millis());
    }
    victim.terminate();
    waits_ms.sort_unstable();
    eprintln!(
        "kills: {kills}, of the service, each started again at once: from the kill to the answers p50 {} ms, p100 {} ms",
        waits_ms[(waits_ms.len() - 1) / 2],
        waits_ms[waits_ms.len() - 1]
    );
}
