//! Tests a lost or doubted store on a real Kafka: restored from a snapshot, or folded anew beside
//! the one in use.

use receipts_testkit::Limits;
use receipts_testkit::random::Random;
use receipts_tests::TIMEOUT;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker, check, shape};
use receipts_tests::process::{errors, run};
use receipts_tests::witness::feed::Feed;
use receipts_tests::witness::judge::Judge;
use receipts_tests::witness::victim::Victim;
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

const EVENTS: usize = 1_500;

/// A topic with the first half of a history folded, and the second half.
struct Life {
    kafka: Kafka,
    folder: tempfile::TempDir,
    flags: Vec<String>,
    feed: Feed,
    judge: Judge,
    random: Random,
}

impl Life {
    fn new(name: &str, seed: u64) -> Option<Self> {
        let kafka = Kafka::named(broker()?, name);
        let folder = tempfile::tempdir().expect("a folder");
        let mut flags = kafka.flags();
        // A returning member with the same name gets its partitions at once.
        let instance = format!("group.instance.id={}", kafka.group);
        let at = folder.path().join("snapshots").display().to_string();
        flags.extend(["--kafka-properties", &instance, "--snapshot-url", &at].map(str::to_owned));
        Some(Self {
            kafka,
            folder,
            flags,
            feed: Feed::new(seed, &shape(EVENTS), PARTITIONS),
            judge: Judge::new(&Limits { parked_age_ms: 3_600_000, ..Limits::default() }, PARTITIONS),
            random: Random::new(seed),
        })
    }

    fn serve(&self, more: &[&str]) -> (Victim, String) {
        let flags: Vec<String> = self.flags.iter().cloned().chain(more.iter().map(|&flag| flag.to_owned())).collect();
        let mut service = Victim::spawn(&self.folder.path().join("data"), &flags);
        let address = service.ready();
        (service, address)
    }

    /// Posts `events` events, and asks every question about the log's content.
    fn go_on(&mut self, address: &str, events: usize) {
        assert!(!self.feed.post(address, &mut self.random, 20, events), "no broker failed, so no outcome is open");
        self.judge.read(&self.kafka.log(), |partition, event| self.feed.found(partition, event));
        self.feed.resync();
        check(&self.kafka, &self.judge, address, &mut self.random, 1.0);
    }

    /// Runs `receipts` on the topics and the data directory.
    fn command(&self, arguments: &[&str]) -> Vec<Value> {
        let data = self.folder.path().join("data").display().to_string();
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let output = run("receipts", &[arguments, &["--json", "--data-dir", &data], &flags].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Counts the files of snapshots below a folder.
fn snapshots(of: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(of) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { snapshots(&path) } else { 1 }).sum()
}

/// INV-RESTORE, INV-OFFSET: the service is killed and loses its store. It restores snapshots, folds
/// on from their offsets, and answers as the oracle does. Its updates are complete.
#[test]
fn lost_store_is_restored_and_continues_with_the_topic() {
    let Some(mut life) = Life::new("restore", 11) else { return };
    let at = life.folder.path().join("snapshots");
    let often = ["--snapshot-interval-ms", "100", "--projector-checkpoint-events", "50"];
    let (mut service, address) = life.serve(&often);
    life.go_on(&address, EVENTS / 2);
    let deadline = Instant::now() + TIMEOUT;
    while snapshots(&at) < PARTITIONS as usize {
        assert!(Instant::now() < deadline, "no snapshots: {}", service.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    service.kill();
    std::fs::remove_dir_all(life.folder.path().join("data/store")).expect("removed");
    let (mut service, address) = life.serve(&often);
    assert!(service.log().contains("restored a snapshot"), "{}", service.log());
    let within = service.opened().iter().filter(|(next, _)| *next > 0).count();
    assert!(within > 0, "it folds on from snapshots: {:?}", service.opened());
    check(&life.kafka, &life.judge, &address, &mut life.random, 1.0);
    life.go_on(&address, usize::MAX);
    service.terminate();
    life.judge.check_published(&life.kafka.log());
    let verdicts = life.command(&["verify"]);
    assert!(verdicts.iter().all(|verdict| verdict["digest_of_store"] == verdict["digest_of_log"]), "{verdicts:#?}");
}

/// INV-PREFIX: `receipts rebuild` from the topic gets the digests of the store in use. The next
/// start uses the new store, answers as the oracle does, and continues.
#[test]
fn store_rebuilt_from_the_topic_is_equal_and_continues() {
    let Some(mut life) = Life::new("rebuild", 12) else { return };
    let (mut service, address) = life.serve(&[]);
    life.go_on(&address, EVENTS / 2);
    service.terminate();
    let rebuilt = life.command(&["rebuild"]);
    assert_eq!(rebuilt.len(), PARTITIONS as usize);
    for partition in &rebuilt {
        assert_eq!(partition["compared"]["old"], partition["compared"]["new"], "{partition}");
    }
    let (mut service, address) = life.serve(&[]);
    assert!(life.folder.path().join("data/store-before-1").is_dir(), "the rebuilt one is in use");
    check(&life.kafka, &life.judge, &address, &mut life.random, 1.0);
    life.go_on(&address, usize::MAX);
    service.terminate();
    life.command(&["rebuild", "--confirm"]);
    life.judge.check_published(&life.kafka.log());
}
