//! The loop itself, on a thread of its own: it alone changes the partitions of this process.

use crate::intake::event_of;
use crate::outbox::Outbox;
use crate::partition::{Partition, checkpoint, failed};
use crate::settings::{ProjectError, Settings};
use crate::shared::{Partitions, Slot};
use crate::updates::{Updates, dead_letter};
use hashbrown::HashMap;
use parking_lot::Mutex;
use receipts_log::{Assignment, Log, Polled, ReadError, Reader, Record};
use receipts_store::{Backend as _, SledSettings, SledStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Records of one poll: what is folded before readers are told and effects are looked at.
const POLL_RECORDS: usize = 1_024;
/// How long a poll waits for a record: also how late a stop or a timer may be noticed.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// Records between two looks at how much has changed.
const PRESSURE_RECORDS: u64 = 16_384;

/// A running projector.
pub struct Projector {
    partitions: Partitions,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), ProjectError>>>,
    stopped: Option<oneshot::Receiver<()>>,
}

impl Projector {
    /// Opens the store and starts to fold the log. `dead_letter_topic` names the event topic in dead letters.
    ///
    /// # Errors
    /// Where the store or the log cannot be used.
    pub fn start(log: &dyn Log, events_topic: &str, settings: Settings, ready_lag: Duration) -> Result<Self, ProjectError> {
        // A quarter of the memory for sled's own cache: it holds what the pages in memory do not.
        let sled = SledSettings { cache_bytes: (settings.memory_bytes / 4) as u64, sync: settings.sync };
        let store = SledStore::open(&settings.dir, sled)?;
        let partitions = Partitions::new(log.partition_count(), ready_lag);
        let work = Arc::new(Work {
            partitions: partitions.clone(),
            store,
            events_topic: events_topic.to_owned(),
            publisher: Mutex::new(Publisher { outbox: Outbox::new(log.writer()), updates: HashMap::new() }),
            failure: Mutex::new(None),
            settings,
        });
        let reader = log.reader(&work.settings.group, Arc::clone(&work) as Arc<dyn Assignment>)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (done, stopped) = oneshot::channel();
        let thread = {
            let stop = Arc::clone(&stop);
            let run = move || {
                let result = work.run(reader, &stop);
                _ = done.send(());
                result
            };
            std::thread::Builder::new().name("projector".into()).spawn(run)
        };
        let thread = thread.map_err(|source| receipts_store::Error::Io { doing: "starting the projector's thread".into(), source })?;
        Ok(Self { partitions, stop, thread: Some(thread), stopped: Some(stopped) })
    }

    /// The partitions, to ask them.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Resolves when the projector has stopped by itself: something is wrong, and [`Self::stop`] says what.
    pub async fn stopped(&mut self) {
        if let Some(stopped) = &mut self.stopped {
            _ = stopped.await;
        }
    }

    /// Stops after what is at hand: publishes, checkpoints, and closes the store.
    ///
    /// # Errors
    /// What had stopped it before, or kept it from a last checkpoint.
    pub fn stop(mut self) -> Result<(), ProjectError> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| ProjectError::Panicked)?,
            None => Ok(()),
        }
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// What the thread works with. Its lock order is publisher before partition.
struct Work {
    partitions: Partitions,
    store: SledStore,
    settings: Settings,
    events_topic: String,
    publisher: Mutex<Publisher>,
    /// What went wrong where no error could be returned.
    failure: Mutex<Option<ProjectError>>,
}

struct Publisher {
    outbox: Outbox,
    updates: HashMap<u32, Updates>,
}

impl Work {
    fn run(&self, mut reader: Box<dyn Reader>, stop: &AtomicBool) -> Result<(), ProjectError> {
        let result = self.fold(&mut *reader, stop);
        if let Err(e) = &result {
            tracing::error!(error = %e, "the projector stops");
        }
        // Nothing more is folded; what is folded becomes durable, unless it is what failed.
        let numbers: Vec<u32> = (0..self.partitions.count()).collect();
        let closed = self.release(&numbers, result.is_ok());
        drop(reader);
        result.and(closed)
    }

