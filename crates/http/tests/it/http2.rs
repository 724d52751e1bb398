//! Tests HTTP/2 through a real listener: what it serves, and that every bound of a connection holds
//! for the streams of one (INV-HEAD, INV-CONNECTIONS).

use crate::common::wire::{Listening, get_request, http2, listen_with, read_some, read_to_end, slow, until};
use crate::common::{App, Setup};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, Version};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use receipts_http::{Amounts, BudgetAmounts, Budgets, ConnectionBounds, DrainOutcome, Limits};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const LONG: Duration = Duration::from_secs(3_600);
/// What a client of HTTP/2 sends first, with its settings.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn ask(http2: &mut SendRequest<Body>, request: Request<Body>) -> (u16, Value) {
    let (head, body) = http2.send_request(request).await.expect("an answer").into_parts();
    assert_eq!((head.version, &head.headers["cache-control"]), (Version::HTTP_2, &"no-store".parse().unwrap()));
    (head.status.as_u16(), json(body).await)
}

async fn json(body: Incoming) -> Value {
    let bytes = to_bytes(Body::new(body), usize::MAX).await.expect("a whole body");
    serde_json::from_slice(&bytes).unwrap_or_default()
}

async fn is_alive(http2: &mut SendRequest<Body>) -> bool {
    let answer = http2.send_request(get_request("/livez")).await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

#[tokio::test]
async fn prior_knowledge_is_served_beside_http1() {
    let http = Listening::at(&App::new()).await;
    let mut http2 = http.http2().await;
    for _ in 0..3 {
        assert_eq!(ask(&mut http2, get_request("/livez")).await.0, 200);
    }
    assert!(http.ask("/livez", "").await.starts_with("HTTP/1.1 200 "));
    let (status, problem) = ask(&mut http2, get_request("/nowhere")).await;
    assert_eq!((status, &problem["type"]), (404, &"urn:receipts:problem:no-route".into()));
    let connect = Request::builder().method(Method::CONNECT).uri("localhost:80").body(Body::empty()).unwrap();
    let status = http2.send_request(connect).await.map(|answer| answer.status().as_u16());
    assert!(matches!(status, Ok(404 | 405) | Err(_)), "{status:?}");
    assert!(is_alive(&mut http2).await);
}

/// A request of HTTP/1 that arrives byte by byte is none of HTTP/2, whose first bytes it shares.
#[tokio::test]
async fn request_in_bytes_is_served_by_http1() {
    let http = Listening::at(&App::new()).await;
    let mut client = http.connect().await;
    for byte in b"PRI /livez HTTP/1.1\r\nhost: localhost\r\n\r\n" {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(read_some(&mut client).await.starts_with("HTTP/1.1 405 "));
}

/// INV-LOCAL
#[tokio::test]
async fn authority_stands_for_the_host() {
    let http = Listening::at(&App::new()).await;
    let mut http2 = http.http2().await;
    let of = |uri: &str, host: Option<&str>| {
        let request = host.into_iter().fold(Request::get(uri), |request, host| request.header("host", host));
        request.body(Body::empty()).unwrap()
    };
    for (uri, host, status, pointer) in [
        ("http://localhost:8080/livez", None, 200, Value::Null),
        ("http://localhost/livez", Some("localhost"), 200, Value::Null),
        ("http://evil.example/livez", None, 403, "/Host".into()),
        ("http://localhost/livez", Some("evil.example"), 400, "/Host".into()),
        ("http://evil.example/livez", Some("localhost"), 400, "/Host".into()),
    ] {
        let (got, problem) = ask(&mut http2, of(uri, host)).await;
        assert_eq!((got, &problem["errors"][0]["pointer"]), (status, &pointer), "{uri} {host:?}");
    }
}

/// INV-HEAD
#[tokio::test]
async fn oversized_head_is_a_431() {
    let bounds = ConnectionBounds { head_bytes_max: 8_192, ..ConnectionBounds::default() };
    let http = Listening::with(App::new().router.clone(), bounds).await;
    let mut http2 = http.http2().await;
    for (bytes, wanted) in [(7_000, 200), (9_000, 431)] {
        let request = Request::get("http://localhost/livez").header("x", "x".repeat(bytes));
        let answer = http2.send_request(request.body(Body::empty()).unwrap()).await.expect("an answer");
        assert_eq!(answer.status(), wanted);
    }
    assert!(is_alive(&mut http2).await);
}

/// INV-HEAD
#[tokio::test]
async fn late_heads_end_their_connection() {
    let bounds =
        ConnectionBounds { head_timeout: Duration::from_millis(200), keep_alive: LONG, ..ConnectionBounds::default() };
    let http = Listening::with(App::new().router.clone(), bounds).await;
    // A head of which more is to come, and a frame of which most is missing.
    let (half_head, half_frame) = (b"\0\0\x01\x01\0\0\0\0\x01\x82".as_slice(), b"\0\0\x10\x01".as_slice());
    for begun in [&BEGIN[..10], BEGIN, &[BEGIN, half_head].concat(), &[BEGIN, half_frame].concat()] {
        let mut client = http.connect().await;
        client.write_all(begun).await.unwrap();
        // Settings and pings may come before the end.
        _ = read_to_end(&mut client).await;
    }
    // Its first request is answered, so only pings can end it.
    let mut client = http.connect().await;
    let live = b"\0\0\x11\x01\x05\0\0\0\x01\x82\x86\x04\x06/livez\x01\x09localhost";
    let mut live = [BEGIN, live].concat();
    live[BEGIN.len() + 2] = u8::try_from(live.len() - BEGIN.len() - 9).unwrap();
    client.write_all(&[&live, half_head].concat()).await.unwrap();
    _ = read_to_end(&mut client).await;
}

/// INV-HEAD: a client that answers pings may stay for longer than a head may take.
#[tokio::test]
async fn idle_connection_stays_for_its_own_time() {
    let head_timeout = Duration::from_secs(2);
    let bounds = ConnectionBounds { head_timeout, keep_alive: LONG, ..ConnectionBounds::default() };
    let http = Listening::with(App::new().router.clone(), bounds).await;
    let mut http2 = http.http2().await;
    assert!(is_alive(&mut http2).await);
    tokio::time::sleep(2 * head_timeout).await;
    assert!(is_alive(&mut http2).await);
    let bounds =
        ConnectionBounds { head_timeout: LONG, keep_alive: Duration::from_millis(50), ..ConnectionBounds::default() };
    let http = Listening::with(App::new().router.clone(), bounds).await;
    let mut http2 = http.http2().await;
    assert!(is_alive(&mut http2).await);
    until("an idle connection is closed", async || http2.is_closed()).await;
}

/// INV-CONNECTIONS: one connection cannot have more requests in progress than others may open.
#[tokio::test]
async fn streams_count_like_connections() {
    let streams = BudgetAmounts { streams: Amounts::new(100, Some(100), Some(100)), ..BudgetAmounts::default() };
    let limits = Limits { budgets: Budgets::new(&streams), ..Limits::default() };
    let app = App::with(Setup { limits: limits.clone(), ..Setup::default() });
    let bounds = ConnectionBounds { connections_max: 2, ..ConnectionBounds::default() };
    let http = Listening::with(app.router.clone(), bounds).await;
    let mut http2 = http.http2().await;
    let path = "/v1/updates?sender_id=alice";
    let mut open = Vec::new();
    for _ in 0..3 {
        let stream = http2.send_request(get_request(path)).await.unwrap();
        assert_eq!(stream.status(), 200);
        open.push(stream);
    }
    let (status, problem) = ask(&mut http2, get_request("/livez")).await;
    assert_eq!((status, &problem["type"]), (503, &"urn:receipts:problem:overloaded".into()));
    assert!(problem["detail"].as_str().unwrap().contains("http.connections_max"), "{problem}");
    let mut other = http.http2().await;
    assert!(is_alive(&mut other).await, "each connection may have one");
    drop(open);
    until("the streams have ended", async || limits.budgets.streams.used() == 0).await;
    assert!(is_alive(&mut http2).await);
}

/// Bytes of a large answer: more than a client's window has room for.
const LARGE: usize = 4 << 20;

/// Bytes of an answer, as long as the service keeps them.
struct Kept(Vec<u8>, #[allow(dead_code, reason = "counted")] Arc<()>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Routes with an endless answer, a large one, and one that is alive; and what counts the answers
/// that the service keeps.
fn routes() -> (Router, Arc<()>) {
    let kept = Arc::new(());
    let block = {
        let kept = Arc::clone(&kept);
        move |count| Bytes::from_owner(Kept(vec![b'x'; count], Arc::clone(&kept)))
    };
    let endless = {
        let block = block.clone();
        async move || {
            Body::from_stream(unfold(block, async |block| Some((Ok::<_, Infallible>(block(64 << 10)), block))))
        }
    };
    let large = async move || Response::new(Body::from(block(LARGE)));
    let routes = Router::new().route("/endless", get(endless)).route("/large", get(large));
    (routes.route("/livez", get(async || "alive")), kept)
}

/// INV-CONNECTIONS
#[tokio::test]
async fn unread_stream_is_cut_and_others_go_on() {
    let bounds = ConnectionBounds { write_timeout: Duration::from_millis(300), ..ConnectionBounds::default() };
    let (routes, kept) = routes();
    let not_kept = Arc::strong_count(&kept);
    let http = Listening::with(routes, bounds).await;
    let mut http2 = http.http2().await;
    for path in ["/endless", "/large"] {
        let unread = http2.send_request(get_request(path)).await.unwrap();
        until("the stream is cut", async || Arc::strong_count(&kept) == not_kept).await;
        assert!(to_bytes(Body::new(unread.into_body()), 8 << 20).await.is_err(), "{path} was cut");
        assert!(is_alive(&mut http2).await);
    }
}

/// INV-CONNECTIONS: a client that gives an answer no room keeps nobody out.
#[tokio::test]
async fn unread_answers_give_way() {
    let bounds = ConnectionBounds { connections_max: 1, write_timeout: LONG, ..ConnectionBounds::default() };
    let http = Listening::with(routes().0, bounds).await;
    for path in ["/large", "/endless"] {
        let mut http2 = http.http2().await;
        let unread = http2.send_request(get_request(path)).await.unwrap();
        until("its place is given to another", async || http.ask("/livez", "").await.starts_with("HTTP/1.1 200 "))
            .await;
        assert!(to_bytes(Body::new(unread.into_body()), usize::MAX).await.is_err());
    }
    let mut http2 = http.http2().await;
    let read = http2.send_request(get_request("/large")).await.unwrap();
    let bytes = to_bytes(Body::new(read.into_body()), usize::MAX).await.expect("a whole body");
    assert!(bytes.len() == LARGE && bytes.iter().all(|byte| *byte == b'x'));
}

/// INV-CONNECTIONS: unread answers give their places back to requests that are read.
#[tokio::test]
async fn unread_streams_keep_no_place_for_long() {
    let bounds = ConnectionBounds { connections_max: 2, write_timeout: LONG, ..ConnectionBounds::default() };
    let http = Listening::with(routes().0, bounds).await;
    let mut unread = http.http2().await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(unread.send_request(get_request("/large")).await.unwrap());
    }
    let mut http2 = http.http2().await;
    let both = async || {
        let mut second = http2.clone();
        let mut first = http2.clone();
        let answers =
            tokio::join!(first.send_request(get_request("/large")), second.send_request(get_request("/large")));
        let (Ok(first), Ok(second)) = answers else { return false };
        let (first, second) = tokio::join!(
            to_bytes(Body::new(first.into_body()), usize::MAX),
            to_bytes(Body::new(second.into_body()), usize::MAX)
        );
        first.is_ok_and(|bytes| bytes.len() == LARGE) && second.is_ok_and(|bytes| bytes.len() == LARGE)
    };
    until("another connection has two requests at once", both).await;
    assert!(is_alive(&mut http2).await);
}

/// INV-CONNECTIONS
#[tokio::test]
async fn longest_idle_connection_is_closed_for_a_new_one() {
    let bounds = ConnectionBounds { connections_max: 2, ..ConnectionBounds::default() };
    let http = Listening::with(routes().0, bounds).await;
    let (mut first, mut second) = (http.http2().await, http.http2().await);
    for http2 in [&mut second, &mut first] {
        assert!(is_alive(http2).await);
    }
    assert!(is_alive(&mut http.http2().await).await);
    until("the longest idle one is closed", async || second.is_closed()).await;
    assert!(is_alive(&mut first).await);
}

#[tokio::test]
async fn requests_in_progress_are_answered_before_exit() {
    let bounds = ConnectionBounds { drain: Duration::from_secs(20), ..ConnectionBounds::default() };
    let (client, stop, serving) = listen_with(slow(Duration::from_millis(300)), bounds).await;
    let mut http2 = http2(client).await;
    let answer = http2.send_request(get_request("/slow"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    assert_eq!(serving.await.unwrap(), DrainOutcome::Fully);
    assert!(http2.ready().await.is_err(), "it said goodbye");
}

/// A client that resets what it asked for, again and again, holds nothing.
#[tokio::test]
async fn rapid_resets_hold_nothing() {
    let limits = Limits::default();
    let app = App::with(Setup { limits: limits.clone(), ..Setup::default() });
    let http = Arc::new(Listening::with(app.router.clone(), ConnectionBounds::default()).await);
    let mut http2 = http.http2().await;
    for _ in 0..1_000 {
        if http2.ready().await.is_err() {
            http2 = http.http2().await;
        }
        // Dropping the answer resets the stream.
        drop(http2.send_request(get_request("/v1/updates?sender_id=alice")));
        tokio::task::yield_now().await;
    }
    until("nothing is held", async || limits.budgets.streams.used() == 0 && limits.budgets.requests.used() == 0).await;
    assert!(http.ask("/livez", "").await.starts_with("HTTP/1.1 200 "));
}
