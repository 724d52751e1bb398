//! What operators do to topics under running services: delete and make them anew, compact them, let
//! them take smaller records. And logs that are not the one that a caller or a store began with.

use super::end_to_end::{read, sent};
use receipts_log::kafka::{CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{delete_topic, set_config, write_events};
use receipts_log::{Inspect as _, Topic};
use receipts_query::{Positions, Token};
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::{Service, errors, run};
use receipts_tests::{TIMEOUT, receipt_path};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TIME_BOUND: (&str, &str) = ("message.timestamp.after.max.ms", "3600000");

fn joined(conversation: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": ["alice", "bob"]})
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Makes the topics that are missing, as a restore or a copying tool does.
fn make(kafka: &Kafka) -> KafkaLog {
    let create_topics = Some(CreateTopics { partitions: PARTITIONS, ..CreateTopics::default() });
    let settings = KafkaSettings { create_topics, ..kafka.settings() };
    let deadline = Instant::now() + TIMEOUT;
    loop {
        // The broker may still be deleting the topic.
        match KafkaLog::connect(settings.clone()) {
            Ok(log) => return log,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Deletes the topic of events, makes it anew, and fills it until each partition is longer than it
/// was.
fn make_anew(kafka: &Kafka) {
    delete_topic(&kafka.bootstrap, &kafka.events);
    let log = make(kafka);
    let filled = write_events(&log, 2_000, TIMEOUT, |number, key, value| {
        let id = format!("new{number}");
        key.clear();
        key.extend_from_slice(&receipts_event::key("default", &id));
        value.clear();
        value.extend_from_slice(joined(&id).to_string().as_bytes());
        0
    });
    filled.expect("filled");
}

/// INV-SAME-LOG: every process ends, and a store is refused from then on, although the new topic
/// has a record at each of its offsets.
#[test]
fn topic_made_anew_ends_all_and_is_refused() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "anew");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (p_data, s_data) = (data("projector"), data("serve"));
    let of_serve = kafka.flags_of("anew-serve");
    let of_serve: Vec<&str> = of_serve.iter().map(String::as_str).collect();
    let serve = [&["serve", "--http-listen", "127.0.0.1:0", "--data-dir", &s_data], &of_serve[..]].concat();
    let projector = [&["--listen", "127.0.0.1:0", "--data-dir", &p_data], &flags[..]].concat();
    let running = [
        Service::start("receipts-projector", &projector),
        Service::start("receipts", &serve),
        Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &flags[..]].concat()),
    ];
    let query = ["--http-listen", "127.0.0.1:0", "--projectors", &running[0].address];
    let edge = Service::start("receipts-query", &[&query[..], &flags].concat());
    let conversations: Vec<String> = (0..8).map(|number| format!("g{number}")).collect();
    let events = conversations.iter().flat_map(|id| [joined(id), sent(id, "m1", "alice"), read(id, "m1", "bob")]);
    let token = running[2].write(&json!(events.collect::<Vec<_>>()));
    for service in [&running[1], &edge] {
        assert_eq!(service.get_after(&receipt_path("g1", "m1"), &token).status, 200);
    }
    make_anew(&kafka);
    for (number, mut service) in running.into_iter().chain([edge]).enumerate() {
        assert_eq!(service.ended(), Some(1), "{}", service.errors());
        let said = service.errors();
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains("anew"), "{number}: {said}");
    }
    for (name, arguments) in [("receipts-projector", &projector), ("receipts", &serve)] {
        let output = run(name, arguments);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("was made anew (its id was") && last.contains("--data-dir"), "{said}");
    }
}

