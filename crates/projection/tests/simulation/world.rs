//! The simulated world of a seed. Events arrive; projectors step, die, restart and move partitions;
//! disk and log fail. Whenever all is quiet it checks answers, updates and dead letters against the
//! oracle.

use crate::disk::{Death, Faults, SimDisk};
use crate::log::{MEMBERS, Partition, SimLog};
use receipts_event::{Body, Event, partition_of};
use receipts_event::{Decoder, Unwrap};
use receipts_fold::Limits;
use receipts_fold::view::{Member, MemberFilter, ReadMark, Receipt, Status};
use receipts_log::{Headers, OwnedRecord, Record};
use receipts_projection::{PRE_ENCODE_BYTES, Partitions, ProjectError, SLICE_MESSAGES, Settings, Worker};
use receipts_store::{Disk as _, SledStore};
use receipts_testkit::compare::Questions;
use receipts_testkit::history::{History, Shape};
use receipts_testkit::random::Random;
use receipts_testkit::{At, Oracle, OracleEffect, Subject};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const DECODER: Decoder = Decoder { partition_count: PARTITIONS, unwrap: Unwrap::None };
const PARTITIONS: u32 = 2;
const PARKED_COUNT: usize = 12;
const PARKED_AGE_MS: u64 = 20_000;
/// The actions of a step, and their relative frequencies.
const STEPS: [&str; 12] = [
    "events arrive",
    "steps",
    "is killed",
    "loses power",
    "stops",
    "partitions move",
    "has a bad disk",
    "the log is bad",
    "the log is trimmed",
    "all is quiet",
    "its store applies",
    "an outage begins or ends",
];
const WEIGHTS: [u32; STEPS.len()] = [30, 60, 6, 3, 3, 4, 5, 5, 3, 2, 6, 5];
const NEVER: Duration = Duration::from_secs(3_600);

/// Counts of what happened, so that a test can require each of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    pub(crate) steps: usize,
    pub(crate) kills: usize,
    pub(crate) power_cuts: usize,
    pub(crate) deaths_at_a_write: usize,
    pub(crate) stops: usize,
    pub(crate) failures: usize,
    pub(crate) rebalances: usize,
    pub(crate) trims: usize,
    pub(crate) refusals: usize,
    pub(crate) journals: usize,
    pub(crate) quiet: usize,
    pub(crate) taken_up: usize,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.deaths_at_a_write += other.deaths_at_a_write;
        self.stops += other.stops;
        self.failures += other.failures;
        self.rebalances += other.rebalances;
        self.trims += other.trims;
        self.refusals += other.refusals;
        self.journals += other.journals;
        self.quiet += other.quiet;
        self.taken_up += other.taken_up;
    }
}

/// A projector and its disk.
struct Projector {
    disk: SimDisk,
    store: Option<Arc<SledStore>>,
    workers: Option<Workers>,
}

/// The workers of a projector, which are stepped one after the other.
struct Workers(Vec<Worker>);

impl Workers {
    fn step(&mut self) -> Result<(), ProjectError> {
        self.0.iter_mut().try_for_each(|worker| worker.step().map(|_| ()))
    }

    fn partitions(&self) -> &Partitions {
        self.0[0].partitions()
    }

    /// Closes all of them, even if one fails.
    fn close(self, all_went_well: bool) -> Result<(), ProjectError> {
        let closed: Vec<_> = self.0.into_iter().map(|worker| worker.close(all_went_well)).collect();
        closed.into_iter().collect()
    }
}

/// The expected answers, updates and dead letters of one partition.
struct Expected {
    oracle: Oracle,
    questions: Questions,
    /// The offset and reason of each dead letter.
    dead: BTreeSet<(u64, String)>,
    /// The states that the last update of a message may have, by tenant, conversation and message.
    updates: BTreeMap<[String; 3], Vec<Value>>,
}

