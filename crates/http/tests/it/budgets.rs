//! Tests the budgets of an edge through a real listener, with small amounts: places of requests,
//! waits, streams and bytes of bodies (INV-SHARES).

use crate::common::table::Mood;
use crate::common::wire::{Listening, read_some, until};
use crate::common::{App, PARTITIONS, Setup};
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures_util::StreamExt as _;
use receipts_event::{key, partition_of};
use receipts_http::{Amounts, BudgetAmounts, Budgets, Limits, SLOW_BODY_AFTER};
use receipts_log::{Entry, PendingAppend, Writer};
use receipts_query::Positions;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const ONE: &str = "/v1/conversations/g1/messages/m1/receipt";
const STREAM: &str = "/v1/updates?sender_id=alice";

fn amounts(total: u64, tenant: u64, caller: u64) -> Amounts {
    Amounts::new(total, Some(tenant), Some(caller))
}

/// An app with these budgets, its budgets, and its listener.
async fn app(amounts: BudgetAmounts) -> (App, Budgets, Listening) {
    let limits = Limits { budgets: Budgets::new(&amounts), ..Limits::default() };
    let app = App::with(Setup { limits: limits.clone(), ..Setup::default() });
    let listening = Listening::at(&app).await;
    (app, limits.budgets, listening)
}

fn of(tenant: &str, caller: &str) -> String {
    format!("receipts-tenant: {tenant}\r\nreceipts-caller: {caller}\r\n")
}

#[track_caller]
fn is_refused(answer: &str, status: u16, code: &str, setting: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    assert!(answer.contains(&format!("urn:receipts:problem:{code}\"")) && answer.contains(setting), "{answer}");
}

/// INV-SHARES
#[tokio::test]
async fn shares_of_requests_leave_places_for_others() {
    let (app, budgets, http) = app(BudgetAmounts { requests: amounts(4, 3, 2), ..BudgetAmounts::default() }).await;
    *app.table.mood.lock().unwrap() = Mood::Silent;
    let mut held = Vec::new();
    for (tenant, caller) in [("a", "alice"), ("a", "alice"), ("a", "bob")] {
        held.push(http.get(ONE, &of(tenant, caller)).await);
        until("the request is in progress", async || budgets.requests.used() == held.len() as u64).await;
        if held.len() == 2 {
            is_refused(&http.ask(ONE, &of("a", "alice")).await, 429, "rate-limited", "http.requests_per_caller");
        }
    }
    is_refused(&http.ask(ONE, &of("a", "carol")).await, 429, "rate-limited", "http.requests_per_tenant");
    is_refused(&http.ask(ONE, "receipts-tenant: a\r\n").await, 429, "rate-limited", "http.requests_per_tenant");
    held.push(http.get(ONE, &of("b", "alice")).await);
    until("another tenant has the rest", async || budgets.requests.used() == 4).await;
    is_refused(&http.ask(ONE, &of("c", "alice")).await, 503, "overloaded", "http.requests_max");
    assert!(http.ask("/livez", "").await.starts_with("HTTP/1.1 200 "), "health needs no place");
    drop(held);
    until("clients that left hold nothing", async || budgets.requests.used() == 0).await;
}

/// A position that no test folds, but where a test says so.
fn ahead() -> (u32, String) {
    let partition = partition_of(&key("default", "g1"), PARTITIONS);
    (partition, format!("receipts-min-position: {}\r\nreceipts-wait-ms: 30000\r\n", Positions::applied(partition, 99)))
}

