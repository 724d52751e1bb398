//! INV-ATOMIC: every medium keeps its promise: batches count whole, in order, and for ever.

use receipts_store::{Backend, Batch, MemoryBackend, SledBackend, SledSettings, SledStore};
use std::path::Path;

const SETTINGS: SledSettings = SledSettings { cache_bytes: 8 << 20, sync: false };

/// Opens or reopens one partition of one medium.
trait Medium {
    type Backend: Backend;
    fn open(&mut self) -> Self::Backend;
    /// Closes the medium.
    fn close(&mut self, backend: Self::Backend);
}

struct InMemory(MemoryBackend);

impl Medium for InMemory {
    type Backend = MemoryBackend;
    fn open(&mut self) -> MemoryBackend {
        self.0.clone()
    }
    fn close(&mut self, _: MemoryBackend) {}
}

struct OnDisk {
    dir: tempfile::TempDir,
    store: Option<SledStore>,
}

impl Medium for OnDisk {
    type Backend = SledBackend;
    fn open(&mut self) -> SledBackend {
        let store = SledStore::open(self.dir.path(), SETTINGS).unwrap();
        let backend = store.partition(3).unwrap();
        self.store = Some(store);
        backend
    }
    fn close(&mut self, backend: SledBackend) {
        backend.wait().unwrap();
        drop(backend);
        self.store = None;
    }
}

/// The store of a service that keeps nothing: the code of the store on disk, over a disk in memory.
struct Ephemeral(SledStore);

impl Medium for Ephemeral {
    type Backend = SledBackend;
    fn open(&mut self) -> SledBackend {
        self.0.partition(3).unwrap()
    }
    fn close(&mut self, backend: SledBackend) {
        backend.wait().unwrap();
    }
}

fn wait_applied(backend: &impl Backend, number: u64) {
    while backend.applied() < number {
        std::thread::yield_now();
    }
}

fn batch(entries: &[(&[u8], Option<&[u8]>)], next_offset: u64) -> Batch {
    let mut batch = Batch::new(3, next_offset, 0);
    for (key, value) in entries {
        match value {
            Some(value) => batch.write(&[key, &b"\0\0"[..]].concat(), value),
            None => batch.remove(key),
        }
    }
    batch.seal();
    batch
}

fn get(backend: &impl Backend, key: &[u8]) -> Option<Vec<u8>> {
    backend.get(&[key, &b"\0\0"[..]].concat()).unwrap().map(|v| v.as_ref().to_vec())
}

fn values_come_back_and_later_ones_win(medium: &mut impl Medium) {
    let backend = medium.open();
    let first = backend.commit(batch(&[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b""))], 1)).unwrap();
    let second = backend.commit(batch(&[(b"a", Some(b"3")), (b"b", None), (b"d", Some(b"4"))], 2)).unwrap();
    assert_eq!(second, first + 1, "batch numbers rise by one");
    wait_applied(&backend, second);
    let expected = |b: &_| {
        assert_eq!(
            [b"a", b"b", b"c", b"d"].map(|k| get(b, k)),
            [Some(b"3".to_vec()), None, Some(vec![]), Some(b"4".to_vec())]
        )
    };
    expected(&backend);
    medium.close(backend);
    let backend = medium.open();
    expected(&backend);
    medium.close(backend);
}

fn keys_come_in_order_and_by_prefix(medium: &mut impl Medium) {
    let backend = medium.open();
    let number = backend
        .commit(batch(&[(b"b2", Some(b"")), (b"a1", Some(b"")), (b"b1", Some(b"")), (b"c1", Some(b""))], 1))
        .unwrap();
    wait_applied(&backend, number);
    let keys = |prefix: &[u8]| backend.keys(prefix).unwrap().iter().map(|k| k[..2].to_vec()).collect::<Vec<_>>();
    assert_eq!(keys(b"b"), [b"b1", b"b2"]);
    assert_eq!(keys(b"").len(), 4);
    assert!(keys(b"x").is_empty());
    medium.close(backend);
}

