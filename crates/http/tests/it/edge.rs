//! Tests the middleware around all routes: problems, limits, health, request ids, serving and
//! draining.

use crate::common::table::Mood;
use crate::common::wire::{listen, listen_with, read_some, read_to_end, slow};
use crate::common::{App, Setup};
use receipts_fold::view::Status;
use receipts_http::{Amounts, BudgetAmounts, Budgets, ConnectionBounds, DrainOutcome, Limits, Rate};
use receipts_query::Readiness;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const ONE: &str = "/v1/conversations/g1/messages/m1/receipt";

#[tokio::test]
async fn unknown_route_is_a_404_problem() {
    let app = App::new();
    for uri in ["/", "/v1", "/v2/events", "/v1/conversations/g1/messages/m1"] {
        app.get(uri, &[]).await.is_problem(404, "no-route", &[]);
    }
}

#[tokio::test]
async fn unknown_method_is_a_405_with_allow() {
    let app = App::new();
    let answer = app.get("/v1/events", &[]).await;
    answer.is_problem(405, "method-not-allowed", &[]);
    assert_eq!(answer.header("allow"), "POST");
    app.post(ONE, &[], "{}").await.is_problem(405, "method-not-allowed", &[]);
    app.post("/livez", &[], "{}").await.is_problem(405, "method-not-allowed", &[]);
}

#[tokio::test]
async fn bad_caller_is_a_400_naming_the_header() {
    let app = App::new();
    app.get(ONE, &[("receipts-caller", "%zz")]).await.is_problem(400, "invalid", &["/Receipts-Caller"]);
}

/// INV-LOCAL
#[tokio::test]
async fn foreign_web_page_gets_403_from_every_route() {
    let app = App::new();
    for uri in ["/livez", "/metrics", "/openapi.json", ONE] {
        app.get(uri, &[("host", "evil.example")]).await.is_problem(403, "forbidden", &["/Host"]);
        app.get(uri, &[("sec-fetch-site", "cross-site")]).await.is_problem(403, "forbidden", &["/Sec-Fetch-Site"]);
    }
    let event = r#"{"type":"members.changed","conversation_id":"g1","joined":["bob"]}"#;
    let foreign = app.post("/v1/events", &[("origin", "http://evil.example")], event).await;
    foreign.is_problem(403, "forbidden", &["/Origin"]);
    assert!(foreign.text.contains("http.allowed_origins"), "{foreign:?}");
    assert!(app.records().is_empty());
    let own = [("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")];
    assert_eq!(app.post("/v1/events", &own, event).await.status, 202);
    let twice = [("host", "localhost"), ("host", "localhost")];
    app.get("/livez", &twice).await.is_problem(400, "invalid", &["/Host"]);
}

#[tokio::test]
async fn panic_is_a_500_without_its_cause() {
    let app = App::new();
    *app.table.mood.lock().unwrap() = Mood::Panicking;
    let answer = app.get(ONE, &[]).await;
    answer.is_problem(500, "internal", &[]);
    assert!(!answer.text.contains("the table was told to"), "{answer:?}");
}

#[tokio::test]
async fn sound_request_id_is_kept_and_others_replaced() {
    let app = App::new();
    assert_eq!(app.get("/livez", &[("x-request-id", "mine-7")]).await.header("x-request-id"), "mine-7");
    let given = app.get("/livez", &[]).await.header("x-request-id").to_owned();
    let another = app.get("/livez", &[("x-request-id", "two words")]).await.header("x-request-id").to_owned();
    assert!(!given.is_empty() && given != another && another != "two words");
}

#[tokio::test]
async fn too_many_concurrent_requests_are_a_503() {
    let amounts = BudgetAmounts { requests: Amounts::new(1, None, None), ..BudgetAmounts::default() };
    let limits = Limits { budgets: Budgets::new(&amounts), ..Limits::default() };
    let app = App::with(Setup { limits, ..Setup::default() });
    *app.table.mood.lock().unwrap() = Mood::Silent;
    tokio::select! {
        _ = app.get(ONE, &[]) => panic!("the silent state answered"),
        () = async {
            tokio::task::yield_now().await;
            app.get(ONE, &[]).await.is_problem(503, "overloaded", &[]);
            assert_eq!(app.get("/livez", &[]).await.status, 200);
        } => {}
    }
    *app.table.mood.lock().unwrap() = Mood::Well;
    app.get(ONE, &[]).await.is_problem(404, "not-found", &[]);
}

