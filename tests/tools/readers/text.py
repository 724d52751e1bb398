"""Opens CSV and NDJSON as each reader does by itself, and as docs/analytics.md says. The first gives the table of that document, row by row; the second must equal the HTTP answers."""

import csv
import json
import sys
import tempfile
from pathlib import Path

from check import COLUMNS, is_right, plain, wanted
from engines import session

CSV, NDJSON, DOCUMENT = Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5])
# Tenants of one deployment, as the columns of the document's table.
SETS = [["0042", "42"], ["1e5", "100000"], ["true", "TRUE"], ["NULL", "acme"], ["acme corp", "a,b"], ["Acme", "acme"], ["2026-01-01", "2026-01-02T03:04:05Z"], ["0042", "acme"]]


def parts(folder, ending):
    return sorted((folder / "messages").glob(f"*.{ending}"))


def of_tenants(tenants, to):
    """The rows of some tenants, as an export of their deployment has them."""
    for path in parts(CSV, "csv"):
        with open(path, newline="", encoding="utf-8") as file, open(to / "rows.csv", "w", newline="", encoding="utf-8") as some:
            rows = csv.DictReader(file)
            written = csv.DictWriter(some, rows.fieldnames, lineterminator="\n")
            written.writeheader()
            written.writerows(row for row in rows if row["tenant"] in tenants)
    lines = [line for path in parts(NDJSON, "ndjson") for line in path.read_text(encoding="utf-8").split("\n") if line]
    (to / "rows.ndjson").write_text("".join(f"{line}\n" for line in lines if json.loads(line)["tenant"] in tenants), encoding="utf-8")


def duckdb_csv(path):
    import duckdb

    return [value for value, in duckdb.execute(f"SELECT tenant FROM read_csv('{path}')").fetchall()]


def duckdb_json(path):
    import duckdb

    return [value for value, in duckdb.execute(f"SELECT tenant FROM read_json('{path}')").fetchall()]


def polars_csv(path):
    import polars

    return polars.scan_csv(path).select("tenant").collect()["tenant"].to_list()


def polars_json(path):
    import polars

    return polars.scan_ndjson(path).select("tenant").collect()["tenant"].to_list()


def pandas_csv(path):
    import pandas

    return pandas.read_csv(path)["tenant"].tolist()


def pandas_json(path):
    import pandas

    return pandas.read_json(path, lines=True)["tenant"].tolist()


def pyarrow_csv(path):
    import pyarrow.csv

    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))["tenant"].to_pylist()


def pyarrow_json(path):
    import pyarrow.json

    return pyarrow.json.read_json(path)["tenant"].to_pylist()


def clickhouse(path, form):
    import chdb

    text = str(chdb.query(f"SELECT tenant FROM file('{path}', '{form}') FORMAT JSONCompactEachRow"))
    return [json.loads(line)[0] for line in text.splitlines()]


def clickhouse_csv(path):
    return clickhouse(path, "CSVWithNames")


def clickhouse_json(path):
    return clickhouse(path, "JSONEachRow")


def datafusion(path, method, **options):
    import datafusion

    frame = getattr(datafusion.SessionContext(), method)(path, **options)
    return [value for batch in frame.select("tenant").collect() for value in batch.column(0).to_pylist()]


def datafusion_csv(path):
    return datafusion(path, "read_csv")


def datafusion_json(path):
    # By itself it takes only files that end with .json.
    return datafusion(path, "read_json", file_extension=".ndjson")


def spark_csv(path):
    rows = session().read.csv(path, header=True, inferSchema=True, multiLine=True).select("tenant").collect()
    return [row["tenant"] for row in rows]


def spark_json(path):
    return [row["tenant"] for row in session().read.json(path).select("tenant").collect()]


def daft_csv(path):
    import daft

    return daft.read_csv(path).select("tenant").to_pydict()["tenant"]


def daft_json(path):
    import daft

    return daft.read_json(path).select("tenant").to_pydict()["tenant"]


