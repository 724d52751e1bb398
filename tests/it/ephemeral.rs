//! Tests `receipts serve --ephemeral` and the helper of the Rust client that starts it: nothing
//! stays on the disk, and nothing outlives the test that started it.

use futures_util::StreamExt as _;
use receipts_client::testing::{BIN_ENV, EphemeralService, StartError};
use receipts_client::{Update, event};
use receipts_tests::process::{Service, errors, run, run_in};
use receipts_tests::{TIMEOUT, binary};
use serde_json::json;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set for the process that [`service_ends_with_a_killed_test`] kills.
const VICTIM: &str = "RECEIPTS_TEST_EPHEMERAL_VICTIM";

#[tokio::test(flavor = "multi_thread")]
async fn service_in_memory_answers_and_streams() {
    // So short that checkpoints happen between the events.
    let flags = ["--projector-checkpoint-events", "1", "--projector-update-window-ms", "20"];
    let service = EphemeralService::start_program(binary("receipts"), flags).expect("started");
    let other = EphemeralService::start_program(binary("receipts"), flags).expect("started");
    let client = service.client().expect("a client");
    let mut updates = client.updates_of_conversation("g1").open().await.expect("a stream");
    let roster = event::members_changed("g1").joined(["alice", "bob", "carol"]).build();
    let sent = event::message_sent("g1", "m1", "alice", 1_780_000_000_000).need_read_receipt().build();
    client.post_events(&[roster, sent]).await.expect("written");
    for reader in ["bob", "carol"] {
        client.post_events(&[event::message_read("g1", reader, ["m1"]).build()]).await.expect("written");
        assert!(client.receipt("g1", "m1").await.expect("answered").counts.is_some());
    }
    loop {
        let update = tokio::time::timeout(TIMEOUT, updates.next()).await.expect("in time").expect("no end");
        if let Update::Receipt(update) = update.expect("an update")
            && update.receipt.counts.is_some_and(|counts| counts.read_count == 2)
        {
            break;
        }
    }
    let elsewhere = other.client().expect("a client").receipt("g1", "m1").await.expect("answered");
    assert!(elsewhere.counts.is_none(), "each service has a log of its own: {elsewhere:?}");
}

/// INV-EPHEMERAL
#[test]
fn killed_ephemeral_service_leaves_no_file() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().to_str().expect("UTF-8");
    let flags = ["serve", "--ephemeral", "--projector-checkpoint-events", "1"];
    let service = Service::start_in(&[("TMPDIR", folder), ("HOME", folder)], "receipts", &flags);
    let events = json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]},
        {"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
        {"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]},
    ]);
    let position = service.write(&events);
    let receipt = service.get_after("/v1/conversations/g1/messages/m1/receipt", &position);
    assert_eq!(receipt.body["read_count"], 1, "{receipt:?}");
    let open = fs::read_dir(format!("/proc/{}/fd", service.id())).expect("its descriptors").flatten();
    let files: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let on_disk: Vec<_> = files.iter().filter(|path| path.is_absolute() && !path.starts_with("/dev")).collect();
    assert!(!files.is_empty() && on_disk.is_empty(), "{on_disk:?}");
    service.kill();
    assert_eq!(fs::read_dir(home.path()).expect("a folder").count(), 0);
    assert!(!Path::new("receipts-data").exists(), "the default data directory");
}

#[test]
fn settings_of_the_disk_contradict_ephemeral() {
    let refused = |environment: &[(&str, &str)], flags: &[&str], parts: &[&str]| {
        let output = run_in(environment, "receipts", &[&["serve", "--ephemeral"], flags].concat());
        let sentence = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{sentence}");
        assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
        assert!(output.stdout.is_empty());
    };
    // A value that equals the default contradicts as well.
    refused(&[], &["--data-dir", "receipts-data"], &["data_dir (flag --data-dir)"]);
    refused(&[("RECEIPTS_KAFKA__BOOTSTRAP", "localhost:9")], &[], &["kafka.bootstrap", "RECEIPTS_KAFKA__BOOTSTRAP"]);
    refused(&[], &["--snapshot-url", "/s", "--kafka-bootstrap", "localhost:9"], &["snapshot.url", "kafka.bootstrap"]);
    let output = run("receipts", &["serve", "--until-stdin-closes"]);
    assert_eq!((output.status.code(), errors(&output).contains("--ephemeral")), (Some(2), true));
}

#[test]
fn helper_says_why_no_service_starts() {
    let started = EphemeralService::start_program(binary("receipts"), ["--data-dir", "x"]);
    assert!(matches!(started.expect_err("refused"), StartError::Ended(status) if status.code() == Some(2)));
}

/// INV-EPHEMERAL: runs itself in another process, kills that one, and sees the service of its
/// helper end.
#[test]
fn service_ends_with_a_killed_test() {
    if std::env::var_os(VICTIM).is_some() {
        let service = EphemeralService::start().expect("started");
        // On a line of its own, behind what the test harness prints.
        println!("\n{}", service.url());
        std::thread::sleep(10 * TIMEOUT);
        return;
    }
    let mut victim = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "ephemeral::service_ends_with_a_killed_test", "--nocapture"])
        .env(VICTIM, "1")
        .env(BIN_ENV, binary("receipts"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test runs again");
    let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("http://").map(str::to_owned)).expect("a service");
    TcpStream::connect(&address).expect("it listens");
    victim.kill().and_then(|()| victim.wait()).expect("killed");
    let deadline = Instant::now() + TIMEOUT;
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "the service at {address} outlives the test that started it");
        std::thread::sleep(Duration::from_millis(10));
    }
}
