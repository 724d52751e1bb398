//! Prints how many events per second `decode` reads on one thread. A measurement that never fails.

#![allow(clippy::print_stdout, reason = "the figures are this program's result")]
#![allow(clippy::disallowed_methods, reason = "a stopwatch reads the clock; no event's time comes from it")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use receipts_event::decode;

const ROUND: usize = 10_000;
const ROUNDS_TIME: Duration = Duration::from_secs(1);

fn main() {
    let ids = |count: usize| {
        let ids: Vec<String> = (0..count).map(|n| format!(r#""01J8ZQ4T3M{n:04}""#)).collect();
        ids.join(",")
    };
    let read = |count| {
        let ids = ids(count);
        format!(
            r#"{{"type":"message.read","conversation_id":"g-7f3a91c2","reader_id":"user-5521","message_ids":[{ids}],"read_at_ms":1780000004000}}"#
        )
    };
    let cases = [
        (
            "message.sent",
            r#"{"type":"message.sent","conversation_id":"g-7f3a91c2","message_id":"01J8ZQ4T3M0001","sender_id":"user-5521","sent_at_ms":1780000000000,"need_read_receipt":true}"#.to_owned(),
        ),
        (
            "message.sent, fields by name",
            r#"{"conversation_id":"g-7f3a91c2","message_id":"01J8ZQ4T3M0001","need_read_receipt":true,"sender_id":"user-5521","sent_at_ms":1780000000000,"type":"message.sent"}"#.to_owned(),
        ),
        ("message.read of 1", read(1)),
        ("message.read of 8", read(8)),
        (
            "conversation.read",
            r#"{"type":"conversation.read","conversation_id":"g-7f3a91c2","reader_id":"user-5521","up_to_message_id":"01J8ZQ4T3M0001","read_at_ms":1780000004000}"#.to_owned(),
        ),
        ("rejected: no message_id", r#"{"type":"message.recalled","conversation_id":"g-7f3a91c2"}"#.to_owned()),
    ];
    for (name, json) in cases {
        let (mut count, start) = (0_usize, Instant::now());
        while start.elapsed() < ROUNDS_TIME {
            for _ in 0..ROUND {
                let _ = black_box(decode(black_box(json.as_bytes())));
            }
            count += ROUND;
        }
        let per_s = count as f64 / start.elapsed().as_secs_f64();
        let (bytes, mb_per_s) = (json.len(), per_s * json.len() as f64 / 1e6);
        println!("{name:30} {bytes:4} B  {per_s:>10.0} events/s  {mb_per_s:>5.0} MB/s");
    }
}
