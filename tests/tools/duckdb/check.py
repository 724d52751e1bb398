"""Imports made-up tables, exports them, and compares DuckDB's answers and `receipts stats` with what plain Python adds up."""

import csv
import json
import math
import random
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
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
    members, messages, reads, marks, said = [], [], [], [], {}
    for number in range(40):
        size = 2 if number < 10 else min(300, int(3 * chance.paretovariate(0.6)))
        kind = "direct" if number < 10 else "group"
        group_type = "" if kind == "direct" else chance.choice(["team", "announcement", 'odd "type", really'])
        tenant = chance.choice(["default", "acme", "a b.c"])
        conversation = f"c{number}" if number % 7 else f"grüße, {number}"
        people = [f"u{person}" for person in chance.sample(range(400), size)]
        for person in people:
            members.append({"tenant": tenant, "conversation_id": conversation, "user_id": person, "kind": kind, "group_type": group_type})
        # One person of some groups has read nothing but by a mark in the middle.
        marked = people[0] if number % 5 == 0 and size > 2 else None
        mark_at = now - 11 * DAY_MS // 2
        if marked:
            marks.append({"tenant": tenant, "conversation_id": conversation, "user_id": marked, "up_to_sent_at_ms": mark_at, "read_at_ms": now - 40_000})
        for at in range(30):
            # About 24 hours ago and less, and not so close that this test's run time would matter.
            sent_at = now - chance.choice([chance.randrange(2 * DAY_MS, 10 * DAY_MS), chance.randrange(60_000, DAY_MS // 2)])
            sender, message = chance.choice(people), f"m{at}"
            messages.append({"tenant": tenant, "conversation_id": conversation, "message_id": message, "sender_id": sender, "sent_at_ms": sent_at})
            audience = [person for person in people if person != sender]
            of = {"people": audience, "audience": len(audience), "reads": {}, "hidden": 0, "hidden_people": set(), "sent_at": sent_at, "kind": kind, "group_type": group_type or "default"}
            for person in audience:
                if person == marked:
                    if sent_at <= mark_at:
                        of["reads"][person] = now - 40_000
                    continue
                read_at = sent_at + int(chance.lognormvariate(12, 2))
                if chance.random() > 0.8 or read_at > now - 30_000:
                    continue
                hidden = chance.random() < 0.05
                if hidden:
                    of["hidden_people"].add(person)
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
    write("marks.csv", marks)
    return said, marks


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


def check_queries(said, marks, asked):
    classes, hours = defaultdict(list), defaultdict(list)
    for (tenant, _, _), of in said.items():
        for person, at in of["reads"].items():
            name = next(name for name, largest in CLASSES if of["audience"] <= largest)
            classes[name].append((at - of["sent_at"]) / 1000)
            hours[at // 3_600_000 % 24].append((tenant, person))

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
    largest = lambda rows: sorted(rows, key=lambda row: (-row[3], row[:3]))[:20]
    wanted = largest((*key, of["unread"], of["audience"]) for key, of in old.items())
    same("unread after 24 hours", asked["Not read by everybody 24 hours"], wanted)

    announcements = {key: of for key, of in said.items() if of["group_type"] == "announcement" and of["audience"] > 0}
    wanted = largest((*key, len(of["reads"]), 100 * len(of["reads"]) / of["audience"]) for key, of in announcements.items())
    told = asked["The most read announcements"]
    same("most read announcements", [row[:4] for row in told], [row[:4] for row in wanted])
    if not all(abs(row[4] - exact[4]) < 0.051 for row, exact in zip(told, wanted)):
        sys.exit(f"most read announcements: {told} and {wanted}")

    wanted = [(hour, len(set(hours[hour])), len(hours[hour])) for hour in sorted(hours)]
    same("readers by hour", asked["Readers by hour"], wanted)

    unread = lambda of: [p for p in of["people"] if p not in of["reads"] and (p not in of["hidden_people"] or of["kind"] == "direct")]
    people = Counter((key[0], person) for key, of in said.items() for person in unread(of))
    wanted = sorted(((*who, count) for who, count in people.items()), key=lambda row: (-row[2], row))[:20]
    same("people with the most unread", asked["People with the most unread"], wanted)
    key, of = min(said.items(), key=lambda item: (-item[1]["unread"], item[0]))
    same("who has not read", asked["Who has not read"], [(*key, person) for person in sorted(unread(of))])
    newer = lambda mark: sum(of["sent_at"] > mark["up_to_sent_at_ms"] for key, of in said.items() if key[:2] == (mark["tenant"], mark["conversation_id"]))
    wanted = [(mark["tenant"], mark["conversation_id"], mark["user_id"], newer(mark)) for mark in marks]
    same("messages after a mark", asked["Messages sent after"], sorted(wanted, key=lambda row: (-row[3], row))[:20])


def check_stats(said):
    stats = receipts("stats", "--top", "5")
    took, hours = defaultdict(list), [0] * 24
    bounds = [1, 10, 100, 1_000, math.inf]
    weekdays, types = Counter(), defaultdict(lambda: [0, 0, 0])
    for of in said.values():
        for at in of["reads"].values():
            took[next(n for n, largest in enumerate(bounds) if of["audience"] <= largest)].append(at - of["sent_at"])
            hours[at // 3_600_000 % 24] += 1
            weekdays[time.gmtime(at / 1000).tm_wday, at // 3_600_000 % 24] += 1
        sums = types["direct" if of["kind"] == "direct" else of["group_type"]]
        for at, count in enumerate([1, len(of["reads"]), of["unread"]]):
            sums[at] += count
    if [hour["reads"] for hour in stats["by_hour"]] != hours:
        sys.exit(f"stats by hour: {stats['by_hour']} and {hours}")
    told = [size["time_to_read"] for size in stats["by_audience"] if size["time_to_read"]["reads"]]
    for size, exact in zip(told, [sorted(took[n]) for n in sorted(took)], strict=True):
        for name, share in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)]:
            wanted = exact[max(1, math.ceil(share * len(exact))) - 1]
            if not near(size[name], wanted, 0.002):
                sys.exit(f"stats {name}: {size[name]}, and the tables say {wanted}")
    if [day["reads"][hour] for day in stats["by_weekday"] for hour in range(24)] != [weekdays[day, hour] for day in range(7) for hour in range(24)]:
        sys.exit(f"stats by weekday: {stats['by_weekday']} and {weekdays}")
    if {row["name"]: (row["messages"], row["read_count"], row["unread_count"]) for row in stats["by_group_type"]["largest"]} != {
        name: tuple(sums) for name, sums in types.items()
    }:
        sys.exit(f"stats by group type: {stats['by_group_type']} and {types}")
    read = sum(len(of["reads"]) for of in said.values())
    if (stats["readers"]["read_count"], stats["readers"]["audience_count"]) != (read, sum(of["audience"] for of in said.values())):
        sys.exit(f"stats readers: {stats['readers']}")
    print("receipts stats: as the tables say")


def main():
    said, marks = tables(random.Random(SEED))
    done = receipts("backfill", *(f"--{name}={WORK / name}.csv" for name in ["members", "messages", "reads", "marks"]))
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
    check_queries(said, marks, asked)

    # The other formats hold the same rows; what DuckDB makes of their types is its own.
    for dataset, column in [("messages", "read_count"), ("reads", "epoch_ms(read_at)"), ("members", "partition"), ("rosters", "partition"), ("read_marks", "version"), ("events", '"offset"')]:
        sums = [
            database.execute(f"SELECT count(*), sum({column}), count(DISTINCT tenant) FROM {read}").fetchone()
            for read in [
                f"read_parquet('{WORK}/parquet/{dataset}/*.parquet')",
                f"read_json('{WORK}/ndjson/{dataset}/*.ndjson')",
                f"read_csv('{WORK}/csv/{dataset}/*.csv')",
            ]
        ]
        same(f"{dataset} in three formats", sums[1:], sums[:1] * 2)
    check_stats(said)


NAMES = ["Time to read", "Not read by everybody 24 hours", "The most read announcements", "Readers by hour", "People with the most unread", "Who has not read", "Messages sent after"]
main()
