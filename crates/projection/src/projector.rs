//! The loop itself: it alone changes the partitions of its lane. Has no thread, and waits for nothing but the log.

use crate::agenda::Agenda;
use crate::ahead::{Ahead, Lane};
use crate::damage::{Damage, FoldError, is_damage};
use crate::memory::Memory;
use crate::origin::{Now, Refusal};
use crate::partition::{Partition, checkpoint};
use crate::publisher::Publisher;
use crate::recover::{Unanswered, recover};
use crate::settings::{ProjectError, Settings};
use crate::shared::{Partitions, Slot};
use crate::source::{Decoded, Handed, InTurns, Source};
use parking_lot::{Mutex, RwLockWriteGuard};
use receipts_fold::{LOOK_AHEAD_EVENTS, LastRecord};
use receipts_log::{Assignment, Log, Peek, ReadError, Record};
use receipts_snapshots::Wanted;
use receipts_store::{SledStore, trim};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a poll waits for a record: also how late a stop or a timer may be noticed.
pub(crate) const POLL_WAIT: Duration = Duration::from_millis(20);
/// Records older than that, where more are to come, are those of a partition that is behind.
const BEHIND: Duration = Duration::from_secs(5);
/// Records between two looks at how much has changed.
const PRESSURE_RECORDS: u64 = 16_384;

/// What a turn of the loop came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The log was read, or waited for.
    Went,
    /// The log cannot be read just now: the caller waits a moment before the next turn.
    NotJustNow,
}

/// The loop, turn by turn: for a thread of a projector, and for simulations, which have none.
pub struct Loop {
    work: Arc<Work>,
    source: Box<dyn Source>,
    /// Records since the last look at how much has changed.
    pressure: u64,
}

impl Loop {
    /// A loop over all partitions that reads and decodes the log in its own turns, so that these say all that happens.
    /// Partitions come with them.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn in_turns(
        store: Arc<SledStore>,
        log: &dyn Log,
        events_topic: &str,
        settings: Settings,
        ready_lag: Duration,
    ) -> Result<Self, ProjectError> {
        let work = Common::new(store, log, settings, ready_lag).lane(Lane::ALL, log, events_topic);
        let reader = log.reader(&work.common.settings.group, Arc::clone(&work) as Arc<dyn Assignment>)?;
        Ok(Self::over(work, InTurns { reader, partition_count: log.partition_count() }))
    }

    /// As many loops as `settings.fold_threads`, and no more than there are partitions, which they share out, at least one. One
    /// thread reads and decodes ahead of all, and ends with the first of them.
    ///
    /// # Errors
    /// Where the log cannot be read, or there is no thread to read it.
    pub fn ahead(
        store: Arc<SledStore>,
        log: &dyn Log,
        events_topic: &str,
        settings: Settings,
        ready_lag: Duration,
    ) -> Result<Vec<Self>, ProjectError> {
        let (group, threads) = (settings.group.clone(), settings.fold_threads);
        let common = Common::new(store, log, settings, ready_lag);
        let lanes = Lane::several(threads.min(log.partition_count()).max(1) as usize);
        let works: Vec<_> = lanes.map(|lane| common.lane(lane, log, events_topic)).collect();
        let assignments = works.iter().map(|work| Arc::clone(work) as Arc<dyn Assignment>).collect();
        let sources = Ahead::start(log, &group, assignments)?;
        Ok(works.into_iter().zip(sources).map(|(work, source)| Self::over(work, source)).collect())
    }

    fn over(work: Arc<Work>, source: impl Source + 'static) -> Self {
        Self { work, source: Box::new(source), pressure: 0 }
    }

    /// All partitions of the process, to ask them.
    pub fn partitions(&self) -> &Partitions {
        &self.work.common.partitions
    }

    /// What whoever runs the loop cancels to stop it: a restore within a turn breaks off then.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.work.common.stop.clone()
    }

    /// Whether a turn failed for no other reason than that the process is to stop.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.work.common.abandoned.load(Ordering::Acquire)
    }

    /// Polls once and folds what came, publishes what is due, and checkpoints at most one partition.
    ///
    /// # Errors
    /// Going on would lose or invent something: nothing is to be folded or checkpointed any more.
    pub fn turn(&mut self) -> Result<Turn, ProjectError> {
        let work = &*self.work;
        let mut failure = None;
        let polled = self.source.poll(work.next_wait(), &mut |handed| {
            if failure.is_none() {
                failure = work.take(handed).err();
            }
        });
        let (folded, turn) = match (failure.or_else(|| work.failure.lock().take()), polled) {
            (Some(e), _) => return Err(e),
            (None, Err(ReadError::Retry(why))) => {
                tracing::warn!(why, "the log cannot be read just now");
                (0, Turn::NotJustNow)
            }
            (None, Err(stop)) => return Err(stop.into()),
            (None, Ok(records)) => (records as u64, Turn::Went),
        };
        // Readers first: to publish may take as long as the log does.
        if folded > 0 {
            work.common.partitions.announce();
        }
        work.publish(&[])?;
        self.pressure += folded;
        let look = self.pressure >= PRESSURE_RECORDS;
        self.pressure = if look { 0 } else { self.pressure };
        work.upkeep(&mut *self.source, look)?;
        Ok(turn)
    }

    /// Gives all partitions of its lane up. What is folded becomes durable where all went well, and only then: what failed may be a
    /// record applied in part, or a change that was not published.
    ///
    /// # Errors
    /// What kept a partition from becoming durable.
    pub fn close(self, all_went_well: bool) -> Result<(), ProjectError> {
        let numbers: Vec<u32> = (0..self.work.common.partitions.count()).collect();
        let closed = self.work.release(&numbers, all_went_well);
        drop(self.source);
        closed
    }
}

