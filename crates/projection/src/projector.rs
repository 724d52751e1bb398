//! The loop itself, on a thread of its own: it alone changes the partitions of this process.

use crate::agenda::Agenda;
use crate::damage::{Damage, FoldError, is_damage};
use crate::intake::event_of;
use crate::partition::{Partition, checkpoint};
use crate::publisher::Publisher;
use crate::recover::recover;
use crate::settings::{ProjectError, Settings};
use crate::shared::{Partitions, Slot};
use crate::snapshotter::Snapshotter;
use parking_lot::{Mutex, RwLockWriteGuard};
use receipts_fold::LOOK_AHEAD_EVENTS;
use receipts_log::{Assignment, Log, Polled, ReadError, Reader, Record};
use receipts_query::snapshots::SnapshotDesk;
use receipts_snapshots::Wanted;
use receipts_store::{SledSettings, SledStore, trim};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Records of one poll: what is folded before readers are told and effects are looked at.
const POLL_RECORDS: usize = 1_024;
/// How long a poll waits for a record: also how late a stop or a timer may be noticed.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// Records between two looks at how much has changed.
const PRESSURE_RECORDS: u64 = 16_384;

/// A running projector.
pub struct Projector {
    partitions: Partitions,
    stop: CancellationToken,
    /// Goes first: it looks into the store.
    snapshotter: Option<JoinHandle<()>>,
    desk: Option<Arc<dyn SnapshotDesk>>,
    thread: Option<JoinHandle<Result<(), ProjectError>>>,
    stopped: Option<oneshot::Receiver<()>>,
}

impl Projector {
    /// Opens the store and starts to fold the log. `events_topic` names the event topic in dead letters; `ready_lag` is
    /// how far behind the time of day the newest folded record may be for a partition that is ready.
    ///
    /// # Errors
    /// Where the store or the log cannot be used.
    pub fn start(
        log: &dyn Log,
        events_topic: &str,
        settings: Settings,
        ready_lag: Duration,
    ) -> Result<Self, ProjectError> {
        // A quarter of the memory for sled's own cache: it holds what the pages in memory do not.
        let sled = SledSettings { cache_bytes: (settings.memory_bytes / 4) as u64, sync: settings.sync };
        let store = SledStore::open(&settings.dir, sled)?;
        let damage = Damage::new(settings.dir.clone());
        let partitions = Partitions::new(log.partition_count(), ready_lag, &settings, damage);
        let stop = CancellationToken::new();
        let work = Arc::new(Work {
            partitions: partitions.clone(),
            stop: stop.clone(),
            store,
            publisher: Mutex::new(Publisher::new(log.writer(), events_topic.to_owned(), &settings)),
            agenda: Mutex::default(),
            failure: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            settings,
        });
        let reader = log.reader(&work.settings.group, Arc::clone(&work) as Arc<dyn Assignment>)?;
        let spawned = |source| receipts_store::Error::Io { doing: "starting the projector's threads".into(), source };
        let snapshotter = work.settings.snapshots.as_ref().and_then(|how| {
            let Settings { limits, now_ms, .. } = work.settings;
            Some(Snapshotter::new(partitions.clone(), how, how.schedule?, limits, now_ms, stop.clone()))
        });
        let (done, stopped) = oneshot::channel();
        let thread = {
            let run = move || {
                let result = work.run(reader);
                _ = done.send(());
                result
            };
            std::thread::Builder::new().name("projector".into()).spawn(run)
        };
        let thread = Some(thread.map_err(spawned)?);
        let desk = snapshotter.as_ref().map(|s| s.desk() as Arc<dyn SnapshotDesk>);
        let mut projector = Self { partitions, stop, snapshotter: None, desk, thread, stopped: Some(stopped) };
        if let Some(snapshotter) = snapshotter {
            let thread = std::thread::Builder::new().name("snapshots".into()).spawn(move || snapshotter.run());
            projector.snapshotter = Some(thread.map_err(spawned)?);
        }
        Ok(projector)
    }

    /// The partitions, to ask them.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Where snapshots are asked for; `None` where none are taken.
    pub fn snapshots(&self) -> Option<Arc<dyn SnapshotDesk>> {
        self.desk.clone()
    }

    /// Resolves when the projector has stopped by itself: something is wrong, and [`Self::stop`] says what.
    pub async fn stopped(&mut self) {
        if let Some(stopped) = &mut self.stopped {
            _ = stopped.await;
            self.stopped = None;
        }
    }

    /// Stops after what is at hand: publishes, checkpoints, and closes the store.
    ///
    /// # Errors
    /// What had stopped it before, or kept it from a last checkpoint.
    pub fn stop(mut self) -> Result<(), ProjectError> {
        self.end().unwrap_or(Ok(()))
    }

