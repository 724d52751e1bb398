//! Kafka away and back: reads go on from the held state, readiness tells the truth, and the log is
//! a handful of lines. Each test has a broker of its own, since it kills it.

use super::end_to_end::{read, sent};
use receipts_log::testing::{Broker, enabled};
use receipts_tests::kafka::Kafka;
use receipts_tests::process::{Answer, Service};
use receipts_tests::{eventually, receipt_path};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long the broker is away: longer than the session of a group, whose members then lose their
/// partitions.
const AWAY: Duration = Duration::from_secs(14);
/// The lines at WARN and above, and at INFO, that one outage may cost a process.
const LINES_MAX: usize = 8;

fn joined(conversation: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": ["alice", "bob", "carol"]})
}

/// Asks for a receipt; returns the seconds of `Receipts-Stale` too.
fn ask(service: &Service, headers: &[(&str, &str)]) -> (Option<u64>, Answer) {
    let (head, answer) = service.exchange("GET", &receipt_path("g1", "m1"), headers, "");
    let stale = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("receipts-stale: ")?.parse().ok());
    (stale, answer)
}

/// The lines that a process has written since it had written `before` bytes.
fn lines_since(service: &Service, before: usize) -> Vec<String> {
    service.errors()[before..].lines().map(str::to_owned).collect()
}

/// INV-STALE, INV-HANDOVER: all deployments at once, on one broker that goes and comes.
#[test]
fn reads_go_on_while_kafka_is_away() {
    if !enabled() {
        return;
    }
    let broker = Broker::start(1).unwrap_or_else(|error| panic!("{error}"));
    let kafka = Kafka::named(&broker, "outage");
    let session = ["--kafka-properties", "session.timeout.ms=6000", "--kafka-properties", "heartbeat.interval.ms=1000"];
    let flags = [kafka.flags(), kafka.flags_of("alone"), kafka.flags_of("never")];
    let [flags, of_alone, of_never] = flags.each_ref().map(|flags| {
        let flags = flags.iter().map(String::as_str);
        flags.chain(session).collect::<Vec<&str>>()
    });
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();

    let alone = Service::serve(&folder.path().join("alone"), &of_alone);
    let bound = ["--projector-stale-ms-max", "0", "--projector-updates=false"];
    let never = Service::serve(&folder.path().join("never"), &[&of_never[..], &bound].concat());
    let of_projector = data("projector");
    let projector = [&["--listen", "127.0.0.1:0", "--data-dir", &of_projector], &flags[..]].concat();
    let projector = Service::start("receipts-projector", &projector);
    let edge = ["--http-listen", "127.0.0.1:0", "--projectors", &projector.address];
    let edge = Service::start("receipts-query", &[&edge[..], &flags].concat());
    let ingest = Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &flags[..]].concat());

    let token = ingest.write(&json!([joined("g1"), sent("g1", "m1", "alice"), read("g1", "m1", "bob")]));
    for service in [&alone, &never, &edge] {
        let (stale, answer) = ask(service, &[("Receipts-Min-Position", &token), ("Receipts-Wait-Ms", "30000")]);
        assert_eq!((stale, answer.status, &answer.body["read_count"]), (None, 200, &json!(1)), "{}", answer.body);
    }
    let before = [&alone, &projector, &edge, &ingest].map(|service| service.errors().len());
    broker.kill(1).expect("killed");
    let killed = Instant::now();

    // Every read is answered, from before the loss of the partitions until after it.
    let mut longest = 0;
    while killed.elapsed() < AWAY {
        for service in [&alone, &edge] {
            let (stale, answer) = ask(service, &[]);
            assert_eq!((answer.status, &answer.body["read_count"]), (200, &json!(1)), "{}", answer.body);
            longest = longest.max(stale.unwrap_or(0));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!((5..=AWAY.as_secs() + 2).contains(&longest), "stale for {longest} s");
    for service in [&alone, &edge, &projector] {
        let ready = service.get("/readyz");
        assert_eq!(ready.status, 200, "{}\n{}", ready.body, projector.errors());
        assert!(ready.body["stale_seconds"].as_u64().is_some_and(|seconds| seconds >= 5), "{}", ready.body);
        assert_eq!(ready.body["partitions_stale"], 4, "{}", ready.body);
    }
    let ready = ingest.get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.body);
    let detail = ready.body["detail"].as_str().expect("a reason");
    assert!(detail.contains(&kafka.bootstrap) && detail.contains("refuses the connection"), "{detail}");
    // Zero refuses stale reads, with the reason.
    let refused = never.get(&receipt_path("g1", "m1"));
    assert_eq!((refused.status, &refused.body["type"]), (503, &json!("urn:receipts:problem:unavailable")));
    assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.contains("projector.stale_ms_max")));
    assert_eq!(never.get("/readyz").status, 503);
    // A read that names a newer position waits and is refused.
    let token = receipts_query::Positions::written(0, 1_000_000).to_string();
    let (_, newer) = ask(&alone, &[("Receipts-Min-Position", &token), ("Receipts-Wait-Ms", "200")]);
    assert_eq!((newer.status, &newer.body["type"]), (503, &json!("urn:receipts:problem:behind")));

    broker.restart(1).expect("back");
    let token = eventually(
        "ingest takes events again",
        || ingest.post("/v1/events", &read("g1", "m1", "carol")),
        |answer| answer.status == 202,
    );
    let token = token.body["position"].as_str().expect("a token").to_owned();
    for service in [&alone, &never, &edge] {
        let is_fresh = |(stale, answer): &(Option<u64>, Answer)| {
            answer.status == 200 && stale.is_none() && answer.body["read_count"] == 2
        };
        let headers = [("Receipts-Min-Position", token.as_str()), ("Receipts-Wait-Ms", "5000")];
        eventually("the new read is answered", || ask(service, &headers), is_fresh);
        let is_ready = |ready: &Answer| ready.status == 200 && ready.body.get("stale_seconds").is_none();
        eventually("ready again", || service.get("/readyz"), is_ready);
    }
    eventually("ready again", || ingest.get("/readyz"), |ready| ready.status == 200);
    for (service, before) in [&alone, &projector, &edge, &ingest].into_iter().zip(before) {
        let told = |part: &str| lines_since(service, before).iter().filter(|line| line.contains(part)).count();
        eventually("the return is told", || told("can be reached again"), |told| *told == 1);
        let lines = lines_since(service, before);
        let about = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(about("Kafka cannot be reached"), 1, "{lines:#?}");
        assert!(lines.len() <= LINES_MAX, "{lines:#?}");
        if [alone.id(), projector.id()].contains(&service.id()) {
            let is_named = |line: &String| line.contains("took over partitions") && line.contains("partitions=\"0-3\"");
            assert!(lines.iter().any(is_named), "{lines:#?}");
        }
    }
    for service in [edge, ingest, projector, alone, never] {
        assert_eq!(service.terminate(), Some(0));
    }
}
