//! Tests that strangers learn nothing from the whole service: every kind of caller asks every route
//! for messages of every kind, by headers and by tokens, and gets the answers of the table below.
//! Asks a running process; the crates of fold and edge have tests of their own.

use receipts_tests::process::Service;
use receipts_tests::tokens::{SECRET, token};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A message, its conversation, and the answers to a service and to its sender: status of the
/// receipt, of the list of readers, and the item of a query.
const MESSAGES: [(&str, &str, [&str; 3], [&str; 3]); 6] = [
    ("g1", "m-open", ["200", "200", "ok"], ["200", "200", "ok"]),
    ("g1", "m-back", ["200", "409", "recalled"], ["200", "409", "recalled"]),
    ("g1", "m-mute", ["200", "409", "not_requested"], ["200", "409", "not_requested"]),
    ("n1", "m-news", ["200", "409", "unsupported"], ["200", "409", "unsupported"]),
    // Its sender was erased since, so it has no sender.
    ("g1", "m-gone", ["200", "200", "ok"], ["403", "403", "forbidden"]),
    ("g1", "m-none", ["404", "404", "not_found"], ["403", "403", "forbidden"]),
];

/// The callers: alice sends, bob reads, the bot observes, dave has left, erin was erased, mallory
/// was never a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Person(&'static str),
    /// A person of another tenant with the sender's name.
    Foreigner,
    Service,
    /// Only tokens can name it.
    ServiceWithoutScope,
}

const CALLERS: [Caller; 9] = [
    Caller::Person("alice"),
    Caller::Person("bob"),
    Caller::Person("bot"),
    Caller::Person("dave"),
    Caller::Person("erin"),
    Caller::Person("mallory"),
    Caller::Foreigner,
    Caller::Service,
    Caller::ServiceWithoutScope,
];

/// The credentials of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Headers,
    Tokens,
}

impl By {
    fn headers(self, caller: Caller) -> String {
        let (tenant, person, scope) = match caller {
            Caller::Person(name) => ("default", Some(name), ""),
            Caller::Foreigner => ("acme", Some("alice"), ""),
            Caller::Service => ("default", None, "receipts:members receipts:write"),
            Caller::ServiceWithoutScope => ("default", None, ""),
        };
        match self {
            Self::Headers => {
                let person = person.map(|name| format!("Receipts-Caller: {name}\r\n")).unwrap_or_default();
                format!("Receipts-Tenant: {tenant}\r\n{person}")
            }
            Self::Tokens => {
                let mut claims = json!({"iss": "https://id.example", "aud": "receipts", "exp": 9_999_999_999_u64,
                    "tenant": tenant, "scope": scope});
                if let Some(person) = person {
                    claims["sub"] = person.into();
                }
                format!("Authorization: Bearer {}\r\n", token(&claims))
            }
        }
    }
}

/// An answer as it came over the wire, without the parts that differ by intent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Raw {
    status: String,
    headers: Vec<String>,
    body: String,
}

struct Asked {
    service: Service,
    by: By,
}

