"""Parquet files with typed columns (extra `parquet`)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigurationError
from ._formats import Csv, Format, Jsonl, Writable
from ._rows import COLUMNS


__all__ = ["Parquet", "make_format"]

_ROWS_PER_GROUP = 1 << 16


def make_format(name: str) -> Format:
    """
    Make a format by its name. It may load a large library: call it in a thread.

    Raises:
        ConfigurationError: If the library that it needs is not there.
    """
    if name != "parquet":
        return Csv() if name == "csv" else Jsonl()
    try:
        return Parquet()
    except ImportError:
        pass
    raise ConfigurationError(
        "The format parquet needs the library pyarrow.",
        hint='Install it with: pip install "kokoon-async[parquet]"',
    )


class Parquet:
    """
    Parquet with typed columns.

    Raises:
        ImportError: If there is no pyarrow.
    """

    def __init__(self) -> None:
        import pyarrow as pa
        import pyarrow.json
        import pyarrow.parquet

        self._pa: Any = pa
        types = {
            "text": pa.string(),
            "integer": pa.int64(),
            "number": pa.float64(),
            "time": pa.timestamp("us", tz="UTC"),
        }
        self._schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])

    def encode(self, rows: Sequence[bytes]) -> bytes:
        """Make a part's content."""
        return self._bytes_of(self._table_of_rows(rows))

    def outcomes(self, content: bytes) -> list[tuple[str, str | None]]:
        """Give the outcome and the state of each row of a part."""
        wanted = self._pa.schema([self._schema.field(name) for name in ("outcome", "state")])
        try:
            self._check_counts(content)
            table = self._table_of(content, columns=wanted.names)
        except (self._pa.ArrowException, OSError) as error:
            raise ValueError(str(error)) from None
        if not table.schema.equals(wanted) or table["outcome"].null_count:
            raise ValueError(f"Its columns are others: {table.schema}")
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def replace(self, content: bytes, rows: Mapping[int, bytes]) -> bytes:
        """Give a part's content with some rows, by their position, replaced."""
        old, new = self._table_of(content), self._table_of_rows(list(rows.values()))
        order = list(range(old.num_rows))
        for place, number in enumerate(rows):
            order[number] = old.num_rows + place
        both = self._pa.concat_tables([old, new])
        return self._bytes_of(both.take(order))

    def join(self, parts: Iterable[bytes], target: Writable) -> None:
        """Write all parts, in order, as one file with large row groups."""
        with self._pa.parquet.ParquetWriter(target, self._schema) as writer:
            for table in self._groups(parts):
                writer.write_table(table)

    def _groups(self, parts: Iterable[bytes]) -> Iterator[Any]:
        """Put the parts' tables together until they make a row group worth its name."""
        tables: list[Any] = []
        rows = 0
        for part in parts:
            tables.append(self._table_of(part))
            rows += tables[-1].num_rows
            if rows >= _ROWS_PER_GROUP:
                yield self._pa.concat_tables(tables)
                tables, rows = [], 0
        if tables:
            yield self._pa.concat_tables(tables)

    def _check_counts(self, content: bytes) -> None:
        """Refuse what has fewer bytes than rows: room for all of these would be made at once."""
        data = self._pa.parquet.read_metadata(self._pa.BufferReader(content))
        groups = [data.row_group(number).num_rows for number in range(data.num_row_groups)]
        if min(groups, default=0) < 0 or sum(groups) > len(content):
            raise ValueError(f"It has {len(content)} bytes, and row groups of {groups!s:.99} rows.")

    def _table_of_rows(self, rows: Sequence[bytes]) -> Any:
        content = b"\n".join(rows)
        json = self._pa.json
        return json.read_json(
            self._pa.BufferReader(content),
            # One block: a row must not lie across the border of two.
            read_options=json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            parse_options=json.ParseOptions(explicit_schema=self._schema),
        ).select(list(COLUMNS))

    def _table_of(self, content: bytes, columns: list[str] | None = None) -> Any:
        return self._pa.parquet.read_table(self._pa.BufferReader(content), columns=columns)

    def _bytes_of(self, table: Any) -> bytes:
        sink = self._pa.BufferOutputStream()
        self._pa.parquet.write_table(table, sink)
        return bytes(sink.getvalue())
