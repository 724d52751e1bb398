"""Runs the examples against a broker and the service, and prints the table of docs/producers.md.

It asks over HTTP, as a caller does, and reads dead letters from their topic. See `run --help`.
"""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import RetriableError

from clients import ALL, CLIENTS, DOUBLES, EXAMPLES, UPDATES, environment_of, without_needed
from parts import Broker, Postgres, Service, fail, wait_for

CONVERSATIONS = 40
PARTITIONS = 12
RECORDS = 3 * CONVERSATIONS


def kept(table, conversations):
    """The consumer's rows of these conversations."""
    with contextlib.closing(sqlite3.connect(table, timeout=30)) as database:
        try:
            wanted = "conversation_id, version, audience_count, read_count"
            rows = database.execute(f"select {wanted} from receipts").fetchall()
        except sqlite3.OperationalError:
            return {}  # it has not made the table yet
    return {row[0]: row[1:] for row in rows if row[0] in conversations}


class Check:
    """One broker, one service, and the results of all examples."""

    def __init__(self, receipts, cache, work):
        self.receipts, self.cache, self.work = receipts, cache, work
        self.broker = Broker(work)
        self.service = Service(receipts, work, self.broker.bootstrap)
        self.wrong, self.rows, self.written = [], [], []
        self.log = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, enable_auto_commit=False)
        self.admin = KafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        partitions = self.log.partitions_for_topic("receipts.events")
        if len(partitions) != PARTITIONS:
            fail(f"the service made {len(partitions)} partitions by default, not {PARTITIONS}")

    def end(self, topic):
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        return self.log.end_offsets(partitions)

    def prepare(self, client, is_stripped):
        """Copies an example into the cache, with its installed packages, and builds it."""
        folder, source = self.cache / client.folder, EXAMPLES / client.folder
        folder.mkdir(parents=True, exist_ok=True)
        version_file = client.version_in[0]
        note = folder / "installed"
        wanted = (source / version_file).read_text()
        if client.install and not (note.exists() and note.read_text() == wanted):
            shutil.rmtree(folder)
            shutil.copytree(source, folder)
            for command in client.install:
                self.command(client, command, folder)
            note.write_text(wanted)
        for path in source.rglob("*"):
            if path.is_file():
                text = path.read_text()
                to = folder / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_text(without_needed(text) if is_stripped else text)
        for command in client.build:
            self.command(client, command, folder)
        return folder

    def command(self, client, command, folder, **more):
        ended = subprocess.run(command, cwd=folder, env=environment_of(client, **more), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1_800)
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} in {folder} ended with {ended.returncode}:\n{ended.stdout}")
        return ended.stdout

    def judge(self, client, mode, prefix):
        """Runs an example, and returns the number of right receipts and its dead letters."""
        folder = self.prepare(client, is_stripped=mode == "defaults" and not client.trap)
        before = self.end("receipts.dead-letters")
        records = sum(self.end("receipts.events").values())
        settings = {"BOOTSTRAP": self.broker.bootstrap, "TOPIC": "receipts.events", "PREFIX": prefix}
        if mode == "defaults":
            settings.update(client.trap)
        if client.is_worker:
            self.run_worker(client, folder, settings, lambda: sum(self.end("receipts.events").values()) - records)
        else:
            self.command(client, client.run, folder, **settings)
        token = self.service.barrier()
        right = sum(self.is_right(f"{prefix}{number}", token) for number in range(CONVERSATIONS))
        return right, self.dead_letters(before)

    def run_worker(self, client, folder, settings, written):
        with Postgres(self.work) as postgres:
            postgres.psql(folder / "outbox.sql", settings["PREFIX"])
            # The slot and the offsets are new each time: the outbox is read from its beginning.
            settings.update(postgres.environment, OFFSETS=str(postgres.folder / "offsets"), SLOT="receipts")
            with open(self.work / "worker.log", "w") as log:
                worker = subprocess.Popen(client.run, cwd=folder, env=environment_of(client, **settings),
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            try:
                wait_for("the worker has written all records",
                         lambda: written() >= RECORDS or worker.poll() is not None, 180)
                if worker.poll() is not None or written() != RECORDS:
                    fail(f"the worker wrote {written()} records:\n{(self.work / 'worker.log').read_text()}")
            finally:
                worker.terminate()
                worker.wait(60)

    def is_right(self, conversation, token):
        receipt = self.service.receipt(conversation, "m1", token)
        counts = receipt.get("audience_count"), receipt.get("read_count"), receipt.get("unread_count")
        return receipt.get("status") == "ok" and counts == (1, 1, 0)

    def dead_letters(self, before):
        """The dead letters since `before`: all that the service counts are waited for."""
        counted = self.service.dead_letters()
        wait_for("the dead letters are in their topic",
                 lambda: sum(self.end("receipts.dead-letters").values()) >= counted, 60)
        ends, letters = self.end("receipts.dead-letters"), []
        for partition, end in ends.items():
            self.log.assign([partition])
            self.log.seek(partition, before[partition])
            while self.log.position(partition) < end:
                for records in self.log.poll(timeout_ms=1_000).values():
                    letters += [{name: text.decode() for name, text in record.headers} for record in records]
        return letters

    def client(self, client):
        files = [path for path in (EXAMPLES / client.folder).rglob("*") if path.is_file()]
        has_needed = any("needed:" in path.read_text() for path in files)
        modes = ["defaults", "set"] if client.trap or (has_needed and client.cause) else ["set"]
        right = {}
        for mode in modes:
            began = time.monotonic()
            right[mode], letters = self.judge(client, mode, f"{client.name}-{mode}-")
            reasons = Counter(letter["dead-letter-reason"] for letter in letters)
            print(f"{client.name} {mode}: {right[mode]} of {CONVERSATIONS}, dead letters {dict(reasons)},"
                  f" {time.monotonic() - began:.0f} s", flush=True)
            # A send whose roster went elsewhere is a consequence, not the cause.
            details = [letter["dead-letter-detail"] for letter in letters if letter["dead-letter-reason"] != "no-roster"]
            if mode == "set":
                self.written += [f"{client.name}-set-{number}" for number in range(CONVERSATIONS)]
                if right[mode] != CONVERSATIONS or letters:
                    self.wrong.append(f"{client.name}: {right[mode]} of {CONVERSATIONS}, dead letters {letters[:3]}")
            elif right[mode] == CONVERSATIONS or not details:
                self.wrong.append(f"{client.name}: it is right without the lines marked `needed:`, so these are not")
            elif others := [detail for detail in details if not re.search(client.cause, detail)]:
                self.wrong.append(f"{client.name}: {len(others)} dead letters do not say {client.cause!r}: {others[0]}")
        at_defaults = right.get("defaults", right["set"])
        self.rows.append((client.row, client.version(), at_defaults, right["set"]))

    def updates(self):
        """The consumer's table equals the service's answers, also after all updates came again."""
        folder, table = self.prepare(UPDATES, is_stripped=False), self.work / "receipts.db"
        token = self.service.barrier()
        want = {}
        for conversation in self.written:
            receipt = self.service.receipt(conversation, "m1", token)
            want[conversation] = (receipt["version"], receipt["audience_count"], receipt["read_count"])
        if not want:
            fail("no example has written before the consumer: name one beside `updates`")
        for group in ["first", "again"]:
            settings = {"BOOTSTRAP": self.broker.bootstrap, "TABLE": str(table), "GROUP": group}
            consumer = subprocess.Popen(UPDATES.run, cwd=folder, env=environment_of(UPDATES, **settings))
            try:
                wait_for("the consumer's table is as the service answers, after all updates",
                         lambda: consumer.poll() is not None or self.lag(group) == 0 and kept(table, want) == want, 120)
            finally:
                consumer.terminate()
                status = consumer.wait(60)
            if status != 0:
                fail(f"the consumer ended with {status}")
            print(f"updates {group}: {len(want)} rows as the service answers", flush=True)

    def lag(self, group):
        """The updates that a group has not committed yet."""
        ends = self.end("receipts.updates")
        try:
            done = self.admin.list_group_offsets({group: None})[group]
        except RetriableError:
            done = {}  # the broker has just begun to coordinate the group
        return sum(end - max(0, done[partition].offset if partition in done else 0) for partition, end in ends.items())

    def double(self, client):
        folder = self.prepare(client, is_stripped=False)
        self.command(client, client.run, folder, RECEIPTS_BIN=str(self.receipts))
        print(f"{client.name}: passed", flush=True)


def arguments():
    receipts, cache, *words = sys.argv[1:]
    if words == ["--list"]:
        print("\n".join(ALL))
        sys.exit(0)
    without, named = [], []
    while words:
        word = words.pop(0)
        if word == "--without" and words:
            without.append(words.pop(0))
        else:
            named.append(word)
    for word in [*without, *named]:
        if word not in ALL:
            print(f"tests/tools/producers/run: no example {word}; there are {', '.join(ALL)}", file=sys.stderr)
            sys.exit(2)
    return Path(receipts), Path(cache), [name for name in named or ALL if name not in without]


def main():
    receipts, cache, names = arguments()
    left_out = []
    with tempfile.TemporaryDirectory() as work:
        check = Check(receipts, cache, Path(work))
        try:
            for client in [*CLIENTS, UPDATES, *DOUBLES]:
                if client.name not in names:
                    continue
                missing = [tool for tool in client.tools if shutil.which(tool) is None]
                if missing:
                    left_out.append(f"{client.name}: {', '.join(missing)} is not on this machine")
                    continue
                doubles = check.double if client in DOUBLES else lambda _: check.updates()
                do = check.client if client in CLIENTS else doubles
                try:
                    do(client)
                except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                    check.wrong.append(f"{client.name}: {error}")
                    print(f"wrong: {check.wrong[-1]}", flush=True)
        finally:
            check.service.stop()
            check.broker.stop()
    print("\n| client | version | without the `needed` lines, or with JSON keys, of 40 | as the example, of 40 |")
    print("| --- | --- | --- | --- |")
    for row in check.rows:
        print(f"| {' | '.join(map(str, row))} |")
    for line in left_out:
        print(f"left out: {line}; --without leaves it out on purpose")
    for line in check.wrong:
        print(f"wrong: {line}")
    sys.exit(1 if left_out or check.wrong else 0)


if __name__ == "__main__":
    main()
