//! A service under attack: `receipts serve` with 256 descriptors and tokens, and a tenant that asks
//! it all the time. Knows no attack.

use receipts_tests::process::{Answer, Service, request};
use receipts_tests::tokens::{SECRET, token};
use receipts_tests::{TIMEOUT, receipt_path};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// All descriptors of the process, soft and hard.
pub(crate) const DESCRIPTORS: usize = 256;
/// Memory for pages, bytes. The process may take 1.5 times as much.
const MEMORY: u64 = 256 << 20;
/// Answers of the other tenant for which an attack goes on.
const ANSWERS: usize = 50;
/// The pause between two questions of the other tenant.
const PAUSE: Duration = Duration::from_millis(20);

/// The service, its data, and the other tenant's message.
pub(crate) struct Besieged {
    pub(crate) service: Service,
    /// Right answers that the other tenant got.
    answered: Arc<AtomicUsize>,
    _data: TempDir,
}

/// The credentials of a person or a service.
pub(crate) fn bearer(tenant: &str, person: Option<&str>, scope: &str) -> String {
    let mut claims = json!({"iss": "https://id.example", "aud": "receipts", "exp": 9_999_999_999_u64,
        "tenant": tenant, "scope": scope});
    if let Some(person) = person {
        claims["sub"] = person.into();
    }
    format!("Bearer {}", token(&claims))
}

/// The credentials of a service of the attackers' tenant.
pub(crate) fn attackers_service() -> String {
    bearer("evil", None, "receipts:members receipts:write")
}

impl Besieged {
    /// Starts the service and sends the other tenant's message.
    pub(crate) fn start(more: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let secret = data.path().join("secret");
        std::fs::write(&secret, SECRET).expect("written");
        let folder = data.path().join("data");
        let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
        let (secret, folder, memory) = (text(&secret), text(&folder), MEMORY.to_string());
        let arguments = [
            &["serve", "--http-listen", "127.0.0.1:0", "--data-dir", &folder, "--auth-secret-file", &secret][..],
            &["--auth-issuer", "https://id.example", "--auth-audience", "receipts"],
            &["--projector-memory-bytes", &memory, "--projector-checkpoint-interval-ms", "100"],
            more,
        ]
        .concat();
        let service = Service::start_limited(DESCRIPTORS, "receipts", &arguments);
        let besieged = Self { service, answered: Arc::default(), _data: data };
        let events = json!([
            {"type": "members.changed", "conversation_id": "c", "joined": ["ann", "bob", "cid"]},
            {"type": "message.sent", "conversation_id": "c", "message_id": "m", "sender_id": "ann",
             "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
            {"type": "message.read", "conversation_id": "c", "reader_id": "bob", "message_ids": ["m"]},
        ]);
        let written = besieged.post(&other_service(), "/v1/events", &events).expect("an answer");
        assert_eq!(written.status, 202, "{}", written.body);
        let token = written.body["position"].as_str().expect("a token");
        let headers = [("Authorization", &*other_service()), ("Receipts-Min-Position", token)];
        let answer = request(besieged.address(), "GET", &receipt_path("c", "m"), &headers, "").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        besieged
    }

    pub(crate) fn address(&self) -> &str {
        &self.service.address
    }

    /// Posts JSON as a caller.
    pub(crate) fn post(&self, bearer: &str, path: &str, body: &Value) -> std::io::Result<Answer> {
        let headers = [("Authorization", bearer), ("Content-Type", "application/json")];
        request(self.address(), "POST", path, &headers, &body.to_string())
    }

    /// Asks for a path as a caller.
    pub(crate) fn get(&self, bearer: &str, path: &str) -> std::io::Result<Answer> {
        request(self.address(), "GET", path, &[("Authorization", bearer)], "")
    }

    /// Runs an attack while the other tenant asks, and then holds that the service is whole.
    ///
    /// # Panics
    /// If the other tenant was refused or answered wrongly, if the process took too much memory, or
    /// if it writes no checkpoint any more.
    pub(crate) fn under<R>(&self, attack: impl FnOnce(&Self) -> R) -> R {
        let other = Other::ask(self.address().to_owned(), Arc::clone(&self.answered));
        let result = attack(self);
        other.stop();
        let used = self.peak_bytes();
        assert!(used <= MEMORY * 3 / 2, "{used} bytes of memory, where the setting is {MEMORY}");
        self.writes_checkpoints();
        result
    }

    /// Goes on with an attack until the other tenant was answered many times.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn until_answered(&self, mut go_on: impl FnMut()) {
        let wanted = self.answered.load(Ordering::Acquire) + ANSWERS;
        let deadline = Instant::now() + TIMEOUT;
        while self.answered.load(Ordering::Acquire) < wanted {
            assert!(Instant::now() < deadline, "the other tenant is not answered during the attack");
            go_on();
            std::thread::sleep(PAUSE);
        }
    }

    /// The most memory that the process had in use, bytes.
    fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.service.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Waits for a checkpoint of a new event.
    fn writes_checkpoints(&self) {
        let before = self.metric("receipts_checkpoint_seconds_count");
        let event = json!({"type": "message.recalled", "conversation_id": "c", "message_id": "never"});
        let written = self.post(&other_service(), "/v1/events", &event).expect("an answer");
        assert_eq!(written.status, 202, "{}", written.body);
        let deadline = Instant::now() + TIMEOUT;
        while self.metric("receipts_checkpoint_seconds_count") <= before {
            assert!(Instant::now() < deadline, "no checkpoint was written");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = request(self.address(), "GET", "/metrics", &[], "").expect("metrics").body;
        let lines = page.as_str().expect("a text").lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// The credentials of a service of the other tenant.
fn other_service() -> String {
    bearer("good", None, "receipts:members receipts:write")
}

/// The other tenant: asks for its receipt all the time.
struct Other {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Other {
    fn ask(address: String, answered: Arc<AtomicUsize>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let sender = bearer("good", Some("ann"), "");
            // At least one question, however short the attack is.
            loop {
                let headers = [("Authorization", &*sender)];
                let answer = request(&address, "GET", &receipt_path("c", "m"), &headers, "")
                    .unwrap_or_else(|error| panic!("the other tenant is not answered: {error}"));
                assert_eq!(answer.status, 200, "the other tenant is refused: {}", answer.body);
                assert_eq!((&answer.body["read_count"], &answer.body["audience_count"]), (&1.into(), &2.into()));
                answered.fetch_add(1, Ordering::AcqRel);
                if until.load(Ordering::Acquire) {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { stop, thread }
    }

    /// Asks once more, and ends.
    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