/// What the loops of a process share.
struct Common {
    partitions: Partitions,
    stop: CancellationToken,
    store: Arc<SledStore>,
    settings: Settings,
    memory: Mutex<Memory>,
    /// A restore broke off because the process is to stop.
    abandoned: AtomicBool,
    /// Whether snapshots could be asked for.
    unanswered: Mutex<Unanswered>,
}

impl Common {
    fn new(store: Arc<SledStore>, log: &dyn Log, settings: Settings, ready_lag: Duration) -> Arc<Self> {
        let (count, damage) = (log.partition_count(), Damage::new(settings.dir.clone()));
        Arc::new(Self {
            partitions: Partitions::new(count, ready_lag, &settings, damage),
            stop: CancellationToken::new(),
            store,
            // A quarter of all is sled's.
            memory: Mutex::new(Memory::new(settings.memory_bytes / 4 * 3, count)),
            settings,
            abandoned: AtomicBool::new(false),
            unanswered: Mutex::default(),
        })
    }

    fn lane(self: &Arc<Self>, lane: Lane, log: &dyn Log, events_topic: &str) -> Arc<Work> {
        Arc::new(Work {
            common: Arc::clone(self),
            lane,
            publisher: Mutex::new(Publisher::new(
                log.writer(),
                events_topic.to_owned(),
                &self.settings,
                log.partition_count(),
            )),
            agenda: Mutex::default(),
            failure: Mutex::new(None),
        })
    }
}

/// What a loop works with. Its lock order is publisher, partition, agenda or memory.
struct Work {
    common: Arc<Common>,
    lane: Lane,
    publisher: Mutex<Publisher>,
    agenda: Mutex<Agenda>,
    /// What went wrong where no error could be returned.
    failure: Mutex<Option<ProjectError>>,
}

impl Work {
    fn next_wait(&self) -> Duration {
        let due = self.publisher.lock().next_due();
        due.map_or(POLL_WAIT, |due| due.saturating_duration_since(Instant::now()).min(POLL_WAIT))
    }

    fn slot(&self, partition: u32) -> &Slot {
        &self.common.partitions.shared.slots[partition as usize]
    }

    fn take(&self, handed: Handed<'_>) -> Result<(), ProjectError> {
        match handed {
            Handed::Records(records, events) => self.take_records(records, events),
            Handed::End { partition, next_offset } => {
                let slot = self.slot(partition);
                if let Some(p) = slot.partition.write().as_mut() {
                    p.position = p.position.max(next_offset);
                    slot.position.store(p.position, Ordering::Release);
                    if p.behind.take().is_some() {
                        self.touch(partition, p);
                    }
                }
                slot.at_end.store(true, Ordering::Release);
                slot.caught_up.store(true, Ordering::Release);
                self.common.partitions.announce();
                Ok(())
            }
        }
    }

