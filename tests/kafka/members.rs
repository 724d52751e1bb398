//! Members of the consumer group that die, stop, return and copy one another. Where a test sets a
//! session far beyond its own time limit, nothing may wait for the end of a session.

use super::end_to_end::{read, sent};
use receipts_log::testing::set_group_config;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::Service;
use receipts_tests::witness::victim::Victim;
use receipts_tests::{eventually, receipt_path};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// Longer than a test waits for anything.
const SESSION: &str = "session.timeout.ms=300000";
/// How soon members learn that others come and go.
const HEARTBEAT: &str = "heartbeat.interval.ms=200";
const CONVERSATIONS: usize = 12;

/// Projectors of one group, and an edge that asks them.
struct Cluster {
    folder: tempfile::TempDir,
    flags: Vec<String>,
    ports: Vec<u16>,
    edge: Service,
}

impl Cluster {
    /// A cluster with events in all partitions, and with addresses for this many projectors, all of
    /// which run.
    fn start(name: &str, projectors: usize, properties: &[&str]) -> Option<(Self, Vec<Victim>)> {
        let kafka = Kafka::named(broker()?, name);
        let folder = tempfile::tempdir().expect("a folder");
        let mut flags = kafka.flags();
        flags.extend(properties.iter().flat_map(|property| ["--kafka-properties".to_owned(), (*property).to_owned()]));
        // These ports were free a moment ago: a projector keeps its address across restarts.
        let held: Vec<_> = (0..projectors).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<u16> = held.iter().map(|port| port.local_addr().expect("bound").port()).collect();
        drop(held);
        let strings: Vec<&str> = flags.iter().map(String::as_str).collect();
        let ingest = Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &strings[..]].concat());
        let token = ingest.write(&json!(events()));
        assert_eq!(ingest.terminate(), Some(0));
        let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let members = (0..projectors).map(|place| spawn(folder.path(), &flags, &ports, place)).collect();
        let own = ["--http-listen", "127.0.0.1:0", "--query-poll-ms", "50", "--projectors", &addresses.join(",")];
        let edge = Service::start("receipts-query", &own);
        assert_eq!(edge.get_after(&receipt_path("g0", "m"), &token).status, 200);
        Some((Self { folder, flags, ports, edge }, members))
    }

    fn spawn(&self, place: usize) -> Victim {
        spawn(self.folder.path(), &self.flags, &self.ports, place)
    }

    /// Waits until every message is answered by some projector.
    fn answers(&self) {
        for number in 0..CONVERSATIONS {
            let ask = || self.edge.get(&receipt_path(&format!("g{number}"), "m"));
            let answer = eventually("every partition is answered", ask, |answer| answer.status != 503);
            assert_eq!((answer.status, &answer.body["read_count"]), (200, &json!(1)), "{}", answer.body);
        }
    }
}

fn spawn(folder: &Path, flags: &[String], ports: &[u16], place: usize) -> Victim {
    let listen = format!("127.0.0.1:{}", ports[place]);
    Victim::start("receipts-projector", &["--listen", &listen], &folder.join(place.to_string()), flags)
}

fn events() -> Vec<Value> {
    let of = |number| {
        let id = format!("g{number}");
        let joined = json!({"type": "members.changed", "conversation_id": id, "joined": ["alice", "bob"]});
        [joined, sent(&id, "m", "alice"), read(&id, "m", "bob")]
    };
    (0..CONVERSATIONS).flat_map(of).collect()
}

/// Waits until a process has opened as many partitions.
fn opens(victim: &Victim, partitions: usize) {
    eventually("partitions are opened", || victim.opened().len(), |opened| *opened >= partitions);
}

/// INV-MEMBER: with a session of five minutes, a process that was killed has its partitions back.
#[test]
fn killed_process_returns_without_waiting_for_its_session() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "back");
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut flags = kafka.flags();
    flags.extend(["--kafka-properties", SESSION].map(str::to_owned));
    let mut victim = Victim::spawn(&data, &flags);
    opens(&victim, PARTITIONS as usize);
    let name = std::fs::read_to_string(data.join("instance")).expect("made at the first start");
    for _ in 0..3 {
        victim.kill();
        victim = Victim::spawn(&data, &flags);
        opens(&victim, PARTITIONS as usize);
    }
    victim.terminate();
    assert_eq!(std::fs::read_to_string(data.join("instance")).expect("kept"), name);
    // It has left its group, although it has a name: another process gets everything at once.
    let other = Victim::spawn(&folder.path().join("other"), &flags);
    opens(&other, PARTITIONS as usize);
}

