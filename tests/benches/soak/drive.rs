//! The load of the soak: bodies of events at a rate or as fast as the service takes them, questions
//! beside them, a probe of the time from acknowledgement to answer, and open streams. Prints
//! nothing.

use crate::chat::Chat;
use crate::load::{Ask, Sender, connect, send};
use bytes::Bytes;
use parking_lot::Mutex;
use receipts_testkit::random::Random;
use receipts_tests::process::Stream;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How far the load may fall behind before it stops catching up.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// The interval between probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// The sender of the probes, and their conversation.
const PROBER: &str = "prober";
const PROBES: &str = "probes";

/// Measurements since the last call of `take`. Times are in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Events acknowledged.
    pub(crate) events: u64,
    /// From sending a body to its acknowledgement.
    pub(crate) posts: Vec<u32>,
    /// From the due time of a question to its answer.
    pub(crate) queries: Vec<u32>,
    /// From a probe's acknowledgement to an answer with it.
    pub(crate) lags: Vec<u32>,
    /// From sending a probe to its update on a stream, including the window of updates.
    pub(crate) streamed: Vec<u32>,
    /// Updates on all streams.
    pub(crate) updates: u64,
    /// Errors, and the text of the first.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// State that all parts of the load share.
pub(crate) struct Load {
    pub(crate) address: String,
    /// Mean events per body.
    pub(crate) body_events: u64,
    chat: Mutex<Chat>,
    seen: Mutex<Seen>,
    /// The send times of probes that were accepted and are not yet on their stream.
    probes: Mutex<HashMap<String, Instant>>,
    stopped: AtomicBool,
    now_ms: fn() -> u64,
}

impl Load {
    pub(crate) fn new(address: &str, body_events: u64, chat: Chat, now_ms: fn() -> u64) -> Arc<Self> {
        Arc::new(Self {
            address: address.to_owned(),
            body_events,
            chat: Mutex::new(chat),
            seen: Mutex::default(),
            probes: Mutex::default(),
            stopped: AtomicBool::new(false),
            now_ms,
        })
    }

    /// Measurements since the last call of `take`. Times are in microseconds.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock())
    }

    /// Ends questions, probes and streams.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Probes older than this whose update no stream has brought.
    pub(crate) fn unheard(&self, longer_than: Duration) -> usize {
        self.probes.lock().values().filter(|at| at.elapsed() > longer_than).count()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn error(&self, sentence: String) {
        let mut seen = self.seen.lock();
        seen.errors += 1;
        seen.first_error.get_or_insert(sentence);
    }

    fn ask(&self, path: impl Into<String>, body: impl Into<Bytes>) -> Ask {
        Ask { address: self.address.clone(), path: path.into(), body: body.into() }
    }

    /// Sends a request. A broken connection is an error, and the next request connects again.
    async fn send(&self, sender: &mut Sender, ask: &Ask, headers: &[(&str, &str)]) -> Option<(u16, Bytes)> {
        match send(sender, ask, headers).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.error(format!("{}: {error}", ask.path));
                *sender = connect(&self.address).await;
                None
            }
        }
    }
}

/// Computes when the next body is due, at a rate of events.
struct Pace {
    next: Instant,
    per_event: Duration,
}

impl Pace {
    fn due(&mut self, events: u64) -> Instant {
        let now = Instant::now();
        if now.duration_since(self.next) > BEHIND_MAX {
            self.next = now;
        }
        let due = self.next;
        self.next += self.per_event * events as u32;
        due
    }
}

