"""Writes a roster, a message and a read into each of 40 conversations."""

import json
import os
import time

from confluent_kafka import Producer


def events(conversation):
    common = {"conversation_id": conversation}
    now_ms = time.time_ns() // 1_000_000
    yield {"type": "members.changed", **common, "joined": ["alice", "bob"]}
    yield {"type": "message.sent", **common, "message_id": "m1", "sender_id": "alice", "sent_at_ms": now_ms,
           "need_read_receipt": True}
    yield {"type": "message.read", **common, "message_ids": ["m1"], "reader_id": "bob"}


def check(error, message):
    if error is not None:
        raise SystemExit(f"{message.key()} was not written: {error}")


producer = Producer({
    "bootstrap.servers": os.environ.get("BOOTSTRAP", "localhost:9092"),
    "partitioner": "murmur2_random",  # needed: the default is CRC-32
    "enable.idempotence": True,
})
for number in range(40):
    conversation = f"{os.environ.get('PREFIX', 'chat-')}{number}"
    for event in events(conversation):
        producer.produce(
            os.environ.get("TOPIC", "receipts.events"),
            key=f"default/{conversation}",
            value=json.dumps(event),
            on_delivery=check,
        )
        producer.poll(0)
producer.flush()
