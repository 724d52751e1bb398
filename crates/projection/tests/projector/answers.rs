//! Answers that involve several partitions.

use crate::harness::{Harness, Running, now};
use receipts_query::Conversation;
use serde_json::json;

const PARTITIONS: u32 = 4;

fn partition_of(conversation_id: &str) -> u32 {
    Conversation::locate("default", conversation_id, PARTITIONS).partition
}

fn found(running: &Running, message_id: &str) -> Option<String> {
    let answer = now(running.answers().find("default", None, &[message_id.to_owned()])).unwrap();
    answer.value[0].conversation_id.clone()
}

#[test]
fn equal_send_times_are_resolved_by_log_then_name() {
    let harness = Harness::new(PARTITIONS);
    let ids: Vec<String> = (10..60).map(|n| format!("g{n}")).collect();
    let send = |conversation_id: &str, message_id: &str, sent_at_ms: u64| {
        harness.post(&json!({"type": "message.sent", "conversation_id": conversation_id, "message_id": message_id,
            "sender_id": "a", "sent_at_ms": sent_at_ms, "recipients": ["b"]}));
    };
    // Within partition 1, the conversation whose name sorts last sends first.
    let mut own = ids.iter().filter(|id| partition_of(id) == 1);
    let (early, late) = (own.next().unwrap(), own.next().unwrap());
    send(late, "twice", 5);
    send(early, "twice", 5);
    send(late, "twice, the first later", 6);
    send(early, "twice, the first later", 5);
    // In several partitions, the conversations send in descending order of their names.
    let mut of_each: Vec<&String> =
        (0..PARTITIONS).map(|p| ids.iter().find(|id| partition_of(id) == p).unwrap()).collect();
    of_each.sort();
    for id in of_each.iter().rev() {
        send(id, "everywhere", 5);
    }
    let running = harness.start();
    running.folded();
    assert_eq!(found(&running, "twice").as_ref(), Some(early));
    assert_eq!(found(&running, "twice, the first later").as_ref(), Some(late));
    assert_eq!(found(&running, "everywhere").as_ref(), of_each.last().copied());
    assert_eq!(found(&running, "nowhere"), None);
    running.stop().unwrap();
}