    fn fold(&self, reader: &mut dyn Reader, stop: &AtomicBool) -> Result<(), ProjectError> {
        let mut pressure = 0;
        while !stop.load(Ordering::Acquire) {
            let mut failure = None;
            let polled = reader.poll(POLL_RECORDS, self.next_wait(), &mut |polled| {
                if failure.is_none() {
                    failure = self.take(polled).err();
                }
            });
            match (failure.or_else(|| self.failure.lock().take()), polled) {
                (Some(e), _) => return Err(e),
                (None, Err(ReadError::Retry(why))) => {
                    tracing::warn!(why, "the log cannot be read just now");
                    std::thread::sleep(POLL_WAIT);
                }
                (None, Err(stop)) => return Err(stop.into()),
                (None, Ok(records)) => pressure += records as u64,
            }
            self.publish(false)?;
            if pressure > 0 {
                self.partitions.announce();
            }
            let look = pressure >= PRESSURE_RECORDS;
            pressure = if look { 0 } else { pressure };
            self.upkeep(reader, look)?;
        }
        Ok(())
    }

    fn next_wait(&self) -> Duration {
        let publisher = self.publisher.lock();
        let due = publisher.updates.values().filter_map(Updates::next_due).min();
        due.map_or(POLL_WAIT, |due| due.saturating_duration_since(Instant::now()).min(POLL_WAIT))
    }

    fn slot(&self, partition: u32) -> &Slot {
        &self.partitions.shared.slots[partition as usize]
    }

