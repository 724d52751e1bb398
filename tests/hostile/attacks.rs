//! The attacks. Each opens its connections, uses them, and drops them.

use crate::besieged::{Besieged, DESCRIPTORS, attackers_service, bearer};
use receipts_query::Positions;
use receipts_tests::process::request;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Connections of an attack: more than the process has descriptors.
const CONNECTIONS: usize = DESCRIPTORS + 144;
/// How long an attacker waits for an answer: less than it asked to wait for.
const ANSWERED: Duration = Duration::from_secs(20);

/// Opens connections and sends the same bytes on each.
fn send_on_all(besieged: &Besieged, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    (0..count).map(|_| send(besieged, bytes)).collect()
}

fn send(besieged: &Besieged, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(besieged.address()).expect("the service listens");
    // The service decides whether it reads on.
    stream.set_nonblocking(true).expect("a socket");
    _ = stream.write(bytes);
    stream
}

/// Holds connections until the other tenant was answered, and opens each again that the service
/// closes.
fn hold(besieged: &Besieged, count: usize, bytes: &[u8]) {
    hold_mixed(besieged, count, &[bytes]);
}

/// As [`hold`], with different bytes on neighbouring connections.
fn hold_mixed(besieged: &Besieged, count: usize, attacks: &[&[u8]]) {
    let mut open: Vec<_> = attacks.iter().cycle().take(count).map(|bytes| (send(besieged, bytes), *bytes)).collect();
    besieged.until_answered(|| {
        for (stream, bytes) in &mut open {
            let is_open = match stream.peek(&mut [0]) {
                Ok(count) => count > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            if !is_open {
                *stream = send(besieged, bytes);
            }
        }
    });
}

/// Returns the status of the answer on a connection; `None` if the service closed it without one.
fn status(stream: &mut TcpStream) -> Option<u16> {
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(ANSWERED)).expect("a socket");
    let mut head = [0; 12];
    match stream.read_exact(&mut head) {
        Ok(()) => std::str::from_utf8(&head[9..]).expect("a status line").parse().ok(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer within {ANSWERED:?}"),
        Err(_) => None,
    }
}

fn head(method: &str, path: &str, bearer: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n{more}\r\n")
}

/// INV-SHARES
#[test]
fn idle_connections_starve_neither_callers_nor_checkpoints() {
    Besieged::start(&[]).under(|besieged| hold(besieged, CONNECTIONS, b""));
}

/// INV-SHARES
#[test]
fn half_heads_take_bounded_memory() {
    let half = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(60 << 10));
    Besieged::start(&[]).under(|besieged| hold(besieged, CONNECTIONS, half.as_bytes()));
}

/// INV-HEAD
#[test]
fn oversized_head_is_refused() {
    let besieged = Besieged::start(&[]);
    let large = head("GET", "/livez", "none", &format!("X: {}\r\n", "x".repeat(70 << 10)));
    besieged.under(|besieged| {
        let mut stream = TcpStream::connect(besieged.address()).expect("the service listens");
        _ = stream.write_all(large.as_bytes());
        assert!(matches!(status(&mut stream), Some(431) | None));
        let within = head("GET", "/livez", "none", &format!("X: {}\r\n", "x".repeat(50 << 10)));
        stream = TcpStream::connect(besieged.address()).expect("the service listens");
        stream.write_all(within.as_bytes()).expect("sent");
        assert_eq!(status(&mut stream), Some(200));
    });
}

/// INV-SHARES: one caller fills its share of requests, and then gets 429 instead of a place.
#[test]
fn slow_bodies_hold_only_their_callers_share() {
    let more = "Content-Type: application/json\r\nContent-Length: 1000000\r\n";
    let begun = head("POST", "/v1/events", &attackers_service(), more) + "[{\"type\":";
    Besieged::start(&[]).under(|besieged| hold(besieged, CONNECTIONS, begun.as_bytes()));
}

