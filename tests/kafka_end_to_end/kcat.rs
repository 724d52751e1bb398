//! A broker with one test's topics on it, and `kcat` as everybody outside who produces and consumes. Knows no event.

use super::PARTITIONS;
use receipts_log::kafka::{KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, unique};
use receipts_log::{Inspect, Log, Topic};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A broker, and the names of the topics on it that are one test's own.
pub(super) struct Kafka {
    pub(super) bootstrap: String,
    pub(super) events: String,
    pub(super) updates: String,
    pub(super) dead_letters: String,
    pub(super) group: String,
}

impl Kafka {
    pub(super) fn named(broker: &Broker, name: &str) -> Self {
        let name = unique(name);
        Self {
            bootstrap: broker.bootstrap(),
            events: format!("{name}.events"),
            updates: format!("{name}.updates"),
            dead_letters: format!("{name}.dead-letters"),
            group: name,
        }
    }

    /// What `receipts serve` is told.
    pub(super) fn flags(&self) -> Vec<String> {
        let flags = [
            ("--kafka-bootstrap", &self.bootstrap),
            ("--log-events-topic", &self.events),
            ("--log-updates-topic", &self.updates),
            ("--log-dead-letters-topic", &self.dead_letters),
            ("--projector-group", &self.group),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.clone()]).collect()
    }

    /// How to reach the topics, which are not made.
    pub(super) fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            bootstrap: self.bootstrap.clone(),
            events: self.events.clone(),
            updates: self.updates.clone(),
            dead_letters: self.dead_letters.clone(),
            create_topics: None,
            ..KafkaSettings::default()
        }
    }

    /// Looks into the topics, which exist.
    pub(super) fn log(&self) -> KafkaLog {
        let log = KafkaLog::connect(self.settings());
        let log = log.expect("the topics are there");
        assert_eq!(log.partition_count(), PARTITIONS);
        log
    }

    /// How many records a topic holds.
    pub(super) fn records(&self, topic: Topic) -> u64 {
        let log = self.log();
        (0..PARTITIONS).map(|partition| log.bounds(topic, partition).expect("bounds")).map(|at| at.end - at.start).sum()
    }

    /// Produces lines of `key TAB value`, as a stranger to our code would.
    pub(super) fn produce(&self, more: &[&str], lines: &str) {
        let pause = Duration::ZERO;
        produce(&self.bootstrap, &self.events, more, lines, pause);
    }

    /// Produces an event with the right key; kcat finds the partition.
    pub(super) fn event(&self, key: &str, event: &Value) {
        self.produce(&["-K", "\t"], &format!("{key}\t{event}\n"));
    }

    /// All records of a topic, as kcat shows them.
    pub(super) fn consume(&self, topic: &str) -> Vec<Value> {
        let output = Command::new("kcat")
            .args(["-C", "-J", "-e", "-q", "-o", "beginning", "-b", &self.bootstrap, "-t", topic])
            .stdin(Stdio::null())
            .output()
            .expect("kcat runs");
        assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        lines.lines().map(|line| serde_json::from_str(line).expect("kcat prints JSON")).collect()
    }
}

/// The broker that these tests share; `None` where Kafka is switched off.
pub(super) fn broker() -> Option<&'static Broker> {
    let broker = Broker::shared()?;
    require_kcat();
    Some(broker)
}

pub(super) fn require_kcat() {
    let found = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "kcat is missing: install it (Debian: apt-get install kcat); RECEIPTS_TEST_KAFKA=off leaves these tests out"
    );
}

/// Runs kcat until all lines are acknowledged, with a pause after every ten.
pub(super) fn produce(bootstrap: &str, topic: &str, more: &[&str], lines: &str, pause: Duration) {
    let mut kcat = Command::new("kcat")
        .args(["-P", "-b", bootstrap, "-t", topic, "-X", "partitioner=murmur2_random", "-X", "acks=all"])
        .args(["-X", "enable.idempotence=true", "-X", "linger.ms=5"])
        .args(more)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kcat starts");
    let mut input = kcat.stdin.take().expect("piped");
    for some in lines.split_inclusive('\n').collect::<Vec<_>>().chunks(10) {
        input.write_all(some.concat().as_bytes()).expect("kcat reads");
        std::thread::sleep(pause);
    }
    drop(input);
    let output = kcat.wait_with_output().expect("kcat ends");
    assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
}
