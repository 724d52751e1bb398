//! A real Kafka for the tests: a broker with the topics of one test, and `kcat` as the producer and
//! consumer outside the project. Must not decide which answers are right: the judge in `witness`
//! does.

mod load;

pub use load::{check, check_by, longest_gap_ms, produce_history, shape};

use receipts_log::kafka::{KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, unique};
use receipts_log::{Inspect, Log, Topic};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Partitions of the topics of these tests. Few of them keep the tests quick.
pub const PARTITIONS: u32 = 4;

/// The address of a broker, and the names of the topics and of the group that one test has for
/// itself.
pub struct Kafka {
    /// For `--kafka-bootstrap`.
    pub bootstrap: String,
    /// The topic of events.
    pub events: String,
    /// The topic of updates.
    pub updates: String,
    /// The topic of dead letters.
    pub dead_letters: String,
    /// The consumer group of the projectors.
    pub group: String,
}

impl Kafka {
    /// Names on a broker that no other test uses.
    #[must_use]
    pub fn named(broker: &Broker, name: &str) -> Self {
        let name = unique(name);
        Self {
            bootstrap: broker.bootstrap(),
            events: format!("{name}.events"),
            updates: format!("{name}.updates"),
            dead_letters: format!("{name}.dead-letters"),
            group: name,
        }
    }

    /// The flags with which a service uses these topics.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        self.flags_of(&self.group)
    }

    /// The same for a service with another group.
    #[must_use]
    pub fn flags_of(&self, group: &str) -> Vec<String> {
        let partitions = PARTITIONS.to_string();
        let flags = [
            ("--kafka-bootstrap", &*self.bootstrap),
            ("--log-partitions", &partitions),
            ("--log-events-topic", &self.events),
            ("--log-updates-topic", &self.updates),
            ("--log-dead-letters-topic", &self.dead_letters),
            ("--projector-group", group),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
    }

    /// The settings for [`KafkaLog::connect`], which then makes no topic.
    #[must_use]
    pub fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            bootstrap: self.bootstrap.clone(),
            events: self.events.clone(),
            updates: self.updates.clone(),
            dead_letters: self.dead_letters.clone(),
            create_topics: None,
            ..KafkaSettings::default()
        }
    }

    /// Opens the topics, which must exist.
    ///
    /// # Panics
    /// If a topic is missing or has another number of partitions than [`PARTITIONS`].
    #[must_use]
    pub fn log(&self) -> KafkaLog {
        let log = KafkaLog::connect(self.settings());
        let log = log.expect("the topics are there");
        assert_eq!(log.partition_count(), PARTITIONS);
        log
    }

    /// Counts the records of a topic.
    ///
    /// # Panics
    /// If the broker does not answer.
    #[must_use]
    pub fn records(&self, topic: Topic) -> u64 {
        let log = self.log();
        (0..PARTITIONS).map(|partition| log.bounds(topic, partition).expect("bounds")).map(|at| at.end - at.start).sum()
    }

    /// Produces lines of `key TAB value` with `kcat`.
    pub fn produce(&self, more: &[&str], lines: &str) {
        let pause = Duration::ZERO;
        produce(&self.bootstrap, &self.events, more, lines, pause);
    }

    /// Produces an event under a key; `kcat` finds the partition.
    pub fn event(&self, key: &str, event: &Value) {
        self.produce(&["-K", "\t"], &format!("{key}\t{event}\n"));
    }

    /// Reads all records of a topic, in the JSON form of `kcat`.
    ///
    /// # Panics
    /// If `kcat` fails.
    #[must_use]
    pub fn consume(&self, topic: &str) -> Vec<Value> {
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

/// The broker that the tests of a program share; `None` where `RECEIPTS_TEST_KAFKA=off`.
///
/// # Panics
/// If `kcat` is missing or the broker does not start.
#[must_use]
pub fn broker() -> Option<&'static Broker> {
    let broker = Broker::shared()?;
    require_kcat();
    Some(broker)
}

fn require_kcat() {
    let found = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "kcat is missing: install it (Debian: apt-get install kcat); RECEIPTS_TEST_KAFKA=off leaves these tests out"
    );
}

/// Produces lines with `kcat`, pausing after every ten, and returns once all are acknowledged.
///
/// # Panics
/// If `kcat` fails.
pub fn produce(bootstrap: &str, topic: &str, more: &[&str], lines: &str, pause: Duration) {
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