/// INV-HANDOVER, INV-MEMBER: with a session of five minutes, others have the partitions of a
/// process that stops in order: of the group's leader, of one that returns at once, and while
/// another joins.
#[test]
fn stopped_process_hands_its_partitions_over_at_once() {
    let Some((cluster, mut members)) = Cluster::start("stops", 3, &[SESSION, HEARTBEAT]) else { return };
    cluster.answers();
    // The first member that joined leads the group.
    members[0].terminate();
    cluster.answers();
    members[1].terminate();
    members[1] = cluster.spawn(1);
    cluster.answers();
    members[2].send_term();
    members[0] = cluster.spawn(0);
    members[2].await_end();
    cluster.answers();
    // A killed one is back beside the others.
    opens(&members[0], 1);
    members[0].kill();
    members[0] = cluster.spawn(0);
    opens(&members[0], 1);
    cluster.answers();
    // All stop at once, and one of them returns.
    members.iter().take(2).for_each(Victim::send_term);
    members.iter_mut().take(2).for_each(Victim::await_end);
    members[2] = cluster.spawn(2);
    cluster.answers();
    members[2].terminate();
}

/// Copies a folder and what is in it, and its `instance` as the same file: what a copy of a whole
/// volume looks like.
fn clone_volume(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("readable")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("known").is_dir() {
            true => clone_volume(&from, &to),
            false if entry.file_name() == "instance" => std::fs::hard_link(&from, &to).expect("linked"),
            false => _ = std::fs::copy(&from, &to).expect("copied"),
        }
    }
}

/// INV-MEMBER: two processes of one name do not push each other out again and again.
#[test]
fn cloned_volume_costs_one_process_one_restart() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "cloned");
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| -> PathBuf { folder.path().join(name) };
    let mut flags = kafka.flags();
    flags.extend(["--kafka-properties", HEARTBEAT].map(str::to_owned));
    let start = |name: &str| Victim::start("receipts-projector", &["--listen", "127.0.0.1:0"], &data(name), &flags);
    let mut first = start("first");
    opens(&first, PARTITIONS as usize);
    first.terminate();
    clone_volume(&data("first"), &data("clone"));
    let mut first = start("first");
    opens(&first, PARTITIONS as usize);
    let mut clone = start("clone");
    let name = std::fs::read_to_string(data("clone").join("instance")).expect("a name");
    assert_eq!(first.await_failure(), Some(1));
    let said = first.log();
    let parts = ["has joined the consumer group", &kafka.group, "is a copy", "takes another name", "remove the copy"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    assert_eq!(said.matches("remove the copy").count(), 1, "told once: {said}");
    assert!(!data("first").join("instance").exists());
    opens(&clone, PARTITIONS as usize);
    // The supervisor starts it again, and both share the partitions.
    let mut first = start("first");
    opens(&first, 1);
    first.terminate();
    clone.terminate();
    assert_eq!(std::fs::read_to_string(data("clone").join("instance")).expect("a name"), name);
    assert_ne!(std::fs::read_to_string(data("first").join("instance")).expect("a name"), name);
}

/// With KIP-848 a name is free only after the session of the member that had it.
#[test]
fn named_member_of_new_protocol_waits_for_itself() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "new-protocol");
    set_group_config(&kafka.bootstrap, &kafka.group, &[("consumer.session.timeout.ms", "5000")]);
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut flags = kafka.flags();
    for property in ["group.protocol=consumer", "group.instance.id=named"] {
        flags.extend(["--kafka-properties", property].map(str::to_owned));
    }
    let mut victim = Victim::spawn(&data, &flags);
    opens(&victim, PARTITIONS as usize);
    victim.kill();
    let mut victim = Victim::spawn(&data, &flags);
    opens(&victim, PARTITIONS as usize);
    let said = victim.log();
    assert_eq!(said.matches("waits for the end of its session").count(), 1, "{said}");
    assert!(said.contains("consumer.session.timeout.ms") && said.contains("leave it out"), "{said}");
    victim.terminate();
}
