//! Cuts the network between three brokers while events come in. Each broker is in a network
//! namespace of its own. The judge reads the records in Kafka.
//!
//! Needs root and Linux. Without root the test leaves itself out and says so.

use receipts_log::testing::Broker;
use receipts_testkit::Limits;
use receipts_testkit::property::{Replay, number, scaled};
use receipts_testkit::random::Random;
use receipts_tests::kafka::{Kafka, PARTITIONS, check, longest_gap_ms, shape};
use receipts_tests::may_use_root;
use receipts_tests::witness::feed::Feed;
use receipts_tests::witness::judge::Judge;
use receipts_tests::witness::victim::Victim;
use std::time::{Duration, Instant};

const NODES: u16 = 3;
const EVENTS_A_LIFE: usize = 800;
/// How long a cut lasts: longer than the others wait for a broker (`broker.session.timeout.ms`).
const LASTS: Duration = Duration::from_secs(8);

/// A cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Separates a node from the others and from the service.
    Off(u16),
    /// Separates two nodes from each other; the third node and the service reach both.
    Between(u16, u16),
}

impl Cut {
    fn any(random: &mut Random) -> Self {
        let node = random.between(1, u64::from(NODES)) as u16;
        if random.chance(0.5) { Self::Off(node) } else { Self::Between(node, 1 + node % NODES) }
    }

    fn parts(self) -> (u16, Option<u16>) {
        match self {
            Self::Off(node) => (node, None),
            Self::Between(one, other) => (one, Some(other)),
        }
    }
}

fn cut_the_network_under_load(cuts: usize, seed: u64) {
    if !may_use_root("network cuts between brokers") || !receipts_log::testing::enabled() {
        return;
    }
    let _replay = Replay::with(&format!("RECEIPTS_TEST_CUTS={cuts}"));
    let broker = Broker::start_on_a_net(NODES).unwrap_or_else(|error| panic!("{error}"));
    let kafka = Kafka::named(&broker, "cut");
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Random::new(seed);
    let mut flags = kafka.flags();
    flags.extend(["--projector-checkpoint-events", "100", "--projector-update-window-ms", "20"].map(str::to_owned));
    let mut feed = Feed::new(seed, &shape(cuts * EVENTS_A_LIFE), PARTITIONS);
    let mut judge = Judge::new(&Limits { parked_age_ms: 3_600_000, ..Limits::default() }, PARTITIONS);
    let started = Instant::now();
    let mut victim = Victim::spawn(&folder.path().join("data"), &flags);
    let address = victim.ready();
    let (mut asked, mut open_outcomes, mut offs) = (0, 0, 0);
    for life in 0..cuts {
        let max = if life + 1 == cuts { usize::MAX } else { EVENTS_A_LIFE };
        let after = Duration::from_millis(100 + random.below(500));
        let cut = Cut::any(&mut random);
        eprintln!("{:.1} s: {cut:?}", started.elapsed().as_secs_f64());
        offs += usize::from(matches!(cut, Cut::Off(_)));
        let (node, other) = cut.parts();
        let mut choices = random.clone();
        open_outcomes += std::thread::scope(|scope| {
            let feeder = scope.spawn(|| feed.post(&address, &mut choices, 8, max));
            std::thread::sleep(after);
            broker.cut(node, other).expect("cut");
            std::thread::sleep(LASTS);
            broker.heal(node, other).expect("healed");
            usize::from(feeder.join().expect("the feeder ends"))
        });
        judge.read(&kafka.log(), |partition, event| feed.found(partition, event));
        feed.resync();
        asked += check(&kafka, &judge, &address, &mut random, 0.2);
    }
    // Posts the events that an open outcome left unwritten.
    while feed.batch(1).is_some() {
        _ = feed.post(&address, &mut random, 8, usize::MAX);
        judge.read(&kafka.log(), |partition, event| feed.found(partition, event));
        feed.resync();
    }
    asked += check(&kafka, &judge, &address, &mut random, 1.0);
    victim.terminate();
    judge.check_published(&kafka.log());
    eprintln!(
        "seed {seed}: {cuts} cuts, {offs} of a node from all, in {:.1} s: {} records, {asked} questions, {open_outcomes} open \
         outcomes, longest time without a record {} ms",
        started.elapsed().as_secs_f64(),
        feed.records(),
        longest_gap_ms(&kafka)
    );
}

/// INV-ACK, INV-PREFIX, INV-UPDATE-LAST
#[test]
fn network_cut_between_brokers_loses_and_doubles_nothing() {
    cut_the_network_under_load(number("RECEIPTS_TEST_CUTS", scaled(1, 6)) as usize, 6);
}