    /// Folds records of one partition.
    fn take_records(&self, records: &[Record<'_>], events: &[Decoded<'_>]) -> Result<(), ProjectError> {
        for (records, events) in records.chunks(LOOK_AHEAD_EVENTS).zip(events.chunks(LOOK_AHEAD_EVENTS)) {
            let number = records[0].partition;
            let slot = self.slot(number);
            let mut guard = slot.partition.write();
            if let Some(partition) = guard.as_mut() {
                partition.fold.look_ahead(events.iter().flatten());
            }
            for (record, event) in records.iter().zip(events) {
                // Revoked within this poll: its next owner reads on from our last checkpoint.
                let Some(partition) = guard.as_mut() else { return Ok(()) };
                partition.apply(record, event).map_err(|e| self.failed(number, &e))?;
                slot.folded(partition.position);
                slot.timestamp_ms.store(record.timestamp_ms, Ordering::Release);
                // Whoever waits to ask need not wait for all of them: a record may be a join of thousands.
                RwLockWriteGuard::bump(&mut guard);
            }
            let Some(partition) = guard.as_mut() else { return Ok(()) };
            if let Some(last) = records.last() {
                partition.fold.saw(LastRecord { offset: last.offset, fingerprint: last.fingerprint() });
                let now_ms = (self.common.settings.now_ms)();
                partition.clock.look(number, last.offset, last.timestamp_ms, now_ms);
                let behind = Duration::from_millis(now_ms.saturating_sub(last.timestamp_ms));
                partition.behind = Some(behind).filter(|behind| *behind > BEHIND);
            }
            self.touch(number, partition);
            if partition.first_change.is_none() {
                partition.first_change = Some(Instant::now());
                self.agenda.lock().changed(number);
            }
            slot.at_end.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Puts a partition on the agenda, once.
    fn touch(&self, number: u32, partition: &mut Partition) {
        if !std::mem::replace(&mut partition.touched, true) {
            self.agenda.lock().touch(number);
        }
    }

    /// The error of a state as the one that stops the projector; damage is noted for the next start.
    fn failed(&self, number: u32, e: &FoldError) -> ProjectError {
        self.common.partitions.shared.damage.note(number, e);
        let detail = e.to_string();
        if is_damage(e) {
            ProjectError::Damaged { partition: number, detail }
        } else {
            ProjectError::Partition { partition: number, detail }
        }
    }

    /// Publishes what is due, and of those partitions everything that has changed so far.
    fn publish(&self, all_of: &[u32]) -> Result<(), ProjectError> {
        let publisher = &mut *self.publisher.lock();
        let now = Instant::now();
        let touched = self.agenda.lock().take_touched();
        for number in touched {
            let mut guard = self.slot(number).partition.write();
            let Some(partition) = guard.as_mut() else { continue };
            let dead_letters = publisher.take_over(number, partition, now);
            let counters = std::mem::take(&mut partition.effects.counters);
            self.trim(number, partition);
            // What is still being saved can be trimmed only later.
            partition.touched = false;
            if partition.is_saving() {
                self.touch(number, partition);
            }
            drop(guard);
            count(number, &counters);
            publisher.send_dead_letters(number, dead_letters);
        }
        let too_large = self.common.memory.lock().too_large();
        for number in too_large.into_iter().filter(|number| self.lane.has(*number)) {
            if let Some(partition) = self.slot(number).partition.write().as_mut() {
                self.touch(number, partition);
            }
        }
        publisher.publish(&self.common.partitions, now, all_of).map_err(|(number, e)| self.failed(number, &e))
    }

    /// Keeps a partition within the memory that it may take.
    fn trim(&self, number: u32, partition: &mut Partition) {
        let share = self.common.memory.lock().share(number);
        partition.fold.pages_mut().allow(share);
        trim(&mut partition.fold);
        self.common.memory.lock().takes(number, partition.memory_bytes());
    }

    /// Publishes everything of those partitions and waits until the log has acknowledged it; false where it does not in time.
    fn publish_all_of(&self, numbers: &[u32]) -> Result<bool, ProjectError> {
        let deadline = Instant::now() + self.common.settings.publish_timeout;
        loop {
            // Again and again: what the log does not take is rendered anew.
            self.publish(numbers)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if self.publisher.lock().wait(left) {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Checkpoints one partition whose time has come, if there is one; with `look` those that hold too much in memory
    /// have their time come too. One a turn, so that polls, updates and readers come in between.
    fn upkeep(&self, source: &mut dyn Source, look: bool) -> Result<(), ProjectError> {
        self.tell_how_far(source);
        let now = Instant::now();
        let candidates = self.agenda.lock().candidates(now);
        for number in candidates {
            let due = self.slot(number).partition.read().as_ref().is_some_and(|p| {
                p.folded_since_checkpoint >= self.common.settings.checkpoint_records
                    || p.first_change.is_some_and(|at| {
                        now.duration_since(at) >= interval_of(self.common.settings.checkpoint_interval, number)
                    })
                    || look && p.fold.pages().needs_checkpoint()
            });
            if due {
                self.agenda.lock().due(number);
            }
        }
        let next = self.agenda.lock().next_checkpoint(now);
        let Some(number) = next else { return Ok(()) };
        if !self.draft(number) {
            return Ok(());
        }
        // First this: an update lost with the process would be lost for good.
        if !self.publish_all_of(&[number])? {
            tracing::warn!("the log does not acknowledge updates and dead letters; checkpoints are put off");
            self.agenda.lock().put_off(Instant::now() + self.common.settings.publish_timeout);
            return Ok(());
        }
        match self.save(number) {
            Ok(Some(next_offset)) => self.agenda.lock().on_its_way(number, next_offset),
            Ok(None) => {}
            Err(ProjectError::Store(e)) if e.is_full() && !self.is_out_of_memory(number) => {
                metrics::counter!("receipts_checkpoints_put_off_total").increment(1);
                tracing::error!(
                    partition = number,
                    error = %e,
                    "no checkpoint can be written; it is tried again, and events are folded and answered meanwhile, as long \
                     as memory lasts"
                );
                self.agenda.lock().put_off(Instant::now() + self.common.settings.publish_timeout);
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Encodes a part of what a partition's checkpoint will write; true once what is left is little. Nothing is folded while a
    /// checkpoint is made, and whoever waits for an answer would notice. Nobody does while the partition is behind.
    fn draft(&self, number: u32) -> bool {
        let mut guard = self.slot(number).partition.write();
        guard.as_mut().is_none_or(|p| p.behind.is_some() || p.fold.pages_mut().draft(self.common.settings.draft_bytes))
    }

    /// Tells the log of checkpoints that count by now: what lies before them may be taken out of it.
    fn tell_how_far(&self, source: &mut dyn Source) {
        let on_their_way = self.agenda.lock().take_on_their_way();
        for (number, next_offset) in on_their_way {
            match self.slot(number).partition.read().as_ref().map(Partition::is_saving) {
                Some(true) => self.agenda.lock().on_its_way(number, next_offset),
                Some(false) => source.commit(number, next_offset),
                None => {}
            }
        }
    }

    /// Whether a partition holds as much as it may, so that it cannot wait for a checkpoint any longer.
    fn is_out_of_memory(&self, number: u32) -> bool {
        let share = self.common.memory.lock().share(number);
        self.slot(number).partition.read().as_ref().is_some_and(|p| p.memory_bytes() > share)
    }

    /// Makes a partition durable whose changes are all published and acknowledged.
    fn save(&self, number: u32) -> Result<Option<u64>, ProjectError> {
        let slot = self.slot(number);
        let saved = checkpoint(number, &slot.partition)?;
        self.agenda.lock().saved(number);
        if let Some(partition) = slot.partition.write().as_mut() {
            self.touch(number, partition);
        }
        Ok(saved)
    }

    /// Gives partitions up, durable where that can be.
    fn release(&self, numbers: &[u32], durable: bool) -> Result<(), ProjectError> {
        let owned = |number: &u32| self.lane.has(*number) && self.slot(*number).owned.load(Ordering::Acquire);
        let numbers: Vec<u32> = numbers.iter().copied().filter(owned).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let published = if durable { self.publish_all_of(&numbers) } else { Ok(false) };
        if durable && matches!(published, Ok(false)) {
            tracing::warn!(
                ?numbers,
                "the log does not acknowledge updates and dead letters; partitions are released as last checkpointed"
            );
        }
        let durable = matches!(published, Ok(true));
        let mut result = published.map(|_| ());
        if durable {
            // The store's thread applies one while the next is encoded.
            let saved: Vec<_> = numbers.iter().map(|number| self.save(*number)).collect();
            result = result.and(saved.into_iter().try_for_each(|saved| saved.map(|_| ())));
        }
        for number in numbers {
            let slot = self.slot(number);
            if durable && let Some(p) = slot.partition.read().as_ref() {
                result = result.and(p.fold.pages().backend().wait().map_err(Into::into));
            }
            slot.owned.store(false, Ordering::Release);
            slot.caught_up.store(false, Ordering::Release);
            *slot.partition.write() = None;
            self.common.memory.lock().takes(number, 0);
            self.agenda.lock().saved(number);
            self.publisher.lock().release(number);
            tracing::info!(partition = number, "partition released");
        }
        result
    }

    fn open(&self, number: u32, first_offset: u64, end_offset: u64, log: &dyn Peek) -> Result<u64, ProjectError> {
        let share = self.common.memory.lock().share(number);
        let open = || -> Result<Partition, FoldError> {
            Partition::open(self.common.store.partition(number)?, number, share, self.common.settings.limits)
        };
        let refuse = |detail: String| Err(ProjectError::Partition { partition: number, detail });
        let damage = &self.common.partitions.shared.damage;
        let opened = match damage.noted(number)? {
            Some(why) => Err(why),
            None => match open() {
                Err(e) if is_damage(&e) => Err(e.to_string()),
                opened => Ok(opened.map_err(|e| self.failed(number, &e))?),
            },
        };
        let opened = match &self.common.settings.snapshots {
            None => opened,
            Some(how) => {
                let wanted = Wanted {
                    partition: number,
                    partition_count: Some(self.common.partitions.count()),
                    limits: Some(self.common.settings.limits),
                    next_offset: first_offset..=end_offset,
                };
                let was_damaged = opened.is_err();
                let (snapshots, unanswered) = (how.open(&self.common.stop), &mut *self.common.unanswered.lock());
                let recovered =
                    recover(&snapshots, &self.common.stop, &self.common.store, &wanted, unanswered, opened, open)
                        .inspect_err(|e| {
                            self.common.abandoned.store(matches!(e, ProjectError::Stopped), Ordering::Release)
                        })?;
                if was_damaged && recovered.is_ok() {
                    damage.dropped(number)?;
                }
                recovered
            }
        };
        let partition = match opened {
            Ok(partition) => partition,
            Err(why) if first_offset > 0 => {
                return refuse(format!(
                    "its state is damaged ({why}), and the log, which begins at offset {first_offset}, cannot rebuild it. \
                     Start with an undamaged copy of the store, or write the log again"
                ));
            }
            Err(why) => {
                tracing::error!(
                    partition = number,
                    why,
                    "the partition's state is damaged; it is dropped and rebuilt from the log"
                );
                self.common.store.drop_partition(number)?;
                damage.dropped(number)?;
                open().map_err(|e| self.failed(number, &e))?
            }
        };
        let next = partition.fold.next_offset();
        let limits = &self.common.settings.limits;
        match (Now { first_offset, end_offset, limits, log }).admit(number, next, partition.fold.origin()) {
            Ok(()) => {}
            Err(Refusal::Because(sentence)) => return refuse(sentence),
            Err(Refusal::Log(error)) => return Err(error.into()),
        }
        let slot = self.slot(number);
        slot.end_offset.store(end_offset, Ordering::Release);
        slot.folded(partition.position);
        slot.timestamp_ms.store(partition.fold.newest_timestamp_ms(), Ordering::Release);
        *slot.partition.write() = Some(partition);
        slot.at_end.store(false, Ordering::Release);
        slot.owned.store(true, Ordering::Release);
        tracing::info!(partition = number, next_offset = next, end_offset, "partition opened");
        Ok(next)
    }
}

impl Assignment for Work {
    fn assigned(
        &self,
        partition: u32,
        first_offset: u64,
        end_offset: u64,
        log: &dyn Peek,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        self.open(partition, first_offset, end_offset, log).map_err(Into::into)
    }

    /// Durable, unless a panic lets the reader go: then nobody knows what was done in part.
    fn revoked(&self, partitions: &[u32]) {
        if let Err(e) = self.release(partitions, !std::thread::panicking()) {
            *self.failure.lock() = Some(e);
        }
    }
}

/// How long a partition's changes wait for a checkpoint: up to a quarter less than the setting, each another time. Those that
/// begin together would stand still together else, and the last one for as long as all of them.
fn interval_of(interval: Duration, partition: u32) -> Duration {
    const GOLDEN_RATIO: f64 = 0.618_033_988_75;
    interval.mul_f64(1.0 - (f64::from(partition) * GOLDEN_RATIO).fract() / 4.0)
}

fn count(partition: u32, counters: &receipts_fold::effects::Counters) {
    if counters.records == 0 {
        return;
    }
    let partition = partition.to_string();
    let add = |name: &'static str, n: u64| metrics::counter!(name, "partition" => partition.clone()).increment(n);
    add("receipts_records_total", counters.records);
    add("receipts_messages_total", counters.messages);
    add("receipts_reads_total", counters.reads);
    add("receipts_reads_repeated_total", counters.repeated);
    add("receipts_reads_outside_audience_total", counters.not_in_audience);
    add("receipts_reads_expired_total", counters.expired);
    add("receipts_parked_total", counters.parked);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_begin_together_are_checkpointed_one_after_the_other() {
        let mut intervals: Vec<_> = (0..64).map(|number| interval_of(Duration::from_secs(30), number)).collect();
        intervals.sort_unstable();
        assert!(intervals[0] >= Duration::from_millis(22_500) && intervals[63] == Duration::from_secs(30));
        assert!(intervals.windows(2).all(|two| two[1] - two[0] > Duration::from_millis(30)), "{intervals:?}");
    }
}
