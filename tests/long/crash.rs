//! INV-PREFIX, INV-ATOMIC, INV-ACK: `receipts serve` on the embedded log is killed with SIGKILL at
//! random moments, again and again on one data directory, while a random history is posted to it.
//! Its answers stay those of the naive oracle for the records in its log, and those of a process
//! that was never killed. The log holds each acknowledged event once.
//!
//! With snapshots, a test also removes the store at times, and the next process restores one of
//! them.
//!
//! A failure prints the command that runs its seed again. `RECEIPTS_TEST_SEEDS=FROM..TO` chooses
//! seeds, `RECEIPTS_TEST_KILLS` the kills per seed. Must not run in one process with the service.

use receipts_log::embedded::EmbeddedLog;
use receipts_testkit::Limits;
use receipts_testkit::history::Shape;
use receipts_testkit::property::{Replay, number, scaled, seeds};
use receipts_testkit::random::Random;
use receipts_tests::witness::feed::Feed;
use receipts_tests::witness::http::Client;
use receipts_tests::witness::judge::Judge;
use receipts_tests::witness::victim::Victim;
use std::ops::{AddAssign, Range};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Few partitions, so that the events of a short life reach each of them.
const PARTITIONS: u32 = 4;
/// Parked records expire and overflow during the run, so that dead letters are due at every kill.
const PARKED_COUNT: usize = 12;
const PARKED_AGE_MS: u64 = 700;

/// The moment of a kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// This long after the start, at any step.
    Opening(Duration),
    /// This long after the process is ready, while events come in.
    Folding(Duration),
    /// This long after a checkpoint's journal is complete, while the store takes it in.
    Checkpointing(Duration),
    /// This long after a snapshot has begun, while the process writes and sends it.
    TakingSnapshot(Duration),
    /// This long after the restore of a snapshot has begun, in place of a lost store.
    Restoring(Duration),
}

/// The probabilities of the moments.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// How often a process dies while it opens.
    p_opening: f64,
    opening_max_ms: u64,
    /// How often another process dies in a checkpoint.
    p_checkpointing: f64,
    checkpointing_max_ms: u64,
    /// Whether the service takes snapshots, and how often it dies while it takes or restores one.
    snapshots: bool,
    p_snapshotting: f64,
    p_restoring: f64,
    folding_max_ms: u64,
    conversations: usize,
    events: usize,
    body_events_max: u64,
    /// Each process gets one of these.
    checkpoint_events: &'static [u64],
}

const ANY_MOMENT: Plan = Plan {
    p_opening: 0.15,
    opening_max_ms: 300,
    p_checkpointing: 0.3,
    checkpointing_max_ms: 3,
    snapshots: false,
    p_snapshotting: 0.0,
    p_restoring: 0.0,
    folding_max_ms: 300,
    conversations: 4,
    events: 6_000,
    body_events_max: 8,
    checkpoint_events: &[1, 5, 40, 400],
};
const WHILE_OPENING: Plan = Plan { p_opening: 0.8, opening_max_ms: 50, folding_max_ms: 150, ..ANY_MOMENT };
/// Many conversations and large bodies make checkpoints larger than one write of the store.
const LARGE_CHECKPOINTS: Plan = Plan {
    folding_max_ms: 600,
    p_checkpointing: 0.6,
    checkpointing_max_ms: 8,
    conversations: 500,
    events: 20_000,
    body_events_max: 500,
    checkpoint_events: &[200, 1_000],
    ..ANY_MOMENT
};

/// The service takes snapshots all the time, and its store is lost now and then.
const WITH_SNAPSHOTS: Plan = Plan {
    p_opening: 0.1,
    snapshots: true,
    p_snapshotting: 0.45,
    p_restoring: 0.5,
    conversations: 60,
    events: 12_000,
    body_events_max: 100,
    checkpoint_events: &[20, 200],
    ..ANY_MOMENT
};

