"""Imports Parquet files as DuckDB, Polars, pandas and pyarrow write them, one column type at a time, and compares ids and times in the log with what a person would write. A type that no id or time has must be rejected by row, with its name."""

import datetime
import decimal
import json
import subprocess
import sys
import uuid
from collections import defaultdict
from pathlib import Path

import duckdb
import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet

RECEIPTS, WORK = sys.argv[1], Path(sys.argv[2])
SENT_MS = 1_795_181_400_123
SENT = datetime.datetime(2026, 11, 20, 13, 30, 0, 123_000)
UTC = datetime.timezone.utc
UUID = "0b0f7a46-5f2e-4d7c-9f0b-3f1f0a4c2d11"
MILLION = 2**63 + 1


class Rejected(str):
    """A part of the reason for which a row is rejected."""


def rest(case, column):
    """The other columns: each case is a conversation of its own."""
    other = {"sent_at_ms": SENT_MS} if column == "message_id" else {"message_id": "m"}
    return {"conversation_id": f"c{case}", "sender_id": "ann", **other}


def of_duckdb(path, case, column, sql):
    others = ", ".join(f"{value!r} AS {name}" for name, value in rest(case, column).items())
    duckdb.execute(f"COPY (SELECT {others}, {sql} AS {column}) TO '{path}' (FORMAT parquet)")


def of_polars(path, case, column, series):
    polars.DataFrame({**{name: [value] for name, value in rest(case, column).items()}, column: series}).write_parquet(path)


def of_pandas(path, case, column, values):
    # Two rows of one column are two messages, also where the column is not their id.
    names = rest(case, column)
    frame = pandas.DataFrame({name: [f"{value}{row}" if name == "message_id" else value for row in range(len(values))] for name, value in names.items()})
    frame[column] = values
    frame.to_parquet(path)


def of_pyarrow(path, case, column, array):
    table = pyarrow.table({**{name: [value] * len(array) for name, value in rest(case, column).items()}, column: array})
    pyarrow.parquet.write_table(table, path)


