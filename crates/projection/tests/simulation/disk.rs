//! A simulated disk. A killed process loses unflushed writes; a power cut loses unsynced writes.
//! Either may lose all of them or keep the first ones in order. Writes fail on demand, before or
//! after their effect.

use parking_lot::Mutex;
use receipts_store::{Disk, Error, KeyValue, Map, Value};
use receipts_testkit::random::Random;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Changes of names: each with its inode, or `None` if it is removed.
type Names = Vec<(String, Option<usize>)>;
type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process is killed. Writes that the kernel holds survive.
    Kill,
    /// The power is cut. Only synced writes surely survive.
    PowerCut,
}

/// The faults until the next [`SimDisk::set`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// The probability that a write, a sync or a removal fails.
    pub(crate) p_write: f64,
    /// The probability that a read fails.
    pub(crate) p_read: f64,
    /// No file can be opened for writing: the process has no descriptor left.
    pub(crate) no_descriptors: bool,
    /// The process dies after this many further changes of the disk.
    pub(crate) dies_at: Option<u64>,
}

#[derive(Default)]
struct State {
    /// The bytes of each file, and whether they were synced.
    inodes: Vec<(Vec<u8>, bool)>,
    names: BTreeMap<String, usize>,
    /// The names that surely survive a power cut, and the changes since, in order.
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Names,
    maps: BTreeMap<u32, Contents>,
    faults: Faults,
    random: Option<Random>,
    /// True after a simulated death. Every call fails until the process is restarted.
    dead: bool,
    /// True after a failed write. Like sled, the map is of no use until the store is opened again.
    poisoned: bool,
}

#[derive(Default, Clone)]
struct Contents {
    synced: Values,
    flushed: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    fresh: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    live: Values,
}

/// The disk of one member. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

/// The outcome of a change of the disk.
#[derive(PartialEq)]
enum Outcome {
    Success,
    /// Fails before its effect.
    FailsBefore,
    /// Fails after its effect.
    FailsAfter,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.0.lock().random = Some(Random::new(seed));
        disk
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Tells whether the process has died at one of its writes.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// Tells whether the map of values has failed since the store was opened.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.0.lock().poisoned
    }

    /// Ends the process. Leaves the content that the next process finds.
    pub(crate) fn die(&self, death: Death) {
        let state = &mut *self.0.lock();
        let mut random = state.random.take().expect("a stream");
        if death == Death::PowerCut {
            let kept = random.index(state.unsynced_names.len() + 1);
            let changes = std::mem::take(&mut state.unsynced_names);
            change_names(&mut state.synced_names, &changes[..kept]);
            state.names = state.synced_names.clone();
            for (bytes, synced) in state.inodes.iter_mut().filter(|(_, synced)| !synced) {
                // An unwritten tail is missing, or reads as zeros.
                let kept = random.index(bytes.len() + 1);
                if random.chance(0.5) {
                    bytes.truncate(kept)
                } else {
                    bytes[kept..].fill(0)
                }
                *synced = true;
            }
        }
        for map in state.maps.values_mut() {
            let mut values = std::mem::take(&mut map.synced);
            let mut unsynced = std::mem::take(&mut map.flushed);
            let certain = if death == Death::Kill { unsynced.len() } else { 0 };
            unsynced.append(&mut map.fresh);
            let kept = certain + random.index(unsynced.len() - certain + 1);
            apply(&mut values, &unsynced[..kept]);
            // The surviving values are on the disk, so they count as synced.
            map.live = values.clone();
            map.synced = values;
        }
        state.random = Some(random);
        (state.dead, state.poisoned, state.faults) = (false, false, Faults::default());
    }

    /// Ends the process in order: sled closes its file.
    pub(crate) fn close(&self) {
        let state = &mut *self.0.lock();
        for map in state.maps.values_mut() {
            let mut fresh = std::mem::take(&mut map.fresh);
            map.flushed.append(&mut fresh);
        }
        (state.poisoned, state.faults) = (false, Faults::default());
    }
}

fn apply(values: &mut Values, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => _ = values.insert(key.clone(), value.clone()),
            None => _ = values.remove(key),
        }
    }
}

fn change_names(names: &mut BTreeMap<String, usize>, changes: &[(String, Option<usize>)]) {
    for (name, inode) in changes {
        match inode {
            Some(inode) => _ = names.insert(name.clone(), *inode),
            None => _ = names.remove(name),
        }
    }
}

impl State {
    fn failure(&mut self) -> io::Error {
        let full = self.random.as_mut().is_some_and(|random| random.chance(0.5));
        // 5 is EIO.
        if full && !self.dead { io::ErrorKind::StorageFull.into() } else { io::Error::from_raw_os_error(5) }
    }

