//! The partitions of one worker: folds their records, publishes their changes and releases them.
//! Polls no log; `open` opens the partitions, and `checkpoint` saves them.

use crate::checkpoint::PutOff;
use crate::damage::is_damage;
use crate::partition::{Decoded, FoldError, Partition};
use crate::partitions::PartitionCell;
use crate::publish::{self, Publisher};
use crate::schedule::Schedule;
use crate::settings::ProjectError;
use crate::shared::Shared;
use crate::source::SourceItem;
use crate::worker::POLL_WAIT;
use parking_lot::{Mutex, RwLockWriteGuard};
use receipts_fold::{LastRecord, PREFETCH_EVENTS};
use receipts_log::{Log, Record};
use receipts_metrics::{Counter, catalogue};
use receipts_store::{Lookups, trim};
use receipts_traces::Traces;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A partition is behind if its newest folded record is older than this and it has not reached the
/// end of the log.
const BEHIND: Duration = Duration::from_secs(5);

/// Names a shard: the partitions of one of `count` workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardId {
    number: usize,
    count: usize,
}

impl ShardId {
    /// The only shard of a process with one worker.
    pub(crate) const ALL: Self = Self { number: 0, count: 1 };

    /// Divides all partitions into `count` shards.
    pub(crate) fn split(count: usize) -> impl Iterator<Item = Self> {
        (0..count).map(move |number| Self { number, count })
    }

    pub(crate) fn contains(self, partition: u32) -> bool {
        shard_of(partition, self.count) == self.number
    }
}

/// Returns the number of the shard, among `count`, that holds a partition.
pub(crate) fn shard_of(partition: u32, count: usize) -> usize {
    partition as usize % count
}

/// The state of one worker. Its worker steps it; the log's reader calls it when partitions are
/// assigned or revoked. Lock order: publisher, partition, then schedule or memory.
pub(crate) struct Shard {
    pub(crate) shared: Arc<Shared>,
    id: ShardId,
    pub(crate) publisher: Mutex<Publisher>,
    pub(crate) schedule: Mutex<Schedule>,
    pub(crate) put_off: Mutex<PutOff>,
    /// A failure of a call that cannot return an error. The next step returns it.
    pub(crate) failure: Mutex<Option<ProjectError>>,
    /// Set if traces are on and this process publishes.
    traces: Option<&'static Traces>,
}