/// INV-SHARES
#[tokio::test]
async fn waiting_read_holds_no_place_of_a_request() {
    let (app, budgets, http) =
        app(BudgetAmounts { requests: amounts(1, 1, 1), waits: amounts(2, 1, 1), ..BudgetAmounts::default() }).await;
    let (partition, position) = ahead();
    let mut waiting = http.get(ONE, &position).await;
    until("the read waits", async || (budgets.requests.used(), budgets.waits.used()) == (0, 1)).await;
    assert!(http.ask(ONE, "").await.starts_with("HTTP/1.1 404 "), "the only place is free");
    is_refused(&http.ask(ONE, &position).await, 429, "rate-limited", "http.waits_per_tenant");
    let _other = http.get(ONE, &format!("receipts-tenant: b\r\n{position}")).await;
    until("another tenant waits too", async || budgets.waits.used() == 2).await;
    is_refused(&http.ask(ONE, &format!("receipts-tenant: c\r\n{position}")).await, 503, "overloaded", "http.waits_max");
    app.table.fold_up_to(partition, 100);
    assert!(read_some(&mut waiting).await.starts_with("HTTP/1.1 404 "), "the wait ends with an answer");
    until("nothing is held", async || (budgets.requests.used(), budgets.waits.used()) == (0, 0)).await;
}

/// INV-SHARES
#[tokio::test]
async fn read_needs_a_place_again_after_its_wait() {
    let (app, budgets, http) = app(BudgetAmounts { requests: amounts(1, 1, 1), ..BudgetAmounts::default() }).await;
    let (partition, position) = ahead();
    let mut waiting = http.get(ONE, &position).await;
    until("the read waits", async || budgets.waits.used() == 1).await;
    *app.table.mood.lock().unwrap() = Mood::Silent;
    let _held = http.get(ONE, "").await;
    until("another read has the only place", async || budgets.requests.used() == 1).await;
    app.table.fold_up_to(partition, 100);
    is_refused(&read_some(&mut waiting).await, 503, "overloaded", "http.requests_max");
    assert_eq!((budgets.requests.used(), budgets.waits.used()), (1, 0));
}

/// INV-SHARES
#[tokio::test(flavor = "multi_thread")]
async fn shares_of_streams_leave_streams_for_others() {
    let (_app, budgets, http) =
        app(BudgetAmounts { streams: amounts(3, 2, 1), requests: amounts(1, 1, 1), ..BudgetAmounts::default() }).await;
    let alice = http.get(STREAM, &of("a", "alice")).await;
    until("the stream is open", async || (budgets.streams.used(), budgets.requests.used()) == (1, 0)).await;
    is_refused(&http.ask(STREAM, &of("a", "alice")).await, 429, "rate-limited", "http.streams_per_caller");
    let mut service = http.get(STREAM, "receipts-tenant: a\r\n").await;
    assert!(read_some(&mut service).await.starts_with("HTTP/1.1 200 "));
    is_refused(&http.ask(STREAM, "receipts-tenant: a\r\n").await, 429, "rate-limited", "http.streams_per_tenant");
    let mut other = http.get(STREAM, &of("b", "alice")).await;
    assert!(read_some(&mut other).await.starts_with("HTTP/1.1 200 "));
    is_refused(&http.ask(STREAM, &of("c", "alice")).await, 503, "too-many-streams", "http.streams_max");
    drop((alice, service, other));
    until("closed streams are free", async || budgets.streams.used() == 0).await;
}

/// The head of a posted body of this length, and its first bytes.
fn posted(caller: &str, length: usize, sent: usize) -> String {
    let head =
        format!("POST /v1/receipts/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{caller}");
    format!("{head}content-length: {length}\r\n\r\n{}", " ".repeat(sent))
}

/// INV-SHARES
#[tokio::test]
async fn bodies_take_bytes_as_they_arrive() {
    let (_app, budgets, http) =
        app(BudgetAmounts { body_bytes: amounts(100, 75, 50), ..BudgetAmounts::default() }).await;
    let alice = of("a", "alice");
    let mut half = http.send(&posted(&alice, 60, 40)).await;
    until("the sent bytes are held", async || budgets.body_bytes.used() == 40).await;
    is_refused(
        &read_some(&mut http.send(&posted(&alice, 20, 20)).await).await,
        429,
        "rate-limited",
        "http.bodies_bytes_per_caller",
    );
    let unnamed = http.send(&posted("receipts-tenant: a\r\n", 90, 30)).await;
    until("a service has the rest of its tenant", async || budgets.body_bytes.used() == 70).await;
    is_refused(
        &read_some(&mut http.send(&posted(&of("a", "bob"), 10, 10)).await).await,
        429,
        "rate-limited",
        "http.bodies_bytes_per_tenant",
    );
    let _other = http.send(&posted(&of("b", "bob"), 90, 30)).await;
    until("another tenant has the rest", async || budgets.body_bytes.used() == 100).await;
    is_refused(
        &read_some(&mut http.send(&posted(&of("c", "bob"), 1, 1)).await).await,
        503,
        "overloaded",
        "http.bodies_bytes_max",
    );
    drop(unnamed);
    until("a client that left holds nothing", async || budgets.body_bytes.used() == 70).await;
    half.write_all(&[b' '; 20]).await.unwrap();
    let refused = read_some(&mut half).await;
    is_refused(&refused, 429, "rate-limited", "http.bodies_bytes_per_caller");
    until("a refused body holds nothing", async || budgets.body_bytes.used() == 30).await;
}

