//! A partition's values as of one moment, read while later checkpoints go on. Knows neither pages nor files.
//!
//! Between two batches a tree holds the fold of exactly one prefix. An image begins there and reads on in the order of the keys;
//! whatever a later batch overwrites ahead of it is kept aside as it was. So neither waits for the other, but for a batch
//! whose old values would not fit in the memory set aside for them: that one waits until the image has come by.

use crate::disk::{KeyValue, Map, Value};
use crate::error::Error;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Values read at once. A batch waits for no longer than that takes.
const VALUES_AT_ONCE: usize = 256;
/// What overwritten values may take until the image has read them, bytes; those of one entry more.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// What keeping a value costs beside its bytes, roughly.
const KEPT_BYTES_EACH: usize = 128;

/// Where batches and an image of one partition meet.
pub(crate) struct Gate {
    /// Held while a batch is applied. True where the tree may hold a part of one.
    torn: Mutex<bool>,
    passing: Mutex<Option<Passing>>,
    passed: Condvar,
    kept_bytes_max: usize,
}

/// An image on its way through the tree.
struct Passing {
    /// Keys below have been read.
    next: Vec<u8>,
    /// Values ahead that a batch has overwritten since, as they were: `None` for those that were not there.
    kept: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    kept_bytes: usize,
    /// The tree is gone.
    broken: bool,
}

impl Default for Gate {
    /// Torn: until its journals are applied nobody knows what a tree holds.
    fn default() -> Self {
        let (torn, passing, passed) = (Mutex::new(true), Mutex::default(), Condvar::default());
        Self { torn, passing, passed, kept_bytes_max: KEPT_BYTES_MAX }
    }
}

impl Gate {
    /// Lets a batch be applied by `apply`; where that fails the tree is torn from then on.
    pub(crate) fn applying(&self, apply: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut torn = self.torn.lock();
        *torn = true;
        apply()?;
        *torn = false;
        Ok(())
    }

    /// All journals are applied: the tree holds one prefix.
    pub(crate) fn is_whole(&self) {
        *self.torn.lock() = false;
    }

    /// The tree is about to be dropped, or to hold something else.
    pub(crate) fn gone(&self) {
        *self.torn.lock() = true;
        if let Some(passing) = self.passing.lock().as_mut() {
            passing.broken = true;
            passing.kept.clear();
        }
        self.passed.notify_all();
    }

    /// Changes one value by `change`, which returns what was there before.
    pub(crate) fn change(
        &self,
        key: &[u8],
        change: impl FnOnce() -> Result<Option<Value>, Error>,
    ) -> Result<(), Error> {
        let mut passing = self.passing.lock();
        while passing.as_ref().is_some_and(|p| !p.broken && p.kept_bytes > self.kept_bytes_max) {
            self.passed.wait(&mut passing);
        }
        let old = change()?;
        if let Some(passing) = passing.as_mut().filter(|p| !p.broken && *p.next <= *key) {
            passing.keep(key, old);
        }
        Ok(())
    }
}

impl Passing {
    /// Remembers what was there when the image began: only the first change of a key knows.
    fn keep(&mut self, key: &[u8], old: Option<Value>) {
        if !self.kept.contains_key(key) {
            self.kept_bytes += KEPT_BYTES_EACH + key.len() + old.as_ref().map_or(0, |old| old.len());
            // A copy: sled's own may be a part of its whole page.
            self.kept.insert(key.to_vec(), old.map(|old| old.to_vec()));
        }
    }
}

/// From which an image of a partition can be taken at any time, by any thread.
#[derive(Clone)]
pub struct ImageSource {
    pub(crate) gate: Arc<Gate>,
    pub(crate) map: Arc<dyn Map>,
}

impl ImageSource {
    /// Begins an image: the partition as of the last checkpoint that is wholly in the store. Waits while one is being
    /// applied.
    ///
    /// # Errors
    /// Where another image of the partition is being taken, or a checkpoint could not be applied.
    pub fn begin(&self) -> Result<Image, Error> {
        let busy = |why: &str| Error::Io { doing: "beginning a snapshot".into(), source: std::io::Error::other(why) };
        let torn = self.gate.torn.lock();
        if *torn {
            return Err(busy("a checkpoint is in the store in part only: the next start applies it whole"));
        }
        let mut passing = self.gate.passing.lock();
        if passing.is_some() {
            return Err(busy("another snapshot of the partition is being taken"));
        }
        *passing = Some(Passing { next: Vec::new(), kept: BTreeMap::new(), kept_bytes: 0, broken: false });
        drop(passing);
        drop(torn);
        Ok(Image { source: self.clone(), at_end: false })
    }
}

/// The values of a partition as of one moment, in the order of their keys.
pub struct Image {
    source: ImageSource,
    at_end: bool,
}

