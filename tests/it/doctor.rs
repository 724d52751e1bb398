//! `receipts doctor` on seeded faults that need no Kafka: each is named by its check, and a healthy
//! set-up has neither a problem nor a warning.

use rcgen::generate_simple_self_signed;
use receipts_tests::process::{Service, errors, run, run_in, run_limited};
use serde_json::{Value, json};
use std::any::Any;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// RFC 8037, appendix A.2.
const KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// The data directory, snapshots and files of a healthy service, which is not running.
struct SetUp {
    folder: TempDir,
}

impl SetUp {
    /// Runs a service, has it take snapshots, and stops it.
    fn healthy() -> Self {
        let set_up = Self { folder: on_disk() };
        fs::create_dir(set_up.path("snapshots")).expect("made");
        set_up.write("keys.json", &json!({"keys": [key("a")]}).to_string());
        set_up.write("secret", &"0123456789abcdef".repeat(4));
        for name in ["", "other-"] {
            let pair = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
            set_up.write(&format!("{name}cert.pem"), &pair.cert.pem());
            set_up.write(&format!("{name}key.pem"), &pair.signing_key.serialize_pem());
        }
        let (data, snapshots) = (set_up.path("data"), set_up.text("snapshots"));
        let service = Service::serve(&data, &["--snapshot-url", &snapshots, "--log-partitions", "2"]);
        _ = service.write(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice"]}));
        assert_eq!(service.terminate(), Some(0));
        let taken =
            run("receipts", &["snapshot", "take", "--data-dir", &set_up.text("data"), "--snapshot-url", &snapshots]);
        assert_eq!(taken.status.code(), Some(0), "{}", errors(&taken));
        set_up
    }

    fn copy(&self) -> Self {
        let copy = Self { folder: on_disk() };
        let from = self.folder.path().join(".");
        let copied = Command::new("cp").arg("-a").arg(from).arg(copy.folder.path()).status();
        assert!(copied.expect("cp runs").success());
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
        set_mode(&self.path(name), 0o600);
    }

    /// The snapshots, each a file.
    fn snapshots(&self) -> Vec<PathBuf> {
        let listed = Command::new("find").arg(self.path("snapshots")).args(["-name", "*.snapshot"]).output();
        let listed = String::from_utf8(listed.expect("find runs").stdout).expect("UTF-8");
        let found: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
        assert!(!found.is_empty(), "no snapshot in {}", self.path("snapshots").display());
        found
    }

    /// The flags of the healthy set-up.
    fn flags(&self) -> Vec<String> {
        let own = [
            ("--http-listen", "127.0.0.1:0".to_owned()),
            ("--data-dir", self.text("data")),
            ("--snapshot-url", self.text("snapshots")),
            ("--auth-issuer", "https://id.example".to_owned()),
            ("--auth-jwks-file", self.text("keys.json")),
            ("--query-secret-file", self.text("secret")),
            ("--http-tls-certificate-file", self.text("cert.pem")),
            ("--http-tls-key-file", self.text("key.pem")),
        ];
        own.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

/// A folder that is not in memory, wherever the other temporary ones are.
fn on_disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

fn key(id: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": KEY, "kid": id, "alg": "EdDSA"})
}

/// What the doctor said: check, status and remedy of each finding.
type Said = Vec<(String, String, Option<String>)>;

fn said(output: &Output) -> Said {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let lines = std::str::from_utf8(&output.stdout).expect("UTF-8").lines();
    let values = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let of = |value: Value| Some((text(&value["check"])?, text(&value["status"])?, text(&value["remedy"])));
    values.filter_map(of).collect()
}

/// Runs the doctor with the flags of a set-up, of which later ones win.
fn doctor(set_up: &SetUp, more: &[String], environment: &[(&str, &str)], descriptors: Option<usize>) -> Output {
    let mut flags = vec!["doctor".to_owned(), "--json".to_owned()];
    let of_set_up = set_up.flags();
    for pair in of_set_up.chunks(2).filter(|pair| !more.contains(&pair[0]) && !more.contains(&format!("-{}", pair[0])))
    {
        flags.extend_from_slice(pair);
    }
    flags.extend(more.iter().filter(|flag| !flag.starts_with("---")).cloned());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    match descriptors {
        Some(count) => run_limited(count, "receipts", &flags),
        None => run_in(environment, "receipts", &flags),
    }
}

/// One fault: the check that finds it and how, and what makes it.
struct Fault {
    check: &'static str,
    status: &'static str,
    descriptors: Option<usize>,
    environment: Vec<(&'static str, String)>,
    make: fn(&SetUp) -> Made,
}

/// Further flags (`---flag` takes one of the set-up away), and what must live as long as the check.
type Made = (Vec<String>, Box<dyn Any>);

fn flags(flags: &[&str]) -> Made {
    (flags.iter().map(|flag| (*flag).to_owned()).collect(), Box::new(()))
}

fn fault(check: &'static str, status: &'static str, make: fn(&SetUp) -> Made) -> Fault {
    Fault { check, status, descriptors: None, environment: Vec::new(), make }
}

/// A server whose answers `answer` makes from the first line of a request; the third part of an
/// answer is its body.
fn server(answer: impl Fn(&str) -> (u16, String, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
            let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
            _ = reader.read_line(&mut first);
            while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = bytes.trim().parse().expect("a length");
                }
                line.clear();
            }
            _ = reader.read_exact(&mut vec![0; length]);
            let (status, headers, body) = answer(first.trim());
            let head =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}", body.len());
            _ = write!(stream, "{head}\r\n{body}");
        }
    });
    address
}

