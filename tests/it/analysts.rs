//! Tests `receipts replay`, `export`, `stats`, `backfill` and `verify` as processes on the embedded
//! log, between two runs of `receipts serve`. Compares their answers with the service's;
//! `crates/analytics` compares rows and pages.

mod interrupts;
mod live;
mod ranges;

use receipts_tests::process::{Service, errors, interrupt, run};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const SENT_AT_MS: u64 = 1_780_000_000_000;

fn sent(message: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": "g1", "message_id": message, "sender_id": "alice",
           "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
}

fn read(message: &str, reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": "g1", "reader_id": reader, "message_ids": [message]})
}

/// Runs a command that ends with `code`, and returns its lines of JSON.
fn lines(code: i32, arguments: &[&str], data: &Path) -> Vec<Value> {
    let data = data.to_str().expect("UTF-8");
    let output = run("receipts", &[arguments, &["--data-dir", data, "--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", errors(&output));
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

const RECEIPT: &str = "/v1/conversations/g1/messages/m1/receipt";
const READERS: &str = "/v1/conversations/g1/messages/m1/members?filter=read";
const MARK: &str = "/v1/conversations/g1/read-marks/bob";

/// INV-ASOF: replay prints the same JSON that HTTP answered, now and as of an earlier position.
/// Export and verify find the service's data, and refuse a directory that a service has open.
#[test]
fn commands_repeat_the_answers_of_a_stopped_service() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &[]);
    let mark =
        json!({"type": "conversation.read", "conversation_id": "g1", "reader_id": "bob", "up_to_message_id": "m1"});
    let first = service.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]}, sent("m1"), mark
    ]));
    let then = [RECEIPT, READERS, MARK].map(|path| service.get_after(path, &first).body);
    let second = service.write(&json!([read("m1", "carol"), sent("m2")]));
    let now = [RECEIPT, READERS, MARK].map(|path| service.get_after(path, &second).body);
    assert_ne!(then[0], now[0]);

    let data_dir = data.path().to_str().expect("UTF-8");
    for arguments in [["replay"].as_slice(), &["export", "--out", data_dir], &["verify"]] {
        let output = run("receipts", &[arguments, &["--data-dir", data_dir]].concat());
        let said = errors(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
        assert!(said.contains("in use by process") && said.contains("stop that one"), "{said}");
    }
    assert_eq!(service.terminate(), Some(0));

    let receipt = ["replay", "receipt", "g1", "m1"].as_slice();
    let members = ["replay", "members", "g1", "m1", "--filter", "read"].as_slice();
    let read_mark = ["replay", "read-mark", "g1", "bob"].as_slice();
    for (answers, prefix) in [(&now, [].as_slice()), (&then, &["--position", &first])] {
        for (question, answer) in [receipt, members, read_mark].iter().zip(answers) {
            let replayed = lines(0, &[question, prefix].concat(), data.path());
            assert_eq!((replayed.len(), &replayed[0]), (1, answer), "{question:?}");
        }
    }
    let missing = lines(0, &["replay", "receipt", "g1", "m1", "--as-of", "1970-01-01T00:00:00Z"], data.path());
    assert_eq!(missing[0]["status"], "not_found", "as of a time before everything");
    assert!(lines(1, &["replay", "read-mark", "g1", "carol"], data.path()).is_empty());

    let all = lines(0, &["replay"], data.path());
    assert_eq!(all.len(), 12, "one line a partition");
    assert_eq!(all.iter().map(|line| line["events"].as_u64().expect("a count")).sum::<u64>(), 5);

    let out = data.path().join("export");
    let out_dir = out.to_str().expect("UTF-8");
    let report = lines(0, &["export", "--out", out_dir, "--format", "ndjson", "--dataset", "reads"], data.path());
    assert_eq!(report[0]["datasets"][0]["rows"], 2);
    let rows = fs::read_to_string(out.join("reads/part-00000.ndjson")).expect("rows");
    assert_eq!(rows.lines().count(), 2, "{rows}");
    assert!(rows.lines().all(|row| row.contains(r#""day":"2026-05-28""#)), "{rows}");
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("_manifest.json")).expect("it")).expect("JSON");
    // Tokens of exports do not name their log, so the text is another one than the service's.
    let position = manifest["datasets"]["reads"]["position"].as_str().expect("a token");
    let at_end = lines(0, &[receipt, &["--position", position]].concat(), data.path());
    assert_eq!((at_end.len(), &at_end[0]), (1, &now[0]), "the position of all that the service told");
    let old = ["export", "--out", out_dir, "--layout", "v1", "--format", "ndjson", "--dataset", "reads"];
    let report = lines(0, &old, data.path());
    assert_eq!((&report[0]["datasets"][0]["rows"], &report[0]["datasets"][0]["removed"]), (&json!(2), &json!(1)));
    let day = fs::read_dir(out.join("reads").join("tenant=default").join("day=2026-05-28")).expect("a folder");
    assert_eq!(day.count(), 1);

    let verdicts = lines(0, &["verify"], data.path());
    for (verdict, replayed) in verdicts.iter().zip(&all) {
        assert_eq!(verdict["digest_of_store"], verdict["digest_of_log"]);
        assert_eq!(verdict["digest_of_log"], replayed["digest"]);
    }
    let service = Service::serve(data.path(), &[]);
    assert_eq!(service.get_after(RECEIPT, &second).body, now[0], "nothing was changed");
}

/// Wrong usage ends with 2 and names the argument. A missing log ends with 1 and creates nothing.
#[test]
fn wrong_usage_and_what_is_not_there_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = folder.path().join("absent");
    let absent = absent.to_str().expect("UTF-8");
    let table: &[(i32, &[&str], &str)] = &[
        (2, &["replay", "--as-of", "yesterday"], "--as-of"),
        (2, &["replay", "--as-of", "1", "--position", "AQABAAEAAQABSHigHA"], "--position"),
        (2, &["replay", "--position", "none"], "--position"),
        (2, &["replay", "--position", "0:1,0:2"], "--position"),
        (2, &["replay", "--from", "yesterday"], "--from"),
        (2, &["replay", "--from", "2", "--as-of", "1"], "--from"),
        (2, &["replay", "--from", "2", "receipt", "g1", "m1"], "--from"),
        (2, &["replay", "receipt", "g1"], "MESSAGE"),
        (2, &["replay", "members", "g1", "m1"], "--filter"),
        (2, &["replay", "--memory-mb", "0"], "--memory-mb"),
        (2, &["export"], "--out"),
        (2, &["stats", "--top", "2000"], "--top"),
        (2, &["stats", "--since", "yesterday"], "--since"),
        (2, &["backfill"], "--members"),
        (2, &["backfill", "--reads", "src"], "--format"),
        (2, &["backfill", "--reads", "seen.csv"], "there is no file seen.csv"),
        (2, &["backfill", "--reads", "seen.csv", "--column", "nothing=x"], "--column"),
        (2, &["export", "--out", "x", "--format", "xlsx"], "--format"),
        (2, &["compare", "--reads", "seen.csv"], "--url"),
        (2, &["export", "--out", "x", "--file-mb", "0"], "--file-mb"),
        (2, &["export", "--out", "x", "--layout", "v1", "--file-mb", "1"], "--file-mb is for --layout v2"),
        (2, &["export", "--out", "x", "--layout", "v1", "--dataset", "members"], "layout v1 has no such dataset"),
        (1, &["replay"], "no event log"),
        (1, &["export", "--out", absent], "no event log"),
        (1, &["stats"], "no event log"),
        (1, &["backfill", "--reads", "Cargo.toml", "--format", "csv"], "no event log"),
        (1, &["verify"], "no store"),
    ];
    for (code, arguments, part) in table {
        let output = run("receipts", &[*arguments, &["--data-dir", absent]].concat());
        let said = errors(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(*code), 0), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?} must name {part}:\n{said}");
    }
    assert!(!Path::new(absent).exists());
}