pub(crate) struct World {
    random: Random,
    log: SimLog,
    members: Vec<Projector>,
    expected: Vec<Expected>,
    history: Vec<(At, Event<'static>)>,
    settings: Settings,
    /// Whether checkpoints are synced. Only then the power may be cut.
    sync: bool,
    /// Whether partitions move between members.
    moves: bool,
    /// The number of workers, for which a thread reads ahead. A seed then does not determine the
    /// order of events. `None`: one worker that reads within its steps.
    workers: Option<u32>,
    figures: Figures,
    _dir: TempDir,
}

impl World {
    pub(crate) fn new(seed: u64, workers: Option<u32>) -> Self {
        let mut random = Random::new(seed);
        let shape = Shape { events: 160, p_jump: 0.0, p_mid_group: 0.02, p_large_group: 0.0, ..Shape::wild() };
        let mut history = History::generate(random.bits(), &shape);
        history.reverse();
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            retention_ms: shape.retention_ms,
            parked_max: PARKED_COUNT,
            parked_age_ms: PARKED_AGE_MS,
            ..Limits::default()
        };
        let settings = Settings {
            snapshots: None,
            dir: Some(dir.path().to_owned()),
            group: String::new(),
            limits,
            fold_threads: workers.unwrap_or(1),
            memory_bytes: if random.chance(0.5) { 0 } else { 64 << 20 },
            checkpoint_records: [1, 3, 10, 30][random.index(4)],
            pre_encode_bytes: [1, 300, PRE_ENCODE_BYTES][random.index(3)],
            slice_messages: [1, 3, SLICE_MESSAGES][random.index(3)],
            checkpoint_interval: NEVER,
            sync: true,
            publish: true,
            answer_while_behind: true,
            candidates_max: 100,
            stale_max: Duration::from_secs(3_600),
            publish_updates: true,
            update_window: if random.chance(0.5) { Duration::ZERO } else { NEVER },
            publish_timeout: Duration::ZERO,
            stop_timeout: Duration::ZERO,
            append_retry_max: Duration::ZERO,
            now_ms: || receipts_testkit::history::EPOCH_MS,
        };
        let oracle_limits = receipts_testkit::Limits {
            retention_ms: limits.retention_ms,
            parked_count: limits.parked_max,
            parked_age_ms: limits.parked_age_ms,
            ..receipts_testkit::Limits::default()
        };
        let expected = || Expected {
            oracle: Oracle::new(oracle_limits.clone()),
            questions: Questions::default(),
            dead: BTreeSet::new(),
            updates: BTreeMap::new(),
        };
        Self {
            log: SimLog::new(random.bits(), PARTITIONS as usize),
            members: (0..MEMBERS)
                .map(|_| Projector { disk: SimDisk::new(random.bits()), store: None, workers: None })
                .collect(),
            expected: (0..PARTITIONS).map(|_| expected()).collect(),
            history,
            settings,
            sync: random.chance(0.6),
            moves: random.chance(0.6),
            workers,
            figures: Figures::default(),
            random,
            _dir: dir,
        }
    }

    pub(crate) fn go(mut self, steps: usize) -> Result<Figures, String> {
        let tell = std::env::var_os("RECEIPTS_TEST_TELL").is_some();
        self.rebalance();
        for step in 0..steps {
            let member = self.random.index(MEMBERS);
            let what = self.random.weighted(&WEIGHTS);
            self.step(member, what)?;
            if tell {
                let state = self.log.0.lock();
                eprintln!(
                    "{step}: member {member} {}; held {:?}, durable {:?}, updates {}",
                    STEPS[what],
                    state.held,
                    state.committed,
                    state.updates.len()
                );
            }
        }
        self.be_quiet()?;
        self.must_refuse()?;
        self.figures.taken_up = self.log.0.lock().taken_up;
        Ok(self.figures)
    }

    fn step(&mut self, member: usize, what: usize) -> Result<(), String> {
        match what {
            0 => (0..1 + self.random.index(6)).for_each(|_| self.produce()),
            1 => self.poll(member)?,
            2 => self.die(member, Death::Kill),
            3 => self.die(member, if self.sync { Death::PowerCut } else { Death::Kill }),
            4 => self.stop(member)?,
            5 => self.rebalance(),
            6 => self.break_disk(member),
            7 => {
                let state = &mut *self.log.0.lock();
                let p = |random: &mut Random| if random.chance(0.5) { 0.0 } else { 0.3 };
                (state.p_append, state.p_poll) = (p(&mut self.random), p(&mut self.random));
            }
            8 => self.trim(),
            9 => self.be_quiet()?,
            11 => self.log.0.lock().away[member] ^= true,
            _ => {
                // The store's thread may run at any time.
                if let Some(store) = &self.members[member].store {
                    store.apply_queued();
                }
            }
        }
        Ok(())
    }

