//! INV-CODES: the stores and snapshots of version 2 give the same answers as when they were
//! written, and those of version 1 are refused with a sentence that says what to do.
//!
//! Each file in `tests/golden` was written by the version in its name. A file of version 2 is
//! written anew with each draft of its format, until the release (ADR 0034).
//! `RECEIPTS_TEST_BLESS=1` writes a missing one.

use receipts_fold::effects::Effects;
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::snapshot::{PendingSnapshot, Provenance, Reader, hex};
use receipts_store::{Paged, SledBackend, SledSettings, SledStore};
use receipts_testkit::history::{History, Shape};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const LIMITS: Limits = Limits {
    retention_ms: 30 * 86_400_000,
    parked_max: 20,
    parked_bytes: 1 << 20,
    parked_age_ms: 60_000,
    read_times: true,
    unwrap: receipts_event::Unwrap::None,
    erasures_max: 1_000,
    policy_types_max: 1_000,
};
const SETTINGS: SledSettings = SledSettings { cache_bytes: 4 << 20, sync: false };
/// The digest of the history in the files, recorded when they were written.
const DIGEST: &str = "61a3ae431763cd3081a93660f5ebb571da901463ce55f7be94024a3ca016294e";
const RECEIPT: &str = r#"{"tenant":"t2","conversation_id":"g1","message_id":"m0","status":"ok","kind":"group","sender_id":"w64","sent_at_ms":1780000146897,"audience_count":101,"read_count":12,"unread_count":84,"hidden_count":3,"departed_count":2,"all_read":false,"last_read_at_ms":1780000403390,"version":858}"#;

type Fold = State<Paged<SledBackend>>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(store: &SledStore) -> Fold {
    State::open(Paged::new(store.partition(0).unwrap(), 0, 1 << 20), LIMITS).unwrap()
}

/// Folds a range of the one history that all files hold.
fn fold(state: &mut Fold, records: Range<usize>) {
    let shape = Shape { events: 600, conversations: 6, p_large_group: 0.2, p_jump: 0.0, ..Shape::wild() };
    let made = History::generate(1, &shape);
    for (at, event) in &made[records.start..made.len().min(records.end)] {
        let at = RecordMetadata { partition: at.partition, offset: at.offset, timestamp_ms: at.timestamp_ms };
        let (key, value) = (event.key(), event.to_json());
        let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
        state.apply(at, event, raw, &mut Effects::default()).unwrap();
    }
    state.write_meta();
}

fn commit(state: &mut Fold) {
    use receipts_store::Backend as _;
    let batch = state.pages().batch(state.next_offset());
    let saved = state.pages().backend().commit(batch).unwrap();
    state.pages_mut().mark_saved(saved);
    state.pages().backend().wait().unwrap();
}

fn snapshot(state: &Fold) -> (Vec<u8>, String) {
    let provenance = Provenance {
        log: r#"{"log":"embedded","id":"golden"}"#.into(),
        partition: 0,
        partition_count: 1,
        limits: LIMITS,
        taken_ms: 1_780_000_000_000,
        program: "receipts 0.1.0".into(),
    };
    let taking = PendingSnapshot::begin(&state.pages().backend().snapshot_source(), provenance).unwrap().unwrap();
    let (bytes, summary, _) = taking.write(Vec::new(), |_| Ok(())).unwrap();
    (bytes, hex(&summary.digest))
}

/// Returns the digest of a state, and the fullest receipt in it as JSON.
fn answers_of(state: &Fold) -> (String, String) {
    let receipts = (state.first_message()..state.messages()).filter_map(|number| state.receipt_of(number).unwrap());
    let fullest = receipts.max_by_key(|receipt| receipt.counts.as_ref().map_or(0, |counts| counts.read_count));
    (snapshot(state).1, serde_json::to_string(&fullest.unwrap()).unwrap())
}

/// Packs every file below a folder into one: for each the length and text of its path, then the
/// length and bytes of its contents.
fn pack(folder: &Path) -> Vec<u8> {
    fn walk(folder: &Path, within: &Path, to: &mut Vec<u8>) {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, within, to);
            } else {
                let name = path.strip_prefix(within).unwrap().to_str().unwrap().to_owned();
                for bytes in [name.into_bytes(), fs::read(&path).unwrap()] {
                    to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    to.extend_from_slice(&bytes);
                }
            }
        }
    }
    let mut bytes = Vec::new();
    walk(folder, folder, &mut bytes);
    zstd::bulk::compress(&bytes, 19).unwrap()
}