/// INV-BACKFILL, INV-STATS: after Ctrl-C the same command continues an import, the log has each row
/// once, and the service answers from it.
#[test]
fn interrupted_import_continues_and_its_receipts_are_answered() {
    const MESSAGES: usize = 1_000;
    const READERS: usize = 150;
    let data = tempfile::tempdir().expect("a folder");
    assert_eq!(Service::serve(data.path(), &[]).terminate(), Some(0), "it makes the log");
    let table = |name: &str, text: String| {
        let path = data.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let people = (0..=READERS).map(|person| format!("g1,u{person}\n")).collect::<String>();
    let members = table("members.csv", format!("conversation_id,user_id\n{people}"));
    let sends = (0..MESSAGES).map(|message| format!("g1,m{message},u0,{SENT_AT_MS}\n")).collect::<String>();
    let messages = table("messages.csv", format!("conversation_id,message_id,sender_id,sent_at_ms\n{sends}"));
    let mut reads = "conversation_id,message_id,user_id,read_at_ms\n".to_owned();
    for message in 0..MESSAGES {
        for person in 1..=READERS {
            reads += &format!("g1,m{message},u{person},{}\n", SENT_AT_MS + message as u64);
        }
    }
    let reads = table("reads.csv", reads);
    let data_dir = data.path().to_str().expect("UTF-8");
    let arguments = ["backfill", "--members", &members, "--messages", &messages, "--reads", &reads];
    let progress = data.path().join("members.csv.backfill.json");

    let all = [&arguments[..], &["--data-dir", data_dir, "--json"]].concat();
    let output = interrupt("receipts", &all, "reading tables", || progress.exists());
    let said = errors(&output);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("stopped as asked") && said.contains("same command"), "{said}");
    assert!(said.contains(" bytes of tables, "), "{said}");

    let done = &lines(0, &arguments, data.path())[0];
    assert_eq!((&done["resumed"], &done["rows"]["reads"]), (&json!(true), &json!(MESSAGES * READERS)));
    let replayed = lines(0, &["replay"], data.path());
    let events: u64 = replayed.iter().map(|line| line["events"].as_u64().expect("a count")).sum();
    let told: u64 = done["events"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    assert_eq!(events, told, "each event once");
    let again = &lines(0, &arguments, data.path())[0];
    assert_eq!(again["written"], 0, "it is done");

    let page = data.path().join("figures.html");
    let stats = &lines(0, &["stats", "--html", page.to_str().expect("UTF-8")], data.path())[0];
    assert_eq!(stats["readers"]["read_count"], MESSAGES * READERS);
    assert_eq!(stats["readers"]["read_percent"], json!(100.0));
    assert!(fs::read_to_string(page).expect("a page").contains("</html>"));
    let service = Service::serve(data.path(), &[]);
    let position = done["position"].as_str().expect("a token");
    let receipt = service.get_after("/v1/conversations/g1/messages/m7/receipt", position).body;
    assert_eq!((&receipt["read_count"], &receipt["all_read"]), (&json!(READERS), &json!(true)));
    assert_eq!(receipt["last_read_at_ms"], SENT_AT_MS + 7);
}
