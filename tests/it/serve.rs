//! Tests `receipts serve` as an operator uses it: ready, answering, stopped, restarted, and
//! refusing to start. The fold's tests cover the meaning of answers.

use receipts_tests::process::{Answer, Service, errors, run};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RECEIPT: &str = "/v1/conversations/g1/messages/m1/receipt";
const UNREAD: &str = "/v1/conversations/g1/messages/m1/members?filter=unread";

/// Alice's message has an audience of five: two have not read yet, one has left and one is hidden.
fn chat() -> Value {
    json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol", "dave", "erin", "frank"]},
        {"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
        {"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"],
         "read_at_ms": 1_780_000_004_000_u64},
        {"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]},
        {"type": "message.read", "conversation_id": "g1", "reader_id": "carol", "message_ids": ["m1"], "hidden": true},
        {"type": "members.changed", "conversation_id": "g1", "left": ["dave"]},
    ])
}

/// Returns all answers about the message, and the cursor behind the first unread member.
fn answers(service: &Service, token: &str) -> (Vec<Answer>, String) {
    let ask = |path: &str| service.get_after(path, token);
    let first = ask(&format!("{UNREAD}&limit=1"));
    assert_eq!(first.status, 200, "{}", first.body);
    let cursor = first.body["next_cursor"].as_str().expect("one more").to_owned();
    let rest = ask(&format!("{UNREAD}&limit=1&cursor={cursor}"));
    (vec![ask(RECEIPT), first, rest], cursor)
}

#[test]
fn restart_changes_no_answer_and_signal_exits_with_0() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &[]);
    assert_eq!(service.get("/readyz").status, 200, "it said that it was ready");
    let token = service.write(&chat());
    let (before, cursor) = answers(&service, &token);
    let counts = |field: &str| before[0].body[field].as_u64().expect("a count");
    assert_eq!(
        [
            counts("audience_count"),
            counts("read_count"),
            counts("unread_count"),
            counts("hidden_count"),
            counts("departed_count")
        ],
        [5, 1, 2, 1, 1]
    );
    assert_eq!(
        (&before[1].body["members"][0]["user_id"], &before[2].body["members"][0]["user_id"]),
        (&json!("erin"), &json!("frank"))
    );
    assert_eq!(service.terminate(), Some(0));

    let service = Service::serve(data.path(), &[]);
    assert_eq!(answers(&service, &token), (before, cursor), "the same answers, and the cursor of before is still good");
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &[]);
    let token = service.write(&chat());
    let before = answers(&service, &token);
    service.kill();
    let service = Service::serve(data.path(), &[]);
    assert_eq!(answers(&service, &token), before);
}

