//! Tests `receipts policy set` and `receipts erase` on the embedded log, as an operator's script
//! calls them: without a terminal, between two runs of `receipts serve`. The fold's tests cover the
//! meaning of policies and erasures, `tests/kafka` the same commands on Kafka.

use receipts_event::{key, partition_of};
use receipts_tests::process::{Service, errors, run};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Partitions of the embedded logs of these tests.
const PARTITIONS: u32 = 4;
const FOUR: [&str; 2] = ["--log-partitions", "4"];
const SENT_AT_MS: u64 = 1_780_000_000_000;

/// Conversations of a tenant, one per partition: a rule that holds for all of them stands in every
/// partition.
fn everywhere(tenant: &str) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let ids = (0..).map(|number| format!("g{number}"));
    ids.filter(|id| taken.insert(partition_of(&key(tenant, id), PARTITIONS))).take(PARTITIONS as usize).collect()
}

/// Runs a command that succeeds on the embedded log, and returns its one object of JSON.
fn command(arguments: &[&str], data: &Path) -> Value {
    let data = data.to_str().expect("UTF-8");
    let output = run("receipts", &[arguments, &["--data-dir", data, "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    serde_json::from_str(&shown).expect("JSON")
}

/// Runs a command that must fail, and returns its message.
fn refused(code: i32, arguments: &[&str]) -> String {
    let output = run("receipts", arguments);
    let said = errors(&output);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {said}");
    said
}

fn post(service: &Service, tenant: &str, events: &Value) -> String {
    let headers = [("Content-Type", "application/json"), ("Receipts-Tenant", tenant)];
    let answer = service.request("POST", "/v1/events", &headers, &events.to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["position"].as_str().expect("a token").to_owned()
}

fn ask(service: &Service, tenant: &str, token: &str, path: &str) -> Value {
    let headers = [("Receipts-Tenant", tenant), ("Receipts-Min-Position", token), ("Receipts-Wait-Ms", "30000")];
    let answer = service.request("GET", path, &headers, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

fn sent(conversation: &str, message: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": "alice",
           "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
}

/// Returns the statuses of a message over all partitions: one, if they agree.
fn statuses(service: &Service, tenant: &str, token: &str, conversations: &[String], message: &str) -> BTreeSet<String> {
    let status = |id: &String| {
        let receipt = ask(service, tenant, token, &format!("/v1/conversations/{id}/messages/{message}/receipt"));
        receipt["status"].as_str().expect("a status").to_owned()
    };
    conversations.iter().map(status).collect()
}

fn only(status: &str) -> BTreeSet<String> {
    BTreeSet::from([status.to_owned()])
}

/// INV-COPIES, INV-FROZEN, INV-TENANT: a policy holds in every partition, for later messages of its
/// tenant, and replaces the previous policy as a whole.
#[test]
fn policy_holds_everywhere_for_later_messages() {
    let data = tempfile::tempdir().expect("a folder");
    let (ours, others) = (everywhere("acme"), everywhere("default"));
    let group = |id: &String| {
        [
            json!({"type": "conversation.configured", "conversation_id": id, "kind": "group", "group_type": "channel"}),
            json!({"type": "members.changed", "conversation_id": id, "joined": ["alice", "bob"]}),
            sent(id, "before"),
        ]
    };
    let service = Service::serve(data.path(), &FOUR);
    let token = post(&service, "acme", &json!(ours.iter().flat_map(group).collect::<Vec<_>>()));
    post(&service, "default", &json!(others.iter().flat_map(group).collect::<Vec<_>>()));
    assert_eq!(statuses(&service, "acme", &token, &ours, "before"), only("ok"));
    assert_eq!(service.terminate(), Some(0));

    let shown = command(&["policy", "set", "channel=off", "*=on", "--tenant", "acme"], data.path());
    assert_eq!(
        shown["event"],
        json!({"type": "policy.changed", "tenant": "acme", "read_receipts": {"channel": false, "*": true}})
    );
    let partitions: Vec<&Value> =
        shown["written"].as_array().expect("a list").iter().map(|place| &place["partition"]).collect();
    assert_eq!((partitions, &shown["log"]), (vec![&json!(0), &json!(1), &json!(2), &json!(3)], &json!("embedded")));

    let service = Service::serve(data.path(), &FOUR);
    let token = shown["position"].as_str().expect("a token");
    assert_eq!(statuses(&service, "acme", token, &ours, "before"), only("ok"), "frozen by its send");
    let token = post(&service, "acme", &json!(ours.iter().map(|id| sent(id, "after")).collect::<Vec<_>>()));
    let elsewhere = post(&service, "default", &json!(others.iter().map(|id| sent(id, "after")).collect::<Vec<_>>()));
    assert_eq!(statuses(&service, "acme", &token, &ours, "after"), only("unsupported"));
    assert_eq!(statuses(&service, "default", &elsewhere, &others, "after"), only("ok"), "another tenant's policy");
    assert_eq!(service.terminate(), Some(0));

    // Names only another type, so channels are as before any policy. This time by a file, with
    // output for people.
    let file = data.path().join("receipts.toml");
    std::fs::write(&file, format!("data_dir = {:?}\n", data.path())).expect("written");
    let file = file.to_str().expect("UTF-8");
    let output = run("receipts", &["policy", "set", "board=off", "--tenant", "acme", "--config", file]);
    let shown = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let said = errors(&output);
    let audit: Vec<_> = said.lines().filter(|line| line.contains("receipts::audit")).collect();
    assert!(
        matches!(&audit[..], [line] if line.contains("policy") && line.contains("acme") && line.contains("3@")),
        "{said}"
    );
    for part in ["board=off, all others on", "replaces the previous one", "all 4 partitions", " 3@", "position "] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let service = Service::serve(data.path(), &FOUR);
    let token = post(&service, "acme", &json!(ours.iter().map(|id| sent(id, "later")).collect::<Vec<_>>()));
    assert_eq!(statuses(&service, "acme", &token, &ours, "later"), only("ok"));
    assert_eq!(statuses(&service, "acme", &token, &ours, "after"), only("unsupported"), "frozen by its send");
    assert_eq!(service.terminate(), Some(0));
}

/// INV-COPIES, INV-ERASED: after an erasure no partition names the person, and counts stay.
#[test]
fn no_partition_names_an_erased_person() {
    let data = tempfile::tempdir().expect("a folder");
    let conversations = everywhere("default");
    let mut events = Vec::new();
    for id in &conversations {
        events.extend([
            json!({"type": "members.changed", "conversation_id": id, "joined": ["alice", "bob", "carol"]}),
            sent(id, "m1"),
            json!({"type": "message.read", "conversation_id": id, "reader_id": "bob", "message_ids": ["m1"]}),
            json!({"type": "message.sent", "conversation_id": id, "message_id": "m2", "sender_id": "bob",
                   "sent_at_ms": SENT_AT_MS, "need_read_receipt": true}),
        ]);
    }
    let service = Service::serve(data.path(), &FOUR);
    let token = post(&service, "default", &json!(events));
    let answers = |service: &Service, token: &str| -> Vec<Value> {
        let paths = conversations.iter().flat_map(|id| {
            let before = format!("/v1/conversations/{id}/messages");
            [
                format!("{before}/m1/receipt"),
                format!("{before}/m2/receipt"),
                format!("{before}/m1/members?filter=read"),
                format!("{before}/m2/members?filter=unread"),
            ]
        });
        paths.map(|path| ask(service, "default", token, &path)).collect()
    };
    let before = answers(&service, &token);
    let naming = |answers: &[Value]| answers.iter().filter(|answer| answer.to_string().contains("\"bob\"")).count();
    assert_eq!(naming(&before), 3 * conversations.len(), "the reader's list, and twice the sender");
    assert_eq!(service.terminate(), Some(0));

    let shown = command(&["erase", "bob"], data.path());
    assert_eq!(shown["event"], json!({"type": "user.erased", "user_id": "bob"}));
    assert_eq!(shown["written"].as_array().map(Vec::len), Some(PARTITIONS as usize));

    let service = Service::serve(data.path(), &FOUR);
    let after = answers(&service, shown["position"].as_str().expect("a token"));
    assert_eq!(naming(&after), 0, "{after:#?}");
    for (before, after) in before.iter().zip(&after) {
        for field in ["audience_count", "read_count", "last_read_at_ms"] {
            assert_eq!(before.get(field), after.get(field), "{field} of {before} and {after}");
        }
    }
    assert_eq!(service.terminate(), Some(0));
}

/// The commands write nothing into a data directory that a service has open, and print the request
/// to send instead.
#[test]
fn served_directory_is_refused_with_a_working_request() {
    let data = tempfile::tempdir().expect("a folder");
    let data_dir = data.path().to_str().expect("UTF-8");
    let service = Service::serve(data.path(), &FOUR);
    let id = &everywhere("acme")[0];
    let said = refused(1, &["policy", "set", "*=off", "--tenant", "acme", "--data-dir", data_dir]);
    let url = format!("http://{}/v1/events", service.address);
    for part in ["nothing was written", "in use by process", "curl", &url, "'Receipts-Tenant: acme'"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let roster = json!({"type": "members.changed", "conversation_id": id, "joined": ["alice", "bob"]});
    let token = post(&service, "acme", &json!([roster, sent(id, "m1")]));
    assert_eq!(statuses(&service, "acme", &token, std::slice::from_ref(id), "m1"), only("ok"), "nothing was written");

    let event = said.rsplit_once("-d '").and_then(|(_, rest)| rest.split('\'').next()).expect("the event");
    post(&service, "acme", &serde_json::from_str(event).expect("JSON"));
    let token = post(&service, "acme", &sent(id, "m2"));
    assert_eq!(statuses(&service, "acme", &token, std::slice::from_ref(id), "m2"), only("unsupported"));

    let said = refused(1, &["erase", "bob", "--data-dir", data_dir]);
    assert!(said.contains(&url) && said.contains("\"user_id\":\"bob\"") && !said.contains("Receipts-Tenant"), "{said}");
    assert_eq!(service.get("/readyz").status, 200, "the service goes on");
}

/// A wrong directory is refused, and nothing is created there.
#[test]
fn directory_without_a_log_is_refused_and_unchanged() {
    let data = tempfile::tempdir().expect("a folder");
    let (empty, absent) = (data.path().join("empty"), data.path().join("absent"));
    std::fs::create_dir(&empty).expect("made");
    for path in [&empty, &absent] {
        let path = path.to_str().expect("UTF-8");
        for arguments in
            [["erase", "bob", "--data-dir", path].as_slice(), &["policy", "set", "a=on", "--data-dir", path]]
        {
            let said = refused(1, arguments);
            assert!(said.contains("no event log") && said.contains(path) && said.contains("--data-dir"), "{said}");
        }
    }
    assert_eq!((std::fs::read_dir(&empty).expect("a folder").count(), absent.exists()), (0, false));
}

/// Wrong usage ends with 2, names the argument, and writes nothing. Without its one mistake each
/// command would succeed.
#[test]
fn usage_mistakes_name_their_argument_with_exit_code_2() {
    let data = tempfile::tempdir().expect("a folder");
    assert_eq!(Service::serve(data.path(), &FOUR).terminate(), Some(0));
    let (long, data_dir) = ("x".repeat(129), data.path().to_str().expect("UTF-8"));
    let (long_type, many) =
        (format!("{long}=on"), (0..1_001).map(|number| format!("t{number}=on")).collect::<Vec<_>>());
    let many: Vec<&str> = ["policy", "set"].into_iter().chain(many.iter().map(String::as_str)).collect();
    let table: &[(&[&str], &[&str])] = &[
        (&["policy", "set"], &["TYPE=on|off"]),
        (&["policy", "set", "channel"], &["TYPE=on|off", "channel=on"]),
        (&["policy", "set", "channel="], &["TYPE=on|off", "channel=", "neither on nor off"]),
        (&["policy", "set", "channel=yes"], &["TYPE=on|off", "channel=yes", "neither on nor off"]),
        (&["policy", "set", "=on"], &["TYPE=on|off", "empty"]),
        (&["policy", "set", &long_type], &["TYPE=on|off", "129 bytes"]),
        (&["policy", "set", "a=on", "b=on", "a=off"], &["TYPE=on|off", "\"a\" twice"]),
        (&many, &["TYPE=on|off"]),
        (&["policy", "set", "a=on", "--tenant", "a/b"], &["--tenant must not contain a slash"]),
        (&["policy", "set", "a=on", "--tenant", &long], &["--tenant"]),
        (&["policy", "set", "a=on", "--tenant", ""], &["--tenant"]),
        (&["policy"], &["set"]),
        (&["erase"], &["USER"]),
        (&["erase", ""], &["USER must not be empty"]),
        (&["erase", &long], &["USER "]),
        (&["erase", "bob", "carol"], &["carol"]),
        (&["erase", "bob", "--log-partitions", "0"], &["--log-partitions"]),
    ];
    for (arguments, parts) in table {
        let said = refused(2, &[*arguments, &["--data-dir", data_dir]].concat());
        assert!(parts.iter().all(|part| said.contains(part)), "{arguments:?} must name {parts:?}:\n{said}");
    }
    // The failed commands wrote nothing: the first copies have offset 0.
    let shown = command(&["policy", "set", "a=b=on", "*=off"], data.path());
    let offsets = shown["written"].as_array().expect("a list").iter().map(|place| &place["offset"]);
    assert_eq!(offsets.collect::<Vec<_>>(), vec![&json!(0); PARTITIONS as usize]);
}
