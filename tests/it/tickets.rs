//! Tests tickets of streams over the real service with tokens. `crates/http` tests their rules.

use receipts_tests::process::Service;
use receipts_tests::tokens::{SECRET, token};
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

const ISSUED_FOR_US: [&str; 4] = ["--auth-issuer", "https://id.example", "--auth-audience", "receipts"];

/// INV-TICKET: the ticket is for a stream without a token. It outlives the process, and ends with
/// the token that it came from.
#[test]
fn ticket_carries_a_stream_until_its_token_ends() {
    let data = tempfile::tempdir().expect("a folder");
    let secret = data.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let directory = data.path().join("data");
    let flags = [
        &["serve", "--http-listen", "127.0.0.1:0", "--data-dir", directory.to_str().expect("UTF-8")][..],
        &["--auth-secret-file", secret.to_str().expect("UTF-8"), "--auth-leeway-ms", "0"],
        &["--projector-update-window-ms", "20"],
        &ISSUED_FOR_US,
    ]
    .concat();
    let service = Service::start_in(&[("RECEIPTS_LOG", "debug")], "receipts", &flags);
    let now_s = || UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let signed = |sub: &str, scope: &str, exp_s: u64| {
        let issued = json!({"iss": ISSUED_FOR_US[1], "aud": "receipts", "tenant": "default"});
        let mut claims = issued.as_object().expect("claims").clone();
        claims.extend(
            [("sub", json!(sub)), ("scope", json!(scope)), ("exp", json!(exp_s))].map(|(k, v)| (k.to_owned(), v)),
        );
        format!("Bearer {}", token(&Value::Object(claims)))
    };
    let ask = |service: &Service, bearer: &str, path: &str, body: &Value| {
        let headers = [("Authorization", bearer), ("Content-Type", "application/json")];
        service.request("POST", path, &headers, &body.to_string())
    };
    let backend = signed("crm", "receipts:write receipts:members", now_s() + 3_600);
    let sent = |message_id: &str| {
        json!({"type": "message.sent", "conversation_id": "g1", "message_id": message_id,
        "sender_id": "alice", "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true})
    };
    let roster = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]});
    assert_eq!(ask(&service, &backend, "/v1/events", &json!([roster])).status, 202);

    let ends_s = now_s() + 12;
    let alice = signed("alice", "", ends_s);
    let bobs = ask(&service, &alice, "/v1/updates/tickets", &json!({"sender_id": "bob"}));
    assert_eq!((bobs.status, &bobs.body["type"]), (403, &json!("urn:receipts:problem:forbidden")));
    let answer = ask(&service, &alice, "/v1/updates/tickets", &json!({"sender_id": "alice"}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Times of tokens are whole seconds.
    let expires_at_ms = answer.body["expires_at_ms"].as_u64().expect("a time");
    assert!((ends_s * 1_000..=ends_s * 1_000 + 1_000).contains(&expires_at_ms), "{expires_at_ms} of {ends_s}");
    let ticket = answer.body["ticket"].as_str().expect("a ticket").to_owned();
    let query = format!("ticket={ticket}");
    let mut stream = service.listen(&query, &[]);
    stream.wait_for_id();
    let logged = service.errors();
    let metrics = service.get("/metrics").body.to_string();
    let id = stream.last_id.clone();
    service.kill();

    let service = Service::start_in(&[("RECEIPTS_LOG", "debug")], "receipts", &flags);
    assert_eq!(ask(&service, &backend, "/v1/events", &json!([sent("m1")])).status, 202);
    let mut stream = service.listen(&query, &[("Last-Event-ID", &id)]);
    assert_eq!(stream.next_update().expect("an update").update["message_id"], "m1");
    while stream.next_update().is_some() {}
    assert!(now_s() >= ends_s, "it ends with the token");
    let refused = service.request("GET", &format!("/v1/updates?{query}"), &[("Last-Event-ID", &stream.last_id)], "");
    assert_eq!((refused.status, &refused.body["type"]), (401, &json!("urn:receipts:problem:unauthenticated")));
    for told in [logged, metrics, service.errors(), service.get("/metrics").body.to_string()] {
        assert!(!told.contains(&ticket[..40]), "a ticket is told: {told}");
    }
}