fn large_batches_come_back_whole(medium: &mut impl Medium) {
    let backend = medium.open();
    let keys: Vec<Vec<u8>> = (0..20_000u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let value = [7u8; 300];
    let entries: Vec<(&[u8], Option<&[u8]>)> = keys.iter().map(|k| (&k[..], Some(&value[..]))).collect();
    let number = backend.commit(batch(&entries, 1)).unwrap();
    wait_applied(&backend, number);
    medium.close(backend);
    let backend = medium.open();
    assert!(keys.iter().all(|k| get(&backend, k).as_deref() == Some(&value)));
    assert_eq!(backend.keys(b"").unwrap().len(), keys.len());
    medium.close(backend);
}

macro_rules! conformance {
    ($($check:ident),*) => {
        mod in_memory {
            $(#[test] fn $check() { super::$check(&mut super::InMemory(super::MemoryBackend::default())) })*
        }
        mod ephemeral {
            $(#[test] fn $check() { super::$check(&mut super::Ephemeral(super::SledStore::in_memory().unwrap())) })*
        }
        mod on_disk {
            $(#[test] fn $check() { super::$check(&mut super::OnDisk { dir: tempfile::tempdir().unwrap(), store: None }) })*
        }
    };
}

conformance!(values_come_back_and_later_ones_win, keys_come_in_order_and_by_prefix, large_batches_come_back_whole);

#[test]
fn only_a_written_store_has_state() {
    let dir = tempfile::tempdir().unwrap();
    let has_state = || SledStore::has_state(dir.path()).unwrap();
    assert!(!has_state());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made");
    let mut medium = OnDisk { dir, store: None };
    let opened = medium.open();
    medium.close(opened);
    assert!(!SledStore::has_state(medium.dir.path()).unwrap(), "an opened partition holds nothing");
    let backend = medium.open();
    let number = backend.commit(batch(&[(b"a", Some(b"1"))], 1)).unwrap();
    wait_applied(&backend, number);
    medium.close(backend);
    assert!(SledStore::has_state(medium.dir.path()).unwrap());
    let backend = medium.open();
    medium.close(backend);
    let aside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(aside.path().join("sled")).unwrap();
    std::fs::create_dir_all(aside.path().join("damaged-1")).unwrap();
    assert!(SledStore::has_state(aside.path()).unwrap(), "it had some");
}

/// A partition that is dropped and reopened at once has all batches of its last owner, who did not
/// wait for them.
#[test]
fn next_owner_finds_all_committed_batches() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), SledSettings { cache_bytes: 8 << 20, sync: true }).unwrap();
    for life in 0..30_u8 {
        let backend = store.partition(3).unwrap();
        if let Some(last) = life.checked_sub(1) {
            assert_eq!(get(&backend, b"a"), Some(vec![last]));
        }
        backend.commit(batch(&[(b"a", Some(&[life])), (b"b", Some(&[7; 4_000]))], u64::from(life))).unwrap();
    }
}

fn journal(dir: &Path) -> Option<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "journal"))
}

/// A process that dies between the journal and sled leaves the journal, which the next process
/// applies.
#[test]
fn leftover_journal_is_applied_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p3.9.journal"), batch(&[(b"a", Some(b"1"))], 5).bytes()).unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    assert_eq!(get(&store.partition(3).unwrap(), b"a"), Some(b"1".to_vec()));
    assert_eq!(journal(dir.path()), None, "the journal is removed");
}

/// A process that dies while it applies a checkpoint leaves any number of the entries in sled.
#[test]
fn partly_applied_journal_is_applied_whole_at_start() {
    let entries: [(&[u8], Option<&[u8]>); 4] =
        [(b"changed", Some(b"new")), (b"removed", None), (b"late", None), (b"made", Some(b"new"))];
    for applied in 0..=entries.len() {
        let mut disk = OnDisk { dir: tempfile::tempdir().unwrap(), store: None };
        let backend = disk.open();
        let old = [(&b"changed"[..], Some(&b"old"[..])), (b"removed", Some(b"old")), (b"late", Some(b"old"))];
        backend.commit(batch(&old, 4)).unwrap();
        backend.commit(batch(&entries[..applied], 5)).unwrap();
        disk.close(backend);
        std::fs::write(disk.dir.path().join("p3.3.journal"), batch(&entries, 5).bytes()).unwrap();
        let backend = disk.open();
        let found = [b"changed", &b"removed"[..], b"late", b"made"].map(|key| get(&backend, key));
        assert_eq!(found, [Some(b"new".to_vec()), None, None, Some(b"new".to_vec())], "{applied} of them applied");
        disk.close(backend);
    }
}