A = pyarrow.array
IDS = [
    (of_duckdb, f"UUID '{UUID}'", UUID),
    (of_duckdb, "170141183460469231731687303715884105727::HUGEINT", Rejected("a double that stands for several whole numbers")),
    (of_duckdb, "42::HUGEINT", "42"),
    (of_duckdb, "42::UHUGEINT", "42"),
    (of_duckdb, "9223372036854775809::UBIGINT", str(MILLION)),
    (of_duckdb, "12345678901234567890123456789012345678::DECIMAL(38, 0)", "12345678901234567890123456789012345678"),
    (of_duckdb, "42::DECIMAL(18, 2)", "42"),
    (of_duckdb, "42.5::DECIMAL(18, 2)", Rejected("42.50")),
    (of_duckdb, "42::DOUBLE", "42"),
    (of_duckdb, "42.5::DOUBLE", Rejected("42.5")),
    (of_duckdb, "1e300::DOUBLE", Rejected("several whole numbers")),
    (of_duckdb, "'nan'::DOUBLE", Rejected("missing")),
    (of_duckdb, "42::FLOAT", "42"),
    (of_duckdb, "33554433::FLOAT", Rejected("Float32")),
    (of_duckdb, "'\\x00\\xff'::BLOB", Rejected("Binary")),
    (of_duckdb, "'m1'::BLOB", "m1"),
    (of_duckdb, "'m1'::ENUM('m1', 'm2')", "m1"),
    (of_duckdb, "true", Rejected("the flag true")),
    (of_duckdb, "DATE '2026-11-20'", Rejected("a timestamp")),
    (of_duckdb, "TIMESTAMP '2026-11-20 13:30:00'", Rejected("a timestamp")),
    (of_duckdb, "TIME '13:30:00'", Rejected("Time64")),
    (of_duckdb, "INTERVAL 3 HOUR", Rejected("Interval")),
    (of_duckdb, "['m1']", Rejected("a list")),
    (of_duckdb, "MAP {'a': 'm1'}", Rejected("an object")),
    (of_duckdb, "{'a': 'm1', 'b': 1}", Rejected("an object")),
    (of_duckdb, "'\"m1\"'::JSON", '"m1"'),
    (of_polars, polars.Series([MILLION], dtype=polars.UInt64), str(MILLION)),
    (of_polars, polars.Series([7], dtype=polars.Int8), "7"),
    (of_polars, polars.Series([decimal.Decimal("42.00")], dtype=polars.Decimal(20, 2)), "42"),
    (of_polars, polars.Series(["m1"], dtype=polars.Categorical), "m1"),
    (of_polars, polars.Series(["m1"], dtype=polars.Enum(["m1"])), "m1"),
    (of_polars, polars.Series([b"m1"]), "m1"),
    (of_polars, polars.Series([b"\x00\xff"]), Rejected("Binary")),
    (of_polars, polars.Series([42.0]), "42"),
    (of_polars, polars.Series([["m1"]]), Rejected("a list")),
    (of_polars, polars.Series([["m1", "m2"]], dtype=polars.Array(polars.String, 2)), Rejected("a list")),
    (of_polars, polars.Series([{"a": 1}]), Rejected("an object")),
    (of_polars, polars.Series([datetime.timedelta(hours=3)]), Rejected("Duration")),
    (of_polars, polars.Series([datetime.time(13, 30)]), Rejected("Time64")),
    (of_pandas, [42.0, float("nan")], ["42", Rejected("missing")]),
    (of_pandas, pandas.array([42, None], dtype="Int64"), ["42", Rejected("missing")]),
    (of_pandas, pandas.Categorical(["m1", "m2"]), ["m1", "m2"]),
    (of_pandas, [b"m1", b"m2"], ["m1", "m2"]),
    (of_pandas, [True, False], [Rejected("the flag"), Rejected("the flag")]),
    (of_pyarrow, A([uuid.UUID(UUID).bytes], pyarrow.uuid()) if hasattr(pyarrow, "uuid") else A([UUID]), UUID),
    (of_pyarrow, A([b"0123456789abcdef"], pyarrow.binary(16)), Rejected("FixedSizeBinary(16)")),
    (of_pyarrow, A([decimal.Decimal("1" * 60)], pyarrow.decimal256(76, 0)), "1" * 60),
    (of_pyarrow, A([decimal.Decimal("1.5")], pyarrow.decimal256(76, 1)), Rejected("1.5")),
    (of_pyarrow, A([numpy.float16(42)], pyarrow.float16()), "42"),
    (of_pyarrow, A(["m1"], pyarrow.large_string()), "m1"),
    (of_pyarrow, A(["m1"], pyarrow.string_view()), "m1"),
    (of_pyarrow, A([b"m1"], pyarrow.large_binary()), "m1"),
    (of_pyarrow, A(["m1"]).dictionary_encode(), "m1"),
    (of_pyarrow, A([["m1", "m2"]], pyarrow.list_(pyarrow.string(), 2)), Rejected("a list")),
    (of_pyarrow, A([["m1"]], pyarrow.large_list(pyarrow.string())), Rejected("a list")),
    (of_pyarrow, A([["m1"]], pyarrow.list_view(pyarrow.string())), Rejected("a list")),
    (of_pyarrow, A([[("a", "m1")]], pyarrow.map_(pyarrow.string(), pyarrow.string())), Rejected("an object")),
    (of_pyarrow, A([[(1, "m1")]], pyarrow.map_(pyarrow.int64(), pyarrow.string())), Rejected("Map")),
    (of_pyarrow, pyarrow.nulls(1), Rejected("missing")),
]
ZONELESS = Rejected("zone")
TIMES = [
    (of_duckdb, "TIMESTAMP '2026-11-20 13:30:00.123'", SENT_MS),
    (of_duckdb, "TIMESTAMP_MS '2026-11-20 13:30:00.123'", SENT_MS),
    (of_duckdb, "TIMESTAMP_NS '2026-11-20 13:30:00.123'", SENT_MS),
    (of_duckdb, "TIMESTAMP_S '2026-11-20 13:30:00'", SENT_MS - 123),
    (of_duckdb, "TIMESTAMPTZ '2026-11-20 13:30:00.123+00'", SENT_MS),
    (of_duckdb, "DATE '2026-11-20'", SENT_MS - (13 * 3600 + 1800) * 1000 - 123),
    (of_duckdb, "'2026-11-20 13:30:00.123+00'", SENT_MS),
    (of_duckdb, "'2026-11-20T13:30:00.123'", ZONELESS),
    (of_duckdb, "1795181400123::HUGEINT", SENT_MS),
    (of_duckdb, "1795181400123::DOUBLE", SENT_MS),
    (of_duckdb, "1795181400123::DECIMAL(18, 0)", SENT_MS),
    (of_duckdb, "1795181400123::UBIGINT", SENT_MS),
    (of_duckdb, "1795181400123000", Rejected("one of us")),
    (of_duckdb, "1795181400", Rejected("one of s")),
    (of_duckdb, "TIME '13:30:00'", Rejected("Time64")),
    (of_duckdb, "INTERVAL 3 HOUR", Rejected("Interval")),
    (of_duckdb, "true", Rejected("the flag")),
    (of_duckdb, f"UUID '{UUID}'", Rejected(UUID)),
    (of_duckdb, "'infinity'::TIMESTAMP", Rejected("infinity")),
    (of_polars, polars.Series([SENT], dtype=polars.Datetime("ms")), SENT_MS),
    (of_polars, polars.Series([SENT], dtype=polars.Datetime("us")), SENT_MS),
    (of_polars, polars.Series([SENT], dtype=polars.Datetime("ns")), SENT_MS),
    (of_polars, polars.Series([SENT.replace(tzinfo=UTC)], dtype=polars.Datetime("us", "Europe/Berlin")), SENT_MS),
    (of_polars, polars.Series([SENT.date()]), SENT_MS - (13 * 3600 + 1800) * 1000 - 123),
    (of_polars, polars.Series([datetime.timedelta(hours=3)]), Rejected("Duration")),
    (of_pandas, pandas.to_datetime([SENT]), SENT_MS),
    (of_pandas, pandas.to_datetime([SENT]).tz_localize("UTC").tz_convert("Asia/Tokyo"), SENT_MS),
    (of_pandas, [float(SENT_MS), float("nan")], [SENT_MS, Rejected("missing")]),
    (of_pandas, [SENT.isoformat() + "Z"], SENT_MS),
    (of_pyarrow, A([SENT], pyarrow.timestamp("s", "UTC")), SENT_MS - 123),
    (of_pyarrow, A([SENT_MS], pyarrow.date64()), SENT_MS - (13 * 3600 + 1800) * 1000 - 123),
    (of_pyarrow, A([decimal.Decimal(SENT_MS)], pyarrow.decimal256(50, 0)), SENT_MS),
    (of_pyarrow, A([3], pyarrow.duration("s")), Rejected("Duration")),
    (of_pyarrow, A([[SENT_MS]], pyarrow.list_(pyarrow.int64(), 1)), Rejected("a list")),
]