/// The figures of a run, which show that the kills met the moments.
#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    records: usize,
    questions: usize,
    /// Openings of a partition: without a state, with a state inside the log, with one at its end.
    from_nothing: usize,
    within: usize,
    at_the_end: usize,
    /// Checkpoints whose journal was complete but not yet in the store.
    journals: usize,
    /// Snapshots taken and restored, and restores that a kill had interrupted.
    snapshots: usize,
    restores: usize,
    cut_short: usize,
    /// Bodies with an unknown outcome.
    open_outcomes: usize,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.records += other.records;
        self.questions += other.questions;
        self.from_nothing += other.from_nothing;
        self.within += other.within;
        self.at_the_end += other.at_the_end;
        self.journals += other.journals;
        self.snapshots += other.snapshots;
        self.restores += other.restores;
        self.cut_short += other.cut_short;
        self.open_outcomes += other.open_outcomes;
    }
}

impl Figures {
    fn count_openings(&mut self, victim: &Victim) {
        let log = victim.log();
        self.journals += log.matches("applying the journal of a checkpoint").count();
        self.snapshots += log.matches("took a snapshot").count();
        self.restores += log.matches("restored a snapshot").count();
        self.cut_short += log.matches("its restore was cut short").count();
        for (next, end) in victim.opened().into_iter().filter(|(_, end)| *end > 0) {
            let place = if next == 0 {
                &mut self.from_nothing
            } else if next < end {
                &mut self.within
            } else {
                &mut self.at_the_end
            };
            *place += 1;
        }
    }
}

fn run(plan: Plan, default: Range<u64>) -> Figures {
    let started = Instant::now();
    let mut figures = Figures::default();
    for seed in seeds(default) {
        let _replay =
            Replay::with(&format!("RECEIPTS_TEST_KILLS={} RECEIPTS_TEST_SEEDS={seed}..{}", kills(), seed + 1));
        figures += Run::new(plan, seed).go();
    }
    eprintln!("{:.1} s, {figures:?}", started.elapsed().as_secs_f64());
    figures
}

/// Kills per data directory.
fn kills() -> usize {
    number("RECEIPTS_TEST_KILLS", scaled(4, 10)) as usize
}

/// Waits for a file with this extension in a folder, at most a second, because none may be due.
fn await_file(folder: &Path, ending: &str) {
    let deadline = Instant::now() + Duration::from_secs(1);
    let is_there = || {
        let mut files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|extension| extension == ending))
    };
    while !is_there() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Waits for a whole snapshot anywhere below a folder.