    /// Appends the next event, or a record that is no event.
    fn produce(&mut self) {
        if self.random.chance(0.03) {
            let partition = self.random.below(u64::from(PARTITIONS)) as u32;
            return self.append(partition, b"default/g0".to_vec(), b"{}".to_vec(), 0);
        }
        let Some((at, event)) = self.history.pop() else { return };
        if event.conversation_id().is_some() {
            let key = event.key();
            return self.append(partition_of(&key, PARTITIONS), key, event.to_json(), at.timestamp_ms);
        }
        for partition in 0..PARTITIONS {
            let mut copy = event.clone();
            match &mut copy.body {
                Body::PolicyChanged(body) => body.partition = Some(partition),
                Body::UserErased(body) => body.partition = Some(partition),
                _ => {}
            }
            self.append(partition, copy.key(), copy.to_json(), at.timestamp_ms);
        }
    }

    fn append(&mut self, partition: u32, key: Vec<u8>, value: Vec<u8>, timestamp_ms: u64) {
        let gap = if self.random.chance(0.2) { self.random.below(4) } else { 0 };
        let state = &mut *self.log.0.lock();
        let held = &mut state.partitions[partition as usize];
        let offset = held.end() + gap;
        let (key, value) = (Some(key.into()), Some(value.into()));
        held.records.push(OwnedRecord { partition, offset, timestamp_ms, key, value, headers: Vec::new() });
        let record = held.records.last().unwrap();
        self.expected[partition as usize].fold(record);
    }

    fn start(&mut self, member: usize) -> Result<(), String> {
        let projector = &mut self.members[member];
        let store = Arc::new(SledStore::with_disk(Arc::new(projector.disk.clone()), self.sync));
        let settings = Settings { group: member.to_string(), sync: self.sync, ..self.settings.clone() };
        let (log, topic, lag) = (&self.log, "receipts.events", Duration::MAX);
        let workers = match self.workers {
            None => Worker::inline(store.clone(), log, topic, settings, lag).map(|worker| vec![worker]),
            Some(_) => Worker::with_read_ahead(store.clone(), log, topic, settings, lag),
        };
        (projector.store, projector.workers) = (Some(store), Some(Workers(workers.map_err(|e| e.to_string())?)));
        Ok(())
    }

    /// Steps the workers of a projector once. Starts it first if it does not run.
    fn poll(&mut self, member: usize) -> Result<(), String> {
        if self.members[member].workers.is_none() {
            self.start(member)?;
        }
        self.figures.steps += 1;
        let projector = &mut self.members[member];
        let result = projector.workers.as_mut().unwrap().step();
        let journals = projector.disk.list().unwrap_or_default();
        self.figures.journals += usize::from(journals.iter().any(|name| name.ends_with(".journal")));
        if projector.disk.is_dead() {
            self.figures.deaths_at_a_write += 1;
            let death = if self.sync && self.random.chance(0.5) { Death::PowerCut } else { Death::Kill };
            self.die(member, death);
            return Ok(());
        }
        match result {
            Ok(_) => Ok(()),
            Err(ProjectError::Damaged { .. } | ProjectError::Panicked) => Err(format!("{result:?}")),
            // Only a failing disk stops a projector here. It ends in order, and is started again.
            Err(why) => {
                if !is_disk_failure(&why) {
                    return Err(format!("a projector stops although its disk has not failed: {why}"));
                }
                self.figures.failures += 1;
                _ = projector.workers.take().unwrap().close(false);
                self.closed(member);
                Ok(())
            }
        }
    }

