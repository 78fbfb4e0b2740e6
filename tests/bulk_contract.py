"""The contract of bulk jobs, checked on what a job read and wrote."""

import csv
import io
import re
from pathlib import Path

import orjson


UUID = re.compile("-".join(f"[0-9A-Fa-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12)))


def check_contract(given, out, *, in_order=True):
    """Check that each distinct id has exactly one row, its own, and give the rows."""
    items = given.read_text("utf-8-sig").split("\n") if isinstance(given, Path) else given
    lines = {}
    for number, text in enumerate((str(item).strip() for item in items), 1):
        if text and not text.startswith("#"):
            lines.setdefault(text.lower() if UUID.fullmatch(text) else text[:200], number)
    rows = read_rows(out)
    found = [(int(row["line"]), row["vid"]) for row in rows]
    assert (found if in_order else sorted(found)) == [(line, vid) for vid, line in lines.items()]
    for row in rows:
        assert row["outcome"] in {"image", "not_found", "timed_out", "failed", "invalid"}
        assert (row["outcome"] == "invalid") == (not UUID.fullmatch(row["vid"]))
        assert bool(row["error_type"]) == (row["outcome"] != "image")
        assert bool(row["state"]) == (row["outcome"] == "image") or row["outcome"] == "timed_out"
        assert not row["url"] or (row["vid"] in row["url"] and "?" not in row["url"])
    return rows


def read_rows(out):
    """Read the rows of a file or of a folder of parts, in any format."""
    if out.is_dir():
        return [row for part in sorted(out.glob("part-*")) for row in read_rows(part)]
    if out.suffix == ".parquet":
        table = __import__("pyarrow.parquet").parquet.ParquetFile(io.BytesIO(out.read_bytes()))
        return table.read().to_pylist()
    if out.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(out.read_bytes().decode(), newline="")))
    return [*map(orjson.loads, out.read_bytes().splitlines())]
