"""Runs the queries of docs/analytics.md in five dialects on an export, and compares the rows with what the HTTP answers and `receipts stats` add up to, in plain Python."""

import csv
import json
import math
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from engines import session

EXPORT, ANSWERS, STATS, TABLES, DOCUMENT = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), json.loads(Path(sys.argv[3]).read_text()), Path(sys.argv[4]), Path(sys.argv[5])
DATASETS = ["messages", "reads", "members", "read_marks"]
CLASSES = [("1", 1), ("2-10", 10), ("11-100", 100), ("101 and more", math.inf)]
HOUR_MS = 3_600_000


def statements():
    """The queries of the document, by the comment above each."""
    blocks = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    found = [statement.strip() for statement in "".join(blocks).split(";\n")]
    return {re.match(r"-- ([^\n]*)", statement)[1]: statement for statement in found if statement.startswith("--")}


def dialects():
    """The engine's expressions for two of DuckDB's, from the document's table."""
    rows = re.findall(r"^\| (\w+) \| (`.*?`|as above) \| (`.*?`|as above) \|$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    return {engine: (time.strip("`"), quantile.strip("`")) for engine, time, quantile in rows}


def arguments(text, begin):
    """The text up to the closing parenthesis of a call, and the index behind it."""
    depth = 1
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at], at + 1
    raise ValueError(text)


def translated(query, call, form, of):
    """The query with each call of a function in the engine's own form."""
    out = ""
    while call in query:
        at = query.index(call)
        inner, end = arguments(query, at + len(call))
        out, query = out + query[:at] + of(form, inner), query[end:]
    return out + query


def in_dialect(query, engine):
    time, quantile = dialects().get(engine, ("as above", "as above"))
    if quantile != "as above":
        query = translated(query, "quantile_cont(", quantile, lambda form, inner: form.replace("0.5", inner.rsplit(", ", 1)[1]).replace("(x", "(" + inner.rsplit(", ", 1)[0]))
    if time != "as above":
        query = translated(query, "epoch_ms(", time, lambda form, inner: form.replace("(t", "(" + inner))
    return query