    fn take(&self, polled: Polled<'_>) -> Result<(), ProjectError> {
        match polled {
            Polled::Record(record) => self.take_record(&record),
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

    fn take_record(&self, record: &Record<'_>) -> Result<(), ProjectError> {
        let slot = self.slot(record.partition);
        let event = event_of(record, self.partitions.count());
        let mut guard = slot.partition.write();
        // Revoked within this poll: its next owner reads on from our last checkpoint.
        let Some(partition) = guard.as_mut() else { return Ok(()) };
        let first_change = partition.first_change.is_none();
        partition.apply(record, event)?;
        if first_change {
            partition.first_change = Some(Instant::now());
        }
        slot.position.store(partition.position, Ordering::Release);
        slot.at_end.store(false, Ordering::Release);
        slot.timestamp_ms.store(record.timestamp_ms, Ordering::Release);
        Ok(())
    }

    /// Publishes what is due, or with `all` everything that has changed so far.
    fn publish(&self, all: bool) -> Result<(), ProjectError> {
        let publisher = &mut *self.publisher.lock();
        let now = Instant::now();
        for (number, slot) in (0..).zip(&self.partitions.shared.slots) {
            if !slot.owned.load(Ordering::Acquire) {
                continue;
            }
            let (dead_letters, counters) = {
                let mut guard = slot.partition.write();
                let Some(p) = guard.as_mut() else { continue };
                let updates = publisher.updates.entry(number).or_insert_with(|| Updates::new(self.settings.update_window));
                if self.settings.publish_updates {
                    updates.add(&p.effects.changed, &p.effects.marks, now);
                }
                p.effects.clear();
                p.fold.pages_mut().trim();
                (std::mem::take(&mut p.dead_letters), std::mem::take(&mut p.effects.counters))
            };
            count(number, &counters);
            for dead in dead_letters {
                metrics::counter!("receipts_dead_letters_total", "reason" => dead.reason.code()).increment(1);
                publisher.outbox.send(dead_letter(number, &self.events_topic, dead));
            }
            let updates = publisher.updates.get_mut(&number);
            if let Some(updates) = updates.filter(|u| u.next_due().is_some_and(|due| all || due <= now) || u.has_marks()) {
                let outbox = &mut publisher.outbox;
                let guard = slot.partition.read();
                let Some(p) = guard.as_ref() else { continue };
                let mut sent = 0;
                let published = updates.publish(&p.fold, (!all).then_some(now), |entry| {
                    outbox.send(entry);
                    sent += 1;
                });
                published.map_err(|e| failed(number, &e))?;
                metrics::counter!("receipts_updates_total").increment(sent);
            }
        }
        Ok(())
    }

    /// Checkpoints the partitions whose time has come; with `look` also those that hold too much in memory.
    fn upkeep(&self, reader: &mut dyn Reader, look: bool) -> Result<(), ProjectError> {
        for (number, slot) in (0..).zip(&self.partitions.shared.slots) {
            if !slot.owned.load(Ordering::Acquire) {
                continue;
            }
            let due = slot.partition.read().as_ref().is_some_and(|p| {
                p.folded_since_checkpoint >= self.settings.checkpoint_records
                    || p.first_change.is_some_and(|at| at.elapsed() >= self.settings.checkpoint_interval)
                    || look && p.fold.pages().needs_checkpoint()
            });
            if due && let Some(next_offset) = self.checkpoint(number)? {
                reader.commit(number, next_offset);
            }
        }
        Ok(())
    }

    /// Publishes everything, then makes the partition durable: an update lost with the process would be lost for good.
    fn checkpoint(&self, number: u32) -> Result<Option<u64>, ProjectError> {
        self.publish(true)?;
        if !self.publisher.lock().outbox.drain(self.settings.publish_timeout) {
            tracing::warn!(partition = number, "the log does not acknowledge updates; the checkpoint is put off");
            if let Some(p) = self.slot(number).partition.write().as_mut() {
                p.first_change = Some(Instant::now());
                p.folded_since_checkpoint = 0;
            }
            return Ok(None);
        }
        checkpoint(number, &self.slot(number).partition)
    }

    /// Gives partitions up, durable where that can be.
    fn release(&self, numbers: &[u32], durable: bool) -> Result<(), ProjectError> {
        let mut result = Ok(());
        for number in numbers {
            let slot = self.slot(*number);
            if !slot.owned.load(Ordering::Acquire) {
                continue;
            }
            if durable {
                let saved = self.checkpoint(*number).and_then(|_| match slot.partition.read().as_ref() {
                    Some(p) => Ok(p.fold.pages().backend().wait()?),
                    None => Ok(()),
                });
                result = result.and(saved);
            }
            slot.owned.store(false, Ordering::Release);
            slot.caught_up.store(false, Ordering::Release);
            *slot.partition.write() = None;
            self.publisher.lock().updates.remove(number);
            tracing::info!(partition = number, "partition released");
        }
        result
    }

    fn open(&self, number: u32, first_offset: u64, end_offset: u64) -> Result<u64, ProjectError> {
        let share = self.settings.memory_bytes / 4 * 3 / self.partitions.count().max(1) as usize;
        let open = || -> Result<Partition, receipts_fold::Error<receipts_store::Error>> {
            Partition::open(self.store.partition(number)?, number, share, self.settings.limits)
        };
        let partition = match open() {
            Err(receipts_fold::Error::Store(e)) if e.is_corruption() => {
                tracing::error!(partition = number, error = %e, "the partition's state is damaged; it is dropped and rebuilt from the log");
                self.store.drop_partition(number)?;
                open()
            }
            other => other,
        };
        let partition = partition.map_err(|e| failed(number, &e))?;
        let next = partition.fold.next_offset();
        let refuse = |detail: String| Err(ProjectError::Partition { partition: number, detail });
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
        slot.position.store(partition.position, Ordering::Release);
        slot.timestamp_ms.store(partition.fold.newest_timestamp_ms(), Ordering::Release);
        *slot.partition.write() = Some(partition);
        slot.at_end.store(false, Ordering::Release);
        slot.owned.store(true, Ordering::Release);
        tracing::info!(partition = number, next_offset = next, end_offset, "partition opened");
        Ok(next)
    }
}

impl Assignment for Work {
    fn assigned(&self, partition: u32, first_offset: u64, end_offset: u64) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        self.open(partition, first_offset, end_offset).map_err(Into::into)
    }

    fn revoked(&self, partitions: &[u32]) {
        if let Err(e) = self.release(partitions, true) {
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