impl Shard {
    pub(crate) fn new(shared: &Arc<Shared>, id: ShardId, log: &dyn Log, events_topic: &str) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            id,
            publisher: Mutex::new(Publisher::new(
                log.writer(),
                events_topic.to_owned(),
                &shared.settings,
                log.partition_count(),
                Arc::clone(&shared.dead_letter_log),
                shared.stop.clone(),
            )),
            schedule: Mutex::default(),
            put_off: Mutex::default(),
            failure: Mutex::new(None),
            traces: receipts_traces::traces().filter(|_| shared.settings.publish),
        })
    }

    /// Returns how long the next poll may wait for records: until the next update is due at most.
    pub(crate) fn next_wait(&self) -> Duration {
        let due = self.publisher.lock().next_due();
        due.map_or(POLL_WAIT, |due| due.saturating_duration_since(Instant::now()).min(POLL_WAIT))
    }

    pub(crate) fn take_failure(&self) -> Option<ProjectError> {
        self.failure.lock().take()
    }

    pub(crate) fn cell(&self, partition: u32) -> &PartitionCell {
        self.shared.partitions.cell(partition)
    }

    /// Folds records, or marks a partition as caught up at its end. Once the process is about to
    /// stop it does neither: the next start folds these records.
    pub(crate) fn receive(&self, item: SourceItem<'_>) -> Result<(), ProjectError> {
        match item {
            _ if self.shared.stop.is_cancelled() => Ok(()),
            SourceItem::Records(records, events) => self.fold_records(records, events),
            SourceItem::End { partition, next_offset } => {
                let cell = self.cell(partition);
                if let Some(p) = cell.partition.write().as_mut() {
                    p.position = p.position.max(next_offset);
                    cell.position.store(p.position, Ordering::Release);
                    if p.behind.take().is_some() {
                        self.enqueue(partition, p);
                    }
                }
                cell.at_end.store(true, Ordering::Release);
                cell.set_caught_up();
                self.shared.partitions.announce();
                Ok(())
            }
        }
    }

    /// Folds records of one partition.
    fn fold_records(&self, records: &[Record<'_>], events: &[Decoded<'_>]) -> Result<(), ProjectError> {
        let messages_max = self.shared.settings.slice_messages;
        for (records, events) in records.chunks(PREFETCH_EVENTS).zip(events.chunks(PREFETCH_EVENTS)) {
            let number = records[0].partition;
            let cell = self.cell(number);
            let mut guard = cell.partition.write();
            if let Some(partition) = guard.as_mut() {
                partition.fold.prefetch(events.iter().flatten());
            }
            let (mut last, mut stops) = (None, false);
            for (record, event) in records.iter().zip(events) {
                // The partition is no longer ours. Its next owner continues from our last
                // checkpoint.
                let Some(partition) = guard.as_mut() else { return Ok(()) };
                let begun = match self.traces {
                    None => partition.begin(record, event, messages_max),
                    Some(traces) => {
                        partition.begin_traced(traces, record, event, messages_max, (self.shared.settings.now_ms)())
                    }
                };
                let is_whole = begun.map_err(|e| self.failed(number, &e))?;
                if !is_whole {
                    guard = self.fold_slices(record, cell, guard)?;
                    // Thousands of such records may be in a batch, and each takes long.
                    stops = self.shared.stop.is_cancelled();
                }
                let Some(partition) = guard.as_mut() else { return Ok(()) };
                cell.set_folded(partition.position);
                cell.timestamp_ms.store(record.timestamp_ms, Ordering::Release);
                last = Some(record);
                // Lets a waiting query in after each record: one record may join thousands of
                // members.
                RwLockWriteGuard::bump(&mut guard);
                if stops {
                    break;
                }
            }
            let Some(partition) = guard.as_mut() else { return Ok(()) };
            if let Some(last) = last {
                partition.fold.note_last_record(LastRecord { offset: last.offset, fingerprint: last.fingerprint() });
                let now_ms = (self.shared.settings.now_ms)();
                partition.clock.check(number, last.offset, last.timestamp_ms, now_ms);
                let behind = Duration::from_millis(now_ms.saturating_sub(last.timestamp_ms));
                partition.behind = Some(behind).filter(|behind| *behind > BEHIND);
            }
            self.enqueue(number, partition);
            if partition.first_change.is_none() {
                let now = Instant::now();
                partition.first_change = Some(now);
                cell.set_unsaved_since(Some(now));
                self.schedule.lock().mark_unsaved(number);
            }
            cell.at_end.store(false, Ordering::Release);
            if stops {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Applies the rest of a long record, slice by slice. Between two slices it lets waiting
    /// readers in, and carries changes on and trims pages, so that neither fills the memory. The
    /// record is finished even if the process is about to stop: its partition could not be saved.
    fn fold_slices<'c>(
        &self,
        record: &Record<'_>,
        cell: &'c PartitionCell,
        mut guard: RwLockWriteGuard<'c, Option<Partition>>,
    ) -> Result<RwLockWriteGuard<'c, Option<Partition>>, ProjectError> {
        let (number, messages_max) = (record.partition, self.shared.settings.slice_messages);
        // Readers may wait for the records before this one.
        self.shared.partitions.announce();
        loop {
            let Some(partition) = guard.as_mut() else { return Ok(guard) };
            self.enqueue(number, partition);
            RwLockWriteGuard::unlock_fair(guard);
            self.publish_except(&[], Some(number))?;
            guard = cell.partition.write();
            let Some(partition) = guard.as_mut() else { return Ok(guard) };
            let before = partition.effect_counts();
            let is_whole = partition.proceed(record, messages_max).map_err(|e| self.failed(number, &e))?;
            partition.end_traced_slice(before, is_whole);
            if is_whole {
                return Ok(guard);
            }
        }
    }

    /// Schedules the partition for the next publish, unless it already is.
    pub(crate) fn enqueue(&self, number: u32, partition: &mut Partition) {
        if !std::mem::replace(&mut partition.enqueued, true) {
            self.schedule.lock().enqueue(number);
        }
    }

    /// Converts a state's error into the one that stops the projector. Damage is recorded for the
    /// next start.
    pub(crate) fn failed(&self, number: u32, e: &FoldError) -> ProjectError {
        self.shared.partitions.damage().record(number, e);
        let detail = e.to_string();
        if is_damage(e) {
            ProjectError::Damaged { partition: number, detail }
        } else {
            ProjectError::Partition { partition: number, detail }
        }
    }

    /// Publishes due updates, and all pending updates of the partitions in `flushed`.
    pub(crate) fn publish(&self, flushed: &[u32]) -> Result<(), ProjectError> {
        self.publish_except(flushed, None)
    }

    /// As [`Self::publish`]. The updates of a partition whose record is applied `in_part` wait for
    /// its end, unless they take too much memory.
    fn publish_except(&self, flushed: &[u32], in_part: Option<u32>) -> Result<(), ProjectError> {
        let publisher = &mut *self.publisher.lock();
        let now = Instant::now();
        let enqueued = self.schedule.lock().take_enqueued();
        for number in enqueued {
            // It is enqueued again when it is resumed.
            if self.cell(number).is_lost() {
                continue;
            }
            let mut guard = self.cell(number).partition.write();
            let Some(partition) = guard.as_mut() else { continue };
            let dead_letters = publisher.take_effects(number, partition, now);
            let counters = std::mem::take(&mut partition.effects.counters);
            let lookups = partition.fold.pages_mut().take_lookups();
            self.trim(number, partition);
            // Pages of a checkpoint that is being written can be trimmed only later.
            partition.enqueued = false;
            if partition.is_saving() {
                self.enqueue(number, partition);
            }
            let used = [
                (catalogue::PARKED_BYTES, partition.fold.parked_bytes()),
                (catalogue::ERASED_PEOPLE, partition.fold.erased_people()),
                (catalogue::POLICY_TYPES, partition.fold.policy_types()),
            ];
            drop(guard);
            count(number, &counters, lookups);
            for (gauge, used) in used {
                gauge.of([number.to_string()]).set(used as f64);
            }
            publisher.send_dead_letters(number, dead_letters);
        }
        publisher.report_dead_letters(now);
        let over_share = self.shared.memory.lock().over_share();
        for number in over_share.into_iter().filter(|number| self.id.contains(*number)) {
            if let Some(partition) = self.cell(number).partition.write().as_mut() {
                self.enqueue(number, partition);
            }
        }
        publisher.publish(&self.shared.partitions, now, flushed, in_part).map_err(|(number, e)| self.failed(number, &e))
    }

    /// Keeps a partition within its share of the memory.
    fn trim(&self, number: u32, partition: &mut Partition) {
        let share = self.shared.memory.lock().share(number);
        partition.fold.pages_mut().set_memory_max(share);
        trim(&mut partition.fold);
        self.shared.memory.lock().set_used(number, partition.memory_bytes());
    }

    /// Tells whether no update or dead letter of a partition waits for the log.
    pub(crate) fn is_published(&self, number: u32) -> bool {
        let publisher = self.publisher.lock();
        publisher.is_acknowledged(number) && !publisher.has_updates(number)
    }

    /// Publishes all pending updates of the partitions and waits until the log acknowledges them.
    /// Returns false if it does not in time.
    pub(crate) fn publish_and_wait(&self, numbers: &[u32], at_most: Duration) -> Result<bool, ProjectError> {
        let deadline = Instant::now() + at_most;
        let was_stopped = self.shared.stop.is_cancelled();
        loop {
            // Repeated because updates that the log refuses are rendered again.
            self.publish(numbers)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if self.publisher.lock().wait(numbers, left) {
                return Ok(true);
            }
            // A stop releases the partitions, and gives the log its own time.
            if left.is_zero() || !was_stopped && self.shared.stop.is_cancelled() {
                return Ok(false);
            }
        }
    }

    /// Keeps the states of partitions that an outage has taken away. Nothing of them is published
    /// or saved until [`Self::resume`]. INV-HANDOVER: their next owner continues from a checkpoint.
    pub(crate) fn hold(&self, numbers: &[u32]) {
        let is_owned = |number: &&u32| self.id.contains(**number) && self.cell(**number).owned.load(Ordering::Acquire);
        for &number in numbers.iter().filter(is_owned) {
            self.shared.partitions.lose(number);
            self.schedule.lock().remove(number);
            self.publisher.lock().hold(number);
            tracing::debug!(partition = number, "the partition is lost; its state can still be asked");
        }
    }

    /// Continues with a state that [`Self::hold`] kept.
    pub(crate) fn resume(&self, number: u32) {
        let cell = self.cell(number);
        cell.lost.store(false, Ordering::Release);
        self.publisher.lock().resume(number);
        if let Some(partition) = cell.partition.write().as_mut() {
            partition.enqueued = false;
            self.enqueue(number, partition);
            if partition.first_change.is_some() {
                self.schedule.lock().mark_unsaved(number);
            }
        }
    }

    /// Releases those of the partitions that this shard owns. INV-HANDOVER: with `durable`, each
    /// state is on disk before the partition counts as released, unless the log does not
    /// acknowledge its updates or dead letters in time. A lost one is released as it was last
    /// saved.
    pub(crate) fn release(&self, numbers: &[u32], durable: bool) -> Result<(), ProjectError> {
        let is_owned = |number: &u32| self.id.contains(*number) && self.cell(*number).owned.load(Ordering::Acquire);
        let numbers: Vec<u32> = numbers.iter().copied().filter(is_owned).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let durable = durable && !self.shared.log_failed.load(Ordering::Acquire);
        let is_kept = |number: &u32| durable && !self.cell(*number).is_lost();
        let mut durable: Vec<u32> = numbers.iter().copied().filter(is_kept).collect();
        let mut result = Ok(());
        if !durable.is_empty() {
            let settings = &self.shared.settings;
            let stops = self.shared.stop.is_cancelled();
            let at_most = if stops { settings.stop_timeout } else { settings.publish_timeout };
            let published =
                self.shared.partitions.confirm_topic().and_then(|()| self.publish_and_wait(&durable, at_most));
            match published {
                Ok(true) => {}
                Ok(false) => self.keep_acknowledged(&mut durable),
                Err(e) => {
                    result = Err(e);
                    durable.clear();
                }
            }
        }
        // The store's thread applies one checkpoint while the next one is encoded.
        let saved: Vec<_> = durable.iter().map(|number| self.save(*number)).collect();
        result = result.and(saved.into_iter().try_for_each(|saved| saved.map(|_| ())));
        for number in numbers {
            let cell = self.cell(number);
            if durable.contains(&number)
                && let Some(p) = cell.partition.read().as_ref()
            {
                result = result.and(p.fold.pages().backend().wait().map_err(Into::into));
            }
            cell.owned.store(false, Ordering::Release);
            cell.caught_up.store(false, Ordering::Release);
            cell.set_unsaved_since(None);
            *cell.partition.write() = None;
            cell.set_released();
            self.shared.memory.lock().set_used(number, 0);
            self.schedule.lock().remove(number);
            self.publisher.lock().release(number);
            tracing::debug!(partition = number, "partition released");
        }
        result
    }

    /// Keeps only the partitions whose updates and dead letters are all acknowledged, and says what
    /// is left of the others.
    fn keep_acknowledged(&self, numbers: &mut Vec<u32>) {
        let publisher = self.publisher.lock();
        let left: Vec<u32> = numbers.extract_if(.., |number| !publisher.is_acknowledged(*number)).collect();
        let publish::Unsent { dead_letters, updates } = publisher.unsent(&left);
        tracing::warn!(
            partitions = ?left,
            dead_letters,
            updates,
            "the log does not acknowledge dead letters and updates; their partitions are released as last checkpointed, \
             and their next owner folds the records since and sends them again"
        );
    }
}

fn count(partition: u32, counters: &receipts_fold::effects::Counters, lookups: Lookups) {
    if counters.records == 0 {
        return;
    }
    let add = |counter: Counter<1>, n: u64| counter.of([partition.to_string()]).increment(n);
    add(catalogue::RECORDS, counters.records);
    add(catalogue::MESSAGES, counters.messages);
    add(catalogue::READS, counters.reads);
    add(catalogue::PARKED, counters.parked);
    add(catalogue::PAGE_HITS, lookups.hits);
    add(catalogue::PAGE_LOADS, lookups.loads);
    let ignored = |reason: &str, n: u64| {
        catalogue::IGNORED.of([partition.to_string(), reason.to_owned()]).increment(n);
    };
    ignored("repeated", counters.repeated);
    ignored("outside_audience", counters.not_in_audience);
    ignored("expired", counters.expired);
}
