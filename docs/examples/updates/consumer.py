"""Keeps the newest receipt of each message in a table, from the topic of updates, until SIGTERM.

Updates arrive at least once, and an older one may follow a newer one. The higher `version` wins, so
a record that comes again changes nothing.
"""

import json
import os
import signal
import sqlite3

from confluent_kafka import Consumer

table = sqlite3.connect(os.environ.get("TABLE", "receipts.db"))
table.execute("""
    create table if not exists receipts (
      tenant text, conversation_id text, message_id text, version integer, audience_count integer, read_count integer,
      primary key (tenant, conversation_id, message_id))""")
KEEP = """
    insert into receipts values (:tenant, :conversation_id, :message_id, :version, :audience_count, :read_count)
    on conflict do update set version = excluded.version, audience_count = excluded.audience_count,
      read_count = excluded.read_count
    where excluded.version > receipts.version"""

consumer = Consumer({
    "bootstrap.servers": os.environ.get("BOOTSTRAP", "localhost:9092"),
    "group.id": os.environ.get("GROUP", "receipts-table"),
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
})
consumer.subscribe([os.environ.get("TOPIC", "receipts.updates")])
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
while not stopping:
    records = consumer.consume(num_messages=500, timeout=0.5)
    if not records:
        continue
    for record in records:
        if record.error() is not None:
            raise SystemExit(record.error().str())
        update = json.loads(record.value())
        # Updates of other types, and of later versions of the service, are none of its business.
        if update["type"] == "receipt.updated" and update["status"] == "ok":
            table.execute(KEEP, update)
    table.commit()
    # Only now: a crash before this line repeats the records, and loses none.
    consumer.commit(asynchronous=False)
consumer.close()
