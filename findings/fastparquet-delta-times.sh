#!/usr/bin/env bash
# Times of read receipts in Parquet, delta encoded, as fastparquet reads them.
#
# One would guess: DELTA_BINARY_PACKED is the encoding that Parquet's specification has for integers,
# and fastparquet, which reads it, gives the times that were written, or an error.
# What happens: where neighbouring 64-bit millisecond times differ by more than 2^31 (25 days), as they
# do in a history sorted by conversation, nearly all times come out wrong, without an error or a
# warning. Times within one day are right, and so are all of them in PLAIN encoding. A test on a small
# sample therefore passes. pyarrow reads both.
# Whom it hurts: analysts who open exports with pandas and engine="fastparquet": every median and every
# hour of the day is wrong, and nothing says so. Writers that want all readers to be right use PLAIN
# with zstd for times; it costs little beside delta encoding.
#
# Seen with: fastparquet 2026.9.0, pyarrow 26.0.1, pandas 3.1.1 (PyPI, Python 3.11).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv venv
venv/bin/pip --quiet install fastparquet==2026.9.0 pyarrow==26.0.1 pandas==3.1.1
cat > read.py <<'PY'
import random

import fastparquet
import pyarrow as pa
import pyarrow.parquet as pq

DAY_MS = 86_400_000
draw = random.Random(1)
right = {}
for days in (1, 60):
    times = [1_795_000_000_000 + draw.randrange(days * DAY_MS) for _ in range(5_000)]
    table = pa.table({"read_at_ms": pa.array(times, pa.int64())})
    for encoding in ("PLAIN", "DELTA_BINARY_PACKED"):
        pq.write_table(table, "reads.parquet", use_dictionary=False, column_encoding={"read_at_ms": encoding})
        assert pq.read_table("reads.parquet")["read_at_ms"].to_pylist() == times
        read = fastparquet.ParquetFile("reads.parquet").to_pandas()["read_at_ms"].tolist()
        right[days, encoding] = sum(a == b for a, b in zip(read, times, strict=True))
print("right of 5000, by days and encoding:", right)
assert right[1, "PLAIN"] == right[60, "PLAIN"] == right[1, "DELTA_BINARY_PACKED"] == 5_000
assert right[60, "DELTA_BINARY_PACKED"] < 500
PY
venv/bin/python read.py
echo "as seen: delta-encoded times are read wrongly, in silence"
