"""A whole service per test run, in memory, as the double of the real one. RECEIPTS_BIN names the binary."""

import json
import os
import subprocess
import urllib.request
import uuid

import pytest


@pytest.fixture(scope="session")
def receipts():
    """The address of a service with its own log. It is gone after the tests, even if they are killed: the system closes
    its standard input then."""
    command = [os.environ.get("RECEIPTS_BIN", "receipts"), "serve", "--ephemeral", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        try:
            yield json.loads(service.stdout.readline())["http"]
        finally:
            service.terminate()


def call(url, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_bob_has_read(receipts):
    # An id of its own keeps tests apart that share the service.
    group = f"g-{uuid.uuid4()}"
    written = call(f"{receipts}/v1/events", [
        {"type": "members.changed", "conversation_id": group, "joined": ["alice", "bob", "carol"]},
        {"type": "message.sent", "conversation_id": group, "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1780000000000, "need_read_receipt": True},
        {"type": "message.read", "conversation_id": group, "message_ids": ["m1"], "reader_id": "bob"},
    ])
    # The position makes the answer include the events, so no test sleeps.
    receipt = call(f"{receipts}/v1/conversations/{group}/messages/m1/receipt",
                   Receipts_Min_Position=written["position"])
    assert (receipt["read_count"], receipt["unread_count"]) == (1, 1)
