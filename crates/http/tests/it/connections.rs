//! Tests the bounds of connections through a real listener: their number, the head of a request,
//! and clients that read nothing (INV-CONNECTIONS).

use crate::common::wire::{Listening, get_request, read_some, read_to_end, until};
use crate::common::{App, Setup};
use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream::unfold;
use receipts_event::key;
use receipts_http::{Authenticate, Caller, ConnectionBounds, Limits, Problem, Scopes};
use receipts_log::{Entry, Log as _, Topic};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn few(connections_max: usize) -> Listening {
    Listening::with(App::new().router.clone(), ConnectionBounds { connections_max, ..ConnectionBounds::default() })
        .await
}

async fn answers(client: &mut TcpStream) -> bool {
    client.write_all(LIVE.as_bytes()).await.unwrap();
    read_some(client).await.starts_with("HTTP/1.1 200 ")
}

/// INV-CONNECTIONS
#[tokio::test]
async fn longest_idle_connection_is_closed_for_a_new_one() {
    let http = few(3).await;
    let mut clients = [http.connect().await, http.connect().await, http.connect().await];
    for at in [1, 0, 2] {
        assert!(answers(&mut clients[at]).await);
    }
    let mut fourth = http.connect().await;
    assert!(answers(&mut fourth).await);
    assert_eq!(read_to_end(&mut clients[1]).await, "", "the longest idle one");
    let mut fifth = http.connect().await;
    assert!(answers(&mut fifth).await);
    assert_eq!(read_to_end(&mut clients[0]).await, "", "the next");
    for mut open in [fourth, fifth] {
        assert!(answers(&mut open).await);
    }
}

/// INV-CONNECTIONS
#[tokio::test]
async fn silent_and_half_sent_heads_keep_no_caller_out() {
    let http = few(4).await;
    let mut idle = Vec::new();
    for number in 0..40 {
        let half = if number % 2 == 0 { "" } else { "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: " };
        idle.push(http.send(half).await);
        assert!(http.ask("/livez", "").await.starts_with("HTTP/1.1 200 "), "caller {number}");
    }
}

/// A route whose answers wait until the test notifies them.
fn held() -> (Router, Arc<Notify>) {
    let notify = Arc::new(Notify::new());
    let waiting = Arc::clone(&notify);
    let handler = move || {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.notified().await;
            "done"
        }
    };
    (Router::new().route("/held", get(handler)).route("/livez", get(async || "alive")), notify)
}

/// INV-CONNECTIONS
#[tokio::test]
async fn busy_connections_stay_and_one_more_gets_503() {
    let (router, notify) = held();
    let http = Listening::with(router, ConnectionBounds { connections_max: 2, ..ConnectionBounds::default() }).await;
    let waiting = Arc::strong_count(&notify);
    let mut busy = [http.get("/held", "").await, http.get("/held", "").await];
    until("both requests are in progress", async || Arc::strong_count(&notify) >= waiting + 2).await;
    let refused = read_to_end(&mut http.connect().await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1\r\n"), "{refused}");
    let problem: serde_json::Value = serde_json::from_str(refused.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(problem["type"], "urn:receipts:problem:overloaded");
    assert!(problem["detail"].as_str().unwrap().contains("http.connections_max"), "{problem}");
    notify.notify_waiters();
    for client in &mut busy {
        assert!(read_some(client).await.starts_with("HTTP/1.1 200 "));
    }
    assert!(http.ask("/livez", "").await.starts_with("HTTP/1.1 200 "), "there is room again");
}

/// INV-HEAD
#[tokio::test]
async fn head_beyond_its_bytes_is_a_431_and_closed() {
    for max in [1_024, 8_192, 65_536] {
        let bounds = ConnectionBounds { head_bytes_max: max, ..ConnectionBounds::default() };
        let http = Listening::with(App::new().router.clone(), bounds).await;
        let head = |bytes: usize| {
            let (before, after) = ("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ", "\r\n\r\n");
            format!("{before}{}{after}", "x".repeat(bytes - before.len() - after.len()))
        };
        let mut client = http.send(&head(max - 1)).await;
        assert!(read_some(&mut client).await.starts_with("HTTP/1.1 200 "), "{max}");
        let mut client = http.send(&head(max + 1)).await;
        assert!(read_to_end(&mut client).await.starts_with("HTTP/1.1 431 "), "{max}");
    }
}

/// A route whose answer never ends, as far as its client reads.
fn endless() -> Router {
    let handler = async || {
        let block = Bytes::from(vec![b'x'; 64 << 10]);
        Body::from_stream(unfold(block, async |block| Some((Ok::<_, Infallible>(block.clone()), block))))
    };
    Router::new().route("/endless", get(handler)).route("/livez", get(async || "alive"))
}

/// INV-CONNECTIONS: the only connection is busy until the service closes it.
#[tokio::test]
async fn client_that_reads_nothing_is_closed() {
    let bounds = ConnectionBounds {
        connections_max: 1,
        write_timeout: Duration::from_millis(50),
        ..ConnectionBounds::default()
    };
    let pipelined = "GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50);
    for unread in ["GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n", &pipelined] {
        let http = Listening::with(endless(), bounds).await;
        let _client = http.send(unread).await;
        until("another client is served", async || http.ask("/livez", "").await.starts_with("HTTP/1.1 200 ")).await;
    }
}

/// Every caller is Alice, whose credential expires at a time.
struct Expiring(Instant);

#[async_trait::async_trait]
impl Authenticate for Expiring {
    async fn authenticate(&self, _: &HeaderMap) -> Result<Caller, Problem> {
        let user = Some("alice".to_owned());
        Ok(Caller { tenant: "default".to_owned(), user, service: None, scopes: Scopes::NONE, expires: Some(self.0) })
    }
}

/// INV-CONNECTIONS: the client reads nothing, so the service cannot write the end of the stream.
#[tokio::test(flavor = "multi_thread")]
async fn unread_stream_ends_with_its_token() {
    let limits = Limits::default();
    let authenticate = Arc::new(Expiring(Instant::now() + Duration::from_secs(2)));
    let app = App::with(Setup { limits: limits.clone(), authenticate, ..Setup::default() });
    let hour = Duration::from_secs(3_600);
    let bounds = ConnectionBounds { head_timeout: hour, write_timeout: hour, ..ConnectionBounds::default() };
    let http = Listening::with(app.router.clone(), bounds).await;
    let path = "/v1/updates?sender_id=alice";
    let mut http2 = http.http2().await;
    let _http1 = http.get(path, "").await;
    let unread = http2.send_request(get_request(path)).await.unwrap();
    let streams = &limits.budgets.streams;
    until("both streams are open", async || streams.used() == 2).await;
    // More than the buffers of both sides hold.
    let update = json!({"type": "receipt.updated", "tenant": "default", "conversation_id": "g1", "message_id": "m1",
        "sender_id": "alice", "newly_read": [], "padding": "x".repeat(500_000)});
    for _ in 0..60 {
        let entry = Entry { topic: Topic::Updates, ..Entry::event(key("default", "g1"), update.to_string(), None) };
        app.log.writer().append(entry).await.unwrap().unwrap();
    }
    until("both streams have ended", async || streams.used() == 0).await;
    let live = http2.send_request(get_request("/livez")).await.expect("the connection goes on").status();
    assert_eq!(live, 200);
    drop(unread);
}