/// A writer whose appends block until the test sends a word each.
struct Blocked(Mutex<mpsc::Receiver<()>>, Arc<dyn Writer>);

impl Writer for Blocked {
    fn append(&self, entry: Entry) -> PendingAppend {
        self.0.lock().unwrap().recv().unwrap();
        self.1.append(entry)
    }

    fn flush(&self, timeout: Duration) -> Result<(), receipts_log::AppendError> {
        self.1.flush(timeout)
    }
}

/// INV-SHARES
#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_keeps_its_bytes_until_written() {
    let (log, _budgets, _listening) = app(BudgetAmounts::default()).await;
    let (go, blocked) = mpsc::channel();
    let limits = Limits::default();
    let writer: Arc<dyn Writer> = Arc::new(Blocked(Mutex::new(blocked), receipts_log::Log::writer(&*log.log)));
    let app = App::with(Setup { limits: limits.clone(), writer: Some(writer), ..Setup::default() });
    let http = Listening::at(&app).await;
    let event = r#"{"type":"message.recalled","conversation_id":"g1","message_id":"m1"}"#;
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let client = http.send(&format!("{head}content-length: {}\r\n\r\n{event}", event.len())).await;
    let bytes = event.len() as u64;
    until("the body is held", async || limits.budgets.body_bytes.used() == bytes).await;
    drop(client);
    until("the request ended", async || limits.budgets.requests.used() == 0).await;
    assert_eq!(limits.budgets.body_bytes.used(), bytes, "its event is not written yet");
    go.send(()).unwrap();
    until("its event is written", async || limits.budgets.body_bytes.used() == 0).await;
}

/// A body of which one byte arrives each time that many milliseconds have passed.
fn trickle(interval_ms: u64, bytes: usize) -> Body {
    let bytes = futures_util::stream::iter(0..bytes).then(move |_| async move {
        tokio::time::sleep(Duration::from_millis(interval_ms)).await;
        Ok::<_, std::convert::Infallible>(Bytes::from_static(b" "))
    });
    Body::from_stream(bytes)
}

#[tokio::test(start_paused = true)]
async fn slow_body_is_a_408_that_names_the_speed() {
    let limits = Limits { body_bytes_per_s_min: 10, ..Limits::default() };
    let app = App::with(Setup { limits: limits.clone(), ..Setup::default() });
    let send = async |interval_ms, bytes| {
        let request = Request::post("/v1/receipts/query").header("content-type", "application/json");
        let began = tokio::time::Instant::now();
        let answer = app.send(request.body(trickle(interval_ms, bytes)).unwrap()).await;
        (answer, began.elapsed())
    };
    let (slow, after) = send(1_000, 100).await;
    slow.is_problem(408, "request-timeout", &[]);
    assert!(slow.text.contains("http.body_bytes_per_s_min"), "{slow:?}");
    assert!(after >= SLOW_BODY_AFTER && after < Duration::from_secs(10), "{after:?}");
    let (quick, after) = send(99, 150).await;
    quick.is_problem(400, "invalid", &[""]);
    assert!(after > SLOW_BODY_AFTER, "a body of the least speed may take {after:?}");
    assert_eq!(limits.budgets.body_bytes.used(), 0);
}