/// A topic of updates that is made anew ends the processes with streams, and no others. Ids of the
/// old one are told to be of another log.
#[test]
fn updates_made_anew_end_processes_with_streams() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "updates-anew");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let mut serve = Service::serve(folder.path(), &flags);
    let ingest = Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &flags[..]].concat());
    let mut stream = serve.listen("conversation_id=g1", &[]);
    let token = ingest.write(&json!([joined("g1"), sent("g1", "m1", "alice"), read("g1", "m1", "bob")]));
    assert_eq!(stream.next_update().expect("an update").update["message_id"], "m1");
    let old = stream.last_id.clone();

    delete_topic(&kafka.bootstrap, &kafka.updates);
    drop(make(&kafka));
    assert_eq!(serve.ended(), Some(1), "{}", serve.errors());
    let said = serve.errors();
    assert!(said.lines().last().unwrap_or_default().contains("start it again"), "{said}");
    until("ingest says so", || {
        ingest.errors().contains("updates was made anew") || ingest.errors().contains("of updates")
    });
    assert_eq!(ingest.get("/readyz").status, 200, "it has no streams");

    let serve = Service::serve(folder.path(), &flags);
    assert_eq!(serve.get_after(&receipt_path("g1", "m1"), &token).status, 200, "events are the same");
    let gone = serve.request("GET", "/v1/updates?conversation_id=g1", &[("Last-Event-ID", &old)], "");
    assert_eq!((gone.status, &gone.body["type"]), (410, &json!("urn:receipts:problem:updates-gone")));
    assert!(gone.body["detail"].as_str().is_some_and(|detail| detail.contains("another log")), "{}", gone.body);
    assert_eq!(serve.terminate(), Some(0));
}

/// A deleted topic is told, and one of the same name in its place ends the process.
#[test]
fn deleted_topic_is_told_and_its_successor_refused() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "deleted");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut ingest = Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &flags[..]].concat());
    assert_eq!(ingest.get("/readyz").status, 200);
    delete_topic(&kafka.bootstrap, &kafka.events);
    until("it is not ready", || ingest.get("/readyz").status == 503);
    let detail = ingest.get("/readyz").body["detail"].to_string();
    assert!(detail.contains(&kafka.events) && detail.contains("does not exist any more"), "{detail}");
    assert!(ingest.errors().contains("the event topic does not exist any more"), "{}", ingest.errors());
    drop(make(&kafka));
    assert_eq!(ingest.ended(), Some(1), "{}", ingest.errors());
    assert!(ingest.errors().lines().last().is_some_and(|last| last.contains("was made anew")), "{}", ingest.errors());
}

/// Tokens of another log are refused with advice; those of earlier releases name no log, and go on
/// to be taken.
#[test]
fn tokens_of_another_log_are_refused() {
    let Some(broker) = broker() else { return };
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let start = |at: usize| {
        let kafka = Kafka::named(broker, "tokens");
        let flags = kafka.flags();
        Service::serve(folders[at].path(), &flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (here, elsewhere) = (start(0), start(1));
    let events = json!([joined("g1"), sent("g1", "m1", "alice")]);
    let (ours, theirs) = (here.write(&events), elsewhere.write(&events));
    let path = receipt_path("g1", "m1");
    assert_eq!(here.get_after(&path, &ours).status, 200);
    let refused = here.get_after(&path, &theirs);
    assert_eq!((refused.status, &refused.body["type"]), (400, &json!("urn:receipts:problem:bad-position")));
    assert!(refused.body["errors"].to_string().contains("of another log: drop it"), "{}", refused.body);
    let positions: Positions = theirs.parse::<Token>().expect("a token").into_positions(None).expect("positions");
    assert_eq!(here.get_after(&path, &positions.to_string()).status, 200, "of an earlier release");
    for token in [theirs, {
        let mut stream = elsewhere.listen("conversation_id=g1", &[]);
        stream.wait_for_id();
        stream.last_id
    }] {
        let gone = here.request("GET", "/v1/updates?conversation_id=g1", &[("Last-Event-ID", &token)], "");
        assert_eq!((gone.status, &gone.body["type"]), (410, &json!("urn:receipts:problem:updates-gone")));
    }
    let mut own = here.listen("conversation_id=g1", &[("Last-Event-ID", &ours)]);
    own.wait_for_id();
}

/// INV-SAME-LOG: compaction removes events without an error to any reader.
#[test]
fn compaction_ends_a_running_service() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "compacted-later");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let mut serve = Service::serve(folder.path(), &flags);
    set_config(&kafka.bootstrap, &kafka.events, &[("cleanup.policy", "compact"), TIME_BOUND]);
    assert_eq!(serve.ended(), Some(1), "{}", serve.errors());
    let said = serve.errors();
    assert!(said.lines().last().is_some_and(|last| last.contains("is compacted, so Kafka deletes events")), "{said}");
    set_config(&kafka.bootstrap, &kafka.events, &[("cleanup.policy", "delete"), TIME_BOUND]);
    assert_eq!(Service::serve(folder.path(), &flags).terminate(), Some(0));
}