fn await_snapshot(folder: &Path) {
    fn has_one(folder: &Path) -> bool {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.into_iter().any(|path| path.extension().is_some_and(|end| end == "snapshot") || has_one(&path))
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while !has_one(folder) {
        assert!(Instant::now() < deadline, "no snapshot in {}", folder.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One data directory, from its creation to its last answer.
struct Run {
    plan: Plan,
    random: Random,
    folder: TempDir,
    feed: Feed,
    judge: Judge,
    figures: Figures,
}

impl Run {
    fn new(plan: Plan, seed: u64) -> Self {
        let shape = Shape {
            events: plan.events,
            conversations: plan.conversations,
            p_large_group: 0.05,
            p_jump: 0.0,
            ..Shape::wild()
        };
        let limits = Limits { parked_count: PARKED_COUNT, parked_age_ms: PARKED_AGE_MS, ..Limits::default() };
        Self {
            plan,
            random: Random::new(seed),
            folder: tempfile::tempdir().expect("a folder"),
            feed: Feed::new(seed, &shape, PARTITIONS),
            judge: Judge::new(&limits, PARTITIONS),
            figures: Figures::default(),
        }
    }

    fn go(mut self) -> Figures {
        let data = self.folder.path().join("data");
        for _ in 0..kills() {
            self.live_and_die(&data);
        }
        self.answer_for_all(&data);
        self.figures.records = self.feed.records();
        self.figures
    }

    fn spawn(&mut self, data: &Path, snapshots: bool) -> Victim {
        let any = |random: &mut Random, of: &[u64]| random.pick(of).copied().expect("some");
        let settings = [
            ("--log-partitions", u64::from(PARTITIONS)),
            ("--projector-parked-count", PARKED_COUNT as u64),
            ("--projector-parked-age-ms", PARKED_AGE_MS),
            // These settings change no answer, but the work that a kill interrupts.
            ("--projector-checkpoint-events", any(&mut self.random, self.plan.checkpoint_events)),
            ("--projector-checkpoint-interval-ms", any(&mut self.random, &[10, 50, 30_000])),
            ("--projector-update-window-ms", any(&mut self.random, &[0, 2, 50])),
            ("--projector-memory-bytes", 8 << 20),
        ];
        let settings = settings.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]);
        let mut settings: Vec<String> = settings.collect();
        if snapshots {
            let at = self.folder.path().join("snapshots").display().to_string();
            let interval_ms = any(&mut self.random, &[10, 30, 200]).to_string();
            let flags = ["--snapshot-url", &at, "--snapshot-interval-ms", &interval_ms, "--snapshot-keep-count", "2"];
            settings.extend(flags.map(str::to_owned));
        }
        Victim::spawn(data, &settings)
    }

    fn moment(&mut self) -> Moment {
        let after = |random: &mut Random, max_ms: u64| Duration::from_micros(random.below(1_000 * max_ms));
        if self.random.chance(self.plan.p_opening) {
            Moment::Opening(after(&mut self.random, self.plan.opening_max_ms))
        } else if self.random.chance(self.plan.p_snapshotting) {
            Moment::TakingSnapshot(after(&mut self.random, 8))
        } else if self.random.chance(self.plan.p_restoring) {
            Moment::Restoring(after(&mut self.random, 15))
        } else if self.random.chance(self.plan.p_checkpointing) {
            Moment::Checkpointing(after(&mut self.random, self.plan.checkpointing_max_ms))
        } else {
            Moment::Folding(after(&mut self.random, self.plan.folding_max_ms))
        }
    }

    fn live_and_die(&mut self, data: &Path) {
        let moment = self.moment();
        if let Moment::Restoring(_) = moment {
            // The store is lost, as with its disk; the log is kept.
            _ = std::fs::remove_dir_all(data.join("store"));
        }
        let mut victim = self.spawn(data, self.plan.snapshots);
        match moment {
            Moment::Restoring(after) => {
                await_file(&data.join("store"), "restoring");
                std::thread::sleep(after);
                victim.kill();
            }
            Moment::Opening(after) => {
                std::thread::sleep(after);
                victim.kill();
            }
            Moment::Folding(after) | Moment::Checkpointing(after) | Moment::TakingSnapshot(after) => {
                let address = victim.ready();
                if self.random.chance(0.3) {
                    self.check_some(&address);
                }
                let (feed, random, body_max) = (&mut self.feed, &mut self.random, self.plan.body_events_max);
                let open = std::thread::scope(|scope| {
                    let feeder = scope.spawn(|| feed.post(&address, random, body_max, usize::MAX));
                    match moment {
                        Moment::Checkpointing(_) => await_file(&data.join("store"), "journal"),
                        Moment::TakingSnapshot(_) => await_file(&data.join("spool"), "part"),
                        _ => {}
                    }
                    std::thread::sleep(after);
                    victim.kill();
                    feeder.join().expect("the feeder ends")
                });
                self.figures.open_outcomes += usize::from(open);
                self.look_into_the_log(data);
            }
        }
        self.figures.kills += 1;
        self.figures.count_openings(&victim);
    }

    /// Reads the log from a copy, because the next process must find the log as the kill left it.
    fn look_into_the_log(&mut self, data: &Path) {
        let copy = tempfile::tempdir().expect("a folder");
        for file in std::fs::read_dir(data.join("log")).expect("a log") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copied");
        }
        let log = EmbeddedLog::open(copy.path(), None).expect("what was killed can be opened");
        self.judge.read(&log, |partition, event| self.feed.found(partition, event));
        self.feed.resync();
    }

    fn check_some(&mut self, address: &str) {
        let mut client = Client::new(address);
        for question in self.judge.questions() {
            if self.random.chance(0.2) {
                self.judge.check(&question, &question.ask(&mut client));
                self.figures.questions += 1;
            }
        }
    }

    /// Puts all questions to the killed and restarted process, to the oracle, to a process that was
    /// never killed, and to one that restores a snapshot.
    fn answer_for_all(&mut self, data: &Path) {
        let questions = self.judge.questions();
        let ask = |run: &mut Self, snapshots| {
            let mut victim = run.spawn(data, snapshots);
            let mut client = Client::new(&victim.ready());
            let answers: Vec<_> = questions.iter().map(|question| question.ask(&mut client)).collect();
            drop(client);
            if snapshots {
                // On a busy machine every process before may have died without one.
                await_snapshot(&run.folder.path().join("snapshots"));
            }
            victim.terminate();
            run.figures.count_openings(&victim);
            answers
        };
        let answers = ask(self, self.plan.snapshots);
        for (question, answers) in questions.iter().zip(&answers) {
            self.judge.check(question, answers);
        }
        self.judge.check_published(&EmbeddedLog::open(&data.join("log"), None).expect("closed in order"));
        std::fs::remove_dir_all(data.join("store")).expect("removed");
        let never_killed = ask(self, false);
        for ((question, answers), never_killed) in questions.iter().zip(&answers).zip(&never_killed) {
            assert_eq!(answers, never_killed, "INV-PREFIX: {question:?}: killed first, never killed second");
        }
        self.figures.questions += 2 * questions.len();
        if self.plan.snapshots {
            std::fs::remove_dir_all(data.join("store")).expect("removed");
            let restored = ask(self, true);
            for ((question, answers), restored) in questions.iter().zip(answers).zip(restored) {
                assert_eq!(answers, restored, "INV-RESTORE: {question:?}: killed first, restored second");
            }
            self.figures.questions += questions.len();
        }
    }
}

/// INV-PREFIX, INV-ATOMIC, INV-ACK, INV-UPDATE-LAST, INV-DEADLETTER
#[test]
fn kill_at_any_moment_changes_no_answer() {
    let figures = run(ANY_MOMENT, 1_001..1_001 + scaled(1, 35));
    if figures.kills >= 100 {
        // The kills met each state: a log to fold again, a log folded to its end, and an open
        // outcome.
        assert!(figures.within > 0 && figures.at_the_end > 0 && figures.open_outcomes > 0, "{figures:?}");
    }
}

/// INV-PREFIX, INV-ATOMIC, INV-ACK, INV-UPDATE-LAST, INV-DEADLETTER
#[test]
fn kill_in_a_large_checkpoint_changes_no_answer() {
    run(LARGE_CHECKPOINTS, 2_001..2_001 + scaled(1, 10));
}

/// INV-PREFIX, INV-ATOMIC, INV-ACK
#[test]
fn kill_while_opening_changes_no_answer() {
    run(WHILE_OPENING, 3_001..3_001 + scaled(1, 15));
}

/// INV-SNAPSHOT, INV-SNAPSHOT-WHOLE, INV-RESTORE
#[test]
fn kill_during_snapshot_or_restore_changes_no_answer() {
    let figures = run(WITH_SNAPSHOTS, 4_001..4_001 + scaled(1, 25));
    assert!(figures.restores > 0, "{figures:?}");
    assert!(figures.kills < 100 || figures.snapshots > 0 && figures.cut_short > 0, "{figures:?}");
}

/// INV-ATOMIC: a process dies while it makes its data directory, and the next one opens the
/// remains.
#[test]
fn half_made_data_directory_opens_after_a_kill() {
    let mut random = Random::new(7);
    let kills = scaled(4, 100);
    for _ in 0..kills {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let mut victim = Victim::spawn(&data, &[]);
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        victim.kill();
        let mut next = Victim::spawn(&data, &[]);
        next.ready();
        next.terminate();
    }
    eprintln!("kills: {kills}, while a data directory was made");
}
