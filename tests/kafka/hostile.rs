//! Attacks that need records of a real Kafka. `tests/hostile` has the others.

use receipts_log::testing::unique;
use receipts_log::{Entry, Inspect as _, Log as _, Topic};
use receipts_tests::eventually;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::Service;
use serde_json::json;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Memory for pages, bytes. The process may take 1.5 times as much.
const MEMORY: u64 = 256 << 20;
/// The largest record of the topics that the service makes, bytes.
const RECORD_BYTES_MAX: usize = 4 << 20;
/// Records that Kafka stores compressed, and the bytes of each as it is read.
const GIANTS: usize = 6;
const GIANT_BYTES: usize = 20 << 20;

fn serve(kafka: &Kafka, data: &tempfile::TempDir) -> Service {
    let mut flags = kafka.flags();
    flags.extend(["--projector-memory-bytes".to_owned(), MEMORY.to_string()]);
    flags.extend(["--projector-checkpoint-interval-ms", "100"].map(str::to_owned));
    Service::serve(data.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

fn is_answered(service: &Service, conversation: &str) {
    let token = service.write(&json!([
        {"type": "members.changed", "conversation_id": conversation, "joined": ["ann", "bob"]},
        {"type": "message.sent", "conversation_id": conversation, "message_id": "m", "sender_id": "ann",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
    ]));
    let receipt = service.get_after(&receipts_tests::receipt_path(conversation, "m"), &token);
    assert_eq!((receipt.status, &receipt.body["unread_count"]), (200, &json!(1)), "{}", receipt.body);
}

/// INV-FOLD-BUDGET: reads of nothing that are small on the broker and large in memory are parked
/// within their bytes, and the rest become dead letters.
#[test]
fn compressed_giants_take_bounded_memory() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, &unique("giants"));
    let data = tempfile::tempdir().expect("a folder");
    let service = serve(&kafka, &data);
    let giant = json!({"type": "message.read", "conversation_id": "g", "reader_id": "eve", "message_ids": ["never"],
        "padding": "x".repeat(GIANT_BYTES)});
    for _ in 0..GIANTS {
        let mut kcat = Command::new("kcat")
            .args(["-P", "-b", &kafka.bootstrap, "-t", &kafka.events, "-k", "default/g", "-D", "\u{1}"])
            .args(["-X", "partitioner=murmur2_random", "-X", "compression.codec=gzip"])
            .args(["-X", "message.max.bytes=100000000"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("kcat starts");
        kcat.stdin.take().expect("piped").write_all(giant.to_string().as_bytes()).expect("kcat reads");
        assert!(kcat.wait().expect("kcat ends").success());
    }
    let dead = |count: &u64| *count == GIANTS as u64;
    eventually("each giant must be a dead letter", || kafka.records(Topic::DeadLetters), dead);
    is_answered(&service, "after");
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id())).expect("it lives");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10;
    assert!(peak <= MEMORY * 3 / 2, "{peak} bytes of memory, where the setting is {MEMORY}");
    assert_eq!(service.terminate(), Some(0));
}

/// INV-DEADLETTER: a dead letter that is larger than its topic takes says at least where its record
/// stands, and holds nothing else up.
#[test]
fn dead_letter_with_large_headers_still_names_its_record() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, &unique("headers"));
    let data = tempfile::tempdir().expect("a folder");
    let service = serve(&kafka, &data);
    let log = kafka.log();
    let bad = Entry {
        topic: Topic::Events,
        partition: None,
        key: Some("default/g".into()),
        value: Some("no event".into()),
        headers: vec![("large".into(), Some(vec![b'x'; RECORD_BYTES_MAX - 250].into()))],
        timestamp_ms: None,
    };
    let written = log.writer().append(bad).blocking_recv().expect("an outcome").expect("written");
    is_answered(&service, "g");
    eventually("the dead letter must come", || kafka.records(Topic::DeadLetters), |count| *count == 1);
    let letters = (0..PARTITIONS).flat_map(|p| log.read(Topic::DeadLetters, p, 0, 1).expect("readable"));
    let letter = letters.into_iter().next().expect("a letter");
    let header = |name: &str| letter.headers.iter().find(|(held, _)| held == name).and_then(|(_, value)| value.clone());
    let text = |name: &str| String::from_utf8(header(name).expect(name).to_vec()).expect("UTF-8");
    assert_eq!(text("dead-letter-partition"), written.partition.to_string());
    assert_eq!(text("dead-letter-offset"), written.offset.to_string());
    assert_eq!((text("dead-letter-reason").as_str(), header("large")), ("invalid-json", None));
    assert_eq!(service.terminate(), Some(0), "SIGTERM drains");
    // Nothing is sent twice: the checkpoint stands behind the bad record.
    let service = serve(&kafka, &data);
    is_answered(&service, "again");
    assert_eq!(kafka.records(Topic::DeadLetters), 1);
    assert_eq!(service.terminate(), Some(0));
}