def receipts(*arguments, codes=(0,)):
    command = [RECEIPTS, *arguments, "--data-dir", str(WORK / "data"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def shown(value):
    return " ".join(str(getattr(value, "type", getattr(value, "dtype", value))).split())[:60]


def imported(column, cases):
    """Imports a folder with a file per case; returns by case its messages, and the reasons by row. The dry run must reject the same."""
    folder = WORK / column
    folder.mkdir()
    for case, (write, value, _) in enumerate(cases):
        write(folder / f"{case:03}.parquet", case, column, value)
    members = WORK / f"{column}-members.csv"
    members.write_text("conversation_id,user_id\n" + "".join(f"c{case},{user}\n" for case in range(len(cases)) for user in ["ann", "bob"]))
    reports = []
    for number, more in enumerate([["--dry-run"], []]):
        rejects = WORK / f"{column}-{number}.ndjson"
        files = ["--members", str(members), "--messages", str(folder), "--tenant", column, "--rejects", str(rejects), "--progress", str(WORK / f"{column}-{number}.json")]
        receipts("backfill", *files, *more, codes=(0, 1))
        reports.append([json.loads(line) for line in rejects.read_text().splitlines()])
    if reports[0] != reports[1]:
        sys.exit(f"{column}: the dry run rejects other rows than the import")
    out = WORK / f"{column}-export"
    receipts("export", "--format", "ndjson", "--dataset", "messages", "--out", str(out))
    lines = [json.loads(line) for path in (out / "messages").glob("*.ndjson") for line in path.read_text().splitlines()]
    messages, reasons = defaultdict(list), defaultdict(dict)
    for row in lines:
        if row["tenant"] == column:
            messages[int(row["conversation_id"][1:])].append(row)
    for reject in reports[1]:
        reasons[int(Path(reject["file"]).stem)][reject["row"]] = reject["reason"]
    return messages, reasons


def ms_of(text):
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def main():
    failed, all_cases = 0, 0
    for column, cases in [("message_id", IDS), ("sent_at_ms", TIMES)]:
        messages, reasons = imported(column, cases)
        for case, (write, value, wanted) in enumerate(cases):
            wanted = wanted if isinstance(wanted, list) else [wanted]
            kept = sorted(str(row["message_id"] if column == "message_id" else ms_of(row["sent_at"])) for row in messages[case])
            right = sorted(str(want) for want in wanted if not isinstance(want, Rejected))
            wrong = [] if kept == right else [f"wanted {right}, got {kept}"]
            for row, want in enumerate(wanted, 1):
                reason = reasons[case].get(row)
                if isinstance(want, Rejected) != (reason is not None) or isinstance(want, Rejected) and want not in reason:
                    wrong.append(f"row {row}: wanted {want!r}, got the reason {reason!r}")
            all_cases += 1
            failed += bool(wrong)
            said = "; ".join(wrong) if wrong else ", ".join([*right, *reasons[case].values()])
            print(f"{write.__name__[3:]:8} {column:10} {shown(value):50} {'WRONG ' if wrong else ''}{said}")
    if failed:
        sys.exit(f"{failed} of {all_cases} columns are not read rightly")


main()