impl Image {
    /// The next values, in order; none at the end.
    ///
    /// # Errors
    /// Where the store fails, or the partition was dropped meanwhile.
    pub fn next_values(&mut self) -> Result<Vec<KeyValue>, Error> {
        let Self { source, at_end } = self;
        let mut values = Vec::new();
        while values.is_empty() && !*at_end {
            let mut guard = source.gate.passing.lock();
            let passing = guard.as_mut().filter(|p| !p.broken).ok_or_else(|| Error::Io {
                doing: "taking a snapshot".into(),
                source: std::io::Error::other("the partition was dropped meanwhile"),
            })?;
            let read = source.map.values(&passing.next, VALUES_AT_ONCE)?;
            let mut found: BTreeMap<_, _> = read.into_iter().map(|(key, value)| (key, Some(value))).collect();
            // Beyond the last value of a full read there may be more; else whatever is left was overwritten.
            *at_end = found.len() < VALUES_AT_ONCE;
            let last = if *at_end { None } else { found.last_key_value().map(|(key, _)| key.clone()) };
            let kept = match &last {
                Some(last) => {
                    let rest = passing.kept.split_off_after(last);
                    std::mem::replace(&mut passing.kept, rest)
                }
                None => std::mem::take(&mut passing.kept),
            };
            for (key, old) in &kept {
                passing.kept_bytes -= KEPT_BYTES_EACH + key.len() + old.as_ref().map_or(0, |old| old.len());
            }
            found.extend(kept);
            if let Some(mut last) = last {
                last.push(0);
                passing.next = last;
            }
            if *at_end {
                *guard = None;
            }
            MutexGuard::unlock_fair(guard);
            source.gate.passed.notify_all();
            values.extend(found.into_iter().filter_map(|(key, value)| Some((key, value?))));
        }
        Ok(values)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !self.at_end {
            *self.source.gate.passing.lock() = None;
            self.source.gate.passed.notify_all();
        }
    }
}

trait SplitAfter<K, V> {
    /// Splits off what stands behind a key.
    fn split_off_after(&mut self, key: &K) -> BTreeMap<K, V>;
}

impl<V> SplitAfter<Vec<u8>, V> for BTreeMap<Vec<u8>, V> {
    fn split_off_after(&mut self, key: &Vec<u8>) -> Self {
        let first = self.range::<Vec<u8>, _>((Bound::Excluded(key), Bound::Unbounded)).next();
        match first.map(|(key, _)| key.clone()) {
            Some(first) => self.split_off(&first),
            None => Self::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk as _;
    use crate::sled_backend::SledSettings;
    use crate::sled_disk::SledDisk;
    use std::time::{Duration, Instant};

    const KEYS: u32 = 3_000;
    const VALUE_BYTES: usize = 1_000;
    const KEPT_BYTES: usize = 100_000;

    fn kept_bytes(gate: &Gate) -> usize {
        gate.passing.lock().as_ref().map_or(0, |passing| passing.kept_bytes)
    }

    #[test]
    fn a_batch_that_would_take_too_much_memory_waits_for_the_image_and_changes_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SledDisk::open(dir.path(), SledSettings { cache_bytes: 1 << 20, sync: false }).unwrap();
        let map: Arc<dyn Map> = disk.map(0).unwrap().into();
        for key in 0..KEYS {
            map.insert(&key.to_be_bytes(), &[1; VALUE_BYTES]).unwrap();
        }
        let gate = Arc::new(Gate { kept_bytes_max: KEPT_BYTES, ..Gate::default() });
        gate.is_whole();
        let mut image = ImageSource { gate: Arc::clone(&gate), map: Arc::clone(&map) }.begin().unwrap();
        let mut seen = 0;
        std::thread::scope(|scope| {
            let batch = scope.spawn(|| {
                gate.applying(|| {
                    for key in (0..2 * KEYS).rev() {
                        let key = key.to_be_bytes();
                        gate.change(&key, || map.insert(&key, &[2; VALUE_BYTES]))?;
                    }
                    Ok(())
                })
            });
            let deadline = Instant::now() + Duration::from_secs(60);
            while kept_bytes(&gate) <= KEPT_BYTES {
                assert!(Instant::now() < deadline, "the batch is done: nothing was kept");
                std::thread::yield_now();
            }
            assert!(!batch.is_finished());
            loop {
                assert!(kept_bytes(&gate) <= KEPT_BYTES + 2 * VALUE_BYTES, "the bound, and one entry");
                let values = image.next_values().unwrap();
                if values.is_empty() {
                    break;
                }
                assert!(values.iter().all(|(_, value)| *value == [1; VALUE_BYTES]), "a value of the batch");
                seen += values.len() as u32;
            }
            batch.join().unwrap().unwrap();
        });
        assert_eq!(seen, KEYS);
        assert_eq!(map.keys(&[]).unwrap().len(), 2 * KEYS as usize);
    }
}