#[test]
fn unfinished_journal_never_counts() {
    let dir = tempfile::tempdir().unwrap();
    let whole = batch(&[(b"a", Some(b"1"))], 5);
    std::fs::write(dir.path().join("p3.9.part"), &whole.bytes()[..whole.bytes().len() / 2]).unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    assert_eq!(get(&store.partition(3).unwrap(), b"a"), None);
}

#[test]
fn damaged_journal_is_refused_until_its_partition_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = batch(&[(b"a", Some(b"1"))], 5).bytes().to_vec();
    bytes[20] ^= 1;
    std::fs::write(dir.path().join("p3.9.journal"), bytes).unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    assert!(store.partition(3).err().unwrap().is_corruption());
    store.partition(4).unwrap();
    store.drop_partition(3).unwrap();
    assert_eq!(get(&store.partition(3).unwrap(), b"a"), None);
}

/// Returns how far sled's newest snapshot file reaches, from its name. An open reads the file after
/// that point.
fn sled_snapshot_end(dir: &Path) -> Option<u64> {
    let names = std::fs::read_dir(dir.join("sled")).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    names.filter_map(|name| u64::from_str_radix(name.strip_prefix("snap.")?, 16).ok()).max()
}

/// The sled snapshot changes no value, and the next open has little to read.
#[test]
fn sled_snapshot_keeps_values_and_shortens_the_start() {
    const VALUES: u32 = 2_000;
    let value = |i: u32| vec![i as u8; 1_000];
    let mut written = Batch::new(3, 1, 0);
    for i in 0..VALUES {
        written.write(&[&i.to_be_bytes()[..], b"\0\0"].concat(), &value(i));
    }
    written.seal();
    let mut disk = OnDisk { dir: tempfile::tempdir().unwrap(), store: None };
    let backend = disk.open();
    backend.commit(written).unwrap();
    disk.close(backend);
    let before = sled_snapshot_end(disk.dir.path()).unwrap_or(0);
    SledStore::write_sled_snapshot(disk.dir.path()).unwrap();
    let after = sled_snapshot_end(disk.dir.path()).unwrap();
    assert!(after > before + u64::from(VALUES) * 1_000, "the sled snapshot reached {before}, then {after}");
    let backend = disk.open();
    assert!(sled_snapshot_end(disk.dir.path()).unwrap() < after + 10_000, "no value was written since");
    for i in 0..VALUES {
        assert_eq!(get(&backend, &i.to_be_bytes()), Some(value(i)));
    }
}

/// A partition that outlives its store commits nothing, and nobody waits for it.
#[test]
fn closed_store_waits_for_no_open_partition() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    let backend = store.partition(3).unwrap();
    let first = backend.commit(batch(&[(b"a", Some(b"1"))], 1)).unwrap();
    drop(store);
    assert_eq!(backend.applied(), first, "batches from before are applied");
    let refusal = backend.commit(batch(&[(b"a", Some(b"2"))], 2)).err().unwrap().to_string();
    assert!(refusal.contains("the store is closed"), "{refusal}");
    assert!(backend.wait().is_err());
}

#[test]
fn second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = SledStore::open(dir.path(), SETTINGS).unwrap();
    let refusal = SledStore::open(dir.path(), SETTINGS).err().unwrap().to_string();
    assert!(refusal.contains("in use by another process"), "{refusal}");
}

#[test]
fn unreadable_store_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    let backend = store.partition(3).unwrap();
    backend.commit(batch(&[(b"a", Some(b"1"))], 1)).unwrap();
    backend.wait().unwrap();
    drop((backend, store));
    std::fs::write(dir.path().join("sled").join("conf"), b"not what sled wrote").unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    assert_eq!(get(&store.partition(3).unwrap(), b"a"), None, "starts empty, to be rebuilt from the log");
    assert!(dir.path().join("damaged-1").join("sled").is_dir());
}
