"""Reads an export with each reader in the way that docs/analytics.md says, and compares it with HTTP answers."""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

from engines import session

EXPORT, ANSWERS = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
COUNTS = ["audience_count", "read_count", "unread_count", "hidden_count", "departed_count"]
COLUMNS = {
    "messages": ["tenant", "conversation_id", "message_id", "status", "sent_at", *COUNTS, "last_read_at"],
    "members": ["tenant", "conversation_id", "message_id", "list", "user_id", "read_at"],
    "read_marks": ["tenant", "conversation_id", "reader_id", "up_to_sent_at", "read_at"],
}


def duckdb(path, columns):
    import duckdb

    return duckdb.execute(f"SELECT {', '.join(columns)} FROM read_parquet('{path}/*.parquet')").fetchall()


def polars(path, columns):
    import polars

    return polars.read_parquet(path).select(columns).rows()


def polars_scan(path, columns):
    import polars

    return polars.scan_parquet(path).select(columns).collect().rows()


def pandas(path, columns):
    import pandas

    return pandas.read_parquet(path)[columns].values.tolist()


def pyarrow(path, columns):
    import pyarrow.parquet

    return [tuple(row.values()) for row in pyarrow.parquet.read_table(path).select(columns).to_pylist()]


def pyarrow_dataset(path, columns):
    import pyarrow.dataset

    return [tuple(row.values()) for row in pyarrow.dataset.dataset(path).to_table(columns=columns).to_pylist()]


def fastparquet(path, columns):
    import fastparquet

    return fastparquet.ParquetFile(path).to_pandas()[columns].values.tolist()


def dask(path, columns):
    import dask.dataframe

    return dask.dataframe.read_parquet(path)[columns].compute().values.tolist()


def datafusion(path, columns):
    import datafusion

    context = datafusion.SessionContext()
    context.sql(f"CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{path}/'").collect()
    return [tuple(row.values()) for batch in context.sql(f"SELECT {', '.join(columns)} FROM t").collect() for row in batch.to_pylist()]


def clickhouse(path, columns):
    import chdb

    text = str(chdb.query(f"SELECT {', '.join(columns)} FROM file('{path}/*.parquet') FORMAT JSONCompactEachRow SETTINGS session_timezone = 'UTC', output_format_json_quote_64bit_integers = 0"))
    return [json.loads(line) for line in text.splitlines()]


def spark(path, columns):
    rows = session().read.parquet(path).select(columns).collect()
    # A timestamp comes as a time of the machine's zone, without saying so.
    return [[value.astimezone(timezone.utc) if isinstance(value, datetime) else value for value in row] for row in rows]


def daft(path, columns):
    import daft

    return list(zip(*(daft.read_parquet(f"{path}/*.parquet").select(*columns).to_pydict()[name] for name in columns)))


READERS = [duckdb, polars, polars_scan, pandas, pyarrow, pyarrow_dataset, fastparquet, dask, datafusion, clickhouse, spark, daft]


def plain(value, column):
    """A value as HTTP has it: times in milliseconds, numbers whole, null as None."""
    if value is None or str(value) == "<NA>" or value != value or str(value) in ("NaT", "<NA>", "nan") and not isinstance(value, str):
        return None
    if column.endswith("_at"):
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if hasattr(value, "to_pydatetime"):
            value = value.to_pydatetime()
        if value.tzinfo is None:
            value = value.replace(tzinfo=timezone.utc)
        return round(value.timestamp() * 1000)
    if column.endswith("_count"):
        return int(value)
    return value.decode() if isinstance(value, bytes) else value


def wanted():
    receipts = [[tenant, conversation, r["message_id"], r["status"], r["sent_at_ms"], *(r.get(name) for name in COUNTS), r.get("last_read_at_ms")] for tenant, conversation, r in ANSWERS["receipts"]]
    return {"messages": receipts, "members": ANSWERS["members"], "read_marks": ANSWERS["read_marks"]}


def order(rows):
    return sorted((tuple(row) for row in rows), key=repr)


def is_right(label, read, value_of, columns, rows):
    """Compares a reader's rows with those of HTTP answers, and prints how they differ."""
    try:
        told = [[value_of(value, column) for value, column in zip(row, columns)] for row in read()]
    except Exception as error:
        print(f"{label}: {type(error).__name__}: {str(error)[:300]}")
        return False
    if order(told) == order(rows):
        print(f"{label}: {len(told)} rows as HTTP answers")
        return True
    missing, more = set(order(rows)) - set(order(told)), set(order(told)) - set(order(rows))
    print(f"{label}: {len(told)} rows, HTTP {len(rows)}; only HTTP: {sorted(missing, key=repr)[:3]}; only here: {sorted(more, key=repr)[:3]}")
    return False


def main():
    failed = 0
    for reader in READERS:
        for dataset, rows in wanted().items():
            columns = COLUMNS[dataset]
            read = lambda: reader(str(EXPORT / dataset), columns)
            failed += not is_right(f"{reader.__name__:16} {dataset}", read, plain, columns, rows)
    if failed:
        sys.exit(f"{failed} of {len(READERS) * len(COLUMNS)} readings differ from the HTTP answers")


if __name__ == "__main__":
    main()