    fn end(&mut self) -> Option<Result<(), ProjectError>> {
        self.stop.cancel();
        if let Some(snapshotter) = self.snapshotter.take() {
            _ = snapshotter.join();
        }
        self.thread.take().map(|thread| thread.join().map_err(|_| ProjectError::Panicked).flatten())
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread works with. Its lock order is publisher, partition, agenda.
struct Work {
    partitions: Partitions,
    stop: CancellationToken,
    store: SledStore,
    settings: Settings,
    publisher: Mutex<Publisher>,
    agenda: Mutex<Agenda>,
    /// What went wrong where no error could be returned.
    failure: Mutex<Option<ProjectError>>,
    /// A restore broke off because the process is to stop.
    abandoned: AtomicBool,
}

impl Work {
    fn run(&self, mut reader: Box<dyn Reader>) -> Result<(), ProjectError> {
        let result = match self.fold(&mut *reader) {
            // A restore that breaks off because the process ends is no failure.
            Err(_) if self.abandoned.load(Ordering::Acquire) => Ok(()),
            result => result,
        };
        if let Err(e) = &result {
            tracing::error!(error = %e, "the projector stops");
        }
        // Nothing more is folded. What is folded becomes durable where all went well, and only then: what failed may be a
        // record applied in part, or a change that was not published.
        let numbers: Vec<u32> = (0..self.partitions.count()).collect();
        let closed = self.release(&numbers, result.is_ok());
        drop(reader);
        result.and(closed)
    }

    fn fold(&self, reader: &mut dyn Reader) -> Result<(), ProjectError> {
        let mut pressure = 0;
        while !self.stop.is_cancelled() {
            let mut failure = None;
            let polled = reader.poll(POLL_RECORDS, self.next_wait(), &mut |polled| {
                if failure.is_none() {
                    failure = self.take(polled).err();
                }
            });
            let folded = match (failure.or_else(|| self.failure.lock().take()), polled) {
                (Some(e), _) => return Err(e),
                (None, Err(ReadError::Retry(why))) => {
                    tracing::warn!(why, "the log cannot be read just now");
                    std::thread::sleep(POLL_WAIT);
                    0
                }
                (None, Err(stop)) => return Err(stop.into()),
                (None, Ok(records)) => records as u64,
            };
            // Readers first: to publish may take as long as the log does.
            if folded > 0 {
                self.partitions.announce();
            }
            self.publish(false)?;
            pressure += folded;
            let look = pressure >= PRESSURE_RECORDS;
            pressure = if look { 0 } else { pressure };
            self.upkeep(reader, look)?;
        }
        Ok(())
    }

    fn next_wait(&self) -> Duration {
        let due = self.publisher.lock().next_due();
        due.map_or(POLL_WAIT, |due| due.saturating_duration_since(Instant::now()).min(POLL_WAIT))
    }

    fn slot(&self, partition: u32) -> &Slot {
        &self.partitions.shared.slots[partition as usize]
    }

    fn take(&self, polled: Polled<'_>) -> Result<(), ProjectError> {
        match polled {
            Polled::Records(records) => self.take_records(records),
            Polled::End { partition, next_offset } => {
                let slot = self.slot(partition);
                if let Some(p) = slot.partition.write().as_mut() {
                    p.position = p.position.max(next_offset);
                    slot.position.store(p.position, Ordering::Release);
                }
                slot.at_end.store(true, Ordering::Release);
                slot.caught_up.store(true, Ordering::Release);
                self.partitions.announce();
                Ok(())
            }
        }
    }

    /// Folds records of one partition.
    fn take_records(&self, records: &[Record<'_>]) -> Result<(), ProjectError> {
        for records in records.chunks(LOOK_AHEAD_EVENTS) {
            let number = records[0].partition;
            let slot = self.slot(number);
            let events: Vec<_> = records.iter().map(|record| event_of(record, self.partitions.count())).collect();
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
        self.partitions.shared.damage.note(number, e);
        let detail = e.to_string();
        if is_damage(e) {
            ProjectError::Damaged { partition: number, detail }
        } else {
            ProjectError::Partition { partition: number, detail }
        }
    }

    /// Publishes what is due, or with `all` everything that has changed so far.
    fn publish(&self, all: bool) -> Result<(), ProjectError> {
        let publisher = &mut *self.publisher.lock();
        let now = Instant::now();
        let touched = self.agenda.lock().take_touched();
        for number in touched {
            let mut guard = self.slot(number).partition.write();
            let Some(partition) = guard.as_mut() else { continue };
            let dead_letters = publisher.take_over(number, partition, now);
            let counters = std::mem::take(&mut partition.effects.counters);
            trim(&mut partition.fold);
            // What is still being saved can be trimmed only later.
            partition.touched = false;
            if partition.is_saving() {
                self.touch(number, partition);
            }
            drop(guard);
            count(number, &counters);
            publisher.send_dead_letters(number, dead_letters);
        }
        publisher.publish(&self.partitions, now, all).map_err(|(number, e)| self.failed(number, &e))
    }

    /// Publishes everything and waits until the log has acknowledged it; false where it does not in time.
    fn publish_everything(&self) -> Result<bool, ProjectError> {
        let deadline = Instant::now() + self.settings.publish_timeout;
        loop {
            // Again and again: what the log does not take is rendered anew.
            self.publish(true)?;
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
    fn upkeep(&self, reader: &mut dyn Reader, look: bool) -> Result<(), ProjectError> {
        let now = Instant::now();
        let candidates = self.agenda.lock().candidates(now);
        for number in candidates {
            let due = self.slot(number).partition.read().as_ref().is_some_and(|p| {
                p.folded_since_checkpoint >= self.settings.checkpoint_records
                    || p.first_change.is_some_and(|at| now.duration_since(at) >= self.settings.checkpoint_interval)
                    || look && p.fold.pages().needs_checkpoint()
            });
            if due {
                self.agenda.lock().due(number);
            }
        }
        let next = self.agenda.lock().next_checkpoint(now);
        let Some(number) = next else { return Ok(()) };
        // First this: an update lost with the process would be lost for good.
        if !self.publish_everything()? {
            tracing::warn!("the log does not acknowledge updates and dead letters; checkpoints are put off");
            self.agenda.lock().put_off(Instant::now() + self.settings.publish_timeout);
            return Ok(());
        }
        if let Some(next_offset) = self.save(number)? {
            reader.commit(number, next_offset);
        }
        Ok(())
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
        let owned = |number: &u32| self.slot(*number).owned.load(Ordering::Acquire);
        let numbers: Vec<u32> = numbers.iter().copied().filter(owned).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let published = if durable { self.publish_everything() } else { Ok(false) };
        if durable && matches!(published, Ok(false)) {
            tracing::warn!(
                ?numbers,
                "the log does not acknowledge updates and dead letters; partitions are released as last checkpointed"
            );
        }
        let durable = matches!(published, Ok(true));
        let mut result = published.map(|_| ());
        for number in numbers {
            let slot = self.slot(number);
            if durable {
                let saved = self.save(number).and_then(|_| match slot.partition.read().as_ref() {
                    Some(p) => Ok(p.fold.pages().backend().wait()?),
                    None => Ok(()),
                });
                result = result.and(saved);
            }
            slot.owned.store(false, Ordering::Release);
            slot.caught_up.store(false, Ordering::Release);
            *slot.partition.write() = None;
            self.agenda.lock().saved(number);
            self.publisher.lock().release(number);
            tracing::info!(partition = number, "partition released");
        }
        result
    }

    fn open(&self, number: u32, first_offset: u64, end_offset: u64) -> Result<u64, ProjectError> {
        let share = self.settings.memory_bytes / 4 * 3 / self.partitions.count().max(1) as usize;
        let open = || -> Result<Partition, FoldError> {
            Partition::open(self.store.partition(number)?, number, share, self.settings.limits)
        };
        let refuse = |detail: String| Err(ProjectError::Partition { partition: number, detail });
        let damage = &self.partitions.shared.damage;
        let opened = match damage.noted(number)? {
            Some(why) => Err(why),
            None => match open() {
                Err(e) if is_damage(&e) => Err(e.to_string()),
                opened => Ok(opened.map_err(|e| self.failed(number, &e))?),
            },
        };
        let opened = match &self.settings.snapshots {
            None => opened,
            Some(how) => {
                let wanted = Wanted {
                    partition: number,
                    partition_count: Some(self.partitions.count()),
                    limits: Some(self.settings.limits),
                    next_offset: first_offset..=end_offset,
                };
                let was_damaged = opened.is_err();
                let recovered = recover(&how.open(&self.stop), &self.stop, &self.store, &wanted, opened, open)
                    .inspect_err(|e| self.abandoned.store(matches!(e, ProjectError::Stopped), Ordering::Release))?;
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
                self.store.drop_partition(number)?;
                damage.dropped(number)?;
                open().map_err(|e| self.failed(number, &e))?
            }
        };
        let next = partition.fold.next_offset();
        if next < first_offset {
            return refuse(format!(
                "the log begins at offset {first_offset}, the store needs it from {next} on: records in between are gone. \
                 Start with a store that is newer, or lengthen the topic's retention and write the log again"
            ));
        }
        if next > end_offset {
            return refuse(format!(
                "the store is at offset {next}, ahead of the log, which ends at {end_offset}: the topic was made anew or lost records. \
                 Point --data-dir at an empty directory to rebuild from this log"
            ));
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
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        self.open(partition, first_offset, end_offset).map_err(Into::into)
    }

    /// Durable, unless a panic lets the reader go: then nobody knows what was done in part.
    fn revoked(&self, partitions: &[u32]) {
        if let Err(e) = self.release(partitions, !std::thread::panicking()) {
            *self.failure.lock() = Some(e);
        }
    }
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