/// Posts events over some connections until a time, at a rate (events per second) or as fast as the
/// service takes them. Returns the number of acknowledged events and a token that covers them.
pub(crate) async fn write(load: &Arc<Load>, connections: usize, rate: Option<f64>, until: Instant) -> (u64, String) {
    let pace = rate.map(|rate| {
        Arc::new(Mutex::new(Pace { next: Instant::now(), per_event: Duration::from_secs_f64(1.0 / rate) }))
    });
    let writers: Vec<_> = (0..connections)
        .map(|number| {
            let (load, pace) = (Arc::clone(load), pace.clone());
            tokio::spawn(async move {
                let mut random = Random::new(number as u64 + 1);
                let mut sender = connect(&load.address).await;
                let (mut acknowledged, mut token) = (0, String::new());
                while Instant::now() < until {
                    let events = random.between(1, 2 * load.body_events - 1);
                    if let Some(pace) = &pace {
                        let due = pace.lock().due(events);
                        tokio::time::sleep_until(due.into()).await;
                    }
                    let body = spell(&load, events);
                    let began = Instant::now();
                    let ask = load.ask("/v1/events", body);
                    match load.send(&mut sender, &ask, &[]).await {
                        Some((202, answer)) => {
                            let mut seen = load.seen.lock();
                            seen.events += events;
                            seen.posts.push(began.elapsed().as_micros() as u32);
                            acknowledged += events;
                            token = position(&answer);
                        }
                        Some((status, answer)) => {
                            load.error(format!("/v1/events: {status} {}", String::from_utf8_lossy(&answer)));
                        }
                        None => {}
                    }
                }
                (acknowledged, token)
            })
        })
        .collect();
    let (mut acknowledged, mut tokens) = (0, Vec::new());
    for writer in writers {
        let (events, token) = writer.await.expect("no panic");
        acknowledged += events;
        tokens.extend((!token.is_empty()).then_some(token));
    }
    (acknowledged, tokens.join(","))
}

fn spell(load: &Load, events: u64) -> String {
    let now_ms = (load.now_ms)();
    let mut chat = load.chat.lock();
    let mut body = String::from("[");
    for _ in 0..events {
        if body.len() > 1 {
            body.push(',');
        }
        body.push_str(&chat.next(now_ms));
    }
    body.push(']');
    body
}

fn position(answer: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    answer["position"].as_str().expect("a token").to_owned()
}

/// Waits until everything before a token is folded.
pub(crate) async fn fold_up_to(load: &Load, token: &str) {
    let mut sender = connect(&load.address).await;
    let ask = load.ask("/v1/receipts/query", json!({"message_ids": ["none"]}).to_string());
    let headers = [("Receipts-Min-Position", token), ("Receipts-Wait-Ms", "20000")];
    while !matches!(send(&mut sender, &ask, &headers).await, Ok((200, _))) {}
}

/// Asks one question after another at a rate (per second) until it is stopped.
pub(crate) async fn query(load: Arc<Load>, seed: u64, rate: f64) {
    let mut random = Random::new(seed);
    let mut sender = connect(&load.address).await;
    let each = Duration::from_secs_f64(1.0 / rate);
    // The tasks start at different times.
    let mut pace = Pace { next: Instant::now() + each.mul_f64(random.unit()), per_event: each };
    while !load.is_stopped() {
        let due = pace.due(1);
        tokio::time::sleep_until(due.into()).await;
        let ask = question(&load, &mut random);
        let Some((status, answer)) = load.send(&mut sender, &ask, &[]).await else { continue };
        load.seen.lock().queries.push(due.elapsed().as_micros() as u32);
        if let Err(sentence) = judge(status, &answer) {
            load.error(format!("{}: {sentence}", ask.path));
        }
    }
}

/// Asks for a screen of a chat, for ids from anywhere, for one receipt, or for a page of a list of
/// the largest group.
fn question(load: &Load, random: &mut Random) -> Ask {
    let mut chat = load.chat.lock();
    let body = match random.weighted(&[40, 20, 25, 15]) {
        0 => {
            let (conversation, ids) = chat.screen();
            json!({"conversation_id": conversation, "message_ids": ids})
        }
        1 => json!({"message_ids": chat.some()}),
        2 => {
            let (conversation, message) = chat.one();
            return load.ask(format!("/v1/conversations/{conversation}/messages/{message}/receipt"), "");
        }
        _ => {
            let (conversation, message) = match chat.largest() {
                (conversation, Some(message)) => (conversation, message),
                _ => chat.one(),
            };
            let filter = ["read", "unread", "departed"][random.index(3)];
            let list = format!("/v1/conversations/{conversation}/messages/{message}/members?filter={filter}&limit=100");
            return load.ask(list, "");
        }
    };
    load.ask("/v1/receipts/query", body.to_string())
}