/// INV-SHARES: answers that their client does not read hold no connection that others need.
#[test]
fn clients_that_read_nothing_starve_no_other_client() {
    let pipelined = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
    Besieged::start(&[]).under(|besieged| hold(besieged, CONNECTIONS, pipelined.as_bytes()));
}

/// The beginning of a connection of HTTP/2 whose client gives no answer any room, and then
/// `requests` times a head for a path with the bytes after it.
fn http2(path: &str, requests: u32, after: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let no_window = [0, 4, 0, 0, 0, 0];
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &no_window)].concat();
    for stream in (0..requests).map(|number| 2 * number + 1) {
        // GET and http of the static table, then the path and the host as texts.
        let text =
            |index: u8, text: &str| [&[index, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        let head = [vec![0x82, 0x86], text(4, path), text(1, "localhost")].concat();
        bytes.extend([frame(1, 0b101, stream, &head), after(stream)].concat());
    }
    bytes
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// INV-SHARES, INV-CONNECTIONS: answers without room, resets, heads that never end, and pings.
#[test]
fn streams_of_http2_starve_no_other_client() {
    let nothing = |_| Vec::new();
    let unread = http2("/openapi.json", 100, nothing);
    let too_many = http2("/livez", 1_000, nothing);
    let resets = http2("/metrics", 1_000, |stream| frame(3, 0, stream, &8_u32.to_be_bytes()));
    let half = [http2("/", 0, nothing), frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[0x86])].concat();
    let pings = [http2("/", 0, nothing), frame(6, 0, 0, &[0; 8]).repeat(5_000)].concat();
    let attacks = [half, pings, unread, too_many, resets];
    Besieged::start(&[]).under(|besieged| hold_mixed(besieged, CONNECTIONS, &attacks.each_ref().map(Vec::as_slice)));
}

/// INV-SHARES: a position that the log does not have is answered at once, although the caller asks
/// to wait for 30 s.
#[test]
fn reads_of_invented_positions_are_answered_at_once() {
    let invented = Positions::written(0, 1 << 40).to_string();
    let more = format!("Receipts-Min-Position: {invented}\r\nReceipts-Wait-Ms: 30000\r\n");
    let path = "/v1/conversations/c/messages/m/receipt";
    let read = head("GET", path, &bearer("evil", Some("eve"), ""), &more);
    Besieged::start(&[]).under(|besieged| {
        let mut open = send_on_all(besieged, 64, read.as_bytes());
        for stream in &mut open {
            let answered = status(stream);
            assert!(matches!(answered, Some(429 | 503)), "{answered:?}");
        }
    });
}

/// INV-SHARES: one person meets its own share of streams, and another tenant opens one meanwhile.
#[test]
fn stream_hog_meets_its_own_share() {
    let open = head("GET", "/v1/updates?sender_id=eve", &bearer("evil", Some("eve"), ""), "");
    Besieged::start(&[]).under(|besieged| {
        let mut streams = send_on_all(besieged, 100, open.as_bytes());
        let answered: Vec<_> = streams.iter_mut().map(status).collect();
        assert!(answered.contains(&Some(200)) && answered.contains(&Some(429)), "{answered:?}");
        let other = bearer("good", Some("ann"), "");
        let mut stream = TcpStream::connect(besieged.address()).expect("the service listens");
        stream.write_all(head("GET", "/v1/updates?sender_id=ann", &other, "").as_bytes()).expect("sent");
        assert_eq!(status(&mut stream), Some(200));
    });
}

/// INV-SHARES: an id that stands in thousands of conversations is ambiguous, for strangers as well
/// without any of those messages.
#[test]
fn common_id_costs_a_bounded_search() {
    let besieged = Besieged::start(&[]);
    let service = attackers_service();
    let send = |conversation: String| {
        json!({"type": "message.sent", "conversation_id": conversation, "message_id": "1", "sender_id": "eve",
            "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true, "recipients": ["mallory"]})
    };
    besieged.under(|besieged| {
        let mut token = String::new();
        for body in 0..3 {
            let events: Vec<Value> = (0..1_000).map(|n| send(format!("{body}-{n}"))).collect();
            let written = besieged.post(&service, "/v1/events", &events.into()).expect("an answer");
            assert_eq!(written.status, 202, "{}", written.body);
            token = written.body["position"].as_str().expect("a token").to_owned();
        }
        let query = json!({"message_ids": vec!["1"; 100]});
        let headers = [
            ("Authorization", &*service),
            ("Content-Type", "application/json"),
            ("Receipts-Min-Position", &token),
            ("Receipts-Wait-Ms", "30000"),
        ];
        let answer = request(besieged.address(), "POST", "/v1/receipts/query", &headers, &query.to_string());
        let answer = answer.expect("an answer");
        let receipts = answer.body["receipts"].as_array().expect("receipts");
        assert_eq!(receipts.len(), 100);
        assert!(receipts.iter().all(|receipt| receipt["status"] == "ambiguous"), "{}", answer.body);
        for _ in 0..50 {
            let stranger = besieged.post(&bearer("evil", Some("x"), ""), "/v1/receipts/query", &query);
            assert_eq!(stranger.expect("an answer").status, 200);
        }
    });
}

/// INV-SHARES
#[test]
fn floods_of_erasures_and_policies_are_bounded() {
    let besieged = Besieged::start(&[]);
    let service = attackers_service();
    let erased = |from: usize, count: usize| -> Value {
        (from..from + count).map(|n| json!({"type": "user.erased", "user_id": format!("u{n}")})).collect()
    };
    besieged.under(|besieged| {
        let refused = besieged.post(&service, "/v1/events", &erased(0, 101)).expect("an answer");
        assert_eq!(refused.status, 400, "{}", refused.body);
        for body in 0..30 {
            let written = besieged.post(&service, "/v1/events", &erased(100 * body, 100)).expect("an answer");
            assert_eq!(written.status, 202, "{}", written.body);
        }
        let types: serde_json::Map<String, Value> = (0..1_000).map(|n| (format!("type-{n}"), true.into())).collect();
        for _ in 0..20 {
            let policy = json!({"type": "policy.changed", "read_receipts": types});
            let written = besieged.post(&service, "/v1/events", &policy).expect("an answer");
            assert_eq!(written.status, 202, "{}", written.body);
        }
    });
}

/// INV-SLICES
#[test]
fn marks_over_a_long_chat_let_other_callers_in() {
    let besieged = Besieged::start(&[]);
    let service = attackers_service();
    let people: Vec<String> = (0..11).map(|n| format!("p{n}")).collect();
    besieged.under(|besieged| {
        let write = |events: Value| {
            let written = besieged.post(&service, "/v1/events", &events).expect("an answer");
            assert_eq!(written.status, 202, "{}", written.body);
        };
        write(json!([{"type": "members.changed", "conversation_id": "long", "joined": people}]));
        for body in 0..20_u64 {
            let sends = (0..1_000_u64).map(|n| {
                json!({"type": "message.sent", "conversation_id": "long", "message_id": format!("m{body}-{n}"),
                    "sender_id": "p0", "sent_at_ms": 1_780_000_000_000 + 1_000 * body + n, "need_read_receipt": true})
            });
            write(sends.collect());
        }
        let mark = |reader: &String| {
            json!({"type": "conversation.read", "conversation_id": "long", "reader_id": reader,
                "up_to_sent_at_ms": 1_780_000_100_000_u64})
        };
        write(people[1..].iter().map(mark).collect());
        let last = || besieged.get(&service, "/v1/conversations/long/messages/m19-999/receipt").expect("an answer");
        receipts_tests::eventually("all ten have read the last message", last, |answer| {
            answer.body["all_read"] == true
        });
    });
}
