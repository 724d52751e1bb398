//! Kills the service and the broker while events come in. The judge reads the records in Kafka.

use receipts_log::Topic;
use receipts_log::testing::Broker;
use receipts_testkit::Limits;
use receipts_testkit::history::History;
use receipts_testkit::property::{Replay, number, scaled};
use receipts_testkit::random::Random;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker, check, longest_gap_ms, produce_history, shape};
use receipts_tests::witness::feed::Feed;
use receipts_tests::witness::judge::Judge;
use receipts_tests::witness::victim::Victim;
use std::time::{Duration, Instant};

/// Kills per test: `RECEIPTS_TEST_KILLS`, or the test's own number.
fn kills(short: u64, long: u64) -> usize {
    number("RECEIPTS_TEST_KILLS", scaled(short, long)) as usize
}

/// How long a node hangs: longer than the others wait for it (`broker.session.timeout.ms`), and
/// than replicas may lag.
const HANGS: Duration = Duration::from_secs(8);

/// Kills the service while `kcat`, which does not depend on the service, goes on producing.
fn kill_the_service_under_load(kills: usize, seed: u64) {
    const EVENTS_A_LIFE: usize = 300;
    let _replay = Replay::with(&format!("RECEIPTS_TEST_KILLS={kills}"));
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "kill-service");
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut random = Random::new(seed);
    let mut flags = kafka.flags();
    flags.extend(["--projector-checkpoint-events", "50", "--projector-update-window-ms", "20"].map(str::to_owned));
    let history = History::generate(seed, &shape(kills * EVENTS_A_LIFE));
    let mut judge = Judge::new(&Limits { parked_age_ms: 3_600_000, ..Limits::default() }, PARTITIONS);
    let started = Instant::now();
    let (mut asked, mut within) = (0, 0);
    let mut victim = Victim::spawn(&data, &flags);
    let mut address = victim.ready();
    for life in history.chunks(EVENTS_A_LIFE).take(kills) {
        std::thread::scope(|scope| {
            let load = scope.spawn(|| produce_history(&kafka, life));
            std::thread::sleep(Duration::from_millis(random.below(700)));
            victim.kill();
            if random.chance(0.3) {
                victim = Victim::spawn(&data, &flags);
                std::thread::sleep(Duration::from_millis(random.below(300)));
                victim.kill();
            }
            victim = Victim::spawn(&data, &flags);
            address = victim.ready();
            load.join().expect("all is produced");
        });
        within += victim.opened().iter().filter(|(next, end)| *next > 0 && next < end).count();
        judge.read(&kafka.log(), |_, _| {});
        asked += check(&kafka, &judge, &address, &mut random, 0.2);
    }
    asked += check(&kafka, &judge, &address, &mut random, 1.0);
    victim.terminate();
    judge.check_published(&kafka.log());
    let updates = kafka.records(Topic::Updates);
    // A state that no kill has interrupted gives the same answers, which are the oracle's.
    std::fs::remove_dir_all(data.join("store")).expect("removed");
    let mut never_killed = Victim::spawn(&data, &flags);
    address = never_killed.ready();
    asked += check(&kafka, &judge, &address, &mut random, 1.0);
    never_killed.terminate();
    eprintln!(
        "kills: {kills}, of the service in {:.1} s: {} records, {asked} questions, {updates} updates, {within} partitions folded on from within",
        started.elapsed().as_secs_f64(),
        kafka.records(Topic::Events)
    );
}

/// INV-PREFIX, INV-ATOMIC, INV-OFFSET, INV-UPDATE-LAST
#[test]
fn service_killed_under_load_answers_as_the_oracle() {
    kill_the_service_under_load(kills(2, 10), 2);
}

/// Kills one broker after another under a service that takes events over HTTP, and starts each
/// again. Of several brokers, every second one hangs instead, for longer than the others wait.
fn kill_brokers_under_load(nodes: u16, kills: usize, seed: u64) {
    const EVENTS_A_LIFE: usize = 800;
    let _replay = Replay::with(&format!("RECEIPTS_TEST_KILLS={kills}"));
    if !receipts_log::testing::enabled() {
        return;
    }
    let broker = Broker::start(nodes).unwrap_or_else(|error| panic!("{error}"));
    let kafka = Kafka::named(&broker, "kill-broker");
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut random = Random::new(seed);
    let mut flags = kafka.flags();
    flags.extend(["--projector-checkpoint-events", "100", "--projector-update-window-ms", "20"].map(str::to_owned));
    let mut feed = Feed::new(seed, &shape(kills * EVENTS_A_LIFE), PARTITIONS);
    let mut judge = Judge::new(&Limits { parked_age_ms: 3_600_000, ..Limits::default() }, PARTITIONS);
    let started = Instant::now();
    let mut victim = Victim::spawn(&data, &flags);
    let address = victim.ready();
    let (mut asked, mut open_outcomes) = (0, 0);
    for life in 0..kills {
        let max = if life + 1 == kills { usize::MAX } else { EVENTS_A_LIFE };
        let after = Duration::from_millis(100 + random.below(500));
        let mut choices = random.clone();
        open_outcomes += std::thread::scope(|scope| {
            let feeder = scope.spawn(|| feed.post(&address, &mut choices, 8, max));
            std::thread::sleep(after);
            let node = 1 + life as u16 % nodes;
            if nodes > 1 && life % 2 == 1 {
                broker.hang(node).expect("hangs");
                std::thread::sleep(HANGS);
                broker.wake(node).expect("awake");
            } else {
                broker.kill(node).expect("killed");
                broker.restart(node).expect("up again");
            }
            usize::from(feeder.join().expect("the feeder ends"))
        });
        judge.read(&kafka.log(), |partition, event| feed.found(partition, event));
        feed.resync();
        asked += check(&kafka, &judge, &address, &mut random, 0.2);
    }
    assert!(nodes > 1 || open_outcomes > 0 || feed.batch(1).is_none());
    asked += check(&kafka, &judge, &address, &mut random, 1.0);
    victim.terminate();
    judge.check_published(&kafka.log());
    eprintln!(
        "kills: {kills}, of a broker of {nodes} in {:.1} s: {} records, {asked} questions, {open_outcomes} open outcomes, longest \
         time without a record {} ms",
        started.elapsed().as_secs_f64(),
        feed.records(),
        longest_gap_ms(&kafka)
    );
}

/// INV-ACK, INV-PREFIX, INV-UPDATE-LAST
#[test]
fn three_brokers_killed_and_hung_lose_and_double_nothing() {
    kill_brokers_under_load(3, kills(2, 6), 5);
}

/// INV-ACK, INV-PREFIX, INV-UPDATE-LAST
#[test]
fn broker_killed_under_load_loses_and_doubles_nothing() {
    kill_brokers_under_load(1, kills(1, 5), 4);
}