def duckdb():
    import duckdb

    database = duckdb.connect()
    for name in DATASETS:
        database.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{EXPORT}/{name}/*.parquet')")
    return lambda query: database.execute(query).fetchall()


def datafusion():
    import datafusion

    context = datafusion.SessionContext()
    for name in DATASETS:
        context.sql(f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{EXPORT}/{name}/'").collect()
    return lambda query: [tuple(row.values()) for batch in context.sql(query).collect() for row in batch.to_pylist()]


def polars():
    import polars

    context = polars.SQLContext({name: polars.scan_parquet(EXPORT / name) for name in DATASETS})
    return lambda query: context.execute(query, eager=True).rows()


def clickhouse():
    from chdb.session import Session

    database = Session()
    for name in DATASETS:
        database.query(f"CREATE VIEW {name} AS SELECT * FROM file('{EXPORT}/{name}/*.parquet')")
    settings = "SETTINGS output_format_json_quote_64bit_integers = 0, join_use_nulls = 1"
    return lambda query: [tuple(json.loads(line)) for line in str(database.query(f"{query} {settings} FORMAT JSONCompactEachRow")).splitlines()]


def spark():
    for name in DATASETS:
        session().read.parquet(str(EXPORT / name)).createOrReplaceTempView(name)
    return lambda query: [tuple(row) for row in session().sql(query).collect()]


ENGINES = {"DuckDB": duckdb, "DataFusion": datafusion, "ClickHouse": clickhouse, "Spark": spark, "Polars": polars}


def quantile(values, q):
    values = sorted(values)
    at = q * (len(values) - 1)
    low = math.floor(at)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (at - low)


def expected():
    with open(TABLES / "members.csv", newline="", encoding="utf-8") as file:
        types = {(row["tenant"], row["conversation_id"]): row["group_type"] for row in csv.DictReader(file)}
    receipts = {(tenant, conversation, of["message_id"]): of for tenant, conversation, of in ANSWERS["receipts"] if of["status"] == "ok"}
    lists = defaultdict(list)
    for tenant, conversation, message, name, user, read_at in ANSWERS["members"]:
        lists[name].append(((tenant, conversation, message), user, read_at))
    took, hours = defaultdict(list), defaultdict(list)
    for key, user, read_at in lists["read"]:
        of = receipts[key]
        name = next(name for name, largest in CLASSES if of["audience_count"] <= largest)
        took[name].append((read_at - of["sent_at_ms"]) / 1000)
        hours[read_at // HOUR_MS % 24].append((key[0], user))
    largest = lambda rows: sorted(rows, key=lambda row: (-row[3], row[:3]))[:20]
    unread = Counter((key[0], user) for key, user, _ in lists["unread"])
    most = min(receipts, key=lambda key: (-receipts[key]["unread_count"], key))
    # Marks count every message of the conversation, of any status.
    newer = lambda tenant, conversation, up_to: sum(of["sent_at_ms"] > up_to for at, of_conversation, of in ANSWERS["receipts"] if (at, of_conversation) == (tenant, conversation))
    marks = [(tenant, conversation, reader, newer(tenant, conversation, up_to)) for tenant, conversation, reader, up_to, _ in ANSWERS["read_marks"]]
    # The records of an import are new, and its messages older than a day.
    return took, {
        "Time to read": [(name, quantile(took[name], 0.5), quantile(took[name], 0.9), len(took[name])) for name, _ in CLASSES if took[name]],
        "Not read by everybody": largest((*key, of["unread_count"], of["audience_count"]) for key, of in receipts.items() if of["unread_count"]),
        "The most read announcements": largest((*key, of["read_count"], round(100 * of["read_count"] / of["audience_count"], 1)) for key, of in receipts.items() if types[key[:2]] == "announcement" and of["audience_count"]),
        "Readers by hour": [(hour, len(set(people)), len(people)) for hour, people in sorted(hours.items())],
        "People with the most unread": sorted(((*who, count) for who, count in unread.items()), key=lambda row: (-row[2], row))[:20],
        "Who has not read": sorted((*key, user) for key, user, _ in lists["unread"] if key == most),
        "Messages sent after": sorted(marks, key=lambda row: (-row[3], row))[:20],
    }


def same(told, wanted):
    near = lambda a, b: abs(float(a) - float(b)) <= max(1e-6 * abs(float(b)), 0.051 if isinstance(b, float) else 0)
    alike = lambda a, b: near(a, b) if isinstance(b, (int, float)) else a == b
    return len(told) == len(wanted) and all(len(row) == len(other) and all(map(alike, row, other)) for row, other in zip(told, wanted))


def check_stats(took, hours):
    reads = [hour["reads"] for hour in STATS["by_hour"]]
    counts = {hour: count for hour, _, count in hours}
    if reads != [counts.get(hour, 0) for hour in range(24)]:
        sys.exit(f"receipts stats says {reads} by hour, and HTTP {hours}")
    by_class = Counter()
    for of in STATS["by_audience"]:
        name = next(name for name, largest in CLASSES if of.get("audience_max", math.inf) <= largest)
        by_class[name] += of["time_to_read"]["reads"]
    if {name: count for name, count in by_class.items() if count} != {name: len(values) for name, values in took.items()}:
        sys.exit(f"receipts stats says {by_class} reads by audience, and HTTP {({name: len(values) for name, values in took.items()})}")
    print("receipts stats: reads by hour and by audience, as HTTP answers")


def main():
    took, wanted = expected()
    check_stats(took, wanted["Readers by hour"])
    failed = 0
    for engine, opened in ENGINES.items():
        ask = opened()
        for comment, query in statements().items():
            name = next(name for name in wanted if comment.startswith(name))
            try:
                told = ask(in_dialect(query, engine))
            except Exception as error:
                print(f"{engine:10} {name}: {type(error).__name__}: {str(error)[:300]}")
                failed += 1
                continue
            if same(told, wanted[name]):
                print(f"{engine:10} {name}: {len(told)} rows as HTTP answers")
                continue
            failed += 1
            print(f"{engine:10} {name}: {told[:4]} …, and HTTP {wanted[name][:4]} …")
    if failed:
        sys.exit(f"{failed} queries differ from the HTTP answers")


main()
