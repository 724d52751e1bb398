//! A disk in memory, for a service that keeps nothing. Its content ends with the process; it writes
//! no file.

use crate::disk::{Disk, KeyValue, Map, Value};
use crate::error::Error;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

type Values = Arc<RwLock<BTreeMap<Vec<u8>, Value>>>;

/// The files and maps of a store, in memory.
#[derive(Default)]
pub(crate) struct MemoryDisk {
    maps: RwLock<BTreeMap<u32, Values>>,
    files: RwLock<BTreeMap<String, Vec<u8>>>,
}

impl Disk for MemoryDisk {
    fn map(&self, partition: u32) -> Result<Box<dyn Map>, Error> {
        Ok(Box::new(MemoryMap(self.maps.write().entry(partition).or_default().clone())))
    }

    fn drop_map(&self, partition: u32) -> Result<(), Error> {
        self.maps.write().remove(&partition);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let maps = self.maps.read();
        let of_map = |map: &Values| map.read().iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        maps.values().map(of_map).sum::<usize>() as u64
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.read().keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.files.read().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.write().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn sync(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.write();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.write().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn path(&self, name: &str) -> String {
        format!("{name} in memory")
    }
}

struct MemoryMap(Values);

impl Map for MemoryMap {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        Ok(self.0.read().get(key).cloned())
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let values = self.0.read();
        let from = values.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, _)| key.clone()).collect())
    }

    fn values(&self, from: &[u8], most: usize) -> Result<Vec<KeyValue>, Error> {
        let values = self.0.read();
        let from = values.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).take(most);
        Ok(from.map(|(key, value)| (key.clone(), value.to_vec())).collect())
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<Value>, Error> {
        Ok(self.0.write().insert(key.to_vec(), Value::new(value)))
    }

    fn remove(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        Ok(self.0.write().remove(key))
    }

    fn flush(&self, _: bool) -> Result<(), Error> {
        Ok(())
    }
}
