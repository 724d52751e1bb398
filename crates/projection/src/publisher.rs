//! What leaves a projector for the log: receipt updates and dead letters. Decides nothing about when the fold may go on.

use crate::damage::FoldError;
use crate::outbox::Outbox;
use crate::partition::{Dead, Partition};
use crate::settings::Settings;
use crate::shared::Partitions;
use crate::updates::{Updates, dead_letter};
use receipts_log::Writer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What share of the memory for pages changes may take, beside it, while they gather.
const GATHERED_SHARE: usize = 16;
/// But for each partition at least so much: some hundreds of messages.
const GATHERED_BYTES_MIN: usize = 64 << 10;

/// The way from effects to the log.
pub(crate) struct Publisher {
    outbox: Outbox,
    updates: BTreeMap<u32, Updates>,
    /// How long changes of one message gather; `None` where no updates are published.
    window: Option<Duration>,
    /// Memory for those of one partition, bytes.
    gathered_bytes_max: usize,
    publishes_dead_letters: bool,
    events_topic: String,
}

impl Publisher {
    /// The way out for a share of so many partitions.
    pub(crate) fn new(writer: Arc<dyn Writer>, events_topic: String, settings: &Settings, partitions: u32) -> Self {
        let gathered = settings.memory_bytes / GATHERED_SHARE / partitions.max(1) as usize;
        Self {
            outbox: Outbox::new(writer),
            updates: BTreeMap::new(),
            window: (settings.publish && settings.publish_updates).then_some(settings.update_window),
            gathered_bytes_max: gathered.max(GATHERED_BYTES_MIN),
            publishes_dead_letters: settings.publish,
            events_topic,
        }
    }

    /// When the next update falls due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.updates.values().filter_map(Updates::next_due).min()
    }

    /// Takes over what a partition brought about, and returns its dead letters, to be sent once its lock is free.
    pub(crate) fn take_over(&mut self, number: u32, partition: &mut Partition, now: Instant) -> Vec<Dead> {
        if let Some(window) = self.window {
            let updates = || Updates::new(window, self.gathered_bytes_max);
            let updates = self.updates.entry(number).or_insert_with(updates);
            updates.add(&partition.effects.changed, &partition.effects.marks, now, partition.behind);
        }
        partition.effects.clear();
        std::mem::take(&mut partition.dead_letters)
    }

    /// Hands dead letters to the log.
    pub(crate) fn send_dead_letters(&mut self, number: u32, dead_letters: Vec<Dead>) {
        if !self.publishes_dead_letters {
            return;
        }
        for dead in dead_letters {
            metrics::counter!("receipts_dead_letters_total", "reason" => dead.reason.code()).increment(1);
            self.outbox.send_dead_letter(dead_letter(number, &self.events_topic, dead));
        }
    }

    /// Hands updates that are due to the log, and every one of those partitions.
    ///
    /// # Errors
    /// The partition that cannot be asked. Changes are lost then: nothing may be checkpointed any more.
    pub(crate) fn publish(
        &mut self,
        partitions: &Partitions,
        now: Instant,
        all_of: &[u32],
    ) -> Result<(), (u32, FoldError)> {
        for (number, change) in self.outbox.take_failed() {
            if let Some(updates) = self.updates.get_mut(&number) {
                updates.again(change, now);
            }
        }
        let outbox = &mut self.outbox;
        for (&number, updates) in &mut self.updates {
            let until = (!all_of.contains(&number)).then_some(now);
            if !updates.is_due(until) {
                continue;
            }
            let guard = partitions.shared.slots[number as usize].partition.read();
            let Some(partition) = guard.as_ref() else { continue };
            let mut sent = 0;
            let published = updates.publish(&partition.fold, partition.position, until, |entry, change| {
                outbox.send_update(entry, number, change);
                sent += 1;
            });
            published.map_err(|e| (number, e))?;
            metrics::counter!("receipts_updates_total").increment(sent);
        }
        Ok(())
    }

    /// Waits for the log, at most so long; true once everything that was handed to it is acknowledged.
    pub(crate) fn wait(&mut self, at_most: Duration) -> bool {
        self.outbox.wait(at_most)
    }

    /// Forgets the changes of a partition that was given up.
    pub(crate) fn release(&mut self, number: u32) {
        self.updates.remove(&number);
        self.outbox.release(number);
    }
}
