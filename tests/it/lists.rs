//! Walks member lists of 100,000 of a running service while reads and departures are folded
//! (INV-PAGING). `crates/store` tests the law as a property, and the cost of a page at each depth.

use receipts_tests::process::Service;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PEOPLE: usize = 100_000;
const LIMIT: usize = 500;
const LIST: &str = "/v1/conversations/g1/messages/m1/members";
/// Events of one request while lists are walked.
const EVENTS: usize = 200;

/// A person's part in the test, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Does not change during the walks: has read, has left without reading, or will do neither.
    Read,
    Departed,
    Unread,
    /// Reads or leaves while lists are walked.
    Reads,
    Leaves,
}

fn fate(n: usize) -> Fate {
    match n % 10 {
        0 | 1 => Fate::Read,
        2 => Fate::Departed,
        3..=5 => Fate::Unread,
        6..=8 => Fate::Reads,
        _ => Fate::Leaves,
    }
}

fn people(of: Fate) -> Vec<String> {
    (0..PEOPLE).filter(|n| fate(*n) == of).map(|n| format!("user-{n}")).collect()
}

fn roster(field: &str, people: &[String]) -> Value {
    json!({"type": "members.changed", "conversation_id": "g1", field: people})
}

fn read(reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": "g1", "reader_id": reader, "message_ids": ["m1", "m2"]})
}

/// Writes events, 1,000 per request, and returns the last token.
fn write(service: &Service, events: &[Value]) -> String {
    events.chunks(1_000).fold(String::new(), |_, some| service.write(&json!(some)))
}

/// Walks through a list. Returns how often each person appeared, and whether the message changed
/// between pages.
fn walk(service: &Service, filter: &str, token: &str, pages: &AtomicUsize) -> (HashMap<String, usize>, bool) {
    let (mut seen, mut versions, mut cursor) = (HashMap::new(), Vec::new(), String::new());
    loop {
        let page = service.get_after(&format!("{LIST}?filter={filter}&limit={LIMIT}{cursor}"), token);
        assert_eq!(page.status, 200, "{}", page.body);
        let members = page.body["members"].as_array().expect("members");
        assert!(members.len() <= LIMIT);
        for member in members {
            *seen.entry(member["user_id"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
        versions.push(page.body["receipt"]["version"].as_u64().expect("a version"));
        pages.fetch_add(1, Ordering::Relaxed);
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (seen, versions.first() != versions.last()),
        }
    }
}

/// Returns the people who must be, and who may be, in a list at any moment of a walk.
fn expected(filter: &str) -> (Fate, &'static [Fate]) {
    match filter {
        "read" => (Fate::Read, &[Fate::Read, Fate::Reads]),
        "unread" => (Fate::Unread, &[Fate::Unread, Fate::Reads, Fate::Leaves]),
        _ => (Fate::Departed, &[Fate::Departed, Fate::Leaves]),
    }
}

fn check(filter: &str, seen: &HashMap<String, usize>) {
    let (must, may) = expected(filter);
    for (user, times) in seen {
        assert_eq!(*times, 1, "{user} appears more than once in {filter}");
        let number: usize = user.strip_prefix("user-").and_then(|n| n.parse().ok()).expect("one of ours");
        assert!(may.contains(&fate(number)), "{user} in {filter} is {:?}", fate(number));
    }
    let missing: Vec<String> = people(must).into_iter().filter(|user| !seen.contains_key(user)).collect();
    assert!(missing.is_empty(), "{} are missing in {filter}, the first {:?}", missing.len(), missing.first());
}

/// INV-PAGING
#[test]
fn walks_through_100_000_changing_members_name_each_once() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &[]);
    let everybody: Vec<String> = (0..PEOPLE).map(|n| format!("user-{n}")).collect();
    for some in everybody.chunks(10_000) {
        _ = service.write(&roster("joined", some));
    }
    let sent = |message: &str| {
        json!({"type": "message.sent", "conversation_id": "g1", "message_id": message, "sender_id": "alice",
               "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true})
    };
    let mut before = vec![roster("joined", &["alice".to_owned()]), sent("m1"), sent("m2")];
    before.extend(people(Fate::Read).iter().map(|reader| read(reader)));
    before.extend(people(Fate::Departed).chunks(1_000).map(|some| roster("left", some)));
    let token = write(&service, &before);

    // Reads and departures alternate.
    let mut meanwhile = Vec::new();
    let leaves = people(Fate::Leaves);
    let mut leaving = leaves.chunks(50);
    for some in people(Fate::Reads).chunks(150) {
        meanwhile.extend(some.iter().map(|reader| read(reader)));
        meanwhile.extend(leaving.next().map(|some| roster("left", some)));
    }
    let (pages, written) = (AtomicUsize::new(0), AtomicBool::new(false));
    let walked = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let requests: Vec<&[Value]> = meanwhile.chunks(EVENTS).collect();
            for (number, some) in requests.iter().enumerate() {
                // Paced by the walks, so that each walk meets changes on a machine of any speed.
                while pages.load(Ordering::Relaxed) < 2 * number {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ = service.write(&json!(some));
            }
            written.store(true, Ordering::Release);
        });
        let walks = ["read", "unread", "departed"].map(|filter| {
            let (service, token, pages, written) = (&service, &token, &pages, &written);
            scope.spawn(move || {
                let (mut walks, mut changed) = (0, 0);
                while !written.load(Ordering::Acquire) {
                    let (seen, has_changed) = walk(service, filter, token, pages);
                    check(filter, &seen);
                    walks += 1;
                    changed += usize::from(has_changed);
                }
                (filter, walks, changed)
            })
        });
        let walked = walks.map(|walk| walk.join().expect("the law holds"));
        writer.join().expect("written");
        walked
    });
    for (filter, walks, changed) in walked {
        assert!(changed > 0, "of {walks} walks through {filter} none met a change");
        println!("{filter}: {walks} walks, {changed} of them with changes meanwhile");
    }

    // In the end the lists equal the written events.
    let token = write(&service, &[read("user-0")]);
    let lists: [(&str, &[Fate]); 3] = [
        ("read", &[Fate::Read, Fate::Reads]),
        ("unread", &[Fate::Unread]),
        ("departed", &[Fate::Departed, Fate::Leaves]),
    ];
    for (filter, fates) in lists {
        let (seen, _) = walk(&service, filter, &token, &pages);
        let all: usize = fates.iter().map(|fate| people(*fate).len()).sum();
        assert_eq!(seen.len(), all, "{filter}");
        check(filter, &seen);
    }
}
