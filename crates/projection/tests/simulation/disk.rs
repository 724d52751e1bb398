//! A disk in memory that dies as disks do: a killed process loses what was not flushed, a power cut what was not synced,
//! in part or as a whole, in order. Its writes fail as told, before they take effect or after.

use parking_lot::Mutex;
use receipts_store::{Disk, Error, KeyValue, Map, Value};
use receipts_testkit::random::Random;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// What a name stands for; `None` once it is removed.
type Names = Vec<(String, Option<usize>)>;
type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// How a process ends that nobody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The kernel lives on, and with it what was handed to it.
    Kill,
    /// Only what was synced is sure to be there.
    PowerCut,
}

/// What goes wrong until further notice.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// How often a write, a sync or a removal fails.
    pub(crate) p_write: f64,
    /// How often a read does.
    pub(crate) p_read: f64,
    /// The process dies at that change of the disk from now.
    pub(crate) dies_at: Option<u64>,
}

#[derive(Default)]
struct State {
    /// By number: the bytes of a file, and whether they were synced.
    inodes: Vec<(Vec<u8>, bool)>,
    names: BTreeMap<String, usize>,
    /// Names as a power cut leaves them for certain, and the changes since, in order.
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Names,
    maps: BTreeMap<u32, Contents>,
    faults: Faults,
    random: Option<Random>,
    /// Nothing is done any more: the process is dead and does not know.
    dead: bool,
    /// As sled is after a failure: of no use until it is opened again.
    poisoned: bool,
}

#[derive(Default, Clone)]
struct Contents {
    synced: Values,
    flushed: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    fresh: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    live: Values,
}

/// The disk of one member. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(PartialEq)]
enum Fate {
    Good,
    Before,
    After,
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

    /// Whether the process that uses it has died at one of its writes.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// Whether the map of values has failed since the store was opened.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.0.lock().poisoned
    }

    /// The process is gone. What the next one finds.
    pub(crate) fn die(&self, death: Death) {
        let state = &mut *self.0.lock();
        let mut random = state.random.take().expect("a stream");
        if death == Death::PowerCut {
            let kept = random.index(state.unsynced_names.len() + 1);
            let changes = std::mem::take(&mut state.unsynced_names);
            change_names(&mut state.synced_names, &changes[..kept]);
            state.names = state.synced_names.clone();
            for (bytes, synced) in state.inodes.iter_mut().filter(|(_, synced)| !synced) {
                // A tail that was never written is missing, or reads as zeros.
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
            let mut unsure = std::mem::take(&mut map.flushed);
            let sure = if death == Death::Kill { unsure.len() } else { 0 };
            unsure.append(&mut map.fresh);
            let kept = sure + random.index(unsure.len() - sure + 1);
            apply(&mut values, &unsure[..kept]);
            // What has come back from the disk is on it.
            map.live = values.clone();
            map.synced = values;
        }
        state.random = Some(random);
        (state.dead, state.poisoned, state.faults) = (false, false, Faults::default());
    }

    /// The process has ended in order: sled has closed its file.
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

    fn fate(&mut self) -> Fate {
        if let Some(left) = &mut self.faults.dies_at {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.dead = true,
            }
        }
        let p = self.faults.p_write;
        let random = self.random.as_mut().expect("a stream");
        if self.dead {
            Fate::Before
        } else if p > 0.0 && random.chance(p) {
            if random.chance(0.5) { Fate::Before } else { Fate::After }
        } else {
            Fate::Good
        }
    }

    /// Does something, or fails, or both.
    fn change(&mut self, act: impl FnOnce(&mut Self)) -> io::Result<()> {
        let fate = self.fate();
        if fate != Fate::Before {
            act(self);
        }
        if fate == Fate::Good { Ok(()) } else { Err(self.failure()) }
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
        panic!("a partition is called damaged and dropped, and nothing here damages any");
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
        let torn = state.random.as_mut().map_or(0, |random| random.index(bytes.len() + 1));
        let fate = state.fate();
        let whole = fate == Fate::Good;
        // A write that fails has written something.
        state.inodes.push((if whole { bytes } else { &bytes[..torn] }.to_vec(), false));
        let inode = state.inodes.len() - 1;
        if fate != Fate::Before {
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
            // One change, not two: a name is never seen in both places or in neither.
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

    fn place(&self, name: &str) -> String {
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