    fn die(&mut self, member: usize, death: Death) {
        match death {
            Death::Kill => self.figures.kills += 1,
            Death::PowerCut => self.figures.power_cuts += 1,
        }
        let projector = &mut self.members[member];
        (projector.workers, projector.store) = (None, None);
        projector.disk.die(death);
        self.log.forget(member);
    }

    fn stop(&mut self, member: usize) -> Result<(), String> {
        let Some(workers) = self.members[member].workers.take() else { return Ok(()) };
        self.figures.stops += 1;
        // Records that it cannot make durable are folded again.
        _ = workers.close(true);
        self.closed(member);
        Ok(())
    }

    fn closed(&mut self, member: usize) {
        let projector = &mut self.members[member];
        projector.store = None;
        if projector.disk.is_dead() {
            projector.disk.die(Death::Kill);
        } else {
            projector.disk.close();
        }
        self.log.forget(member);
    }

    fn rebalance(&mut self) {
        self.figures.rebalances += 1;
        for partition in 0..PARTITIONS as usize {
            let owner = if self.moves { self.random.index(MEMBERS) } else { partition % MEMBERS };
            self.log.0.lock().wanted[partition] = Some(owner);
        }
    }

    fn break_disk(&mut self, member: usize) {
        let faults = match self.random.index(5) {
            4 => Faults { no_descriptors: true, ..Faults::default() },
            0 => Faults { p_write: 0.05, ..Faults::default() },
            1 => Faults { p_read: 0.05, ..Faults::default() },
            2 => Faults { dies_at: Some(self.random.below(40)), ..Faults::default() },
            _ => Faults::default(),
        };
        self.members[member].disk.set(faults);
    }

    /// Trims records that are durable in every store.
    fn trim(&mut self) {
        let state = &mut *self.log.0.lock();
        for (partition, committed) in state.partitions.iter_mut().zip(&state.committed) {
            let first = *committed.iter().min().unwrap();
            if first > partition.first {
                self.figures.trims += 1;
                partition.first = first;
            }
        }
    }

    /// Ends all faults, lets everything be folded and published, and checks it against the oracle.
    fn be_quiet(&mut self) -> Result<(), String> {
        self.figures.quiet += 1;
        {
            let state = &mut *self.log.0.lock();
            (state.p_append, state.p_poll) = (0.0, 0.0);
            state.away = [false; MEMBERS];
        }
        (0..MEMBERS).for_each(|member| self.members[member].disk.set(Faults::default()));
        // A store that has failed is of no use until it is opened again.
        for member in (0..MEMBERS).filter(|member| self.members[*member].disk.is_poisoned()).collect::<Vec<_>>() {
            self.stop(member)?;
        }
        // A second pass is needed, because appends that a bad log refuses late are left to the next
        // start.
        let mut passes = 0;
        while passes < 2 {
            self.fold_all()?;
            self.check_answers()?;
            passes += 1;
            // The checkpoint at the end publishes updates whose window is still open.
            for member in 0..MEMBERS {
                if let Some(workers) = self.members[member].workers.take() {
                    match workers.close(true) {
                        Err(e) if is_disk_failure(&e) && self.figures.failures < 1_000 => {
                            self.figures.failures += 1;
                            passes = 0;
                        }
                        other => other.map_err(|e| format!("a quiet projector cannot stop: {e}"))?,
                    }
                }
                self.closed(member);
            }
        }
        self.check_published()
    }

    fn fold_all(&mut self) -> Result<(), String> {
        for _ in 0..2_000 {
            for member in 0..MEMBERS {
                self.poll(member)?;
            }
            if self.is_folded() {
                return Ok(());
            }
        }
        Err("the projectors do not fold the whole log within 2,000 steps".into())
    }

    fn partitions(&self, partition: u32) -> Option<&Partitions> {
        let holder = self.log.0.lock().held[partition as usize]?;
        Some(self.members[holder].workers.as_ref()?.partitions())
    }

    fn is_folded(&self) -> bool {
        (0..PARTITIONS).all(|partition| {
            let records =
                self.log.0.lock().partitions[partition as usize].records.last().map(|record| record.offset + 1);
            let next = self.partitions(partition).and_then(|of| of.read(partition, |fold, _| fold.next_offset()));
            next.is_some_and(|next| next >= records.unwrap_or(0))
        })
    }