impl Asked {
    fn ask(&self, caller: Caller, method: &str, path: &str, body: &str) -> Raw {
        let mut stream = TcpStream::connect(&self.service.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{}\r\n{body}",
            body.len(),
            self.by.headers(caller)
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut bytes = Vec::new();
        let mut block = [0; 4_096];
        let end = loop {
            let count = stream.read(&mut block).expect("an answer");
            assert!(count > 0, "{path} broke off");
            bytes.extend_from_slice(&block[..count]);
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).expect("UTF-8");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status").to_owned();
        let own = |line: &&str| !line.starts_with("date: ") && !line.starts_with("x-request-id: ");
        let headers: Vec<String> = lines.filter(own).map(str::to_owned).collect();
        // A stream does not end by itself.
        if !headers.iter().any(|line| line.contains("text/event-stream")) {
            stream.read_to_end(&mut bytes).expect("the rest");
        }
        Raw { status, headers, body: String::from_utf8(bytes[end + 4..].to_vec()).expect("UTF-8") }
    }

    fn receipt(&self, caller: Caller, (conversation, message): (&str, &str)) -> Raw {
        self.ask(caller, "GET", &format!("/v1/conversations/{conversation}/messages/{message}/receipt"), "")
    }

    fn list(&self, caller: Caller, (conversation, message): (&str, &str), filter: &str) -> Raw {
        let path = format!("/v1/conversations/{conversation}/messages/{message}/members?filter={filter}");
        self.ask(caller, "GET", &path, "")
    }

    fn query(&self, caller: Caller, conversation: Option<&str>, message: &str) -> Raw {
        let body = json!({"conversation_id": conversation, "message_ids": [message]}).to_string();
        self.ask(caller, "POST", "/v1/receipts/query", &body)
    }

    /// Returns every question about one message.
    fn everything(&self, caller: Caller, (conversation, message): (&str, &str)) -> Vec<Raw> {
        let at = (conversation, message);
        let lists = ["read", "unread", "departed"].map(|filter| self.list(caller, at, filter));
        let mut all = vec![self.receipt(caller, at)];
        all.extend(lists);
        all.push(self.query(caller, Some(conversation), message));
        all.push(self.query(caller, None, message));
        all
    }
}

fn item(answer: &Raw) -> String {
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["receipts"][0]["status"].as_str().unwrap_or_default().to_owned()
}

/// Starts a service with these messages and people.
fn service(data: &std::path::Path, by: By) -> Asked {
    let secret = data.join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let tokens = [
        "--auth-secret-file",
        secret.to_str().expect("UTF-8"),
        "--auth-issuer",
        "https://id.example",
        "--auth-audience",
        "receipts",
    ];
    let more: &[&str] = if by == By::Tokens { &tokens } else { &[] };
    let asked = Asked { service: Service::serve(&data.join("data"), more), by };
    let send = |conversation: &str, message: &str, sender: &str, asks: bool| {
        json!({"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": sender,
            "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": asks})
    };
    let people = json!(["alice", "bob", "carol", "dave", "erin"]);
    let mut events = vec![
        json!({"type": "policy.changed", "read_receipts": {"news": false, "*": true}}),
        json!({"type": "conversation.configured", "conversation_id": "n1", "kind": "group", "group_type": "news"}),
        json!({"type": "members.changed", "conversation_id": "g1", "joined": people, "observers": ["bot"]}),
        json!({"type": "members.changed", "conversation_id": "n1", "joined": people}),
        send("g1", "m-open", "alice", true),
        send("g1", "m-back", "alice", true),
        send("g1", "m-mute", "alice", false),
        send("n1", "m-news", "alice", true),
        send("g1", "m-gone", "erin", true),
        json!({"type": "message.recalled", "conversation_id": "g1", "message_id": "m-back"}),
        json!({"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m-open", "m-gone"]}),
        json!({"type": "conversation.read", "conversation_id": "g1", "reader_id": "bob", "up_to_message_id": "m-open"}),
        json!({"type": "members.changed", "conversation_id": "g1", "left": ["dave"]}),
        json!({"type": "user.erased", "user_id": "erin"}),
    ];
    events.extend((0..50).map(|n| send("g1", &format!("r{n:02}"), "alice", n % 2 == 0)));
    let answer = asked.ask(Caller::Service, "POST", "/v1/events", &Value::from(events).to_string());
    assert_eq!(answer.status, "202", "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    let token = body["position"].as_str().expect("a token").to_owned();
    // Once everything is folded the log is quiet, and positions stay.
    let path = "/v1/conversations/g1/messages/m-open/receipt";
    let head = format!("{}Receipts-Min-Position: {token}\r\nReceipts-Wait-Ms: 30000", by.headers(Caller::Service));
    let headers: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(asked.service.request("GET", path, &headers, "").status, 200);
    asked
}

/// INV-STRANGER, INV-ERASED
fn every_caller_is_answered_as_the_table_has_it(by: By) {
    let data = tempfile::tempdir().expect("a folder");
    let asked = service(data.path(), by);
    let callers = CALLERS.iter().filter(|caller| by == By::Tokens || **caller != Caller::ServiceWithoutScope);
    for &caller in callers {
        for (conversation, message, to_service, to_sender) in MESSAGES {
            let wanted = match caller {
                Caller::Service => to_service,
                Caller::Person("alice") => to_sender,
                _ => ["403", "403", "forbidden"],
            };
            let at = (conversation, message);
            let receipt = asked.receipt(caller, at);
            let list = asked.list(caller, at, "read");
            let (within, anywhere) =
                (asked.query(caller, Some(conversation), message), asked.query(caller, None, message));
            let got = [receipt.status.as_str(), list.status.as_str(), &item(&within)];
            assert_eq!(got, wanted, "{caller:?} of {message} by {by:?}");
            assert_eq!(item(&anywhere), wanted[2], "{caller:?} of {message} by {by:?}");
            for answer in [&receipt, &list, &within, &anywhere] {
                let is_silent = !answer.body.contains("erin") && (wanted[0] == "200" || !answer.body.contains("alice"));
                assert!(is_silent, "{caller:?} of {message}: {answer:?}");
            }
        }
        let sees_marks = matches!(caller, Caller::Service | Caller::Person("alice" | "bob" | "bot"));
        let mark = |of: &str| asked.ask(caller, "GET", &format!("/v1/conversations/g1/read-marks/{of}"), "").status;
        assert_eq!(mark("bob"), if sees_marks { "200" } else { "403" }, "{caller:?}");
        for nobody in ["nemo", "erin"] {
            let own = caller == Caller::Person(nobody);
            assert_eq!(mark(nobody), if sees_marks || own { "404" } else { "403" }, "{caller:?} of {nobody}");
        }
        let stream = |of: &str| asked.ask(caller, "GET", &format!("/v1/updates?{of}"), "").status;
        let by_scope = caller == Caller::Service;
        for conversation in ["g1", "nowhere"] {
            let of = format!("conversation_id={conversation}");
            assert_eq!(stream(&of), if by_scope { "200" } else { "403" }, "{caller:?} of {conversation}");
        }
        // The stream of another tenant's alice belongs to her, and says nothing of this one.
        let own = matches!(caller, Caller::Person("alice") | Caller::Foreigner);
        assert_eq!(stream("sender_id=alice"), if by_scope || own { "200" } else { "403" }, "{caller:?}");
        let event = json!({"type": "message.recalled", "conversation_id": "nowhere", "message_id": "m"}).to_string();
        let written = asked.ask(caller, "POST", "/v1/events", &event).status;
        assert_eq!(written, if by_scope { "202" } else { "403" }, "{caller:?}");
    }
}

#[test]
fn callers_by_headers_are_answered_by_the_table() {
    every_caller_is_answered_as_the_table_has_it(By::Headers);
}

#[test]
fn callers_by_tokens_are_answered_by_the_table() {
    every_caller_is_answered_as_the_table_has_it(By::Tokens);
}

/// INV-STRANGER: for a caller without the scope who is not the sender, an existing message is
/// answered byte for byte like a missing one, headers, problem and position included.
#[test]
fn answers_to_strangers_reveal_no_message() {
    let data = tempfile::tempdir().expect("a folder");
    let asked = service(data.path(), By::Tokens);
    let strangers = CALLERS.iter().filter(|caller| !matches!(caller, Caller::Person("alice") | Caller::Service));
    for &caller in strangers {
        let told = |conversation: &str, message: &str| -> Vec<Raw> {
            let answers = asked.everything(caller, (conversation, message)).into_iter();
            answers.map(|answer| Raw { body: answer.body.replace(message, "ID"), ..answer }).collect()
        };
        for (conversation, message, ..) in MESSAGES {
            assert_eq!(told(conversation, message), told(conversation, "m-null"), "{caller:?} of {message}");
        }
        for n in 0..10 {
            assert_eq!(told("g1", &format!("r{n:02}")), told("g1", &format!("x{n:02}")), "{caller:?} of r{n:02}");
        }
    }
}
