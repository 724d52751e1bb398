"""Writes events into the source, waits for the mirror, and compares the receipts of both.

Also checks what docs/mirrors.md says about old stores, tokens and ids of streams. Knows nothing of
MirrorMaker: `run` beside it starts that.
"""

import atexit
import http.client
import json
import pathlib
import subprocess
import sys
import time

RECEIPTS, SOURCE, TARGET, WORK = sys.argv[1:]
CONVERSATIONS = 40
MESSAGES = 10
WAIT_S = 300


class Service:
    """`receipts serve` on a Kafka, with a data directory of a name."""

    def __init__(self, name, bootstrap, *more):
        log = open(pathlib.Path(WORK, f"{name}-{time.monotonic_ns()}.log"), "w", encoding="utf-8")
        arguments = [RECEIPTS, "serve", "--http-listen", "127.0.0.1:0", "--kafka-bootstrap", bootstrap]
        arguments += ["--data-dir", f"{WORK}/{name}", "--json", *more]
        self.log = log.name
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        atexit.register(self.process.kill)
        self.address = json.loads(line)["http"].removeprefix("http://") if line else None

    def request(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        if answer.getheader("Content-Type") == "text/event-stream":
            lines = []
            while not any(line.startswith("id: ") for line in lines):
                lines.append(answer.readline().decode().strip())
            return answer.status, lines[-1][len("id: ") :]
        return answer.status, json.loads(answer.read() or "null")

    def receipt(self, conversation, message, **headers):
        path = f"/v1/conversations/{conversation}/messages/{message}/receipt"
        return self.request("GET", path, **headers)

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)

    def said(self):
        return pathlib.Path(self.log).read_text(encoding="utf-8")


def check(holds, what, *seen):
    print("ok  " if holds else "FAIL", what, *([] if holds else seen))
    if not holds:
        sys.exit(1)


def events(conversation):
    people = [f"u{number}" for number in range(6)]
    yield {"type": "members.changed", "conversation_id": conversation, "joined": people}
    for number in range(MESSAGES):
        message = f"m{number}"
        sent_at_ms = int(time.time() * 1000)
        yield {
            "type": "message.sent",
            "conversation_id": conversation,
            "message_id": message,
            "sender_id": "u0",
            "sent_at_ms": sent_at_ms,
            "need_read_receipt": True,
        }
        for reader in people[1 : 1 + number % 6]:
            yield {
                "type": "message.read",
                "conversation_id": conversation,
                "reader_id": reader,
                "message_ids": [message],
            }


def counts(service):
    """The counts of all receipts; versions differ, because offsets do."""
    found = {}
    for number in range(CONVERSATIONS):
        for message in range(MESSAGES):
            status, receipt = service.receipt(f"g{number}", f"m{message}")
            counted = {name: value for name, value in receipt.items() if name.endswith("_count")}
            found[f"g{number}/m{message}"] = (status, tuple(sorted(counted.items())))
    return found


def records(bootstrap):
    listing = subprocess.run(
        ["kcat", "-C", "-e", "-q", "-o", "beginning", "-b", bootstrap, "-t", "receipts.events", "-f", "%p %o\\n"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )
    return len(listing.stdout.splitlines())


source = Service("source", SOURCE)
check(source.address, "the source serves", source.said())
written, token = 0, None
for number in range(CONVERSATIONS):
    batch = list(events(f"g{number}"))
    status, answer = source.request("POST", "/v1/events", batch)
    check(status == 202, f"wrote g{number}", answer) if status != 202 else None
    written, token = written + len(batch), answer["position"]
status, _ = source.receipt("g0", "m5", Receipts_Min_Position=token, Receipts_Wait_Ms="30000")
check(status == 200, "the source answers")
_, stream_id = source.request("GET", "/v1/updates?conversation_id=g0")
expected = counts(source)
check(all(status == 200 for status, _ in expected.values()), "the source has every receipt")

deadline = time.monotonic() + WAIT_S
while (mirrored := records(TARGET)) < written and time.monotonic() < deadline:
    time.sleep(1)
check(mirrored >= written, f"the mirror has all {written} records", mirrored)

mirror = Service("mirror", TARGET)
check(mirror.address, "an empty store on the mirror serves", mirror.said())
deadline = time.monotonic() + WAIT_S
while mirror.request("GET", "/readyz")[0] != 200 and time.monotonic() < deadline:
    time.sleep(0.1)
check(counts(mirror) == expected, "every receipt has the counts of the source")
status, problem = mirror.receipt("g0", "m5", Receipts_Min_Position=token)
check(status == 400 and "another log" in json.dumps(problem), "a token of the source is refused", status, problem)
status, problem = mirror.request("GET", "/v1/updates?conversation_id=g0", Last_Event_ID=stream_id)
check(status == 410, "a stream's id of the source is 410", status, problem)
check(mirror.stop() == 0, "the mirror's service stops")
check(source.stop() == 0, "the source's service stops")

old = Service("source", TARGET)
check(old.address is None and old.process.wait(60) == 1, "the source's store is refused on the mirror")
check("of the cluster" in old.said(), "the refusal names the clusters", old.said())