/// A projector that answers for these partitions of two.
fn projector(partitions: &'static [u32], status: u16, headers: &'static str, version: &'static str) -> String {
    server(move |first| match first.contains("/metrics") {
        true => (200, String::new(), format!("receipts_build_info{{service=\"x\",version=\"{version}\"}} 1\n")),
        false => {
            let positions = receipts_query::Positions::new().to_string();
            let state =
                json!({"partition_count": 2, "standby": false, "positions": positions, "partitions": partitions});
            (status, format!("Content-Type: application/json\r\n{headers}"), state.to_string())
        }
    })
}

fn asking(address: &str) -> Made {
    flags(&["--part", "query", "--query-projectors", address])
}

/// The answer to a removal of the probe.
const DELETED: &str = "<DeleteResult><Deleted><Key>receipts/receipts-doctor-probe</Key></Deleted></DeleteResult>";

/// A bucket that answers each method with a status.
fn bucket(list: u16, put: u16, delete: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let into = Arc::clone(&asked);
    let address = server(move |first| {
        into.lock().expect("no panic").push(first.to_owned());
        let error = || "<Error><Code>AccessDenied</Code></Error>".to_owned();
        let body = |status: u16, good: &str| if status == 200 { good.to_owned() } else { error() };
        match first.split(' ').next() {
            Some("GET") => (list, String::new(), body(list, "<ListBucketResult></ListBucketResult>")),
            Some("PUT") => (put, "ETag: \"1\"\r\n".into(), body(put, "")),
            Some("POST") => (delete, String::new(), body(delete, DELETED)),
            _ => (if delete == 200 { 204 } else { delete }, String::new(), body(delete, "")),
        }
    });
    (format!("http://{address}"), asked)
}

