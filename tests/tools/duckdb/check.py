"""Imports made-up tables, exports them, and compares DuckDB's answers and `receipts stats` with what plain Python adds up."""

import csv
import json
import math
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import duckdb

RECEIPTS, WORK, QUERIES, SEED = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
DAY_MS = 24 * 3_600_000
CLASSES = [("1", 1), ("2-10", 10), ("11-100", 100), ("101 and more", math.inf)]


def receipts(*arguments):
    command = [RECEIPTS, *arguments, "--data-dir", str(WORK / "data"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def write(name, rows):
    with open(WORK / name, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def tables(chance):
    """Tables, and what they say of every message: audience, open readers with times, unread."""
    now = int(time.time() * 1000)
    members, messages, reads, said = [], [], [], {}
    for number in range(40):
        size = 2 if number < 10 else min(300, int(3 * chance.paretovariate(0.6)))
        kind = "direct" if number < 10 else "group"
        group_type = "" if kind == "direct" else chance.choice(["team", "announcement", 'odd "type", really'])
        tenant = chance.choice(["default", "acme", "a b.c"])
        conversation = f"c{number}" if number % 7 else f"grüße, {number}"
        people = [f"u{person}" for person in chance.sample(range(400), size)]
        for person in people:
            members.append({"tenant": tenant, "conversation_id": conversation, "user_id": person, "kind": kind, "group_type": group_type})
        for at in range(30):
            # About 24 hours ago and less, and not so close that this test's run time would matter.
            sent_at = now - chance.choice([chance.randrange(2 * DAY_MS, 10 * DAY_MS), chance.randrange(60_000, DAY_MS // 2)])
            sender, message = chance.choice(people), f"m{at}"
            messages.append({"tenant": tenant, "conversation_id": conversation, "message_id": message, "sender_id": sender, "sent_at_ms": sent_at})
            audience = [person for person in people if person != sender]
            of = {"audience": len(audience), "reads": {}, "hidden": 0, "sent_at": sent_at, "kind": kind, "group_type": group_type or "default"}
            for person in audience:
                read_at = sent_at + int(chance.lognormvariate(12, 2))
                if chance.random() > 0.8 or read_at > now - 30_000:
                    continue
                hidden = chance.random() < 0.05
                reads.append({"tenant": tenant, "conversation_id": conversation, "message_id": message, "user_id": person, "read_at_ms": read_at, "hidden": hidden})
                if not hidden:
                    of["reads"][person] = read_at
                elif kind == "group":
                    of["hidden"] += 1
            of["unread"] = of["audience"] - len(of["reads"]) - of["hidden"]
            said[tenant, conversation, message] = of
    chance.shuffle(reads)
    write("members.csv", members)
    write("messages.csv", messages)
    write("reads.csv", reads)
    return said


def quantile(values, q):
    values = sorted(values)
    at = q * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def near(a, b, part=1e-9):
    return abs(a - b) <= part * max(abs(a), abs(b), 1e-9)


def same(what, told, wanted):
    if told != wanted:
        sys.exit(f"{what}: DuckDB says\n  {told}\nand the tables say\n  {wanted}")
    print(f"{what}: as the tables say")


def statements():
    """The statements of the SQL blocks of the document, each with the comment above it."""
    blocks = re.findall(r"```sql\n(.*?)```", QUERIES.read_text(), re.S)
    return [statement.strip() for statement in re.split(r";\n", "".join(blocks)) if statement.strip()]


def check_queries(said, asked):
    classes, hours = defaultdict(list), defaultdict(list)
    for (tenant, _, _), of in said.items():
        for person, at in of["reads"].items():
            name = next(name for name, largest in CLASSES if of["audience"] <= largest)
            classes[name].append((at - of["sent_at"]) / 1000)
            hours[at // 3_600_000 % 24].append(person)

    told = asked["Time to read"]
    same("time to read, classes", [(row[0], row[3]) for row in told], [(n, len(classes[n])) for n, _ in CLASSES if classes[n]])
    for name, p50, p90, _ in told:
        for share, value in [(0.5, p50), (0.9, p90)]:
            exact = quantile(classes[name], share)
            if not near(value, exact):
                sys.exit(f"time to read of {name}: DuckDB says {value}, the tables {exact}")
    print("time to read, quantiles: as the tables say")

    now = time.time() * 1000
    old = {key: of for key, of in said.items() if of["unread"] > 0 and of["sent_at"] < now - DAY_MS}
    told = asked["Not read by everybody 24 hours"]
    same("unread after 24 hours, counts", [row[3] for row in told], sorted((of["unread"] for of in old.values()), reverse=True)[:20])
    same("unread after 24 hours, rows", [row[3:] for row in told], [(old[row[:3]]["unread"], old[row[:3]]["audience"]) for row in told])

    announcements = {key: of for key, of in said.items() if of["group_type"] == "announcement" and of["audience"] > 0}
    told = asked["The most read announcements"]
    wanted = sorted((len(of["reads"]) for of in announcements.values()), reverse=True)[:20]
    same("most read announcements, counts", [row[3] for row in told], wanted)
    percent = [round(100 * len(announcements[row[:3]]["reads"]) / announcements[row[:3]]["audience"], 1) for row in told]
    if not all(abs(row[4] - wanted) < 0.11 for row, wanted in zip(told, percent)):
        sys.exit(f"most read announcements: {told} and {percent}")

    wanted = [(hour, len(set(hours[hour])), len(hours[hour])) for hour in sorted(hours)]
    same("readers by hour", asked["Readers by hour"], wanted)


def check_stats(said):
    stats = receipts("stats", "--top", "5")
    took, hours = defaultdict(list), [0] * 24
    bounds = [1, 10, 100, 1_000, math.inf]
    for of in said.values():
        for at in of["reads"].values():
            took[next(n for n, largest in enumerate(bounds) if of["audience"] <= largest)].append(at - of["sent_at"])
            hours[at // 3_600_000 % 24] += 1
    if [hour["reads"] for hour in stats["by_hour"]] != hours:
        sys.exit(f"stats by hour: {stats['by_hour']} and {hours}")
    told = [size["time_to_read"] for size in stats["by_audience"] if size["time_to_read"]["reads"]]
    for size, exact in zip(told, [sorted(took[n]) for n in sorted(took)], strict=True):
        for name, share in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)]:
            wanted = exact[max(1, math.ceil(share * len(exact))) - 1]
            if not near(size[name], wanted, 0.002):
                sys.exit(f"stats {name}: {size[name]}, and the tables say {wanted}")
    read = sum(len(of["reads"]) for of in said.values())
    if (stats["readers"]["read_count"], stats["readers"]["audience_count"]) != (read, sum(of["audience"] for of in said.values())):
        sys.exit(f"stats readers: {stats['readers']}")
    print("receipts stats: as the tables say")


def main():
    said = tables(random.Random(SEED))
    done = receipts("backfill", *(f"--{name}={WORK / name}.csv" for name in ["members", "messages", "reads"]))
    print(f"imported: {done['rows']}")
    for form in ["parquet", "ndjson", "csv"]:
        receipts("export", "--out", str(WORK / form), "--format", form)
    database = duckdb.connect()
    database.execute(f"SET file_search_path = '{WORK / 'parquet'}'")
    asked = {}
    for statement in statements():
        result = database.execute(statement)
        comment = re.match(r"-- ([^\n]*)", statement)
        if comment:
            rows = result.fetchall()
            asked[next(name for name in NAMES if comment[1].startswith(name))] = rows
    if set(asked) != set(NAMES):
        sys.exit(f"{QUERIES} has other queries than this test: {sorted(asked)}")
    check_queries(said, asked)

    # The other formats hold the same rows; what DuckDB makes of their types is its own.
    for dataset, column in [("messages", "read_count"), ("reads", "read_at_ms"), ("rosters", "partition"), ("events", '"offset"')]:
        sums = [
            database.execute(f"SELECT count(*), sum({column}), count(DISTINCT tenant) FROM {read}").fetchone()
            for read in [
                f"read_parquet('{WORK}/parquet/{dataset}/*/*/*.parquet', hive_partitioning = false)",
                f"read_json('{WORK}/ndjson/{dataset}/*/*/*.ndjson', hive_partitioning = false)",
                f"read_csv('{WORK}/csv/{dataset}/*/*/*.csv', hive_partitioning = false)",
            ]
        ]
        same(f"{dataset} in three formats", sums[1:], sums[:1] * 2)
    check_stats(said)


NAMES = ["Time to read", "Not read by everybody 24 hours", "The most read announcements", "Readers by hour"]
main()