#[tokio::test]
async fn caller_over_its_rate_gets_429_with_retry_after() {
    let rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(2).unwrap() };
    let app = App::with(Setup { limits: Limits { rate: Some(rate), ..Limits::default() }, ..Setup::default() });
    app.table.put("g1", "m1", "alice", 1, Status::Ok);
    let alice = [("receipts-caller", "alice")];
    assert_eq!(app.get(ONE, &alice).await.status, 200);
    assert_eq!(app.get(ONE, &alice).await.status, 200);
    let answer = app.get(ONE, &alice).await;
    answer.is_problem(429, "rate-limited", &[]);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(app.get(ONE, &[]).await.status, 200);
    assert_eq!(app.get("/livez", &[]).await.status, 200);
}

#[tokio::test]
async fn callers_share_the_configured_tenant_rate() {
    let rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(2).unwrap() };
    let app = App::with(Setup { limits: Limits { tenant_rate: Some(rate), ..Limits::default() }, ..Setup::default() });
    app.get(ONE, &[("receipts-caller", "alice")]).await.is_problem(403, "forbidden", &[]);
    app.get(ONE, &[("receipts-caller", "bob")]).await.is_problem(403, "forbidden", &[]);
    let answer = app.get(ONE, &[("receipts-caller", "carol")]).await;
    answer.is_problem(429, "rate-limited", &[]);
    assert_eq!(answer.header("retry-after"), "1");
    app.get(ONE, &[("receipts-tenant", "acme")]).await.is_problem(404, "not-found", &[]);
}

#[tokio::test]
async fn health_needs_no_caller_and_readiness_follows_the_lag() {
    let app = App::new();
    assert_eq!(app.get("/livez", &[("receipts-caller", "%zz")]).await.text, "alive\n");
    let ready = app.get("/readyz", &[]).await;
    assert_eq!((ready.status.as_u16(), &ready.json["caught_up"]), (200, &true.into()));
    *app.table.readiness.lock().unwrap() = Readiness {
        partitions: 4,
        partitions_caught_up: 3,
        lag_records: Some(812),
        partitions_missing: 1,
        reason: Some("no projector answers for the partitions [2]".into()),
        ..Readiness::default()
    };
    let behind = app.get("/readyz", &[]).await;
    behind.is_problem(503, "not-ready", &[]);
    assert_eq!((&behind.json["lag_records"], &behind.json["partitions_caught_up"]), (&812.into(), &3.into()));
    assert_eq!((&behind.json["partitions_missing"], &behind.json["caught_up"]), (&1.into(), &false.into()));
    assert_eq!(behind.json["detail"], "no projector answers for the partitions [2]");
    *app.table.readiness.lock().unwrap() =
        Readiness { caught_up: true, partitions_stale: 4, stale_seconds: Some(75), ..Readiness::default() };
    let stale = app.get("/readyz", &[]).await;
    assert_eq!((stale.status.as_u16(), &stale.json["stale_seconds"]), (200, &75.into()), "it answers");
    let metrics = app.get("/metrics", &[]).await;
    assert_eq!(metrics.text, "up 1\n");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
}

/// INV-STALE
#[tokio::test]
async fn stale_answers_and_problems_say_so() {
    let app = App::new();
    for (stale_s, header) in [(None, ""), (Some(0), "0"), (Some(75), "75")] {
        *app.table.stale_s.lock().unwrap() = stale_s;
        for path in [ONE, "/v1/conversations/g1/messages/none/receipt"] {
            let answer = app.get(path, &[]).await;
            let shown = answer.headers.get("receipts-stale").map_or("", |value| value.to_str().unwrap());
            assert_eq!(shown, header, "{path}");
        }
    }
}

