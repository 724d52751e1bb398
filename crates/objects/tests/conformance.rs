//! Every kind of destination behaves the same. If `RECEIPTS_TEST_DESTINATION` names a bucket, it is
//! tested too, with its settings from the environment.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

use receipts_objects::{Destination, Error};
use std::io::{Read as _, Write as _};
use tokio_util::sync::CancellationToken;

/// Returns the names and empty destinations of all kinds.
fn destinations() -> Vec<(&'static str, Destination, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![("memory", Destination::memory().unwrap(), None)];
    let at = folder.path().join("made/when missing");
    all.push(("directory", Destination::open(at.to_str().unwrap()).unwrap(), Some(folder)));
    let folder = tempfile::tempdir().unwrap();
    all.push(("file", Destination::open(&format!("file://{}", folder.path().display())).unwrap(), Some(folder)));
    if let Ok(url) = std::env::var("RECEIPTS_TEST_DESTINATION") {
        all.push(("cloud", Destination::open(&url).unwrap(), None));
    }
    all
}

/// Returns a file of this size, and its contents without repeated parts.
fn file(bytes: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
    let mut state = bytes as u64 + 1;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    })
    .take(bytes)
    .collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&content).unwrap();
    (file, content)
}

fn names(destination: &Destination, folder: &str) -> Vec<String> {
    destination.list(folder).unwrap().into_iter().map(|object| object.name).collect()
}

#[test]
fn objects_of_any_size_are_listed_and_read_back() {
    for (kind, destination, _folder) in destinations() {
        // Sizes: empty, one byte, small, one part, several parts with a rest.
        for bytes in [0, 1, 4_096, 8 << 20, (20 << 20) + 7] {
            let (file, content) = file(bytes);
            let name = format!("a/b/{bytes:012}.x");
            let mut told = 0;
            let sent = destination.put_file(&name, file.path(), &mut |bytes| told += bytes).unwrap();
            assert_eq!((sent, told), (bytes as u64, bytes as u64), "{kind}");
            let mut download = destination.read(&name).unwrap();
            assert_eq!(download.total_bytes(), bytes as u64, "{kind}");
            let mut back = Vec::new();
            download.read_to_end(&mut back).unwrap();
            assert!(back == content, "{kind}: {bytes} bytes changed");
            if bytes > 0 {
                let end = destination.read_end(&name, bytes as u64, 100).unwrap();
                assert_eq!(end, content[bytes.saturating_sub(100)..], "{kind}");
                assert_eq!(destination.read_start(&name, 100).unwrap(), content[..bytes.min(100)], "{kind}");
            }
        }
        destination.put_bytes("a/c", &b"beside"[..]).unwrap();
        let listed = destination.list("a/b").unwrap();
        let sizes: Vec<u64> = listed.iter().map(|object| object.bytes).collect();
        assert_eq!(sizes, [0, 1, 4_096, 8 << 20, (20 << 20) + 7], "{kind}: sorted by name");
        assert!(listed.iter().all(|object| object.modified_ms > 1_600_000_000_000), "{kind}");
        assert_eq!(names(&destination, "").len(), 6, "{kind}");
        for name in names(&destination, "") {
            destination.delete(&name).unwrap();
        }
        assert_eq!(names(&destination, ""), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn object_is_replaced_whole_and_removed_idempotently() {
    for (kind, destination, _folder) in destinations() {
        destination.put_bytes("one", &b"first, and longer"[..]).unwrap();
        destination.put_bytes("one", &b"second"[..]).unwrap();
        let mut back = Vec::new();
        destination.read("one").unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, b"second", "{kind}");
        destination.delete("one").unwrap();
        destination.delete("one").unwrap();
        assert!(matches!(destination.read("one"), Err(Error::Missing { .. })), "{kind}");
        assert!(names(&destination, "nowhere").is_empty(), "{kind}");
    }
}

#[test]
fn stopped_upload_leaves_no_half_object() {
    for (kind, destination, _folder) in destinations() {
        let stop = CancellationToken::new();
        let stopping = destination.clone().stopped_by(stop.clone());
        let (file, _) = file(40 << 20);
        let result = stopping.put_file("half", file.path(), &mut |_| stop.cancel());
        assert!(matches!(result, Err(Error::Stopped)), "{kind}");
        assert!(names(&destination, "").is_empty(), "{kind}: {:?}", names(&destination, ""));
    }
}

#[test]
fn bad_destination_is_refused_without_its_password() {
    for text in ["", "ftp://somewhere/x", "http://somewhere/x", "s4://bucket"] {
        let error = Destination::open(text).unwrap_err().to_string();
        assert!(error.contains("s3://BUCKET/PREFIX"), "{error}");
    }
    let error = Destination::open("ftp://me:hunter2@somewhere/x?sig=hunter2").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}
