//! A simulated log: sparse offsets, two members of one group, records delivered in random portions
//! and sometimes again, and acknowledgements that fail before or after the effect, or come late.
//! Kafka's own behaviour is tested elsewhere.

use bytes::Bytes;
use parking_lot::Mutex;
use receipts_log::{
    AppendError, Assignment, Entry, Headers, Location, Log, OwnedRecord, Peek, PendingAppend, Polled, ReadError,
    Reader, Record, SLICE_RECORDS_MAX, Topic, Writer,
};
use receipts_testkit::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The projectors of the group.
pub(crate) const MEMBERS: usize = 2;

/// One partition of the event topic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partition {
    pub(crate) records: Vec<OwnedRecord>,
    /// The first offset that the log still holds.
    pub(crate) first: u64,
}

impl Partition {
    pub(crate) fn end(&self) -> u64 {
        self.records.last().map_or(self.first, |record| record.offset + 1).max(self.first)
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) partitions: Vec<Partition>,
    /// The entries of the other two topics, in order.
    pub(crate) updates: Vec<Entry>,
    pub(crate) dead_letters: Vec<Entry>,
    /// The member that each partition is assigned to, and the member that holds it.
    pub(crate) wanted: Vec<Option<usize>>,
    pub(crate) held: Vec<Option<usize>>,
    /// The members that do not reach the log.
    pub(crate) away: [bool; MEMBERS],
    /// How often a member took a partition up again with the state that it had kept.
    pub(crate) taken_up: usize,
    /// The offsets up to which each member's store is durable, as the members committed them.
    pub(crate) committed: Vec<[u64; MEMBERS]>,
    /// The probability that an append of an update or a dead letter goes wrong.
    pub(crate) p_append: f64,
    /// The probability that a poll repeats records, or fails for a moment.
    pub(crate) p_poll: f64,
    /// The partition whose dead letters are refused.
    pub(crate) refused_partition: Option<u32>,
    waiting: Vec<(oneshot::Sender<Result<Location, AppendError>>, bool)>,
    random: Option<Random>,
}

impl State {
    fn random(&mut self) -> &mut Random {
        self.random.as_mut().expect("a stream")
    }
}

/// The log. Clones share it.
#[derive(Clone)]
pub(crate) struct SimLog(pub(crate) Arc<Mutex<State>>);

impl SimLog {
    pub(crate) fn new(seed: u64, partitions: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            partitions: vec![Partition::default(); partitions],
            wanted: vec![None; partitions],
            held: vec![None; partitions],
            committed: vec![[0; MEMBERS]; partitions],
            random: Some(Random::new(seed)),
            ..State::default()
        })))
    }

    /// Frees the partitions of a member that has ended.
    pub(crate) fn forget(&self, member: usize) {
        let mut state = self.0.lock();
        state.held.iter_mut().filter(|held| **held == Some(member)).for_each(|held| *held = None);
        // The member no longer waits for acknowledgements.
        state.waiting.clear();
    }
}

#[async_trait::async_trait]
impl Log for SimLog {
    fn partition_count(&self) -> u32 {
        self.0.lock().partitions.len() as u32
    }

    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        let member = group.parse().expect("groups are named by their one member here");
        let (positions, lost) = (BTreeMap::new(), BTreeSet::new());
        Ok(Box::new(SimReader { log: self.clone(), member, assignment, positions, lost }))
    }

    fn writer(&self) -> Arc<dyn Writer> {
        Arc::new(self.clone())
    }
}

fn is_dead_letter_of(entry: &Entry, partition: u32) -> bool {
    let name = |(name, value): &(String, Option<Bytes>)| {
        name == "dead-letter-partition" && value.as_deref() == Some(partition.to_string().as_bytes())
    };
    entry.topic == Topic::DeadLetters && entry.headers.iter().any(name)
}

impl Writer for SimLog {
    fn append(&self, entry: Entry) -> PendingAppend {
        let (outcome, appended) = oneshot::channel();
        let state = &mut *self.0.lock();
        if state.refused_partition.is_some_and(|partition| is_dead_letter_of(&entry, partition)) {
            _ = outcome.send(Err(AppendError::NotWritten("refused".into())));
            return appended;
        }
        let p = state.p_append;
        let random = state.random();
        let goes_wrong = p > 0.0 && random.chance(p);
        let fault = if goes_wrong { random.index(5) } else { 5 };
        // 0 and 1: refused at once or late. 2 and 3: unknown, with the effect. 4: acknowledged
        // late. 5: at once.
        if matches!(fault, 2..) {
            match entry.topic {
                Topic::Updates => state.updates.push(entry),
                Topic::DeadLetters => state.dead_letters.push(entry),
                Topic::Events => panic!("a projector writes no events"),
            }
        }
        match fault {
            0 => _ = outcome.send(Err(AppendError::NotWritten("refused".into()))),
            1 => state.waiting.push((outcome, false)),
            2 => _ = outcome.send(Err(AppendError::Unknown("no answer".into()))),
            3 => drop(outcome),
            4 => state.waiting.push((outcome, true)),
            _ => _ = outcome.send(Ok(Location { partition: 0, offset: 0 })),
        }
        appended
    }

