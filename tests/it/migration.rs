//! Tests a move from another system as its operator does it: `receipts backfill --map` with a dry
//! run, then `receipts compare` against the running service.

use receipts_tests::process::{Service, errors, run};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const SENT_AT_MS: u64 = 1_795_176_000_000;

/// A mapping with seconds, a filter and nested readers.
const MAPPING: &str = r#"
[members]
conversation_id = "chat"
user_id = "who"

[messages]
conversation_id = "chat"
message_id = "id"
sender_id = "by"
sent_at_ms = { column = "at", unit = "s" }

[reads]
rows = '{chat, id} + .seen[]'
where = ".at != null"
conversation_id = "chat"
message_id = "id"
user_id = "who"
read_at_ms = { column = "at", unit = "s" }

[marks]
conversation_id = "chat"
user_id = "who"
up_to_sent_at_ms = { column = "seen", unit = "s" }
"#;

struct Dump {
    dir: tempfile::TempDir,
}

impl Dump {
    fn new() -> Self {
        let dump = Self { dir: tempfile::tempdir().expect("a folder") };
        dump.write("map.toml", MAPPING);
        let people = ["ann", "bob", "cid", "dan"];
        let members: Vec<Value> = people.iter().map(|who| json!({"chat": "g1", "who": who})).collect();
        dump.rows("members.ndjson", &members);
        let messages: Vec<Value> = (0..3)
            .map(|n| json!({"chat": "g1", "id": format!("m{n}"), "by": "ann", "at": SENT_AT_MS / 1_000 + n}))
            .collect();
        dump.rows("messages.ndjson", &messages);
        dump.rows(
            "reads.ndjson",
            &[dump.seen("m0", &[("bob", 60), ("cid", 61)]), dump.seen("m1", &[("bob", 60), ("eve", 62)])],
        );
        dump.rows("marks.ndjson", &[json!({"chat": "g1", "who": "dan", "seen": SENT_AT_MS / 1_000 + 1})]);
        dump
    }

    fn seen(&self, message: &str, readers: &[(&str, u64)]) -> Value {
        let seen = readers.iter().map(|(who, after)| json!({"who": who, "at": SENT_AT_MS / 1_000 + after}));
        json!({"chat": "g1", "id": message, "seen": seen.chain([json!({"who": "dan", "at": null})]).collect::<Vec<_>>()})
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("written");
    }