/// The end of the topic of events, over all partitions.
fn end(kafka: &Kafka) -> u64 {
    let log = make(kafka);
    (0..PARTITIONS).map(|partition| log.bounds(Topic::Events, partition).expect("bounds").end).sum()
}

/// A topic that takes only small records: events that fit singly are written, also together; one
/// that never fits is 413.
#[test]
fn small_records_pass_and_large_ones_are_413() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "small");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let start = || Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &flags[..]].concat());
    let running = start();
    let short = ("retention.ms", "3600000");
    set_config(&kafka.bootstrap, &kafka.events, &[("max.message.bytes", "1000"), short, TIME_BOUND]);
    until("it warns of small records", || running.errors().contains("the topic takes only small records"));
    until("it warns of the retention", || running.errors().contains("the retention of the event topic is short"));
    // Text that does not compress, so that sizes are what they seem.
    let text = |number: usize, bytes: usize| -> String {
        let block = |n: usize| format!("{:08x}", receipts_event::murmur2(&[number as u8, n as u8, 7]));
        (0..bytes.div_ceil(8)).map(block).collect::<String>()[..bytes].to_owned()
    };
    let event = |number: usize| {
        let event_id = text(number, 110);
        json!({"type": "members.changed", "event_id": event_id, "conversation_id": "g1", "joined": ["alice"]})
    };
    let restarted = start();
    assert!(restarted.errors().contains("the topic takes only small records"), "{}", restarted.errors());
    for ingest in [running, restarted] {
        _ = ingest.write(&json!((0..60).map(event).collect::<Vec<_>>()));
        let many = json!({"type": "members.changed", "conversation_id": "g2",
            "joined": (0..60).map(|number| text(number, 60)).collect::<Vec<_>>()});
        let refused = ingest.post("/v1/events", &many);
        assert_eq!((refused.status, &refused.body["type"]), (413, &json!("urn:receipts:problem:too-large")));
        assert!(refused.body["detail"].to_string().contains("max.message.bytes"), "{}", refused.body);
        // All or nothing: the problem names the one that is in the way.
        let before = end(&kafka);
        let refused = ingest.post("/v1/events", &json!([joined("g3"), many, joined("g4")]));
        let errors = refused.body["errors"].as_array().expect("a list");
        assert_eq!((refused.status, errors.len(), &errors[0]["pointer"]), (413, 1, &json!("/1")), "{}", refused.body);
        assert!(refused.body["detail"].to_string().contains("nothing was written"), "{}", refused.body);
        assert_eq!(end(&kafka), before);
        assert_eq!(ingest.terminate(), Some(0));
    }
}

/// A cluster with a mirror under another name: the new, empty topic is told.
#[test]
fn new_topic_beside_its_mirror_is_told() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "mirror");
    let mirror = format!("src.{}", kafka.events);
    drop(make(&Kafka { events: mirror.clone(), ..Kafka::named(broker, "mirror-of") }));
    let folder = tempfile::tempdir().expect("a folder");
    let flags = kafka.flags();
    let serve = Service::serve(folder.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let said = serve.errors();
    assert!(said.contains(&mirror) && said.contains("--log-events-topic"), "{said}");
    assert_eq!(serve.terminate(), Some(0));
}

/// A mirror that was begun after its source had been trimmed begins at offset 0, without the
/// rosters.
#[test]
fn log_without_its_beginning_is_refused_unless_accepted() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "trimmed");
    drop(make(&kafka));
    let lines: String = (0..40)
        .map(|number| format!("g{number}"))
        .map(|id| format!("default/{id}\t{}\n", sent(&id, "m2", "alice")))
        .collect();
    kafka.produce(&["-K", "\t"], &lines);
    let folder = tempfile::tempdir().expect("a folder");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = folder.path().to_str().expect("UTF-8");
    let serve = [&["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data], &flags[..]].concat();
    for _ in 0..2 {
        let output = run("receipts", &serve);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("40 of its first 40 conversations") && said.contains("accept_missing_beginning"),
            "{said}"
        );
    }
    let accepted = Service::start("receipts", &[&serve[..], &["--log-accept-missing-beginning"]].concat());
    assert!(accepted.errors().contains("may have been begun after its source was trimmed"), "{}", accepted.errors());
    assert_eq!(accepted.terminate(), Some(0));
    assert_eq!(Service::serve(folder.path(), &flags).terminate(), Some(0), "the store has begun");
}
