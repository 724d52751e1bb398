"""Writes a roster, a message and a read into each of 40 conversations."""

import json
import os
import time

from kafka import KafkaProducer


def events(conversation):
    common = {"conversation_id": conversation}
    now_ms = time.time_ns() // 1_000_000
    yield {"type": "members.changed", **common, "joined": ["alice", "bob"]}
    yield {"type": "message.sent", **common, "message_id": "m1", "sender_id": "alice", "sent_at_ms": now_ms,
           "need_read_receipt": True}
    yield {"type": "message.read", **common, "message_ids": ["m1"], "reader_id": "bob"}


# The default partitioner is right: murmur2 of the key. So are idempotence and acks.
producer = KafkaProducer(
    bootstrap_servers=os.environ.get("BOOTSTRAP", "localhost:9092"),
    key_serializer=str.encode,
    value_serializer=lambda event: json.dumps(event).encode(),
)
written = []
for number in range(40):
    conversation = f"{os.environ.get('PREFIX', 'chat-')}{number}"
    for event in events(conversation):
        topic = os.environ.get("TOPIC", "receipts.events")
        written.append(producer.send(topic, key=f"default/{conversation}", value=event))
for one in written:
    one.get(timeout=30)  # raises if the event was not written
producer.close()