DEFAULTS = {
    "DuckDB": (duckdb_csv, duckdb_json),
    "Polars": (polars_csv, polars_json),
    "pandas": (pandas_csv, pandas_json),
    "pyarrow": (pyarrow_csv, pyarrow_json),
    "ClickHouse": (clickhouse_csv, clickhouse_json),
    "DataFusion": (datafusion_csv, datafusion_json),
    "Spark": (spark_csv, spark_json),
    "Daft": (daft_csv, daft_json),
}


def became(read, path, tenants):
    """What became of the tenants: nothing where they are as written."""
    try:
        values = set(read(str(path)))
    except Exception:
        return "error"
    if values == set(tenants):
        return "right"
    shown = {"null" if value is None or value != value else f"{value!r}" if isinstance(value, str) else f"{value}" for value in values}
    return ", ".join(sorted(shown)).replace("'", '"')


def default_table():
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for tenants in SETS:
            of = Path(folder) / "-".join(str(ord(letter)) for letter in "".join(tenants))
            of.mkdir()
            of_tenants(tenants, of)
        for name, pair in DEFAULTS.items():
            for form, read, ending in zip(["CSV", "NDJSON"], pair, ["csv", "ndjson"]):
                told = [became(read, Path(folder) / "-".join(str(ord(letter)) for letter in "".join(tenants)) / f"rows.{ending}", tenants) for tenants in SETS]
                rows.append((name, form, told))
    head = ["reader", *(", ".join(f"`{tenant}`" for tenant in tenants) for tenants in SETS)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, form, told in rows:
        cells = [cell if cell in ("right", "error", "null") else f"`{cell}`" for cell in told]
        lines.append(f"| {name}, {form} | " + " | ".join("right" if cell == "right" else cell for cell in cells) + " |")
    return lines


NAMES = COLUMNS["messages"]


def names():
    with open(parts(CSV, "csv")[0], newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def told_duckdb():
    import duckdb

    return duckdb.execute(f"SELECT {', '.join(NAMES)} FROM read_csv('{CSV}/messages/*.csv', all_varchar = true)").fetchall()


def told_polars():
    import polars

    return polars.scan_csv(CSV / "messages/*.csv", infer_schema=False).select(NAMES).collect().rows()


def told_pandas():
    import pandas

    return pandas.concat(pandas.read_csv(file, dtype=str, keep_default_na=False) for file in parts(CSV, "csv"))[NAMES].values.tolist()


def told_pyarrow():
    import pyarrow.csv

    parse, convert = pyarrow.csv.ParseOptions(newlines_in_values=True), pyarrow.csv.ConvertOptions(column_types={name: pyarrow.string() for name in names()})
    tables = [pyarrow.csv.read_csv(file, parse_options=parse, convert_options=convert) for file in parts(CSV, "csv")]
    return [[row[name] for name in NAMES] for table in tables for row in table.to_pylist()]


def told_clickhouse():
    import chdb

    columns = ", ".join(f"{name} String" for name in NAMES)
    text = str(chdb.query(f"SELECT {', '.join(NAMES)} FROM file('{CSV}/messages/*.csv', 'CSVWithNames', '{columns}') FORMAT JSONCompactEachRow SETTINGS input_format_csv_trim_whitespaces = 0, format_csv_null_representation = ''"))
    return [json.loads(line) for line in text.splitlines()]


def told_datafusion():
    import datafusion

    context = datafusion.SessionContext()
    options = "'format.has_header' 'true', 'format.newlines_in_values' 'true', 'format.schema_infer_max_rec' '0'"
    context.sql(f"CREATE EXTERNAL TABLE messages STORED AS CSV LOCATION '{CSV}/messages/' OPTIONS ({options})").collect()
    return [list(row.values()) for batch in context.sql(f"SELECT {', '.join(NAMES)} FROM messages").collect() for row in batch.to_pylist()]


def told_spark():
    return session().read.csv(f"{CSV}/messages", header=True, multiLine=True, escape='"').select(NAMES).collect()


def told_daft():
    import daft

    text = {name: daft.DataType.string() for name in names()}
    told = daft.read_csv(f"{CSV}/messages/*.csv", schema=text, infer_schema=False).select(*NAMES).to_pydict()
    return list(zip(*(told[name] for name in NAMES)))


def told_duckdb_json():
    import duckdb

    columns = ", ".join(f"{name}: 'VARCHAR'" for name in NAMES)
    return duckdb.execute(f"SELECT {', '.join(NAMES)} FROM read_json('{NDJSON}/messages/*.ndjson', columns = {{{columns}}})").fetchall()


def told_polars_json():
    import polars

    return polars.scan_ndjson(NDJSON / "messages/*.ndjson", schema_overrides={"tenant": polars.String, "last_read_at": polars.String}).select(NAMES).collect().rows()


def told_pandas_json():
    import pandas

    return pandas.concat(pandas.read_json(file, lines=True, dtype=False, convert_dates=False) for file in parts(NDJSON, "ndjson"))[NAMES].values.tolist()


def told_pyarrow_json():
    import pyarrow
    import pyarrow.json

    kinds = {name: pyarrow.int64() if name.endswith("_count") else pyarrow.string() for name in NAMES}
    options = pyarrow.json.ParseOptions(explicit_schema=pyarrow.schema(list(kinds.items())))
    tables = [pyarrow.json.read_json(file, parse_options=options) for file in parts(NDJSON, "ndjson")]
    return [[row[name] for name in NAMES] for table in tables for row in table.to_pylist()]


def told_clickhouse_json():
    import chdb

    columns = ", ".join(f"{name} Nullable({'Int64' if name.endswith('_count') else 'String'})" for name in NAMES)
    query = f"SELECT {', '.join(NAMES)} FROM file('{NDJSON}/messages/*.ndjson', 'JSONEachRow', '{columns}') FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0"
    return [json.loads(line) for line in str(chdb.query(query)).splitlines()]


def told_datafusion_json():
    import datafusion

    context = datafusion.SessionContext()
    frame = context.read_json(f"{NDJSON}/messages/", file_extension=".ndjson").select(*NAMES)
    return [list(row.values()) for batch in frame.collect() for row in batch.to_pylist()]


def told_spark_json():
    return session().read.json(f"{NDJSON}/messages").select(NAMES).collect()


def told_daft_json():
    import daft

    kinds = {name: daft.DataType.int64() if name.endswith("_count") else daft.DataType.string() for name in NAMES}
    told = daft.read_json(f"{NDJSON}/messages/*.ndjson", schema=kinds).select(*NAMES).to_pydict()
    return list(zip(*(told[name] for name in NAMES)))


TOLD = [told_duckdb, told_polars, told_pandas, told_pyarrow, told_clickhouse, told_datafusion, told_spark, told_daft]
TOLD_JSON = [told_duckdb_json, told_polars_json, told_pandas_json, told_pyarrow_json, told_clickhouse_json, told_datafusion_json, told_spark_json, told_daft_json]


def value_of(value, column):
    """A value of a text format: empty is null, and a number that has gaps is a double."""
    if value is None or value == "":
        return None
    return plain(float(value) if column.endswith("_count") else value, column)


def main():
    failed = 0
    rows = wanted()["messages"]
    for reader in TOLD + TOLD_JSON:
        name = reader.__name__.removeprefix("told_")
        failed += not is_right(f"{name:16} as text", reader, value_of, NAMES, rows)

    document = DOCUMENT.read_text(encoding="utf-8")
    lines = default_table()
    print("\n".join(lines))
    absent = [line for line in lines if f"{line}\n" not in document]
    if absent:
        print(f"{DOCUMENT} says otherwise of {len(absent)} rows:\n" + "\n".join(absent))
    if failed or absent:
        sys.exit("a text format is not read as the document says")


if __name__ == "__main__":
    main()
