"""Tables of any length as CSV, Arrow and Parquet, a page at a time.

A table is a schema and an asynchronous iterator of pages; each format is one function from that to bytes.
Memory holds a page, not the table. What is longer than a limit is refused before the first byte: a file that
ends early looks like a file that is whole.
"""

from __future__ import annotations

import asyncio
import csv
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from struct import unpack_from
from typing import Any, NamedTuple

from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import read_ipc_stream, write_ipc_stream, write_parquet

from caudal.core.errors import TooLarge
from caudal.insight import queries

PAGE = 20_000
MAX_ROWS = 5_000_000
_CHUNK = 256 * 1024
_END = 8  # bytes of the mark that closes an Arrow stream

TIME = DataType.timestamp("us", tz="UTC")
TEXT, NUMBER, FLAG, COUNT, SMALL = (
    DataType.utf8(), DataType.float64(), DataType.bool(), DataType.int64(), DataType.int16(),
)  # fmt: skip

Page = list[list[Any]]
"""One list for each column, all of the same length; instants in microseconds since 1970."""


class Table(NamedTuple):
    """Columns by name and type, and their content page by page."""

    columns: Sequence[tuple[str, DataType]]
    pages: AsyncIterator[Page]


class Format(NamedTuple):
    """How a table becomes bytes: media type, file suffix, function."""

    media_type: str
    suffix: str
    encode: Callable[[Table], AsyncIterator[bytes]]


async def samples(open_read: queries.Opener, query: queries.SeriesQuery) -> Table:
    """The samples of `query`, whole, by series and time. Raises TooLarge beyond MAX_ROWS."""
    queries.check_span(query.start, query.end)
    async with queries.limited(open_read) as connection:
        infos = await queries.resolve(connection, query.series)
        # From the rollups: whole hours, so an upper bound.
        rows = await connection.fetchval(
            "select coalesce(sum(n), 0)::int8 from caudal.series_pieces($1, 'hour',"
            " date_trunc('hour', $2::timestamptz), date_trunc('hour', $3::timestamptz) + interval '1 hour')",
            [info.id for info in infos], query.start, query.end,
        )  # fmt: skip
    if rows > MAX_ROWS:
        raise TooLarge(f"About {rows:,} samples; at most {MAX_ROWS:,} at once. Ask for a shorter span.")
    columns = (
        ("device_id", TEXT), ("point_id", TEXT), ("ts", TIME), ("v_num", NUMBER), ("v_bool", FLAG),
        ("v_text", TEXT), ("qual", SMALL),
    )  # fmt: skip

    async def pages() -> AsyncIterator[Page]:
        for info in infos:
            start = query.start
            while True:
                async with queries.limited(open_read) as connection:
                    rows = await connection.fetch(
                        "select (extract(epoch from ts) * 1000000)::int8, v_num, v_bool, v_text, qual, ts"
                        " from caudal.series_samples($1, $2, $3, $4)",
                        [info.id], start, query.end, PAGE,
                    )  # fmt: skip
                if rows:
                    ts, numbers, flags, texts, quals, instants = (
                        list(column) for column in zip(*rows, strict=True)
                    )
                    count = len(rows)
                    yield [[info.device] * count, [info.point] * count, ts, numbers, flags, texts, quals]
                if len(rows) < PAGE:
                    break
                start = instants[-1] + datetime.resolution

    return Table(columns, pages())


def aggregates(answer: queries.Answer) -> Table:
    """An answer of `queries.read` as one table; the nulls that mark gaps are left out."""
    names = list(answer.series[0].values) if answer.series else []
    columns = [("device_id", TEXT), ("point_id", TEXT), ("ts", TIME)]
    columns += [(name, COUNT if name == "count" else NUMBER) for name in names]

    async def pages() -> AsyncIterator[Page]:
        for column in answer.series:
            kept = [i for i in range(len(column.t)) if any(v[i] is not None for v in column.values.values())]
            yield [
                [column.series.device] * len(kept),
                [column.series.point] * len(kept),
                [column.t[i] * 1000 for i in kept],
                *([column.values[name][i] for i in kept] for name in names),
            ]

    return Table(columns, pages())


def _instant(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:06}Z" if fraction else f"{text}Z"


def _csv_rows(table: Table, page: Page) -> Iterator[tuple[Any, ...]]:
    shown: list[list[Any]] = []
    for (_, kind), column in zip(table.columns, page, strict=True):
        if kind == TIME:
            shown.append([_instant(value) for value in column])
        elif kind == FLAG:
            shown.append([None if value is None else str(value).lower() for value in column])
        else:
            shown.append(column)
    return zip(*shown, strict=True)


async def to_csv(table: Table) -> AsyncIterator[bytes]:
    """RFC 4180 with a header, UTF-8; instants in ISO 8601 with Z, null as nothing."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([name for name, _ in table.columns])
    async for page in table.pages:
        rows = _csv_rows(table, page)
        # A bounded number of rows between two looks at the other requests.
        while part := list(islice(rows, 5000)):
            writer.writerows(part)
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
            await asyncio.sleep(0)
    if rest := out.getvalue():
        yield rest.encode()


def _schema(table: Table) -> Schema:
    return Schema([Field(name, kind) for name, kind in table.columns])


def _ipc(schema: Schema, table: Table, page: Page | None) -> bytes:
    batches = []
    if page is not None:
        arrays = [
            Array(column, COUNT).cast(kind) if kind == TIME else Array(column, kind)
            for (_, kind), column in zip(table.columns, page, strict=True)
        ]
        batches.append(RecordBatch.from_arrays(arrays, schema=schema))
    out = io.BytesIO()
    write_ipc_stream(RecordBatchReader.from_batches(schema, batches), out, compression=None)
    return out.getvalue()


async def to_arrow(table: Table) -> AsyncIterator[bytes]:
    """An Arrow IPC stream (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format).

    Each page is encoded as a stream of its own; the schema that begins it and the mark that ends it are
    given once for all.
    """
    schema = _schema(table)
    empty = _ipc(schema, table, None)
    # Schema message: a mark, its length, its bytes.
    head = 8 + int(unpack_from("<i", empty, 4)[0])
    yield empty[:head]
    async for page in table.pages:
        encoded = await asyncio.to_thread(_ipc, schema, table, page)
        yield encoded[head:-_END]
    yield empty[-_END:]


async def to_parquet(table: Table) -> AsyncIterator[bytes]:
    """Parquet. Its index comes last and refers to all before it, so it is made in a temporary file."""
    with tempfile.TemporaryDirectory(prefix="caudal-export-") as folder:
        stream, made = Path(folder) / "stream", Path(folder) / "parquet"
        with stream.open("wb") as out:
            async for chunk in to_arrow(table):
                await asyncio.to_thread(out.write, chunk)

        def convert() -> None:
            write_parquet(read_ipc_stream(str(stream)), str(made), compression="zstd(3)")

        await asyncio.to_thread(convert)
        with made.open("rb") as source:
            while chunk := await asyncio.to_thread(source.read, _CHUNK):
                yield chunk


FORMATS = {
    "csv": Format("text/csv; charset=utf-8", "csv", to_csv),
    "arrow": Format("application/vnd.apache.arrow.stream", "arrows", to_arrow),
    "parquet": Format("application/vnd.apache.parquet", "parquet", to_parquet),
}
