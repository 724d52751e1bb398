//! Tests the client behind proxies that refuse a long head, or change encoded ids in paths.

use super::client;
use receipts_client::{Error, Filter, Receipt, Status};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Answers each request with `answer` of its head, and returns the address.
async fn proxy(answer: impl Fn(&str) -> (&'static str, &'static str, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if connection.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let (status, kind, body) = answer(&String::from_utf8_lossy(&head).to_lowercase());
            let length = body.len();
            let whole = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = connection.write_all(whole.as_bytes()).await;
            let _ = connection.shutdown().await;
        }
    });
    address
}

fn receipt(message: &str) -> serde_json::Value {
    json!({"tenant": "default", "conversation_id": "g", "message_id": message, "status": "recalled"})
}

/// INV-CLIENT
#[tokio::test(flavor = "multi_thread")]
async fn token_that_a_proxy_refuses_is_dropped() {
    for status in ["400 Bad Request", "431 Request Header Fields Too Large"] {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let address = proxy(move |head| {
            let has_position = head.contains("receipts-min-position: ");
            seen.lock().expect("no panic").push(has_position);
            if has_position {
                (status, "text/html", "<html>".to_owned())
            } else {
                ("200 OK", "application/json", receipt("m").to_string())
            }
        })
        .await;
        let client = client(&address, None);
        client.observe_position("AQMqMCkVDg,other");
        assert_eq!(client.receipt("g", "m").await.expect("answered without it").status, Status::Recalled);
        assert_eq!(client.position(), "");
        assert_eq!(*heads.lock().expect("no panic"), [true, false]);
    }
}

/// INV-CLIENT
#[tokio::test(flavor = "multi_thread")]
async fn answer_with_other_ids_is_refused() {
    let address = proxy(|head| {
        let body = if head.contains("/members") {
            json!({"members": [], "next_cursor": null, "is_finished": true, "receipt": receipt("q1w2")})
        } else if head.contains("/read-marks/") {
            let mark = json!({"reader_id": "bob", "up_to_sent_at_ms": 1, "read_at_ms": 1, "version": 1});
            if head.starts_with("post") { json!({"read_marks": [mark], "position": "AQMqMCkVDg"}) } else { mark }
        } else if head.starts_with("post") {
            json!({"receipts": [receipt("q1w2")], "position": "AQMqMCkVDg"})
        } else {
            receipt("q1w2")
        };
        ("200 OK", "application/json", body.to_string())
    })
    .await;
    fn is_refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> bool {
        matches!(answer, Err(Error::OtherIds { .. }))
    }
    let client = client(&address, None);
    assert_eq!(client.receipt("g", "q1w2").await.expect("right").message_id, "q1w2");
    assert!(client.members_page("g", "q1w2", Filter::Read, 1, None).await.is_ok());
    assert!(client.read_mark("g", "bob").await.is_ok_and(|mark| mark.is_some()));
    assert!(client.read_marks("g", &["bob"]).await.is_ok_and(|marks| marks.len() == 1));
    // In paths, and in bodies.
    for other in ["q1w2+", "q1w2/"] {
        assert!(is_refused::<Receipt>(client.receipt("g", other).await));
        assert!(is_refused(client.receipt(other, "q1w2").await));
        assert!(is_refused(client.members_page("g", other, Filter::Read, 1, None).await));
        assert!(is_refused(client.read_mark("g", other).await));
        assert!(is_refused(client.read_marks("g", &[other]).await));
    }
    assert!(is_refused(client.read_marks("g", &["bob", "bob"]).await));
    assert_eq!(client.receipts(Some("g"), &["q1w2"]).await.expect("right").len(), 1);
    assert_eq!(client.receipts(None, &["q1w2"]).await.expect("right").len(), 1);
    assert!(is_refused(client.receipts(Some("g"), &["q1w2/"]).await));
    assert!(is_refused(client.receipts(Some("g"), &["q1w2", "q1w2"]).await));
}
