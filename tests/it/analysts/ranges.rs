//! Tests `receipts replay --from` as a process, and logs that have lost their beginning, with and
//! without snapshots.

use super::{READERS, RECEIPT, lines, read, sent};
use receipts_log::Topic;
use receipts_log::embedded::EmbeddedLog;
use receipts_query::{LogTag, Positions};
use receipts_tests::process::{Service, errors, run};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Returns one field of every line.
fn each<'a>(lines: &'a [Value], field: &str) -> Vec<&'a Value> {
    lines.iter().map(|line| &line[field]).collect()
}

/// INV-PREFIX, INV-ASOF: a report from a position, its offsets or its time covers the later
/// records, of a state that knows the earlier ones: no read is a dead letter for lack of a roster.
#[test]
fn replay_from_a_position_reports_only_later_records() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &[]);
    let first = service.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]}, sent("m1"), read("m1", "bob")
    ]));
    _ = service.get_after(RECEIPT, &first);
    // Records of one millisecond have the same time.
    std::thread::sleep(Duration::from_millis(5));
    let second = service.write(&json!([read("m1", "carol"), sent("m2")]));
    _ = service.get_after(RECEIPT, &second);
    assert_eq!(service.terminate(), Some(0));

    let whole = lines(0, &["replay"], data.path());
    let from_token = lines(0, &["replay", "--from", &first], data.path());
    assert_eq!(each(&from_token, "digest"), each(&whole, "digest"), "of the whole prefix");
    let group = from_token.iter().find(|line| line["events"] == 2).expect("the group's partition");
    assert_eq!(
        (&group["first_offset"], &group["from_offset"], &group["next_offset"]),
        (&json!(0), &json!(3), &json!(5))
    );
    assert_eq!((&group["messages"], &group["dead_letters"]), (&json!(2), &json!({})));
    assert!(from_token.iter().filter(|line| *line != group).all(|line| line["events"] == 0), "{from_token:?}");

    let partition = group["partition"].as_u64().expect("a number");
    let offsets = format!("{partition}:3");
    let time = group["first_timestamp_ms"].to_string();
    for from in [&offsets, &time] {
        let told = lines(0, &["replay", "--from", from], data.path());
        for field in ["from_offset", "events", "first_timestamp_ms", "digest"] {
            assert_eq!(told[partition as usize][field], group[field], "{field} from {from}");
        }
    }
    let between = lines(0, &["replay", "--from", &first, "--position", &first], data.path());
    assert!(between.iter().all(|line| line["events"] == 0), "{between:?}");
    let data_dir = data.path().to_str().expect("UTF-8");
    let elsewhere = Positions::applied(0, 1).token(Some(LogTag(1))).to_string();
    for (wrong, part) in
        [("77:1", "partition 77"), (&format!("{partition}:6"), "ends at 5"), (&elsewhere, "another log")]
    {
        let output = run("receipts", &["replay", "--from", wrong, "--data-dir", data_dir]);
        let said = errors(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains("--from") && said.contains(part), "{said}");
    }
}

/// INV-PREFIX, INV-RESTORE: with a snapshot the answers include records that the log has lost,
/// without a warning. Without a snapshot, a warning says that records are missing.
#[test]
fn snapshot_answers_for_records_that_the_log_lost() {
    const ONE: [&str; 2] = ["--log-partitions", "1"];
    const LOST: &str = "the log has lost its first records";
    let folder = tempfile::tempdir().expect("a folder");
    let (data, at) = (folder.path().join("data"), folder.path().join("snapshots"));
    let service = Service::serve(&data, &ONE);
    let first = service.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]}, sent("m1")
    ]));
    _ = service.get_after(RECEIPT, &first);
    assert_eq!(service.terminate(), Some(0));
    let (data_dir, url) = (data.to_str().expect("UTF-8"), at.to_str().expect("UTF-8"));
    let taken = run("receipts", &["snapshot", "take", "--data-dir", data_dir, "--snapshot-url", url]);
    assert!(taken.status.success(), "{}", errors(&taken));
    let service = Service::serve(&data, &ONE);
    let second = service.write(&json!([read("m1", "bob"), read("m1", "carol")]));
    let (receipt, readers) = (service.get_after(RECEIPT, &second).body, service.get_after(READERS, &second).body);
    assert_eq!(service.terminate(), Some(0));
    let whole = lines(0, &["replay"], &data);
    EmbeddedLog::open(&data.join("log"), None).expect("a log").trim(Topic::Events, 0, 1).expect("trimmed");

    let replay = |arguments: &[&str], data: &Path| -> (Vec<Value>, String) {
        let common = ["--data-dir", data.to_str().expect("UTF-8"), "--json"];
        let output = run("receipts", &[&["replay"], arguments, &common].concat());
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let shown = String::from_utf8(output.stdout.clone()).expect("UTF-8");
        (shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), errors(&output))
    };
    let with = ["--snapshot-url", url];
    let (answer, said) = replay(&[&with[..], &["receipt", "g1", "m1"]].concat(), &data);
    assert_eq!(answer, [receipt]);
    assert!(!said.contains(LOST) && said.contains("the fold begins with a snapshot"), "{said}");
    // The log has three offsets. The snapshot spares the others, so they count in no rate.
    assert!(said.contains("done offsets=2 "), "{said}");
    let (answer, said) = replay(&[&with[..], &["members", "g1", "m1", "--filter", "read"]].concat(), &data);
    assert_eq!((answer, said.contains(LOST)), (vec![readers], false));
    let (told, _) = replay(&[&with[..], &["--from", "0:3"]].concat(), &data);
    assert_eq!(told[0]["digest"], whole[0]["digest"]);
    let wanted = json!([2, 2, 3, 4, 1]);
    let fields = ["first_offset", "snapshot_offset", "from_offset", "next_offset", "events"];
    assert_eq!(json!(fields.map(|field| &told[0][field])), wanted);

    let (answer, said) = replay(&["receipt", "g1", "m1"], &data);
    assert_eq!(answer[0]["status"], "not_found", "it was sent without a roster, as far as this log knows");
    assert!(said.contains(LOST) && said.contains("first_offset=1"), "{said}");
    // No snapshot stands at or below offset 1.
    let (_, said) = replay(&[&with[..], &["--from", "0:1"]].concat(), &data);
    assert!(said.contains(LOST), "{said}");
}
