#!/usr/bin/env bash
# pyarrow 25.0.1: what Parquet's page checksums cover.
#
# A file written with `write_page_checksum=True` and read with `page_checksum_verification=True`, one bit flipped at a time.
# Expected: a flip that changes what is read is an error. Seen: so it is for every bit of the pages; of the footer's bits
# some give other values, other column names or another number of rows, without an error. The format has checksums for
# pages only. So this project's Parquet files have a SHA-256 of the whole file, beside them or in them.
#
# Ends with 0 while pyarrow does this, with 1 when it does something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==25.0.1
cat >"$folder/flip.py" <<'END'
import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq

table = pa.table({"length": pa.array(range(100), pa.int32()), "nll": pa.array([n / 7 for n in range(100)], pa.float64())})
buffer = io.BytesIO()
pq.write_table(table, buffer, write_page_checksum=True, compression="none", use_dictionary=False)
whole = buffer.getvalue()
footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
silent = {"pages": 0, "footer": 0}
for position in range(4, len(whole) - 8):
    for bit in range(8):
        content = bytearray(whole)
        content[position] ^= 1 << bit
        try:
            found = pq.read_table(io.BytesIO(bytes(content)), page_checksum_verification=True)
            other = found.schema.names != table.schema.names or found.to_pydict() != table.to_pydict()
        except Exception:
            continue
        if other:
            silent["pages" if position < footer else "footer"] += 1
print(pa.__version__, "bits that change what is read without an error:", silent)
sys.exit(not silent["footer"])
END
"$folder/venv/bin/python" "$folder/flip.py"