/// Checks INV-SUM for every receipt in an answer. Only these statuses are allowed: found, gone,
/// recalled, not requested.
fn judge(status: u16, answer: &[u8]) -> Result<(), String> {
    let body: Value = serde_json::from_slice(answer).map_err(|error| format!("{status}: {error}"))?;
    if !matches!(status, 200 | 404 | 409) {
        return Err(format!("{status} {body}"));
    }
    let one = [body["receipt"].clone(), body.clone()];
    for receipt in body["receipts"].as_array().map_or(&one[..], Vec::as_slice) {
        if receipt["status"] != "ok" {
            continue;
        }
        let count = |name: &str| receipt[format!("{name}_count")].as_u64().ok_or(format!("no {name}_count: {receipt}"));
        let sum = count("read")? + count("unread")? + count("hidden")? + count("departed")?;
        if sum != count("audience")? {
            return Err(format!("INV-SUM: {receipt}"));
        }
    }
    Ok(())
}

/// Sends a message every 100 ms and asks for it at once with the token of its acknowledgement.
pub(crate) async fn probe(load: Arc<Load>) {
    let mut sender = connect(&load.address).await;
    let mut number = 0;
    while !load.is_stopped() {
        number += 1;
        let message = format!("probe-{number:08}");
        let sent = json!({"type": "message.sent", "conversation_id": PROBES, "message_id": message, "sender_id": PROBER,
                          "sent_at_ms": (load.now_ms)(), "need_read_receipt": true, "recipients": ["reader"]});
        let post = load.ask("/v1/events", sent.to_string());
        load.probes.lock().insert(message.clone(), Instant::now());
        match load.send(&mut sender, &post, &[]).await {
            Some((202, answer)) => {
                let began = Instant::now();
                let token = position(&answer);
                let ask = load.ask(format!("/v1/conversations/{PROBES}/messages/{message}/receipt"), "");
                let headers = [("Receipts-Min-Position", token.as_str()), ("Receipts-Wait-Ms", "30000")];
                match load.send(&mut sender, &ask, &headers).await {
                    Some((200, _)) => load.seen.lock().lags.push(began.elapsed().as_micros() as u32),
                    Some((status, answer)) => {
                        load.error(format!("INV-POSITION: {}: {status} {}", ask.path, String::from_utf8_lossy(&answer)))
                    }
                    None => {}
                }
            }
            refused => {
                load.probes.lock().remove(&message);
                if let Some((status, answer)) = refused {
                    load.error(format!("a probe: {status} {}", String::from_utf8_lossy(&answer)));
                }
            }
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

/// Opens the stream of the probes' sender and one of the largest group. A thread reads each until
/// the service ends.
pub(crate) fn listen(load: &Arc<Load>) {
    let largest = load.chat.lock().largest().0;
    for query in [format!("sender_id={PROBER}"), format!("conversation_id={largest}")] {
        let load = Arc::clone(load);
        let mut stream = Stream::open(&load.address, &query, &[]);
        std::thread::spawn(move || {
            while let Some(event) = stream.next_update() {
                let message = event.update["message_id"].as_str().unwrap_or_default();
                let since = load.probes.lock().remove(message).map(|at| at.elapsed().as_micros() as u32);
                let mut seen = load.seen.lock();
                seen.updates += 1;
                seen.streamed.extend(since);
            }
            if !load.is_stopped() {
                load.error(format!("the stream of {query} ended"));
            }
        });
    }
}