#[tokio::test]
async fn the_openapi_document_is_served() {
    let answer = App::new().get("/openapi.json", &[]).await;
    assert_eq!(answer.json, receipts_http::openapi_document());
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn late_body_is_a_408() {
    let limits = Limits { request_timeout: Duration::from_millis(50), ..Limits::default() };
    let app = App::with(Setup { limits, ..Setup::default() });
    let (mut client, _stop, _serving) = listen(app.router.clone(), Duration::from_secs(1)).await;
    client.write_all(b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    let answer = read_some(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("urn:receipts:problem:request-timeout"), "{answer}");
}

#[tokio::test]
async fn client_that_writes_an_oversized_body_sees_the_413() {
    let app = App::new();
    let (mut client, _stop, _serving) = listen(app.router.clone(), Duration::from_secs(1)).await;
    let body = vec![b' '; 5 << 20];
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&body).await.unwrap();
    let answer = read_some(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn expect_continue_of_oversized_body_is_refused_at_once() {
    let app = App::new();
    let (mut client, _stop, _serving) = listen(app.router.clone(), Duration::from_secs(1)).await;
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 2000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_some(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// INV-HEAD
#[tokio::test]
async fn connection_with_a_late_request_head_is_closed() {
    let bounds = ConnectionBounds { head_timeout: Duration::from_millis(100), ..ConnectionBounds::default() };
    let (mut silent, _stop, _serving) = listen_with(App::new().router.clone(), bounds).await;
    let address = silent.peer_addr().unwrap();
    assert_eq!(read_to_end(&mut silent).await, "");
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
    assert_eq!(read_to_end(&mut slow).await, "");
    // Between requests a head counts from its first byte.
    slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(read_some(&mut slow).await.starts_with("HTTP/1.1 200 "));
    slow.write_all(b"GET").await.unwrap();
    assert_eq!(read_to_end(&mut slow).await, "");
}

/// INV-HEAD
#[tokio::test]
async fn idle_connection_stays_for_its_own_time() {
    let (short, long) = (Duration::from_secs(2), Duration::from_secs(3_600));
    let live = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let bounds = ConnectionBounds { head_timeout: short, keep_alive: long, ..ConnectionBounds::default() };
    let (mut client, _stop, _serving) = listen_with(App::new().router.clone(), bounds).await;
    for pause in [2 * short, Duration::ZERO] {
        client.write_all(live).await.unwrap();
        assert!(read_some(&mut client).await.starts_with("HTTP/1.1 200 "));
        tokio::time::sleep(pause).await;
    }
    let bounds = ConnectionBounds { head_timeout: long, keep_alive: short, ..ConnectionBounds::default() };
    let (mut client, _stop, _serving) = listen_with(App::new().router.clone(), bounds).await;
    client.write_all(live).await.unwrap();
    assert!(read_to_end(&mut client).await.starts_with("HTTP/1.1 200 "), "answered, and closed when it was idle");
}

/// INV-HEAD
#[tokio::test]
async fn answer_may_take_longer_than_the_head_timeout() {
    let short = Duration::from_millis(500);
    let bounds = ConnectionBounds { head_timeout: short, keep_alive: short, ..ConnectionBounds::default() };
    let (mut client, _stop, _serving) = listen_with(slow(3 * short), bounds).await;
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(read_to_end(&mut client).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn requests_in_progress_are_answered_before_exit() {
    let (mut client, stop, serving) = listen(slow(Duration::from_millis(200)), Duration::from_secs(20)).await;
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    assert!(read_some(&mut client).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(serving.await.unwrap(), DrainOutcome::Fully);
}

#[tokio::test]
async fn slow_request_does_not_delay_exit() {
    let (mut client, stop, serving) = listen(slow(Duration::from_secs(3_600)), Duration::from_millis(50)).await;
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    assert_eq!(serving.await.unwrap(), DrainOutcome::DeadlineReached);
}