    fn rows(&self, name: &str, rows: &[Value]) {
        self.write(name, &rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn data(&self) -> String {
        self.path("data")
    }

    /// Runs a command with the mapping and the given tables; returns its code, JSON and errors.
    fn run(&self, command: &[&str], tables: &[&str]) -> (i32, Value, String) {
        let mut arguments: Vec<String> = command.iter().map(|&argument| argument.to_owned()).collect();
        arguments.extend(["--map".to_owned(), self.path("map.toml"), "--json".to_owned()]);
        for table in tables {
            arguments.extend([format!("--{table}"), self.path(&format!("{table}.ndjson"))]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run("receipts", &arguments);
        let said = errors(&output);
        let shown = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().expect("a code"), shown, said)
    }
}

const ALL: [&str; 4] = ["members", "messages", "reads", "marks"];

fn kinds(report: &Value) -> Vec<(String, u64)> {
    let kinds = report["by_kind"].as_object().expect("kinds");
    kinds.iter().map(|(kind, held)| (kind.clone(), held["count"].as_u64().expect("a count"))).collect()
}

/// INV-BACKFILL: a dry run judges the mapped tables and writes nothing; the import then gives what
/// it said; and the comparison finds exactly the rows that were changed since.
#[test]
fn a_dump_is_judged_imported_and_compared() {
    let dump = Dump::new();
    assert_eq!(Service::serve(Path::new(&dump.data()), &[]).terminate(), Some(0), "it makes the log");
    let data = dump.data();
    let backfill = ["backfill", "--data-dir", &data];
    let (code, dry, said) = dump.run(&[&backfill[..], &["--dry-run"]].concat(), &ALL);
    assert_eq!((code, &dry["nothing_written"]), (0, &json!(true)), "{said}");
    let judged = &dry["judgement"];
    assert_eq!(judged["reads"]["read"], 3, "{dry}");
    assert_eq!(judged["reads"]["unreached"]["not_in_audience"]["count"], 1, "eve");
    assert_eq!(judged["marks"]["read"], 2, "dan reads m0 and m1");
    assert_eq!(dry["left_out"]["reads"], 2, "dan's empty times");
    assert!(!Path::new(&dump.path("members.ndjson.backfill.json")).exists());
    let (code, done, said) = dump.run(&backfill, &ALL);
    assert_eq!((code, &done["judgement"], &done["nothing_written"]), (0, judged, &json!(false)), "{said}");

    let service = Service::serve(Path::new(&data), &[]);
    service.get_after("/v1/conversations/g1/messages/m0/receipt", done["position"].as_str().expect("a token"));
    let url = format!("http://{}", service.address);
    let compare = ["compare", "--url", &url];
    let tables = ["messages", "reads", "marks"];
    let (code, report, said) = dump.run(&compare, &tables);
    assert_eq!((code, kinds(&report)), (1, vec![("not_in_audience".to_owned(), 1)]), "{said}");
    dump.rows("reads.ndjson", &[dump.seen("m0", &[("bob", 60), ("cid", 61)]), dump.seen("m1", &[("bob", 60)])]);
    let (code, report, said) = dump.run(&compare, &tables);
    assert_eq!((code, &report["differences"], &report["messages"]), (0, &json!(0), &json!(3)), "{said}");

    // The tables change: each kind of difference once.
    dump.rows(
        "reads.ndjson",
        &[
            dump.seen("m0", &[("bob", 65)]),
            dump.seen("m1", &[("bob", 60), ("cid", 60)]),
            dump.seen("m9", &[("bob", 60)]),
        ],
    );
    let marks = [("dan", 2), ("cid", 0)];
    dump.rows("marks.ndjson", &marks.map(|(who, n)| json!({"chat": "g1", "who": who, "seen": SENT_AT_MS / 1_000 + n})));
    let out = dump.path("differences.ndjson");
    let (code, report, said) = dump.run(&[&compare[..], &["--out", &out]].concat(), &tables);
    assert_eq!(code, 1, "{said}");
    let wanted = [
        ("mark_behind", 1),
        ("missing_mark", 1),
        ("missing_message", 1),
        // cid's of m1, and m2 by dan's mark.
        ("missing_read", 2),
        ("time_differs", 1),
    ];
    assert_eq!(kinds(&report), wanted.map(|(kind, count)| (kind.to_owned(), count)), "{report}");
    let lines = fs::read_to_string(&out).expect("all differences");
    assert_eq!(lines.lines().count(), 6);
    assert!(lines.contains("\"kind\":\"time_differs\""), "{lines}");
    let (_, report, _) = dump.run(&[&compare[..], &["--tolerance-ms", "5000"]].concat(), &tables);
    assert!(kinds(&report).iter().all(|(kind, _)| kind != "time_differs"));
    // cid's mark covers m0 alone, so without marks the read of cid stands in the service alone.
    let (_, report, _) = dump.run(&compare, &["reads"]);
    let extra = kinds(&report).into_iter().find(|(kind, _)| kind == "extra_read");
    assert_eq!(extra, Some(("extra_read".to_owned(), 3)), "cid's and dan's of m0, dan's of m1");
    let long_ago = SENT_AT_MS.to_string();
    let (_, report, _) = dump.run(&[&compare[..], &["--until", &long_ago]].concat(), &["reads"]);
    assert!(kinds(&report).iter().all(|(kind, _)| kind != "extra_read"));
}

/// INV-BACKFILL: without some of its members an import would freeze wrong audiences, so it writes
/// nothing unless it is told to.
#[test]
fn rejected_members_stop_an_import() {
    let dump = Dump::new();
    let data = dump.data();
    assert_eq!(Service::serve(Path::new(&data), &[]).terminate(), Some(0), "it makes the log");
    dump.rows(
        "members.ndjson",
        &[json!({"chat": "g1", "who": "ann"}), json!({"chat": "g1"}), json!({"chat": "g1", "who": "bob"})],
    );
    let backfill = ["backfill", "--data-dir", &data];
    let (code, kept, said) = dump.run(&backfill, &ALL);
    assert_eq!((code, &kept["nothing_written"], &kept["written"]), (1, &json!(true), &json!(0)), "{said}");
    assert!(said.contains("--despite-rejected-members") && said.contains("nothing was written"), "{said}");
    assert!(!Path::new(&dump.path("members.ndjson.backfill.json")).exists());
    let (code, done, said) = dump.run(&[&backfill[..], &["--despite-rejected-members"]].concat(), &ALL);
    assert_eq!((code, &done["nothing_written"], &done["rejected"]["members"]), (1, &json!(false), &json!(1)), "{said}");
    assert!(done["written"].as_u64().is_some_and(|written| written > 0));
}

/// A mapping file's mistakes are all reported at once, with exit code 2.
#[test]
fn mistakes_of_a_mapping_are_reported_at_once() {
    let dump = Dump::new();
    dump.write("map.toml", "[reads]\nconversation_id = \"chat\"\nuser = \"who\"\nmessage_id = { jq = \".id |\" }\n");
    let (code, _, said) = dump.run(&["backfill", "--data-dir", &dump.data()], &["reads"]);
    assert_eq!(code, 2, "{said}");
    for part in
        ["line 1, key reads.user_id: missing", "line 3, key reads.user: unknown", "line 4, key reads.message_id.jq"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}