/// INV-PRIVATE: the service's files are for its own user, files for others follow the umask.
#[test]
fn files_of_a_service_are_its_users_alone() {
    let home = tempfile::tempdir().expect("a folder");
    let (data, at, out) = (home.path().join("new/data"), home.path().join("snapshots"), home.path().join("out"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let flags =
        ["--snapshot-url", &text(&at), "--snapshot-interval-ms", "10", "--projector-checkpoint-interval-ms", "10"];
    let service = Service::serve(&data, &flags);
    _ = service.write(&chat());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !modes(&at).iter().any(|(_, is_folder, _)| !is_folder) {
        assert!(Instant::now() < deadline, "no snapshot is taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(service.terminate(), Some(0));
    for (path, is_folder, mode) in [modes(&home.path().join("new")), modes(&at)].concat() {
        assert_eq!(mode, if is_folder { 0o700 } else { 0o600 }, "{mode:03o} {path:?}");
    }
    let output = run("receipts", &["export", "--data-dir", &text(&data), "--out", &text(&out), "--format", "csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    // A file that this process makes shows its umask.
    let probe = home.path().join("probe");
    fs::write(&probe, "").expect("written");
    let usual = modes(&probe)[0].2;
    let files: Vec<_> = modes(&out).into_iter().filter(|(_, is_folder, _)| !is_folder).collect();
    assert!(!files.is_empty() && files.iter().all(|(_, _, mode)| *mode == usual), "{usual:03o} {files:?}");
}

/// Returns what is below a path: each path, whether it is a folder, and its mode. Files that vanish
/// meanwhile are left out.
fn modes(path: &Path) -> Vec<(PathBuf, bool, u32)> {
    let Ok(meta) = fs::metadata(path) else { return Vec::new() };
    let mut all = vec![(path.to_owned(), meta.is_dir(), meta.mode() & 0o777)];
    if meta.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        all.extend(entries.flat_map(|entry| modes(&entry.path())));
    }
    all
}

#[test]
fn secret_file_that_others_may_read_is_told() {
    let home = tempfile::tempdir().expect("a folder");
    let secret = home.path().join("secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).expect("changed");
    let secret = secret.to_str().expect("UTF-8");
    let flags =
        ["serve", "--auth-secret-file", secret, "--auth-issuer", "i", "--auth-audience", "a", "--secret-files-strict"];
    let output = run("receipts", &flags);
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("auth.secret_file") && said.contains(&format!("chmod 600 {secret}")), "{said}");
}

/// A Service of Kubernetes whose name is `receipts` must not stop the pods of its namespace.
#[test]
fn variables_of_a_kubernetes_service_are_ignored() {
    let data = tempfile::tempdir().expect("a folder");
    let data_dir = data.path().to_str().expect("UTF-8");
    let arguments = ["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data_dir, "--projector-updates", "false"];
    let variables = [
        ("RECEIPTS_SERVICE_HOST", "10.96.7.1"),
        ("RECEIPTS_PORT", "tcp://10.96.7.1:8080"),
        ("RECEIPTS_PORT_8080_TCP_ADDR", "10.96.7.1"),
        ("RECEIPTS_QUERY_SERVICE_PORT_HTTP", "8080"),
    ];
    let service = Service::start_in(&variables, "receipts", &arguments);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn second_process_on_a_data_directory_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    let first = Service::serve(data.path(), &[]);
    let second = serve_and_fail(data.path(), &[]);
    assert!(second.contains("in use by process") && second.contains("--data-dir"), "{second}");
    assert_eq!(first.get("/readyz").status, 200, "the first goes on");
}

#[test]
fn a_store_is_not_folded_on_from_another_log() {
    let data = tempfile::tempdir().expect("a folder");
    assert_eq!(Service::serve(data.path(), &[]).terminate(), Some(0));
    std::fs::remove_dir_all(data.path().join("log")).expect("removed");
    let refused = serve_and_fail(data.path(), &[]);
    assert!(refused.contains("was folded from the embedded log") && refused.contains("store"), "{refused}");
}

#[test]
fn taken_address_and_impossible_directory_are_refused_with_advice() {
    let data = tempfile::tempdir().expect("a folder");
    let first = Service::serve(&data.path().join("first"), &[]);
    let taken = serve_and_fail(&data.path().join("second"), &["--http-listen", &first.address]);
    assert!(taken.contains(&first.address) && taken.contains("--http-listen"), "{taken}");
    let file = data.path().join("file");
    std::fs::write(&file, "").expect("written");
    let refused = serve_and_fail(&file.join("below"), &[]);
    assert!(refused.contains("--data-dir"), "{refused}");
}

/// Starts a service that cannot run, checks for exit code 1, and returns its message.
fn serve_and_fail(data_dir: &Path, more: &[&str]) -> String {
    let data_dir = data_dir.to_str().expect("UTF-8");
    let output = run("receipts", &[&["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data_dir], more].concat());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", errors(&output));
    errors(&output)
}

#[test]
fn all_configuration_mistakes_are_named_with_exit_code_2() {
    let data = tempfile::tempdir().expect("a folder");
    let file = data.path().join("receipts.toml");
    std::fs::write(&file, "[projector]\nretention_ms = \"long\"\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let output = run("receipts", &["serve", "--config", file, "--log-partitions", "0", "--http-listen", "0.0.0.0:80"]);
    let said = errors(&output);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    for part in ["3 configuration mistakes", "retention_ms", "--log-partitions", "--http-listen", "line 2"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert_eq!(run("receipts", &["serve", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run("receipts", &[]).status.code(), Some(2));
}

#[test]
fn every_command_explains_itself_with_examples() {
    for command in [["serve"].as_slice(), &["demo"], &["policy", "set"], &["erase"]] {
        let output = run("receipts", &[command, &["--help"]].concat());
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && help.contains("Examples:") && help.contains("--kafka-bootstrap"), "{help}");
    }
}
