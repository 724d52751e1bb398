//! Opens a partition that the log assigns to a shard: from its store, from a snapshot, or empty.
//! Refuses a store that does not fit the log or the settings, and then changes nothing.

use crate::damage::is_damage;
use crate::origin::{Current, Refusal};
use crate::partition::{FoldError, Partition};
use crate::recover::recover;
use crate::settings::{ProjectError, SnapshotSettings};
use crate::shard::Shard;
use receipts_fold::Origin;
use receipts_log::{Assignment, Peek};
use receipts_metrics::catalogue;
use receipts_snapshots::Requirements;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

impl Shard {
    /// Opens a partition; returns the offset at which reading begins. INV-OFFSET: the store names
    /// that offset, and nothing else does.
    fn open(&self, number: u32, first_offset: u64, end_offset: u64, log: &dyn Peek) -> Result<u64, ProjectError> {
        if self.cell(number).is_lost() {
            return self.take_up(number, first_offset, end_offset, log);
        }
        let opened = self.open_store(number)?;
        let opened = match &self.shared.settings.snapshots {
            None => opened,
            Some(settings) => self.open_snapshot(number, first_offset..=end_offset, settings, opened)?,
        };
        let refuse = |detail: String| Err(ProjectError::Partition { partition: number, detail });
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
                self.shared.store.drop_partition(number)?;
                self.shared.partitions.damage().clear(number)?;
                self.open_state(number).map_err(|e| self.failed(number, &e))?
            }
        };
        let next = partition.fold.next_offset();
        let settings = &self.shared.settings;
        let (limits, data_dir) = (&settings.limits, settings.data_dir());
        let current = Current { first_offset, end_offset, limits, data_dir, log };
        match current.check_origin(number, next, partition.fold.origin()) {
            Ok(()) => {}
            Err(Refusal::Contradiction(sentence)) => return refuse(sentence),
            Err(Refusal::Log(error)) => return Err(error.into()),
        }
        let cell = self.cell(number);
        cell.end_offset.store(end_offset, Ordering::Release);
        cell.set_folded(partition.position);
        cell.timestamp_ms.store(partition.fold.newest_timestamp_ms(), Ordering::Release);
        *cell.partition.write() = Some(partition);
        cell.at_end.store(false, Ordering::Release);
        cell.owned.store(true, Ordering::Release);
        tracing::debug!(partition = number, next_offset = next, end_offset, "partition opened");
        Ok(next)
    }

    /// Continues with the state of a partition that an outage had taken away, if it still fits the
    /// log.
    fn take_up(&self, number: u32, first_offset: u64, end_offset: u64, log: &dyn Peek) -> Result<u64, ProjectError> {
        let cell = self.cell(number);
        let settings = &self.shared.settings;
        let (limits, data_dir) = (settings.limits, settings.data_dir());
        let state = cell.partition.read().as_ref().map(|p| (p.fold.next_offset(), p.position, p.fold.last_record()));
        let refuse = |detail: String| Err(ProjectError::Partition { partition: number, detail });
        let Some((next, position, last)) = state else { return refuse("its held state is gone".into()) };
        let current = Current { first_offset, end_offset, limits: &limits, data_dir, log };
        match current.check_origin(number, next, Some(&Origin { limits, last })) {
            Ok(()) => {}
            Err(Refusal::Contradiction(detail)) => return refuse(detail),
            Err(Refusal::Log(e)) => return Err(e.into()),
        }
        cell.end_offset.store(end_offset, Ordering::Release);
        cell.at_end.store(false, Ordering::Release);
        self.resume(number);
        cell.set_folded(position);
        tracing::debug!(partition = number, next_offset = next, end_offset, "partition taken up again after an outage");
        Ok(next)
    }

    fn open_state(&self, number: u32) -> Result<Partition, FoldError> {
        let share = self.shared.memory.lock().share(number);
        Partition::open(self.shared.store.partition(number)?, number, share, self.shared.settings.limits)
    }

    /// Opens the state in the store. The inner `Err` holds the damage that was found now or by an
    /// earlier process.
    fn open_store(&self, number: u32) -> Result<Result<Partition, String>, ProjectError> {
        if let Some(why) = self.shared.partitions.damage().recorded(number)? {
            return Ok(Err(why));
        }
        match self.open_state(number) {
            Err(e) if is_damage(&e) => Ok(Err(e.to_string())),
            opened => opened.map(Ok).map_err(|e| self.failed(number, &e)),
        }
    }

    /// Replaces a state that cannot go on by the newest usable snapshot whose next offset is within
    /// `next_offset`.
    fn open_snapshot(
        &self,
        number: u32,
        next_offset: RangeInclusive<u64>,
        settings: &SnapshotSettings,
        opened: Result<Partition, String>,
    ) -> Result<Result<Partition, String>, ProjectError> {
        let shared = &*self.shared;
        let wanted = Requirements {
            partition: number,
            partition_count: Some(shared.partitions.count()),
            limits: Some(shared.settings.limits),
            next_offset,
        };
        let was_damaged = opened.is_err();
        let (snapshots, backoff) = (settings.open(&shared.stop), &mut *shared.snapshot_backoff.lock());
        let open = || self.open_state(number);
        let recovered = recover(&snapshots, &shared.stop, &shared.store, &wanted, backoff, opened, open)
            .inspect_err(|e| shared.abandoned.store(matches!(e, ProjectError::Stopped), Ordering::Release))?;
        if was_damaged && recovered.is_ok() {
            shared.partitions.damage().clear(number)?;
        }
        Ok(recovered)
    }
}

impl Assignment for Shard {
    fn assigned(
        &self,
        partition: u32,
        first_offset: u64,
        end_offset: u64,
        log: &dyn Peek,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        catalogue::ASSIGNED.get().increment(1);
        self.open(partition, first_offset, end_offset, log).map_err(Into::into)
    }

    /// Releases the partitions; their states become durable unless the reader is dropped by a
    /// panic, which may have left a record applied in part.
    fn revoked(&self, partitions: &[u32]) {
        catalogue::REVOKED.get().increment(partitions.len() as u64);
        if let Err(e) = self.release(partitions, !std::thread::panicking()) {
            *self.failure.lock() = Some(e);
        }
    }

    fn lost(&self, partitions: &[u32]) {
        catalogue::REVOKED.get().increment(partitions.len() as u64);
        self.hold(partitions);
    }
}
