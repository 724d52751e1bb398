//! The delay of another tenant while one tenant loads the service to half of its maximum, with the
//! default settings. Asserts times in the long tier only: in the gate other programs share the
//! processor.

use crate::besieged::{Besieged, attackers_service, bearer};
use receipts_testkit::property::scaled;
use receipts_tests::receipt_path;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections of the tenant that loads the service.
const LOADERS: usize = 4;

/// A connection that is kept open.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the service listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        Self(BufReader::new(stream))
    }

    /// Sends a request and returns the status of the answer.
    fn ask(&mut self, request: &str) -> u16 {
        self.0.get_mut().write_all(request.as_bytes()).expect("sent");
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("an answer");
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            }
            if let Some(rest) = text.strip_prefix("content-length: ") {
                length = rest.parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        status
    }
}

fn request(method: &str, path: &str, bearer: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Loads the service until it is stopped; returns the number of answers. `pause` is the time from
/// one request of a connection to the next.
fn load(address: &str, body: &str, pause: Duration, during: impl FnOnce()) -> usize {
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..LOADERS {
            scope.spawn(|| {
                let (mut kept, query) =
                    (Kept::open(address), request("POST", "/v1/receipts/query", &attackers_service(), body));
                let mut next = Instant::now();
                while !stop.load(Ordering::Acquire) {
                    let status = kept.ask(&query);
                    assert!(matches!(status, 200 | 429), "{status}");
                    answers.fetch_add(1, Ordering::AcqRel);
                    next += pause;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        during();
        stop.store(true, Ordering::Release);
    });
    answers.load(Ordering::Acquire)
}

/// The 99th percentile of the other tenant's answers.
fn delay_p99(address: &str, questions: usize) -> Duration {
    let (mut kept, mut took) = (Kept::open(address), Vec::with_capacity(questions));
    let question = request("GET", &receipt_path("c", "m"), &bearer("good", Some("ann"), ""), "");
    for _ in 0..questions {
        let begun = Instant::now();
        assert_eq!(kept.ask(&question), 200);
        took.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    took.sort_unstable();
    took[questions * 99 / 100]
}

/// INV-SHARES: at half load by one tenant the p99 of another stays within three times its quiet
/// value.
#[test]
fn half_load_of_one_tenant_delays_no_other() {
    let besieged = Besieged::start(&[]);
    let people: Vec<String> = (0..50).map(|n| format!("p{n}")).collect();
    let mut events = vec![json!({"type": "members.changed", "conversation_id": "big", "joined": people})];
    events.extend((0..30).map(|n| {
        json!({"type": "message.sent", "conversation_id": "big", "message_id": format!("m{n}"), "sender_id": "p0",
            "sent_at_ms": 1_780_000_000_000_u64 + n, "need_read_receipt": true})
    }));
    let written = besieged.post(&attackers_service(), "/v1/events", &Value::from(events)).expect("an answer");
    assert_eq!(written.status, 202, "{}", written.body);
    let ids: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
    let query = json!({"conversation_id": "big", "message_ids": ids}).to_string();

    let (questions, seconds) = (scaled(200, 5_000) as usize, scaled(1, 10));
    let address = besieged.address();
    let quiet = delay_p99(address, questions);
    let full = Duration::from_secs(seconds);
    let answers = load(address, &query, Duration::ZERO, || std::thread::sleep(full));
    let pause = full * 2 * LOADERS as u32 / answers.max(1) as u32;
    let mut loaded = Duration::ZERO;
    load(address, &query, pause, || loaded = delay_p99(address, questions));
    println!(
        "p99 of the other tenant: {quiet:?} quiet, {loaded:?} at half load ({answers} answers in {full:?} at full)"
    );
    if std::env::var("RECEIPTS_TEST_SCALE").as_deref() == Ok("long") {
        assert!(loaded <= 3 * quiet, "{loaded:?} at half load, {quiet:?} quiet");
    }
}
