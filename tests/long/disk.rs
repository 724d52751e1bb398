//! INV-ACK, INV-PREFIX, INV-REFUSE: `receipts serve` on a disk that fills up, and on a read-only
//! one. The service goes on answering or ends with a sentence. It acknowledges only events that it
//! has, and recovers when there is room.
//!
//! The disks are tmpfs, which only root may mount. Without root these tests leave themselves out
//! and say so.

use receipts_tests::process::request;
use receipts_tests::{TIMEOUT, binary, may_use_root};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

const READERS: usize = 3_000;
const RECEIPT: &str = "/v1/conversations/g1/messages/m1/receipt";

/// A small file system of the test's own.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "receipts-test"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs cannot be mounted: this test needs root");
        Self(at.to_owned())
    }

    /// Fills the disk up to the last `leave` bytes.
    fn fill(&self, leave: usize) {
        let mut ballast = File::create(self.0.join("ballast")).expect("a file");
        let zeros = vec![0; 4_096];
        while ballast.write_all(&zeros).is_ok() {}
        let length = ballast.metadata().expect("there").len();
        ballast.set_len(length.saturating_sub(leave as u64)).expect("cut");
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A running service with its standard error in a file.
struct Process {
    child: Child,
    address: String,
    errors: PathBuf,
}

impl Process {
    fn start(data: &Path) -> Result<Self, String> {
        let errors = data.with_extension("log");
        let mut child = Command::new(binary("receipts"))
            .args(["serve", "--json", "--http-listen", "127.0.0.1:0", "--projector-checkpoint-interval-ms", "100"])
            .args(["--projector-update-window-ms", "10", "--data-dir"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        match serde_json::from_str::<Value>(&line) {
            Ok(ready) => {
                let url = ready["http"].as_str().expect("an address");
                Ok(Self { address: url.trim_start_matches("http://").to_owned(), child, errors })
            }
            Err(_) => {
                let status = child.wait().expect("ended");
                assert_eq!(status.code(), Some(1), "in order");
                Err(fs::read_to_string(errors).expect("its words"))
            }
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.errors).expect("its words")
    }

    /// Posts events and returns the status and body; `None` if the connection fails.
    fn post(&self, events: &Value) -> Option<(u16, Value)> {
        let headers = [("Content-Type", "application/json")];
        let answer = request(&self.address, "POST", "/v1/events", &headers, &events.to_string()).ok()?;
        Some((answer.status, answer.body))
    }

    fn read_count(&self) -> Option<u64> {
        let answer = request(&self.address, "GET", RECEIPT, &[], "").ok()?;
        assert_eq!(answer.status, 200, "a read is answered or nobody is there: {}", answer.body);
        answer.body["read_count"].as_u64()
    }

    fn stop(&mut self) -> Option<i32> {
        _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        self.child.wait().expect("ended").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn sent() -> Value {
    let recipients: Vec<String> = (0..READERS).map(|n| format!("u{n}")).collect();
    json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a", "sent_at_ms": 1,
           "need_read_receipt": true, "recipients": recipients})
}

fn read(n: usize) -> Value {
    json!({"type": "message.read", "conversation_id": "g1", "reader_id": format!("u{n}"), "message_ids": ["m1"]})
}

/// Posts reads until `enough` holds or the connection fails. Returns the acknowledged reads and the
/// number of open outcomes.
fn post(process: &Process, from: usize, mut enough: impl FnMut(usize, Option<u16>) -> bool) -> (Vec<usize>, usize) {
    let (mut acknowledged, mut open) = (Vec::new(), 0);
    for n in from..READERS {
        let answer = process.post(&read(n));
        let status = answer.as_ref().map(|(status, _)| *status);
        match answer {
            Some((202, _)) => acknowledged.push(n),
            Some((503, _)) | None => open += 1,
            Some((status, body)) => panic!("{status}: {body}"),
        }
        if enough(acknowledged.len(), status) || status.is_none() {
            break;
        }
    }
    (acknowledged, open)
}

/// Starts the service with room on the disk. It has every acknowledged read, and each refused one
/// at most once.
fn all_is_there(data: &Path, acknowledged: usize, open: usize) {
    let mut process = Process::start(data).unwrap_or_else(|words| panic!("with room it starts: {words}"));
    let count = process.read_count().expect("it answers") as usize;
    assert!(
        (acknowledged..=acknowledged + open).contains(&count),
        "{acknowledged}, {open} open, and {count} are there"
    );
    let (more, _) = post(&process, READERS - 1, |_, _| true);
    assert_eq!(more, [READERS - 1], "and it takes events again");
    assert_eq!(process.stop(), Some(0));
    let aside = fs::read_dir(data.join("store")).expect("a store").flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).count();
    assert_eq!(aside, 0, "a full disk is no damage");
}

/// INV-ACK: log and store are on the disk that fills up.
#[test]
fn full_disk_loses_no_acknowledged_event() {
    if !may_use_root("disks that are full or read-only") {
        return;
    }
    for leave in [0, 100_000, 600_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let disk = Disk::mount(&data, "size=64m");
        let mut process = Process::start(&data).expect("it starts");
        assert_eq!(process.post(&json!([sent()])).expect("answered").0, 202);
        let (mut acknowledged, mut open) = post(&process, 0, |acknowledged, _| acknowledged >= 50);
        disk.fill(leave);
        // Until the service refuses three times or ends.
        let mut refused = 0;
        let (more, more_open) = post(&process, 50, |_, status| {
            refused += usize::from(status != Some(202));
            refused >= 3
        });
        acknowledged.extend(more);
        open += more_open;
        assert!(open > 0, "the disk was never full");
        let deadline = Instant::now() + TIMEOUT;
        match process.read_count() {
            // The service lives: it soon answers at least the acknowledged reads.
            Some(_) => {
                while process.ended().is_none()
                    && process.read_count().is_some_and(|count| (count as usize) < acknowledged.len())
                {
                    assert!(Instant::now() < deadline, "what was acknowledged is not answered: {}", process.words());
                }
            }
            None => assert!(process.child.wait().is_ok_and(|status| status.code() == Some(1)), "it ends in order"),
        }
        disk.free();
        let words = process.words();
        eprintln!("{leave} B left: {} acknowledged, {open} open; ended: {:?}", acknowledged.len(), process.ended());
        assert!(words.contains("No space left") || words.contains("no storage space"), "it says why: {words}");
        if process.ended().is_none() {
            let _any_exit_code = process.stop();
        }
        drop(process);
        all_is_there(&data, acknowledged.len(), open);
    }
}

/// INV-ACK: only the log has no room. The service refuses in a sentence, keeps no refused event,
/// and takes events again without a restart as soon as there is room. Dead letters that were due
/// meanwhile are complete.
#[test]
fn full_log_refuses_and_recovers_without_a_restart() {
    if !may_use_root("disks that are full or read-only") {
        return;
    }
    for leave in [0, 100_000, 3_000_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let disk = Disk::mount(&data.join("log"), "size=64m");
        let mut process = Process::start(&data).expect("it starts");
        assert_eq!(process.post(&json!([sent()])).expect("answered").0, 202);
        let (mut acknowledged, open) = post(&process, 0, |acknowledged, _| acknowledged >= 50);
        assert_eq!(open, 0);
        for _ in 0..2 {
            disk.fill(leave);
            for n in acknowledged.len()..acknowledged.len() + 5 {
                let (status, body) = process.post(&json!([read(n), read(n + 1)])).expect("it lives");
                assert_eq!(status, 503, "{body}");
                assert_eq!(body["title"], "Nothing was written", "it is not called open: {body}");
            }
            let deadline = Instant::now() + TIMEOUT;
            while process.read_count() != Some(acknowledged.len() as u64) {
                assert!(Instant::now() < deadline, "it answers what it took: {}", process.words());
            }
            disk.free();
            let (more, open) = post(&process, acknowledged.len(), |acknowledged, _| acknowledged >= 50);
            assert_eq!(open, 0, "with room the next append is taken: {}", process.words());
            acknowledged.extend(more);
        }
        assert!(process.words().contains("No space left"), "it says why: {}", process.words());
        assert_eq!(process.ended(), None, "the same process all the time");
        assert_eq!(process.stop(), Some(0), "{}", process.words());
        drop(process);
        // The log is exact: no refused event is in it.
        all_is_there(&data, acknowledged.len(), 0);
    }
}

/// Only the store has no room. The service takes and answers events all the same, and a start on a
/// full disk is not taken for damage.
#[test]
fn full_store_checkpoints_later_and_loses_nothing() {
    if !may_use_root("disks that are full or read-only") {
        return;
    }
    for leave in [0, 40_000, 200_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let disk = Disk::mount(&data.join("store"), "size=16m");
        let mut process = Process::start(&data).expect("it starts");
        assert_eq!(process.post(&json!([sent()])).expect("answered").0, 202);
        disk.fill(leave);
        let (acknowledged, open) = post(&process, 0, |acknowledged, _| acknowledged >= 300);
        let deadline = Instant::now() + TIMEOUT;
        // The log has room, so an outcome is open only if the process ends because sled has failed.
        while open > 0 && process.ended().is_none() {
            assert!(Instant::now() < deadline, "it takes events or ends: {}", process.words());
        }
        let lives = process.ended().is_none();
        if lives {
            while process.read_count().is_some_and(|count| (count as usize) < acknowledged.len()) {
                assert!(Instant::now() < deadline, "{}", process.words());
            }
        }
        let put_off = process.words().matches("no checkpoint can be written").count();
        eprintln!("{leave} B left: {} acknowledged, lives: {lives}, put off {put_off} times", acknowledged.len());
        // On a full disk the service starts, or says why it cannot.
        _ = process.child.kill();
        _ = process.child.wait();
        drop(process);
        if let Err(words) = Process::start(&data) {
            assert!(words.contains("No space left") || words.contains("no storage space"), "it says why: {words}");
        }
        disk.free();
        all_is_there(&data, acknowledged.len(), open);
    }
}

#[test]
fn read_only_data_directory_is_refused() {
    if !may_use_root("disks that are full or read-only") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let _disk = Disk::mount(&data, "size=1m,ro");
    let words = Process::start(&data).err().expect("refused");
    assert!(words.contains("Read-only file system") && words.contains("choose another --data-dir"), "{words}");
}