fn in_bucket(endpoint: &str) -> Vec<(&'static str, String)> {
    [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "doctor"),
        ("AWS_SECRET_ACCESS_KEY", "doctor-secret"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

fn bucket_fault(check: &'static str, status: &'static str, endpoint: &str) -> Fault {
    let make: fn(&SetUp) -> Made = |_| flags(&["--snapshot-url", "s3://bucket/receipts"]);
    Fault { environment: in_bucket(endpoint), ..fault(check, status, make) }
}

fn faults() -> Vec<Fault> {
    vec![
        fault("settings.exposed", "warning", |_| {
            let none = ["---auth-issuer", "---auth-jwks-file"];
            flags(&[&["--http-listen", "0.0.0.0:0", "--http-insecure-listen"][..], &none].concat())
        }),
        fault("settings.secret_files", "warning", |set_up| {
            set_mode(&set_up.path("secret"), 0o644);
            flags(&[])
        }),
        fault("settings.secret_files", "problem", |set_up| {
            set_mode(&set_up.path("key.pem"), 0o640);
            flags(&["--secret-files-strict"])
        }),
        fault("settings.secret", "problem", |set_up| {
            set_up.write("secret", "short");
            flags(&[])
        }),
        fault("settings.tls", "problem", |set_up| {
            fs::rename(set_up.path("other-key.pem"), set_up.path("key.pem")).expect("renamed");
            flags(&[])
        }),
        fault("settings.listen", "problem", |_| {
            let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
            let address = taken.local_addr().expect("an address").to_string();
            (vec!["--http-listen".to_owned(), address], Box::new(taken))
        }),
        fault("disk.writable", "problem", |set_up| {
            fs::remove_dir_all(set_up.path("data")).expect("removed");
            set_up.write("data", "a file");
            let below = set_up.path("data").join("data").to_str().expect("UTF-8").to_owned();
            flags(&["--data-dir", &below])
        }),
        fault("disk.closed", "warning", |set_up| {
            set_mode(&set_up.path("data"), 0o755);
            flags(&[])
        }),
        fault("disk.free", "warning", |set_up| {
            // A sparse file: it takes no room.
            let file = File::create(set_up.path("data/log/huge")).expect("made");
            file.set_len(1 << 43).expect("a length");
            flags(&[])
        }),
        fault("disk.kind", "warning", |_| flags(&["--data-dir", "/dev/shm/receipts-doctor-that-is-not-made"])),
        fault("disk.same", "problem", |set_up| {
            let other = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
            fs::remove_dir_all(set_up.path("data/log")).expect("removed");
            symlink(other.path(), set_up.path("data/log")).expect("linked");
            (Vec::new(), Box::new(other))
        }),
        fault("memory.limit", "problem", |_| flags(&["--projector-memory-bytes", "1099511627776"])),
        Fault { descriptors: Some(100), ..fault("descriptors.limit", "problem", |_| flags(&[])) },
        fault("store.log", "problem", |set_up| {
            set_up.write("data/log/id", "ffffffffffffffffffffffffffffffff\n");
            flags(&[])
        }),
        fault("store.damaged", "warning", |set_up| {
            fs::create_dir(set_up.path("data/store/damaged-1")).expect("made");
            flags(&[])
        }),
        fault("store.replaced", "warning", |set_up| {
            fs::create_dir(set_up.path("data/store-before-1")).expect("made");
            flags(&[])
        }),
        fault("kafka.settings", "problem", |_| {
            flags(&["--kafka-bootstrap", "127.0.0.1:1", "--kafka-properties", "fetch.max.bytes=1000"])
        }),
        fault("kafka.settings", "problem", |_| flags(&["--part", "projector"])),
        fault("kafka.reachable", "problem", |_| flags(&["--kafka-bootstrap", "127.0.0.1:1", "--timeout", "3"])),
        fault("snapshots.configured", "warning", |_| flags(&["---snapshot-url"])),
        fault("snapshots.configured", "warning", |set_up| flags(&["--snapshot-url", &set_up.text("not-mounted")])),
        fault("snapshots.configured", "problem", |_| flags(&["--snapshot-url", "ftp://host/folder"])),
        bucket_fault("snapshots.list", "problem", &bucket(403, 200, 200).0),
        bucket_fault("snapshots.write", "problem", &bucket(200, 403, 200).0),
        fault("snapshots.age", "warning", |set_up| {
            let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            for snapshot in set_up.snapshots() {
                File::options().append(true).open(snapshot).and_then(|file| file.set_modified(old)).expect("old");
            }
            flags(&[])
        }),
        fault("snapshots.readable", "problem", |set_up| {
            fs::write(&set_up.snapshots()[0], "no snapshot").expect("written");
            flags(&[])
        }),
        fault("tokens.keys", "problem", |_| {
            flags(&["---auth-jwks-file", "--auth-jwks-url", "http://127.0.0.1:1/keys", "--timeout", "3"])
        }),
        fault("tokens.keys", "problem", |_| flags(&["--auth-algorithms", "ES256"])),
        fault("tokens.kids", "warning", |set_up| {
            let mut nameless = key("b");
            nameless.as_object_mut().expect("an object").remove("kid");
            set_up.write("keys.json", &json!({"keys": [key("a"), nameless]}).to_string());
            flags(&[])
        }),
        fault("peers.reachable", "problem", |_| asking("127.0.0.1:1")),
        fault("peers.reachable", "problem", |_| flags(&["--part", "query"])),
        fault("peers.secret", "problem", |_| asking(&projector(&[0, 1], 401, "", env!("CARGO_PKG_VERSION")))),
        fault("peers.partitions", "problem", |_| asking(&projector(&[1], 200, "", env!("CARGO_PKG_VERSION")))),
        fault("peers.version", "warning", |_| asking(&projector(&[0, 1], 200, "", "0.0.1"))),
        fault("clock.peers", "warning", |_| {
            let date = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
            asking(&projector(&[0, 1], 200, date, env!("CARGO_PKG_VERSION")))
        }),
    ]
}

#[test]
fn every_seeded_fault_is_named_by_its_check() {
    let healthy = SetUp::healthy();
    let good_peer = asking(&projector(&[0, 1], 200, "", env!("CARGO_PKG_VERSION"))).0;
    let mut in_health = Said::new();
    for more in [Vec::new(), good_peer] {
        let output = doctor(&healthy, &[more, vec!["--strict".to_owned()]].concat(), &[], None);
        let of_run = said(&output);
        let found: Vec<_> = of_run.iter().filter(|(_, status, _)| status == "problem" || status == "warning").collect();
        assert!(found.is_empty() && output.status.code() == Some(0), "healthy: {found:?} {}", errors(&output));
        in_health.extend(of_run);
    }
    let faults = faults();
    assert!(faults.len() >= 25);
    for (number, fault) in faults.iter().enumerate() {
        let Fault { check, status, descriptors, environment, make } = fault;
        assert!(in_health.iter().any(|(name, _, _)| name == check), "no check {check}");
        let set_up = healthy.copy();
        let (more, _alive) = make(&set_up);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = doctor(&set_up, &more, &environment, *descriptors);
        let of_run = said(&output);
        let found: Vec<_> = of_run.iter().filter(|(name, of, _)| name == check && of == status).collect();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(!found.is_empty(), "fault {number}, {check}: {shown}{}", errors(&output));
        assert!(found.iter().all(|(_, _, remedy)| remedy.as_ref().is_some_and(|text| !text.is_empty())), "{found:?}");
        let has_problem = of_run.iter().any(|(_, status, _)| status == "problem");
        assert_eq!(output.status.code(), Some(i32::from(has_problem)), "{check}: {shown}");
        // A fault is named by its own check alone, unless that one keeps others from looking.
        let others = of_run.iter().filter(|(name, of, _)| name != check && (of == "problem" || of == "warning"));
        let others: Vec<&str> = others.map(|(name, _, _)| name.as_str()).collect();
        let expected: &[&str] = match (*check, *status) {
            ("disk.writable", _) => &["store.lock"],
            ("settings.secret", _) => &["peers.secret"],
            _ => &[],
        };
        assert!(
            others.iter().all(|other| expected.contains(other)),
            "fault {number}, {check}, but also {others:?}: {shown}"
        );
    }
}

/// The probe is written only where it can be removed again.
#[test]
fn nothing_is_written_that_cannot_be_removed() {
    let healthy = SetUp::healthy();
    let (endpoint, asked) = bucket(200, 200, 403);
    let environment = in_bucket(&endpoint);
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let more = ["--snapshot-url", "s3://bucket/receipts"].map(str::to_owned);
    let output = doctor(&healthy, &more, &environment, None);
    let write = said(&output).into_iter().find(|(check, _, _)| check == "snapshots.write").expect("checked");
    assert_eq!(write.1, "skipped", "{}", String::from_utf8_lossy(&output.stdout));
    let asked = asked.lock().expect("no panic");
    assert!(!asked.is_empty() && !asked.iter().any(|line| line.starts_with("PUT")), "{asked:?}");
}

#[test]
fn running_service_is_named_and_left_alone() {
    let healthy = SetUp::healthy();
    let files = || {
        let listed =
            Command::new("find").arg(healthy.folder.path()).args(["-type", "f", "-printf", "%p %s\n"]).output();
        let listed = String::from_utf8(listed.expect("find runs").stdout).expect("UTF-8");
        let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = files();
    assert_eq!(doctor(&healthy, &[], &[], None).status.code(), Some(0));
    assert_eq!(files(), before, "the doctor leaves no file");
    let service = Service::serve(&healthy.path("data"), &[]);
    let output = doctor(&healthy, &["--strict".to_owned()], &[], None);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{shown}{}", errors(&output));
    assert!(shown.contains(&format!(
        "process {} uses the data directory, which answers at {}",
        service.id(),
        service.url
    )));
    assert_eq!(service.terminate(), Some(0));
}
