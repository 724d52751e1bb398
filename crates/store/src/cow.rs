//! Copy-on-write reads: the values of a partition as of one moment, while later checkpoints go on.
//! Knows neither pages nor files.
//!
//! Between two batches a tree holds the fold of exactly one prefix (INV-SNAPSHOT). A reader begins
//! there and goes on in the order of the keys. A batch that overwrites a value which the reader has
//! not reached saves the old value for it. So neither waits for the other, with one exception: a
//! batch waits while the saved values exceed their share of memory, until the reader has passed
//! some.

use crate::disk::{KeyValue, Map, Value};
use crate::error::Error;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Values per read. A batch waits at most for one such read.
const VALUES_PER_READ: usize = 256;
/// The bound of the saved values that the reader has not reached, bytes. One entry may exceed it.
const SAVED_BYTES_MAX: usize = 64 << 20;
/// The approximate cost of a saved value in addition to its key and value, bytes.
const SAVED_BYTES_EACH: usize = 128;

/// Coordinates the batches and the snapshot reader of one partition.
pub(crate) struct SnapshotBarrier {
    /// True while the tree may hold a part of a batch. Held while a batch is applied.
    is_partial: Mutex<bool>,
    active: Mutex<Option<ActiveRead>>,
    /// Notified when the reader has passed some values, or has ended.
    advanced: Condvar,
    saved_bytes_max: usize,
}

/// The state of the one reader.
struct ActiveRead {
    /// The reader has read all keys below.
    next: Vec<u8>,
    /// Old values of overwritten keys that the reader has not reached; `None` for keys that did not
    /// exist.
    saved: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    saved_bytes: usize,
    /// True once the tree was dropped.
    is_invalid: bool,
}

impl Default for SnapshotBarrier {
    /// Partial: a tree may hold a part of a batch until its journals are applied.
    fn default() -> Self {
        let (is_partial, active, advanced) = (Mutex::new(true), Mutex::default(), Condvar::default());
        Self { is_partial, active, advanced, saved_bytes_max: SAVED_BYTES_MAX }
    }
}

impl SnapshotBarrier {
    /// Applies a batch by calling `apply`. Where that fails, no reader can begin any more.
    pub(crate) fn apply(&self, apply: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut is_partial = self.is_partial.lock();
        *is_partial = true;
        apply()?;
        *is_partial = false;
        Ok(())
    }

    /// Marks the tree as consistent: all journals are applied, and it holds the fold of one prefix.
    pub(crate) fn mark_consistent(&self) {
        *self.is_partial.lock() = false;
    }

    /// Ends the reader with an error: the tree is about to be dropped or refilled.
    pub(crate) fn invalidate(&self) {
        *self.is_partial.lock() = true;
        if let Some(active) = self.active.lock().as_mut() {
            active.is_invalid = true;
            active.saved.clear();
        }
        self.advanced.notify_all();
    }

    /// Changes one value by calling `change`, which returns the old value.
    pub(crate) fn change(
        &self,
        key: &[u8],
        change: impl FnOnce() -> Result<Option<Value>, Error>,
    ) -> Result<(), Error> {
        let mut active = self.active.lock();
        while active.as_ref().is_some_and(|a| !a.is_invalid && a.saved_bytes > self.saved_bytes_max) {
            self.advanced.wait(&mut active);
        }
        let old = change()?;
        if let Some(active) = active.as_mut().filter(|a| !a.is_invalid && *a.next <= *key) {
            active.save(key, old);
        }
        Ok(())
    }
}

impl ActiveRead {
    /// Saves the old value of a key. Only the first change of a key has the value as of the
    /// reader's beginning.
    fn save(&mut self, key: &[u8], old: Option<Value>) {
        if !self.saved.contains_key(key) {
            self.saved_bytes += SAVED_BYTES_EACH + key.len() + old.as_ref().map_or(0, |old| old.len());
            // A copy: sled's own value may keep its whole page in memory.
            self.saved.insert(key.to_vec(), old.map(|old| old.to_vec()));
        }
    }
}

/// Begins snapshots of one partition, from any thread.
#[derive(Clone)]
pub struct SnapshotSource {
    pub(crate) barrier: Arc<SnapshotBarrier>,
    pub(crate) map: Arc<dyn Map>,
}

impl SnapshotSource {
    /// Begins to read the partition as of the last checkpoint that is wholly in the store. Waits
    /// while a checkpoint is being applied.
    ///
    /// # Errors
    /// If another snapshot of the partition is being taken, or a checkpoint could not be
    /// applied.
    pub fn begin(&self) -> Result<CowReader, Error> {
        let busy = |why: &str| Error::Io { doing: "beginning a snapshot".into(), source: std::io::Error::other(why) };
        let is_partial = self.barrier.is_partial.lock();
        if *is_partial {
            return Err(busy("the store holds a part of a checkpoint only: the next start applies the rest"));
        }
        let mut active = self.barrier.active.lock();
        if active.is_some() {
            return Err(busy("another snapshot of the partition is being taken"));
        }
        *active = Some(ActiveRead { next: Vec::new(), saved: BTreeMap::new(), saved_bytes: 0, is_invalid: false });
        drop(active);
        drop(is_partial);
        Ok(CowReader { source: self.clone(), at_end: false })
    }
}