    fn flush(&self, _: Duration) -> Result<(), AppendError> {
        let state = &mut *self.0.lock();
        let mut failed = false;
        for (outcome, written) in std::mem::take(&mut state.waiting) {
            failed |= !written;
            _ = outcome.send(if written {
                Ok(Location { partition: 0, offset: 0 })
            } else {
                Err(AppendError::NotWritten("refused late".into()))
            });
        }
        if failed { Err(AppendError::Unknown("something failed".into())) } else { Ok(()) }
    }
}

struct SimReader {
    log: SimLog,
    member: usize,
    assignment: Arc<dyn Assignment>,
    /// The next offset of each held partition, and whether its end was delivered.
    positions: BTreeMap<u32, (u64, bool)>,
    /// Partitions that an outage has taken away.
    lost: BTreeSet<u32>,
}

struct At<'a>(&'a SimLog, u32);

impl Peek for At<'_> {
    fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError> {
        let state = self.0.0.lock();
        let partition = &state.partitions[self.1 as usize];
        let kept = partition.records.iter().filter(|record| record.offset >= partition.first);
        Ok(kept.into_iter().find(|record| record.offset == offset).cloned())
    }
}

struct Copied<'a>(&'a OwnedRecord);

impl Headers for Copied<'_> {
    fn to_vec(&self) -> Vec<(String, Option<Bytes>)> {
        self.0.headers.clone()
    }
}

impl SimReader {
    /// Loses all partitions, which others may take from now on.
    fn lose(&mut self) {
        let lost: Vec<u32> = std::mem::take(&mut self.positions).into_keys().collect();
        if !lost.is_empty() {
            self.assignment.lost(&lost);
            lost.iter().for_each(|partition| self.log.0.lock().held[*partition as usize] = None);
            self.lost.extend(lost);
        }
    }

    /// Releases and takes partitions until it holds those that are assigned.
    fn rebalance(&mut self) -> Result<(), ReadError> {
        let me = Some(self.member);
        let wanted = self.log.0.lock().wanted.clone();
        let others: Vec<u32> =
            self.lost.iter().copied().filter(|partition| wanted[*partition as usize] != me).collect();
        if !others.is_empty() {
            self.assignment.revoked(&others);
            others.iter().for_each(|partition| _ = self.lost.remove(partition));
        }
        let (released, taken): (Vec<u32>, Vec<u32>) = {
            let state = self.log.0.lock();
            let of = |p: &u32| (state.wanted[*p as usize], state.held[*p as usize]);
            let all = 0..state.partitions.len() as u32;
            let released = all.clone().filter(|p| of(p).0 != me && of(p).1 == me).collect();
            (released, all.filter(|p| of(p).0 == me && of(p).1.is_none()).collect())
        };
        if !released.is_empty() {
            self.assignment.revoked(&released);
        }
        for partition in released {
            self.positions.remove(&partition);
            self.log.0.lock().held[partition as usize] = None;
        }
        for partition in taken {
            let (first, end) = {
                let state = &self.log.0.lock().partitions[partition as usize];
                (state.first, state.end())
            };
            let start = self.assignment.assigned(partition, first, end, &At(&self.log, partition));
            let start = start.map_err(|error| ReadError::Stop(error.to_string()))?;
            self.log.0.lock().taken_up += usize::from(self.lost.remove(&partition));
            self.log.0.lock().held[partition as usize] = me;
            if start < first || start > end {
                return Err(ReadError::Stop(format!(
                    "INV-REFUSE: a reader begins at {start}, outside {first} to {end}"
                )));
            }
            self.positions.insert(partition, (start, false));
        }
        Ok(())
    }
}

impl Reader for SimReader {
    fn poll(&mut self, max: usize, _: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if self.log.0.lock().away[self.member] {
            self.lose();
            return Ok(0);
        }
        self.rebalance()?;
        let mut delivered = 0;
        for (&partition, (next, at_end)) in &mut self.positions {
            let (records, end) = {
                let state = &mut *self.log.0.lock();
                let p = state.p_poll;
                if p > 0.0 && state.random().chance(p) {
                    return if delivered > 0 {
                        Ok(delivered)
                    } else {
                        Err(ReadError::Retry("a fault of the test".into()))
                    };
                }
                let at_most = 1 + state.random().index(max.min(2 * SLICE_RECORDS_MAX));
                let repeats = p > 0.0 && state.random().chance(p);
                let steps_back = if repeats { state.random().below(4) } else { 0 };
                let held = &state.partitions[partition as usize];
                if *next < held.first {
                    return Err(ReadError::Stop(format!("begins at offset {}, trimmed past {next}", held.first)));
                }
                let from = next.saturating_sub(steps_back).max(held.first);
                let rest = held.records.iter().filter(|record| record.offset >= from).take(at_most);
                (rest.cloned().collect::<Vec<_>>(), held.end())
            };
            for slice in records.chunks(SLICE_RECORDS_MAX) {
                let headers: Vec<_> = slice.iter().map(Copied).collect();
                let lent = slice.iter().zip(&headers).map(|(record, headers)| Record {
                    partition,
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers,
                });
                each(Polled::Records(&lent.collect::<Vec<_>>()));
            }
            delivered += records.len();
            let reached = records.last().map_or(*next, |record| record.offset + 1);
            *at_end &= reached <= *next;
            *next = reached.max(*next);
            if *next >= end && !*at_end {
                *at_end = true;
                each(Polled::End { partition, next_offset: *next });
            }
        }
        Ok(delivered)
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        self.log.0.lock().committed[partition as usize][self.member] = next_offset;
    }
}