    fn outcome(&mut self) -> Outcome {
        if let Some(left) = &mut self.faults.dies_at {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.dead = true,
            }
        }
        let p = self.faults.p_write;
        let random = self.random.as_mut().expect("a stream");
        if self.dead {
            Outcome::FailsBefore
        } else if p > 0.0 && random.chance(p) {
            if random.chance(0.5) { Outcome::FailsBefore } else { Outcome::FailsAfter }
        } else {
            Outcome::Success
        }
    }

    /// Makes a change, or fails, or both.
    fn change(&mut self, act: impl FnOnce(&mut Self)) -> io::Result<()> {
        let outcome = self.outcome();
        if outcome != Outcome::FailsBefore {
            act(self);
        }
        if outcome == Outcome::Success { Ok(()) } else { Err(self.failure()) }
    }

    fn may_read(&mut self) -> io::Result<()> {
        let p = self.faults.p_read;
        let random = self.random.as_mut().expect("a stream");
        if self.dead || p > 0.0 && random.chance(p) { Err(self.failure()) } else { Ok(()) }
    }

    fn rename(&mut self, name: &str, inode: Option<usize>) {
        let change = [(name.to_owned(), inode)];
        change_names(&mut self.names, &change);
        self.unsynced_names.extend(change);
    }
}

impl Disk for SimDisk {
    fn map(&self, partition: u32) -> Result<Box<dyn Map>, Error> {
        self.0.lock().maps.entry(partition).or_default();
        Ok(Box::new(SimMap { disk: self.clone(), partition }))
    }

    fn drop_map(&self, _: u32) -> Result<(), Error> {
        panic!("a partition is called damaged and dropped, but nothing here damages one");
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.may_read()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock();
        state.may_read()?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.inodes[inode].0.clone())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.0.lock();
        if state.faults.no_descriptors {
            // 24 is EMFILE.
            return Err(io::Error::from_raw_os_error(24));
        }
        let torn = state.random.as_mut().map_or(0, |random| random.index(bytes.len() + 1));
        let outcome = state.outcome();
        let whole = outcome == Outcome::Success;
        // A failed write has written a part of the bytes.
        state.inodes.push((if whole { bytes } else { &bytes[..torn] }.to_vec(), false));
        let inode = state.inodes.len() - 1;
        if outcome != Outcome::FailsBefore {
            state.rename(name, Some(inode));
        }
        if whole { Ok(()) } else { Err(state.failure()) }
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.0.lock().change(|state| {
            if let Some(&inode) = state.names.get(name) {
                state.inodes[inode].1 = true;
            }
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.lock().change(|state| {
            let inode = state.names.get(from).copied();
            // A single change, so that the file always has exactly one of the two names.
            change_names(&mut state.names, &[(from.to_owned(), None), (to.to_owned(), inode)]);
            state.unsynced_names.push((to.to_owned(), inode));
            state.unsynced_names.push((from.to_owned(), None));
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.lock().change(|state| {
            let changes = std::mem::take(&mut state.unsynced_names);
            change_names(&mut state.synced_names, &changes);
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().change(|state| state.rename(name, None))
    }

    fn path(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct SimMap {
    disk: SimDisk,
    partition: u32,
}

impl SimMap {
    fn usable(&self, doing: &str) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        let state = self.disk.0.lock();
        if !state.poisoned {
            return Ok(state);
        }
        Err(Error::Io { doing: doing.into(), source: io::Error::from_raw_os_error(5) })
    }

    fn change(&self, doing: &str, act: impl FnOnce(&mut Contents)) -> Result<(), Error> {
        let mut state = self.usable(doing)?;
        let partition = self.partition;
        let done = state.change(|state| act(state.maps.get_mut(&partition).expect("a map")));
        state.poisoned |= done.is_err();
        done.map_err(|source| Error::Io { doing: doing.into(), source })
    }
}

impl Map for SimMap {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let mut state = self.usable("reading")?;
        state.may_read().map_err(|source| Error::Io { doing: "reading".into(), source })?;
        Ok(state.maps[&self.partition].live.get(key).map(|value| Value::new(value)))
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut state = self.usable("reading")?;
        state.may_read().map_err(|source| Error::Io { doing: "reading".into(), source })?;
        let live = state.maps[&self.partition].live.range(prefix.to_vec()..);
        Ok(live.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, _)| key.clone()).collect())
    }

    fn values(&self, from: &[u8], most: usize) -> Result<Vec<KeyValue>, Error> {
        let mut state = self.usable("reading")?;
        state.may_read().map_err(|source| Error::Io { doing: "reading".into(), source })?;
        let live = state.maps[&self.partition].live.range(from.to_vec()..).take(most);
        Ok(live.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<Value>, Error> {
        let mut old = None;
        self.change("writing", |map| {
            old = map.live.insert(key.to_vec(), value.to_vec());
            map.fresh.push((key.to_vec(), Some(value.to_vec())));
        })?;
        Ok(old.map(|old| Value::new(&old)))
    }

    fn remove(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let mut old = None;
        self.change("writing", |map| {
            old = map.live.remove(key);
            map.fresh.push((key.to_vec(), None));
        })?;
        Ok(old.map(|old| Value::new(&old)))
    }

    fn flush(&self, sync: bool) -> Result<(), Error> {
        self.change("flushing", |map| {
            let mut fresh = std::mem::take(&mut map.fresh);
            map.flushed.append(&mut fresh);
            if sync {
                let flushed = std::mem::take(&mut map.flushed);
                apply(&mut map.synced, &flushed);
            }
        })
    }
}
