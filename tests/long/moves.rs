//! Kills projectors while partitions move: one member joins or leaves, and one dies. The judge
//! reads the records in Kafka and asks an edge.

use receipts_testkit::Limits;
use receipts_testkit::property::{Replay, number, scaled};
use receipts_testkit::random::Random;
use receipts_tests::eventually;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker, check_by, shape};
use receipts_tests::process::Service;
use receipts_tests::witness::feed::Feed;
use receipts_tests::witness::http::Answer;
use receipts_tests::witness::judge::Judge;
use receipts_tests::witness::victim::Victim;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Members of the group when all live.
const MEMBERS: usize = 3;
const EVENTS_A_LIFE: usize = 400;
/// The shortest session that the broker allows: how long a dead member keeps its partitions.
const SESSION_MS: u64 = 6_000;
/// The latest kill after a member begins to join or leave. A start and two steps of the group fall
/// into this time.
const DIES_WITHIN_MS: u64 = 2_500;

/// Projectors of one group, each with its own address and data directory.
struct Group {
    flags: Vec<String>,
    folder: tempfile::TempDir,
    ports: Vec<u16>,
    members: Vec<Option<Victim>>,
}

impl Group {
    fn new(kafka: &Kafka) -> Self {
        let mut flags = kafka.flags();
        let properties = format!("session.timeout.ms={SESSION_MS},heartbeat.interval.ms=500");
        flags.extend(["--kafka-properties".to_owned(), properties]);
        flags.extend(["--projector-checkpoint-events", "50", "--projector-update-window-ms", "20"].map(str::to_owned));
        // These ports were free a moment ago: a projector keeps its address across restarts.
        let held: Vec<_> = (0..MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports = held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
        let members = (0..MEMBERS).map(|_| None).collect();
        Self { flags, folder: tempfile::tempdir().expect("a folder"), ports, members }
    }

    /// Starts a member unless it runs; does not wait for it.
    fn come(&mut self, place: usize) {
        let listen = format!("127.0.0.1:{}", self.ports[place]);
        let data = self.folder.path().join(place.to_string());
        self.members[place]
            .get_or_insert_with(|| Victim::start("receipts-projector", &["--listen", &listen], &data, &self.flags));
    }

    /// Kills a member if it runs, and returns whether it did.
    fn kill(&mut self, place: usize) -> bool {
        self.members[place].take().is_some_and(|mut member| member.kill_if_it_lives())
    }

    fn edge(&self) -> Service {
        let projectors: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let own = ["--http-listen", "127.0.0.1:0", "--projectors", &projectors.join(","), "--query-poll-ms", "100"];
        Service::start("receipts-query", &own)
    }
}

/// Asks an edge, which answers 503 while a partition moves, and never anything but the log's
/// answer.
fn check(kafka: &Kafka, judge: &Judge, edge: &Service, random: &mut Random, part: f64) -> usize {
    check_by(kafka, judge, &edge.address, random, part, |question, client| {
        let is_answered = |answers: &Vec<Answer>| answers.iter().all(|answer| answer.status != 503);
        eventually("it is answered", || question.ask(client), is_answered)
    })
}

/// The figures of a run.
#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    /// Deaths: of members that stayed, that joined, that left.
    stayed: usize,
    came: usize,
    went: usize,
    questions: usize,
}

/// Lets members join and leave, and kills one each time while partitions move, until `kills` have
/// died.
fn kill_in_rebalances(kills: usize, seed: u64) {
    let _replay = Replay::with(&format!("RECEIPTS_TEST_KILLS={kills}"));
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "moves");
    let mut random = Random::new(seed);
    let mut group = Group::new(&kafka);
    // This process creates the topics.
    let flags: Vec<&str> = group.flags.iter().map(String::as_str).collect();
    let ingest = Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &flags[..]].concat());
    let mut feed = Feed::new(seed, &shape(kills * EVENTS_A_LIFE), PARTITIONS);
    let mut judge = Judge::new(&Limits { parked_age_ms: 3_600_000, ..Limits::default() }, PARTITIONS);
    let (started, mut figures) = (Instant::now(), Figures::default());
    (0..MEMBERS).for_each(|place| group.come(place));
    // The edge is ready once every partition has an owner.
    let edge = group.edge();
    figures.questions += check(&kafka, &judge, &edge, &mut random, 1.0);
    let mut moves = 0;
    while figures.kills < kills {
        moves += 1;
        let mut choices = random.clone();
        std::thread::scope(|scope| {
            let feeder = scope.spawn(|| feed.post(&ingest.address, &mut choices, 4, EVENTS_A_LIFE));
            let mover = random.index(MEMBERS);
            let dies = random.index(MEMBERS);
            let after = Duration::from_millis(random.below(DIES_WITHIN_MS));
            let died = match group.members[mover].take() {
                // The member leaves in order and hands its partitions to the others.
                Some(mut leaver) => {
                    // It leaves after it has partitions: a process that has just started may end in
                    // any way.
                    eventually("it has partitions", || leaver.opened(), |opened| !opened.is_empty());
                    leaver.send_term();
                    std::thread::sleep(after);
                    if dies == mover {
                        let lived = leaver.kill_if_it_lives();
                        figures.went += usize::from(lived);
                        lived
                    } else {
                        let died = group.kill(dies);
                        leaver.await_end();
                        figures.stayed += usize::from(died);
                        died
                    }
                }
                // The member joins and takes partitions from the others.
                None => {
                    group.come(mover);
                    std::thread::sleep(after);
                    let died = group.kill(dies);
                    *(if dies == mover { &mut figures.came } else { &mut figures.stayed }) += usize::from(died);
                    died
                }
            };
            figures.kills += usize::from(died);
            if group.members.iter().all(Option::is_none) || random.chance(0.5) {
                (0..MEMBERS).for_each(|place| group.come(place));
            }
            let open = feeder.join().expect("the feeder ends");
            assert!(!open, "no broker has died");
        });
        judge.read(&kafka.log(), |partition, event| feed.found(partition, event));
        feed.resync();
        figures.questions += check(&kafka, &judge, &edge, &mut random, 0.1);
    }
    (0..MEMBERS).for_each(|place| group.come(place));
    figures.questions += check(&kafka, &judge, &edge, &mut random, 1.0);
    // All end in order, so that the test sees a member that cannot.
    for member in group.members.iter().flatten() {
        eventually("it has partitions", || member.opened(), |opened| !opened.is_empty());
    }
    group.members.iter().flatten().for_each(Victim::send_term);
    group.members.iter_mut().flatten().for_each(Victim::await_end);
    eprintln!(
        "seed {seed}: {moves} moves in {:.1} s, {} records, {figures:?}",
        started.elapsed().as_secs_f64(),
        feed.records()
    );
}

/// INV-HANDOVER, INV-PREFIX, INV-ACK, INV-POSITION
#[test]
fn projector_killed_while_partitions_move_costs_no_answer() {
    kill_in_rebalances(number("RECEIPTS_TEST_KILLS", scaled(2, 40)) as usize, 9);
}