fn unpack(bytes: &[u8], folder: &Path) {
    let bytes = zstd::bulk::decompress(bytes, 64 << 20).unwrap();
    let mut rest = &*bytes;
    let mut blob = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (blob, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        rest = after;
        Some(blob)
    };
    while let Some(name) = blob() {
        let path = folder.join(std::str::from_utf8(name).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, blob().unwrap()).unwrap();
    }
}

/// Reads a golden file. Writes it first if it is missing and the variable is set.
fn read(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = golden(name);
    if !path.exists() && std::env::var_os("RECEIPTS_TEST_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, make()).unwrap();
    }
    fs::read(&path).unwrap()
}

/// Returns a packed store whose last checkpoint is still a journal.
fn make_store() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    let mut state = open(&store);
    fold(&mut state, 0..400);
    commit(&mut state);
    fold(&mut state, 400..usize::MAX);
    let journal = state.pages().batch(state.next_offset());
    drop(state);
    drop(store);
    fs::write(dir.path().join("p0.1.journal"), journal.bytes()).unwrap();
    pack(dir.path())
}

fn make_snapshot() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    let mut state = open(&store);
    fold(&mut state, 0..usize::MAX);
    commit(&mut state);
    snapshot(&state).0
}

#[test]
fn stored_pages_and_journal_give_equal_answers() {
    let bytes = read("store-v2.zst", make_store);
    let dir = tempfile::tempdir().unwrap();
    unpack(&bytes, dir.path());
    let store = SledStore::open_strict(dir.path(), SETTINGS).unwrap();
    assert_eq!(answers_of(&open(&store)), (DIGEST.to_owned(), RECEIPT.to_owned()));
}

#[test]
fn golden_snapshot_restores_with_equal_answers() {
    let bytes = read("snapshot-v2.snapshot", make_snapshot);
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open_strict(dir.path(), SETTINGS).unwrap();
    let reader = Reader::new(&*bytes).unwrap();
    let header = reader.header().clone();
    assert_eq!(
        (header.log.as_str(), header.limits, header.partition_count),
        (r#"{"log":"embedded","id":"golden"}"#, LIMITS, 1)
    );
    let summary = store.refill(0, header.next_offset, |page| reader.read(page)).unwrap();
    assert_eq!(hex(&summary.digest), DIGEST);
    assert_eq!(answers_of(&open(&store)), (DIGEST.to_owned(), RECEIPT.to_owned()));
}

/// The written pages equal the golden ones. The compression may
/// differ.
#[test]
fn newest_version_writes_the_golden_snapshot() {
    let contents = |bytes: &[u8]| {
        let reader = Reader::new(bytes).unwrap();
        let (header, mut pages) = (reader.header().clone(), Vec::new());
        let summary = reader.read(|key, payload| {
            pages.push((key.to_vec(), payload.to_vec()));
            Ok(())
        });
        (header, summary.unwrap(), pages)
    };
    let (held, made) = (contents(&read("snapshot-v2.snapshot", make_snapshot)), contents(&make_snapshot()));
    assert!(held == made, "the format has changed: its draft number goes up, and its golden files are written anew");
}

/// A store of version 1 is refused in its pages and in its journals, and stays as it is.
#[test]
fn version_1_store_is_refused_and_unchanged() {
    let bytes = fs::read(golden("store-v1.zst")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack(&bytes, dir.path());
    let refused = |store: &SledStore| {
        let error = match store.partition(0) {
            Ok(backend) => State::open(Paged::new(backend, 0, 1 << 20), LIMITS).map(drop).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("has format version 1, this program reads version 2"), "{error}");
        assert!(error.contains("run `receipts rebuild"), "{error}");
        error
    };
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    assert!(refused(&store).starts_with("a journal"));
    drop(store);
    let journal = dir.path().join("p0.1.journal");
    assert!(journal.exists(), "a refused journal is kept");
    fs::remove_file(journal).unwrap();
    let store = SledStore::open(dir.path(), SETTINGS).unwrap();
    assert!(refused(&store).starts_with("a page"));
}

#[test]
fn version_1_snapshot_is_refused() {
    let error = Reader::new(&*fs::read(golden("snapshot-v1.snapshot")).unwrap()).map(drop).unwrap_err().to_string();
    assert!(error.contains("a snapshot has format version 1") && error.contains("`receipts rebuild"), "{error}");
}
