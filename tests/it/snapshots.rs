//! Tests `receipts snapshot` as a process, against a running service and against its data directory
//! afterwards. `crates/snapshots` compares the content of snapshots.

use receipts_tests::process::{Service, errors, request, run};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// One partition, so that one snapshot holds everything.
const ONE: [&str; 2] = ["--log-partitions", "1"];
const RECEIPT: &str = "/v1/conversations/g1/messages/m1/receipt";

/// Runs `receipts snapshot`, which ends with `code`, and returns its lines of JSON and its log.
fn snapshot(code: i32, arguments: &[&str], data: &Path, at: &Path) -> (Vec<Value>, String) {
    let (data, at) = (data.to_str().expect("UTF-8"), at.to_str().expect("UTF-8"));
    let common = ["--data-dir", data, "--snapshot-url", at, "--json"];
    let output = run("receipts", &[&["snapshot"], arguments, &common].concat());
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    (shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), said)
}

fn serve(data: &Path, at: &Path) -> Service {
    let at = at.to_str().expect("UTF-8");
    // Only the requested partition is taken.
    let flags =
        ["--snapshot-url", at, "--snapshot-interval-ms", "86400000", "--projector-checkpoint-interval-ms", "10"];
    Service::serve(data, &[&ONE[..], &flags].concat())
}

fn told(service: &Service) -> String {
    service.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]},
        {"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
        {"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]},
    ]))
}

/// Takes snapshots of a running service until one holds that number of records, because the last
/// checkpoint may be older.
fn take_up_to(next_offset: u64, data: &Path, at: &Path) -> Value {
    for _ in 0..200 {
        let (states, _) = snapshot(0, &["take"], data, at);
        if states[0]["newest"]["next_offset"] == next_offset {
            return states[0].clone();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no checkpoint reaches {next_offset}");
}

/// INV-RESTORE
#[test]
fn snapshot_restores_the_answers_of_a_running_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, at) = (folder.path().join("data"), folder.path().join("snapshots"));
    let service = serve(&data, &at);
    let position = told(&service);
    let answer = service.get_after(RECEIPT, &position).body;
    let state = take_up_to(3, &data, &at);
    let place = state["newest"]["place"].as_str().expect("a place").to_owned();
    assert!(Path::new(&place).is_file(), "{place}");
    // No other caller may ask.
    let stranger = request(&service.address, "POST", "/internal/v1/snapshots", &[], "{}").expect("an answer");
    assert_eq!(stranger.status, 401);
    assert_eq!(service.terminate(), Some(0));

    let (listed, _) = snapshot(0, &["list"], &data, &at);
    let newest = listed.last().expect("one at least");
    assert_eq!((&newest["next_offset"], &newest["digest"]), (&json!(3), &state["newest"]["digest"]));
    let (verified, _) = snapshot(0, &["verify", "--all"], &data, &at);
    assert!(verified.iter().all(|verdict| verdict["contradictions"] == 0 && verdict.get("problem").is_none()));
    assert_eq!(verified.last().expect("one")["messages"], 1);

    let (_, refused) = snapshot(1, &["restore"], &data, &at);
    assert!(refused.contains("there is a state in"), "{refused}");
    fs::remove_dir_all(data.join("store")).expect("removed");
    let (restored, _) = snapshot(0, &["restore"], &data, &at);
    assert_eq!((&restored[0]["next_offset"], &restored[0]["digest"]), (&json!(3), &state["newest"]["digest"]));
    // Without snapshots configured, the answers come from the restored state, and the log agrees.
    let again = Service::serve(&data, &ONE);
    assert_eq!(again.get_after(RECEIPT, &position).body, answer);
    assert_eq!(again.terminate(), Some(0));
    let output = run("receipts", &["verify", "--data-dir", data.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", errors(&output));
}

/// INV-SNAPSHOT-WHOLE
#[test]
fn snapshot_of_a_stopped_directory_is_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, at) = (folder.path().join("data"), folder.path().join("snapshots"));
    let service = Service::serve(&data, &ONE);
    _ = told(&service);
    assert_eq!(service.terminate(), Some(0));
    let (taken, _) = snapshot(0, &["take"], &data, &at);
    assert_eq!((taken.len(), &taken[0]["next_offset"]), (1, &json!(3)));
    let place = Path::new(taken[0]["place"].as_str().expect("a place")).to_owned();
    let mut bytes = fs::read(&place).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&place, bytes).expect("written");
    let (verdicts, said) = snapshot(1, &["verify"], &data, &at);
    assert!(verdicts[0]["problem"].as_str().expect("a problem").contains("is damaged"), "{verdicts:?}");
    assert!(said.contains("take new ones"), "{said}");
    fs::remove_dir_all(data.join("store")).expect("removed");
    let (_, refused) = snapshot(1, &["restore"], &data, &at);
    assert!(refused.contains("no snapshot of partition 0 is usable"), "{refused}");
    assert!(!data.join("store").exists(), "nothing of it is left where a service would look");
}

/// The log is folded all the same, and soon: the four partitions do not wait one after the other.
#[test]
fn silent_bucket_is_waited_for_only_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let bucket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", bucket.local_addr().expect("bound"));
    // Accepts every connection and never answers.
    std::thread::spawn(move || bucket.incoming().collect::<Vec<_>>());
    let environment = [
        ("AWS_ENDPOINT", &*endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_SECRET_ACCESS_KEY", "nothing"),
    ];
    let data = data.to_str().expect("UTF-8");
    let flags = ["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data, "--snapshot-url", "s3://bucket/receipts"];
    let began = Instant::now();
    let service = Service::start_in(&environment, "receipts", &[&flags[..], &["--log-partitions", "4"]].concat());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let position = told(&service);
    assert_eq!(service.get_after(RECEIPT, &position).body["read_count"], 1);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn wrong_snapshot_requests_are_refused_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let at = |url: &str, code: i32, arguments: &[&str]| snapshot(code, arguments, &data, Path::new(url)).1;
    assert!(at("ftp://x/y", 2, &["list"]).contains("s3://BUCKET/PREFIX"));
    let empty = folder.path().join("snapshots").display().to_string();
    assert!(at(&empty, 1, &["take"]).contains("check --data-dir"));
    assert!(at(&empty, 1, &["verify"]).contains("there are no snapshots"));
    assert!(at(&empty, 1, &["restore"]).contains("there are no snapshots"));
    let output = run("receipts", &["snapshot", "list", "--data-dir", data.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("--snapshot-url"), "{}", errors(&output));

    // A service that takes no snapshots says so.
    let service = Service::serve(&data, &ONE);
    assert!(at(&empty, 1, &["take"]).contains("set snapshot.url"));
    assert_eq!(service.terminate(), Some(0));
}
