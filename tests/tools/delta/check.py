"""Writes events to a service in steps, keeps live tables of its log in a folder or a bucket, and compares each version, as deltalake and Polars read it, with an export of its position."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import polars
from deltalake import DeltaTable

RECEIPTS, WORK = sys.argv[1], Path(sys.argv[2])
DATASETS = ["messages", "reads", "members", "rosters", "read_marks"]
SENT_AT_MS = 1_780_000_000_000


def receipts(*arguments):
    command = [RECEIPTS, *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def write(events):
    """Starts a service, posts events, and stops it, because one process has an embedded log open."""
    command = [RECEIPTS, "serve", "--http-listen", "127.0.0.1:0", "--data-dir", str(WORK / "data"), "--json"]
    with open(WORK / "log", "w") as log:
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            ready = json.loads(service.stdout.readline())
            url = f"{ready['http']}/v1/events"
            body = json.dumps(events).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=60).read()
        finally:
            service.terminate()
            service.wait()


def sent(conversation, number):
    return {"type": "message.sent", "conversation_id": conversation, "message_id": f"m{number}", "sender_id": "u0", "sent_at_ms": SENT_AT_MS + number, "need_read_receipt": True}


def read(conversation, reader, numbers):
    return {"type": "message.read", "conversation_id": conversation, "reader_id": reader, "message_ids": [f"m{number}" for number in numbers]}


def steps():
    conversations = [f"grüße, {number}" for number in range(8)]
    people = [f"u{person}" for person in range(20)]
    yield [{"type": "members.changed", "conversation_id": of, "joined": people} for of in conversations]
    yield [sent(of, number) for of in conversations for number in range(100)]
    yield [read(of, person, range(0, 100, 3)) for of in conversations for person in people[1:9]]
    marks = [{"type": "conversation.read", "conversation_id": of, "reader_id": "u9", "up_to_message_id": "m50"} for of in conversations]
    yield marks + [{"type": "members.changed", "conversation_id": conversations[0], "left": people[15:]}]
    yield [sent(conversations[3], number) for number in range(100, 120)] + [read(conversations[3], "u11", range(60, 120))]


def rows(frame):
    """Rows in an order of their own, with times in milliseconds."""
    times = [name for name, kind in frame.schema.items() if isinstance(kind, polars.Datetime)]
    frame = frame.with_columns(polars.col(name).dt.epoch("ms") for name in times)
    return sorted(map(repr, frame.select(sorted(frame.columns)).rows()))


def main():
    tables = sys.argv[3] if len(sys.argv) > 3 else str(WORK / "tables")
    for events in steps():
        write(events)
        receipts("export", "--follow", "--once", "--out", tables, "--data-dir", str(WORK / "data"))
    exports = {}
    for line in receipts("export", "--versions", "--out", tables):
        dataset, version, position = line["dataset"], line["version"], line["position"]
        if position not in exports:
            exports[position] = WORK / f"export-{len(exports)}"
            receipts("export", "--position", position, "--out", str(exports[position]), "--data-dir", str(WORK / "data"))
        wanted = rows(polars.read_parquet(exports[position] / dataset / "*.parquet"))
        table = f"{tables}/{dataset}"
        told = {
            "Polars": polars.scan_delta(table, version=version).collect(),
            "deltalake": polars.from_arrow(DeltaTable(table, version=version).to_pyarrow_table()),
        }
        for reader, frame in told.items():
            if rows(frame) != wanted:
                sys.exit(f"{dataset} version {version}: {reader} has {frame.height} rows, and the export of {position} {len(wanted)}, or they differ")
        print(f"{dataset} version {version}: {len(wanted)} rows, as exported")
    for dataset in DATASETS:
        if polars.scan_delta(f"{tables}/{dataset}").collect().is_empty():
            sys.exit(f"{dataset}: the newest version has no rows, so that nothing was compared")


main()
