//! Answers that involve several partitions.

use crate::bench::{Bench, Running, now};
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
fn of_equal_times_the_later_in_the_log_answers_and_between_partitions_the_last_by_name() {
    let bench = Bench::new(PARTITIONS);
    let ids: Vec<String> = (10..60).map(|n| format!("g{n}")).collect();
    let send = |conversation_id: &str, message_id: &str, sent_at_ms: u64| {
        bench.post(&json!({"type": "message.sent", "conversation_id": conversation_id, "message_id": message_id,
            "sender_id": "a", "sent_at_ms": sent_at_ms, "recipients": ["b"]}));
    };
    // Of one partition, the one that sorts last is sent first.
    let mut own = ids.iter().filter(|id| partition_of(id) == 1);
    let (early, late) = (own.next().unwrap(), own.next().unwrap());
    send(late, "twice", 5);
    send(early, "twice", 5);
    send(late, "twice, the first later", 6);
    send(early, "twice, the first later", 5);
    // Of several partitions, in an order that is not that of their names.
    let mut of_each: Vec<&String> =
        (0..PARTITIONS).map(|p| ids.iter().find(|id| partition_of(id) == p).unwrap()).collect();
    of_each.sort();
    for id in of_each.iter().rev() {
        send(id, "everywhere", 5);
    }
    let running = bench.start();
    running.folded();
    assert_eq!(found(&running, "twice").as_ref(), Some(early));
    assert_eq!(found(&running, "twice, the first later").as_ref(), Some(late));
    assert_eq!(found(&running, "everywhere").as_ref(), of_each.last().copied());
    assert_eq!(found(&running, "nowhere"), None);
    running.stop().unwrap();
}
