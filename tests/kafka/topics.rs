//! Topics that do not fit: one that got more partitions, and one that takes records of any time.
//! And positions that no record has.

use super::end_to_end::{read, sent};
use receipts_log::kafka::{CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{grow, set_config};
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::{Service, errors, run};
use receipts_tests::receipt_path;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn joined(conversation: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": ["alice", "bob"]})
}

/// INV-PARTITION-COUNT: every process ends within seconds, and none starts again, wherever it finds
/// the old count: in its store, in the topic of updates, or in the records.
#[test]
fn grown_topic_is_refused_before_and_after_restart() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "grown");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (p_data, s_data) = (data("projector"), data("serve"));
    let projector = ["--listen", "127.0.0.1:0", "--data-dir", &p_data];
    let of_serve = kafka.flags_of("grown-serve");
    let serve: Vec<&str> = ["serve", "--http-listen", "127.0.0.1:0", "--data-dir", &s_data].to_vec();
    let serve_flags: Vec<&str> = of_serve.iter().map(String::as_str).collect();
    let ingest = ["--http-listen", "127.0.0.1:0"];
    let running = [
        Service::start("receipts-projector", &[&projector[..], &flags].concat()),
        Service::start("receipts", &[&serve[..], &serve_flags].concat()),
        Service::start("receipts-ingest", &[&ingest[..], &flags].concat()),
    ];
    let query = ["--http-listen", "127.0.0.1:0", "--projectors", &running[0].address];
    let edge = Service::start("receipts-query", &[&query[..], &flags].concat());
    let conversations: Vec<String> = (0..8).map(|number| format!("g{number}")).collect();
    let events = conversations.iter().flat_map(|id| [joined(id), sent(id, "m1", "alice"), read(id, "m1", "bob")]);
    let token = running[2].write(&json!(events.collect::<Vec<_>>()));
    assert_eq!(running[1].get_after(&receipt_path("g1", "m1"), &token).status, 200);

    grow(&kafka.bootstrap, &kafka.events, 16);
    let grown = Instant::now();
    let is_told = |said: &str| {
        let parts = [&*kafka.events, "(4 before, 16 now)", "make a new topic", "--log-events-topic"];
        parts.iter().all(|part| said.contains(part)) && !said.contains("name another topic")
    };
    for mut service in running.into_iter().chain([edge]) {
        assert_eq!(service.ended(), Some(1), "{}", service.errors());
        assert!(grown.elapsed() < Duration::from_secs(30), "noticed after {} s", grown.elapsed().as_secs());
        let said = service.errors();
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && is_told(last), "{said}");
        assert_eq!(last.matches("(4 before, 16 now)").count(), 1, "told once: {last}");
    }
    // The store says so, or the topic of updates, or, with a new topic and no store, the records.
    let (new_updates, empty) = (format!("{}-2", kafka.updates), data("empty"));
    let anew = ["--log-updates-topic", &new_updates, "--log-partitions", "16"];
    let fresh = ["serve", "--http-listen", "127.0.0.1:0", "--data-dir", &empty];
    for (name, own, more) in [
        ("receipts-projector", &projector[..], &[][..]),
        ("receipts", &serve, &anew),
        ("receipts-ingest", &ingest, &[]),
        ("receipts-ingest", &ingest, &anew),
        ("receipts", &fresh, &[]),
        ("receipts", &fresh, &anew),
    ] {
        let output = run(name, &[own, &flags, more].concat());
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{name} {more:?}: {said}");
        assert!(is_told(said.lines().last().unwrap_or_default()), "{name} {more:?}: {said}");
    }
}

/// INV-LOG-TIME: a topic made elsewhere without a bound is refused with the command that bounds it.
#[test]
fn topic_without_a_time_bound_is_refused() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "unbounded");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    create_unbounded(&kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let serve = ["serve", "--http-listen", "127.0.0.1:0", "--data-dir", folder.path().to_str().expect("UTF-8")];
    let ingest = ["--http-listen", "127.0.0.1:0"];
    for (name, own) in [("receipts", &serve[..]), ("receipts-ingest", &ingest)] {
        let output = run(name, &[own, &flags].concat());
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let command = format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} --add-config \
             message.timestamp.after.max.ms=3600000",
            kafka.bootstrap, kafka.events
        );
        assert!(said.contains(&command) && said.contains("log.accept_unbounded_time"), "{said}");
    }
    let all = KafkaSettings { accept_unbounded_time: true, ..kafka.settings() };
    assert!(KafkaLog::connect(all).is_err(), "a refusal makes no other topic");
    let accepting = ["--log-accept-unbounded-time"];
    let service = Service::start("receipts", &[&serve[..], &flags, &accepting].concat());
    assert_eq!(service.terminate(), Some(0));
}

/// INV-POSITION: positions that no record has are refused at once, and those of acknowledged writes
/// never are, however they race.
#[test]
fn invented_positions_are_refused_and_written_ones_never() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "invented");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let of_alone = kafka.flags_of("invented-alone");
    let alone = Service::serve(folder.path(), &of_alone.iter().map(String::as_str).collect::<Vec<_>>());
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path().to_str().expect("UTF-8");
    let projector =
        Service::start("receipts-projector", &[&["--listen", "127.0.0.1:0", "--data-dir", data], &flags[..]].concat());
    let edge = Service::start("receipts-query", &["--http-listen", "127.0.0.1:0", "--projectors", &projector.address]);
    _ = alone.write(&json!([joined("g1"), sent("g1", "m1", "alice")]));
    let path = receipt_path("g1", "m1");
    let invented = receipts_query::Positions::written(1, 1_000_000).to_string();
    for service in [&alone, &edge] {
        for _ in 0..5 {
            let asked = Instant::now();
            let answer = service.get_after(&path, &invented);
            assert_eq!((answer.status, &answer.body["type"]), (503, &json!("urn:receipts:problem:behind")));
            // The wait would be 30 s.
            assert!(asked.elapsed() < Duration::from_secs(15), "after {} ms", asked.elapsed().as_millis());
        }
    }
    let refused = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (alone, edge, refused, path, invented) = (&alone, &edge, &refused, &path, &invented);
            scope.spawn(move || {
                for round in 0..30 {
                    let reader = format!("r{writer}-{round}");
                    let token = alone.write(&read("g1", "m1", &reader));
                    for service in [alone, edge] {
                        let answer = service.get_after(path, &token);
                        refused.fetch_add(u64::from(answer.status != 200), std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(answer.status, 200, "{}", answer.body);
                    }
                    if round % 10 == 0 {
                        assert_eq!(edge.get_after(path, invented).status, 503);
                    }
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 0);
    for service in [edge, projector, alone] {
        assert_eq!(service.terminate(), Some(0));
    }
}

/// Makes the topic of events as an operator without a time bound does.
fn create_unbounded(kafka: &Kafka) {
    let create_topics = Some(CreateTopics { partitions: PARTITIONS, replication: None });
    let only_events = KafkaSettings { required: &[receipts_log::Topic::Events], create_topics, ..kafka.settings() };
    drop(KafkaLog::connect(only_events).expect("made"));
    set_config(&kafka.bootstrap, &kafka.events, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
}