    fn check_answers(&self) -> Result<(), String> {
        for (partition, expected) in (0..).zip(&self.expected) {
            let partitions = self.partitions(partition).ok_or("no member holds the partition")?;
            if let Some(differs) = expected.questions.difference(&expected.oracle, &Asked(partitions, partition)) {
                return Err(format!("INV-PREFIX: partition {partition}, oracle first, projector second: {differs}"));
            }
        }
        Ok(())
    }

    fn check_published(&self) -> Result<(), String> {
        let state = self.log.0.lock();
        let mut last = BTreeMap::<[String; 3], Value>::new();
        for update in &state.updates {
            let mut update: Value = serde_json::from_slice(update.value.as_deref().unwrap()).unwrap();
            if update["type"] == "receipt.updated" {
                let message =
                    ["tenant", "conversation_id", "message_id"].map(|f| update[f].as_str().unwrap().to_owned());
                let fields = update.as_object_mut().unwrap();
                fields.retain(|name, _| !["type", "newly_read", "newly_read_truncated"].contains(&name.as_str()));
                // A member with an older store publishes again what it folds again. If it dies
                // meanwhile, and a member with a newer store goes on, the last update is not the
                // newest: readers compare versions.
                let is_older = |held: &Value| self.moves && held["version"].as_u64() > update["version"].as_u64();
                if !last.get(&message).is_some_and(is_older) {
                    last.insert(message, update);
                }
            }
        }
        let mut dead = vec![BTreeSet::new(); PARTITIONS as usize];
        for letter in &state.dead_letters {
            let header = |name: &str| {
                let found = letter.headers.iter().find(|(held, _)| held == name).and_then(|(_, value)| value.clone());
                String::from_utf8(found.unwrap().to_vec()).unwrap()
            };
            let partition: usize = header("dead-letter-partition").parse().unwrap();
            dead[partition].insert((header("dead-letter-offset").parse().unwrap(), header("dead-letter-reason")));
        }
        for (expected, dead) in self.expected.iter().zip(dead) {
            if dead != expected.dead {
                return Err(format!("INV-DEADLETTER: {dead:?} instead of {:?}", expected.dead));
            }
            for (message, states) in &expected.updates {
                match last.get(message) {
                    Some(update) if states.contains(update) => {}
                    update => {
                        return Err(format!("INV-UPDATE-LAST: {message:?} is {update:?}, not one of {states:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that a log that lost records, and another log, are refused, and that this damages no
    /// store.
    fn must_refuse(&mut self) -> Result<(), String> {
        let good = self.log.0.lock().partitions.clone();
        for (partition, good) in good.into_iter().enumerate() {
            let stands = self.log.0.lock().committed[partition];
            let Some(member) = (0..MEMBERS).find(|member| stands[*member] > good.first) else { continue };
            self.log.0.lock().wanted = vec![None; PARTITIONS as usize];
            self.log.0.lock().wanted[partition] = Some(member);
            let next = good.end();
            let mut lost = good.clone();
            lost.records.retain(|record| record.offset + 1 < stands[member]);
            let trimmed = Partition { first: next + 5, records: Vec::new() };
            let mut recreated = good.clone();
            for record in &mut recreated.records {
                record.timestamp_ms += 1;
            }
            recreated.records.push(OwnedRecord { offset: next + 9, ..recreated.records.last().unwrap().clone() });
            for (log, why) in [(lost, "ahead of the log"), (trimmed, "begins at offset"), (recreated, "made anew")] {
                self.log.0.lock().partitions[partition] = log;
                self.start(member)?;
                let workers = self.members[member].workers.as_mut().unwrap();
                // With read-ahead one worker refuses, and the reader thread passes the error to
                // another one.
                match (0..2).find_map(|_| workers.step().err()) {
                    Some(e) if e.to_string().contains(why) => self.figures.refusals += 1,
                    other => return Err(format!("INV-REFUSE: a log that is `{why}` was not refused: {other:?}")),
                }
                _ = self.members[member].workers.take().unwrap().close(false);
                self.closed(member);
                self.log.0.lock().partitions[partition] = good.clone();
            }
        }
        self.rebalance();
        self.be_quiet()
    }
}

fn is_disk_failure(why: &ProjectError) -> bool {
    let why = why.to_string();
    ["error 5", "error 24", "no storage space"].iter().any(|words| why.contains(words))
}

impl Expected {
    fn fold(&mut self, record: &OwnedRecord) {
        let OwnedRecord { partition, offset, timestamp_ms, .. } = *record;
        let at = At { partition, offset, timestamp_ms };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let lent = Record { partition, offset, timestamp_ms, key, value, headers: &NoHeaders };
        let effects = match DECODER.decode(lent.partition, lent.key, lent.value) {
            Ok(event) => {
                let questions = Questions::of([&event]);
                self.questions.messages.extend(questions.messages);
                self.questions.people.extend(questions.people);
                let effects = self.oracle.apply(at, &event);
                self.add_updates(&effects);
                if matches!(event.body, Body::MembersChanged(_) | Body::UserErased(_)) {
                    self.add_departures();
                }
                effects
            }
            Err(rejection) => {
                self.dead.insert((offset, rejection.reason.code().to_owned()));
                let effects = self.oracle.pass(at);
                self.add_updates(&effects);
                effects
            }
        };
        for effect in effects {
            if let OracleEffect::DeadLetter { offset, reason, .. } = effect {
                self.dead.insert((offset, reason.to_owned()));
            }
        }
    }

    fn add_updates(&mut self, effects: &[OracleEffect]) {
        for effect in effects {
            if let OracleEffect::Changed { tenant, conversation_id, message_id, .. } = effect {
                let state = json!(self.oracle.receipt(tenant, conversation_id, message_id));
                let message = [tenant, conversation_id, message_id].map(Clone::clone);
                self.updates.insert(message, vec![state]);
            }
        }
    }

    /// A departure changes receipts and publishes nothing, so a pending update may show it or not.
    fn add_departures(&mut self) {
        for ([tenant, conversation, message], states) in &mut self.updates {
            let state = json!(self.oracle.receipt(tenant, conversation, message));
            if !states.contains(&state) {
                states.push(state);
            }
        }
    }
}

struct NoHeaders;

impl Headers for NoHeaders {
    fn to_vec(&self) -> Vec<(String, Option<bytes::Bytes>)> {
        Vec::new()
    }
}

/// Queries a partition through its owner.
struct Asked<'a>(&'a Partitions, u32);

impl Subject for Asked<'_> {
    fn apply(&mut self, _: At, _: &Event<'_>) -> Vec<OracleEffect> {
        unreachable!("the projector folds by itself")
    }

    fn pass(&mut self, _: At) -> Vec<OracleEffect> {
        unreachable!("the projector folds by itself")
    }

    fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Receipt {
        self.0.read(self.1, |fold, _| fold.receipt(tenant, conversation_id, message_id)).unwrap().unwrap()
    }

    fn find(&self, tenant: &str, message_id: &str) -> Receipt {
        self.0.read(self.1, |fold, _| fold.find_receipt(tenant, None, message_id, 100)).unwrap().unwrap().receipt
    }

    fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
    ) -> Result<Vec<Member>, Status> {
        let list =
            |fold: &_| receipts_fold::State::members(fold, tenant, conversation_id, message_id, filter, 0, 10_000);
        let page = self.0.read(self.1, |fold, _| list(fold)).unwrap().unwrap();
        if page.receipt.status == Status::Ok { Ok(page.members) } else { Err(page.receipt.status) }
    }

    fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Option<ReadMark> {
        self.0.read(self.1, |fold, _| fold.read_mark(tenant, conversation_id, user_id)).unwrap().unwrap()
    }

    fn is_member(&self, tenant: &str, conversation_id: &str, user_id: &str) -> bool {
        self.0.read(self.1, |fold, _| fold.is_member(tenant, conversation_id, user_id)).unwrap().unwrap()
    }
}
