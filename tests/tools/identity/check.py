"""Runs the service behind identity providers, and checks that their tokens are taken as they are.

The service knows the issuer, the audience and names of claims, and nothing else: no URL of keys. It
must not take a provider for good that was not started.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import providers

# The longest wait for anything that must come, seconds.
DEADLINE_S = 120
RECEIPT = "/v1/conversations/g1/messages/m1/receipt"
EVENTS = [
    {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]},
    {
        "type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
        "sent_at_ms": 1780000000000, "need_read_receipt": True,
    },
]
READ = {"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]}
# How often the provider gets a new key.
ROTATIONS = 3


class Service:
    """A running `receipts serve`."""

    def __init__(self, receipts, folder, flags):
        self.log = open(folder / "serve.log", "w+b")
        command = [receipts, "serve", "--json", "--http-listen", "127.0.0.1:0", "--data-dir", folder / "data", *flags]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        if not line:
            raise providers.Failed("receipts serve ended:\n" + self.said())
        self.url = json.loads(line)["http"]

    def said(self):
        """Returns the log so far."""
        return Path(self.log.name).read_text()

    def ask(self, path, token, body=None, position=None):
        """Returns the status and the answer."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        if position:
            headers["Receipts-Min-Position"] = position
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def follow(self, token, updates):
        """Follows the updates of alice into a list, on a thread."""
        request = urllib.request.Request(
            self.url + "/v1/updates?sender_id=alice", headers={"Authorization": f"Bearer {token}"}
        )
        stream = urllib.request.urlopen(request, timeout=DEADLINE_S)

        def read():
            try:
                for line in stream:
                    if line.startswith(b"data:") and b"receipt.updated" in line:
                        updates.append(json.loads(line[5:]))
            except (OSError, ValueError, AttributeError):
                pass

        threading.Thread(target=read, daemon=True).start()

    def stop(self):
        """Ends it."""
        self.process.terminate()
        self.process.wait(30)


def expect(what, found, wanted):
    """Raises if two values differ."""
    if found != wanted:
        raise providers.Failed(f"{what}: {found}, wanted {wanted}")


def until(what, holds):
    """Waits until something holds."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > end:
            raise providers.Failed(f"{what} did not come within {DEADLINE_S} s")
        time.sleep(0.05)


def check(provider, receipts, folder):
    """Checks one provider; raises Failed."""
    service = Service(receipts, folder, ["--auth-issuer", provider.issuer, *provider.flags])
    try:
        backend = provider.service_token()
        status, posted = service.ask("/v1/events", backend, EVENTS)
        expect(f"the service posts ({posted})", status, 202)
        alice, bob = provider.token_of("alice"), provider.token_of("bob")
        updates = []
        service.follow(alice, updates)
        status, posted = service.ask("/v1/events", bob, READ)
        expect(f"bob posts his read ({posted})", status, 202)
        expect("bob removes alice", service.ask("/v1/events", bob, EVENTS)[0], 403)
        status, receipt = service.ask(RECEIPT, alice, position=posted["position"])
        expect(f"alice reads ({receipt})", (status, receipt.get("read_count")), (200, 1))
        until("the update", lambda: any(update["read_count"] == 1 for update in updates))
        expect("bob reads alice's receipt", service.ask(RECEIPT, bob)[0], 403)
        statuses = []
        for _ in range(ROTATIONS):
            provider.rotate()
            for _ in range(5):
                statuses.append(service.ask(RECEIPT, provider.token_of("alice"))[0])
        expect("reads through new keys", statuses, [200] * 5 * ROTATIONS)
        expect("a token that nobody signed", service.ask(RECEIPT, alice[:-10] + "AAAAAAAAAA")[0], 401)
        if provider.foreign:
            foreign, said = provider.foreign
            expect("a token for others", service.ask(RECEIPT, foreign())[0], 401)
            until(f"{said} in the log", lambda: said in service.said())
    except providers.Failed as error:
        lines = service.said().splitlines()[-8:]
        raise providers.Failed(f"{error}\n" + "\n".join(lines)) from error
    finally:
        service.stop()


def main():
    """Checks the providers that were named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("receipts", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("providers", nargs="*")
    arguments = parser.parse_args()
    names = arguments.providers or ["oidc-provider"]
    if names == ["all"]:
        names = list(providers.ALL)
    for name in names:
        if name not in providers.ALL:
            print(f"no provider {name}; known: {', '.join(providers.ALL)}, or all", file=sys.stderr)
            sys.exit(2)
    failed = False
    for name in names:
        for variant in providers.ALL[name].variants:
            folder = arguments.work / "run"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            label = f"{name} {variant}".strip()
            try:
                with providers.ALL[name](arguments.work, folder, variant) as provider:
                    check(provider, arguments.receipts, folder)
                print(f"{label}: ok", flush=True)
            except providers.Failed as error:
                failed = True
                print(f"{label}: {error}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
