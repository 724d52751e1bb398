//! A partition's values as of one moment, read while later checkpoints go on. Knows neither pages nor files.
//!
//! Between two batches a tree holds the fold of exactly one prefix. An image begins there and reads on in the order of the keys;
//! whatever a later batch overwrites ahead of it is kept aside as it was. So neither waits for the other, but for a batch
//! whose old values would not fit in the memory set aside for them: that one waits until the image has come by.

use crate::error::Error;
use crate::sled_backend::sled_error;
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
}

/// An image on its way through the tree.
struct Passing {
    /// Keys below have been read.
    next: Vec<u8>,
    /// Values ahead that a batch has overwritten since, as they were: `None` for those that were not there.
    kept: BTreeMap<Vec<u8>, Option<sled::IVec>>,
    kept_bytes: usize,
    /// The tree is gone.
    broken: bool,
}

impl Default for Gate {
    /// Torn: until its journals are applied nobody knows what a tree holds.
    fn default() -> Self {
        Self { torn: Mutex::new(true), passing: Mutex::default(), passed: Condvar::default() }
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
        change: impl FnOnce() -> Result<Option<sled::IVec>, Error>,
    ) -> Result<(), Error> {
        let mut passing = self.passing.lock();
        while passing.as_ref().is_some_and(|p| !p.broken && p.kept_bytes > KEPT_BYTES_MAX) {
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
    fn keep(&mut self, key: &[u8], old: Option<sled::IVec>) {
        if !self.kept.contains_key(key) {
            self.kept_bytes += KEPT_BYTES_EACH + key.len() + old.as_ref().map_or(0, |old| old.len());
            self.kept.insert(key.to_vec(), old);
        }
    }
}

/// From which an image of a partition can be taken at any time, by any thread.
#[derive(Clone)]
pub struct ImageSource {
    pub(crate) gate: Arc<Gate>,
    pub(crate) tree: sled::Tree,
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
    pub fn next(&mut self) -> Result<Vec<(Vec<u8>, sled::IVec)>, Error> {
        let Self { source, at_end } = self;
        let mut values = Vec::new();
        while values.is_empty() && !*at_end {
            let mut guard = source.gate.passing.lock();
            let passing = guard.as_mut().filter(|p| !p.broken).ok_or_else(|| Error::Io {
                doing: "taking a snapshot".into(),
                source: std::io::Error::other("the partition was dropped meanwhile"),
            })?;
            let mut found = BTreeMap::new();
            // sled panics on some kinds of damage.
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for entry in source.tree.range(&*passing.next..).take(VALUES_AT_ONCE) {
                    let (key, value) = entry.map_err(sled_error("reading the store"))?;
                    found.insert(key.to_vec(), Some(value));
                }
                Ok(())
            }));
            read.unwrap_or_else(|_| Err(Error::corrupt("sled", "panicked while reading")))?;
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