/// Reads the values of a partition as of one moment, in the order of their keys.
pub struct CowReader {
    source: SnapshotSource,
    at_end: bool,
}

impl CowReader {
    /// Returns the next values in order; none at the end.
    ///
    /// # Errors
    /// If the store fails, or the partition was dropped meanwhile.
    pub fn next_values(&mut self) -> Result<Vec<KeyValue>, Error> {
        let Self { source, at_end } = self;
        let mut values = Vec::new();
        while values.is_empty() && !*at_end {
            let mut guard = source.barrier.active.lock();
            let active = guard.as_mut().filter(|a| !a.is_invalid).ok_or_else(|| Error::Io {
                doing: "taking a snapshot".into(),
                source: std::io::Error::other("the partition was dropped meanwhile"),
            })?;
            let read = source.map.values(&active.next, VALUES_PER_READ)?;
            let mut found: BTreeMap<_, _> = read.into_iter().map(|(key, value)| (key, Some(value))).collect();
            // After a full read the tree may hold more. Otherwise only saved values can remain, and
            // all of them are read now.
            *at_end = found.len() < VALUES_PER_READ;
            let last = if *at_end { None } else { found.last_key_value().map(|(key, _)| key.clone()) };
            let saved = match &last {
                Some(last) => {
                    let rest = split_off_after(&mut active.saved, last);
                    std::mem::replace(&mut active.saved, rest)
                }
                None => std::mem::take(&mut active.saved),
            };
            for (key, old) in &saved {
                active.saved_bytes -= SAVED_BYTES_EACH + key.len() + old.as_ref().map_or(0, |old| old.len());
            }
            found.extend(saved);
            if let Some(mut last) = last {
                last.push(0);
                active.next = last;
            }
            if *at_end {
                *guard = None;
            }
            MutexGuard::unlock_fair(guard);
            source.barrier.advanced.notify_all();
            values.extend(found.into_iter().filter_map(|(key, value)| Some((key, value?))));
        }
        Ok(values)
    }
}

impl Drop for CowReader {
    fn drop(&mut self) {
        if !self.at_end {
            *self.source.barrier.active.lock() = None;
            self.source.barrier.advanced.notify_all();
        }
    }
}

/// Splits off the entries after a key.
fn split_off_after<V>(map: &mut BTreeMap<Vec<u8>, V>, key: &Vec<u8>) -> BTreeMap<Vec<u8>, V> {
    let first = map.range::<Vec<u8>, _>((Bound::Excluded(key), Bound::Unbounded)).next();
    match first.map(|(key, _)| key.clone()) {
        Some(first) => map.split_off(&first),
        None => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk as _;
    use crate::sled::{SledDisk, SledSettings};
    use std::time::{Duration, Instant};

    const KEYS: u32 = 3_000;
    const VALUE_BYTES: usize = 1_000;
    const SAVED_BYTES: usize = 100_000;

    fn saved_bytes(barrier: &SnapshotBarrier) -> usize {
        barrier.active.lock().as_ref().map_or(0, |active| active.saved_bytes)
    }

    #[test]
    fn large_batch_waits_for_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SledDisk::open(dir.path(), SledSettings { cache_bytes: 1 << 20, sync: false }).unwrap();
        let map: Arc<dyn Map> = disk.map(0).unwrap().into();
        for key in 0..KEYS {
            map.insert(&key.to_be_bytes(), &[1; VALUE_BYTES]).unwrap();
        }
        let barrier = Arc::new(SnapshotBarrier { saved_bytes_max: SAVED_BYTES, ..SnapshotBarrier::default() });
        barrier.mark_consistent();
        let mut reader = SnapshotSource { barrier: Arc::clone(&barrier), map: Arc::clone(&map) }.begin().unwrap();
        let mut seen = 0;
        std::thread::scope(|scope| {
            let batch = scope.spawn(|| {
                barrier.apply(|| {
                    for key in (0..2 * KEYS).rev() {
                        let key = key.to_be_bytes();
                        barrier.change(&key, || map.insert(&key, &[2; VALUE_BYTES]))?;
                    }
                    Ok(())
                })
            });
            let deadline = Instant::now() + Duration::from_secs(60);
            while saved_bytes(&barrier) <= SAVED_BYTES {
                assert!(Instant::now() < deadline, "the batch ended without saving values");
                std::thread::yield_now();
            }
            assert!(!batch.is_finished());
            loop {
                assert!(saved_bytes(&barrier) <= SAVED_BYTES + 2 * VALUE_BYTES, "at most one entry beyond the bound");
                let values = reader.next_values().unwrap();
                if values.is_empty() {
                    break;
                }
                assert!(
                    values.iter().all(|(_, value)| *value == [1; VALUE_BYTES]),
                    "the reader sees a value of the batch"
                );
                seen += values.len() as u32;
            }
            batch.join().unwrap().unwrap();
        });
        assert_eq!(seen, KEYS);
        assert_eq!(map.keys(&[]).unwrap().len(), 2 * KEYS as usize);
    }
}
