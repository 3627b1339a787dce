"""Gateways and devices from and to CSV, where sites, gateways and profiles go by their names.

Spreadsheets of half the world write semicolons, decimal commas, a byte order mark, empty columns and empty
lines; all of that is read. What a spreadsheet would take for a formula is written behind an apostrophe, and
read back.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any, Literal, TypeAlias

import asyncpg
import msgspec

from caudal.core.errors import CaudalError, InvalidInput, TooLarge

from . import devices, gateways
from .devices import DeviceIn
from .gateways import GatewayIn

Kind: TypeAlias = Literal["gateways", "devices"]
LINES_MAX = 5_000

COLUMNS: dict[Kind, tuple[str, ...]] = {
    "gateways": (
        "code", "mac", "name", "description", "site", "latitude", "longitude", "capacity",
        "heartbeat_seconds", "firmware", "hardware", "serial", "model",
    ),
    "devices": (
        "name", "display_name", "site", "gateway", "code", "kind", "modbus_register", "modbus_slave", "mode",
        "status", "alarm_day", "alarm_month", "format", "profile",
    ),
}  # fmt: skip
WHOLE = {"capacity", "heartbeat_seconds", "modbus_register", "modbus_slave"}
NUMBERS = {"latitude", "longitude", "alarm_day", "alarm_month"}
NEEDED: dict[Kind, tuple[str, ...]] = {"gateways": ("code", "mac"), "devices": ()}


class Line(msgspec.Struct):
    """What became, or would become, of one line. `line` counts from 1, the header being line 1."""

    line: int
    ok: bool
    name: str = ""
    error: str = ""


class Report(msgspec.Struct):
    """An import: how many lines were good, what is wrong with the others, and whether anything was stored."""

    dry_run: bool
    stored: bool
    good: int
    bad: int
    lines: list[Line]


_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
# What a spreadsheet takes for a formula, and what we wrote so that it does not.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_QUOTED = re.compile(r"'+[=+\-@\t\r]")


def _cell(field: str, text: str, comma: bool) -> Any:
    if field in WHOLE and _WHOLE.fullmatch(text):
        return int(text)
    if field in NUMBERS and _NUMBER.fullmatch(point := text.replace(",", ".") if comma else text):
        return Decimal(point)
    if field in WHOLE or field in NUMBERS:
        raise InvalidInput(f"{field}: {text[:40]!r} is no number.")
    return text[1:] if _QUOTED.match(text) else text


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


async def _numbers(connection: Any) -> dict[str, dict[str, int]]:
    """Sites and profiles by name, gateways by code and MAC, as the database has them."""
    found = {}
    for field, query in {
        "site": "select name, id from caudal.site",
        "profile": "select name, id from caudal.profile",
        "gateway": "select code as name, id from caudal.gateway union all select mac, id from caudal.gateway",
    }.items():
        found[field] = {row["name"]: row["id"] for row in await connection.fetch(query)}
    return found


def _given(
    kind: Kind, row: dict[str, str], numbers: dict[str, dict[str, int]], comma: bool
) -> GatewayIn | DeviceIn:
    values: dict[str, Any] = {}
    for field, text in row.items():
        text = text.strip()
        if not text:
            continue
        if field in numbers:
            text = _cell(field, text, comma)
            key = text if field != "gateway" or ":" in text else text.upper()
            number = numbers[field].get(key.lower() if ":" in key and field == "gateway" else key)
            if number is None:
                raise InvalidInput(f"{field}: there is no {field} {text[:60]!r}.")
            values[f"{field}_id"] = number
        else:
            values[field] = _cell(field, text, comma)
    for field in NEEDED[kind]:
        if field not in values:
            raise InvalidInput(f"{field}: it is missing.")
    return GatewayIn(**values) if kind == "gateways" else DeviceIn(**values)


class _Sheet:
    """The lines of a file, by the names of its header; `comma`: decimals have one."""

    def __init__(self, kind: Kind, text: str) -> None:
        text = text.removeprefix("\ufeff")
        self.comma = ";" in re.split(r"[\r\n]", text, maxsplit=1)[0]
        self._reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=";" if self.comma else ",", strict=True
        )
        try:
            header = [name.strip() for name in next(self._reader, [])]
        except csv.Error as error:
            raise InvalidInput(f"Line 1 is no CSV: {error}.") from error
        while header and not header[-1]:
            header.pop()
        self.header = header
        columns = f"Columns are: {', '.join(COLUMNS[kind])}."
        if not header:
            raise InvalidInput(f"Line 1: there is no header. {columns}")
        for name in header:
            if name not in COLUMNS[kind]:
                raise InvalidInput(f"Line 1: unknown column {name[:60]!r}. {columns}")
            if header.count(name) > 1:
                raise InvalidInput(f"Line 1: column {name} is there twice. {columns}")

    def rows(self) -> Iterator[tuple[int, dict[str, str] | str]]:
        """The number of each line, and its cells by column, or what is wrong with it."""
        while True:
            number = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, f"no CSV: {error}"
                return
            if not any(cell.strip() for cell in cells):
                continue
            size = len(self.header)
            if len(cells) < size or any(cell.strip() for cell in cells[size:]):
                yield number, f"it has {len(cells)} cells, the header {size}"
            else:
                yield number, dict(zip(self.header, cells, strict=False))


async def load(connection: Any, kind: Kind, text: str, *, dry_run: bool) -> Report:
    """Import all lines or none, in the caller's transaction; says of each line what is wrong.

    Lines are tried in order, each with those before it in place, so that two lines that contradict each other
    are found. With `dry_run`, or when any line is bad, nothing is stored.
    """
    sheet = _Sheet(kind, text)
    rows = list(islice(sheet.rows(), LINES_MAX + 1))
    if len(rows) > LINES_MAX:
        raise TooLarge(f"At most {LINES_MAX} lines at a time.")
    lines: list[Line] = []
    attempt = connection.transaction()
    await attempt.start()
    try:
        numbers = await _numbers(connection)
        for number, row in rows:
            if isinstance(row, str):
                lines.append(Line(number, False, error=row))
            else:
                lines.append(await _line(connection, kind, number, row, numbers, sheet.comma))
    except BaseException:
        await attempt.rollback()
        raise
    bad = sum(not line.ok for line in lines)
    stored = not dry_run and not bad and bool(lines)
    await (attempt.commit() if stored else attempt.rollback())
    return Report(dry_run, stored, len(lines) - bad, bad, lines)


async def _line(
    connection: Any, kind: Kind, number: int, row: dict[str, str], numbers: dict[str, dict[str, int]],
    comma: bool,
) -> Line:  # fmt: skip
    try:
        given = _given(kind, row, numbers, comma)
        async with connection.transaction():
            if isinstance(given, GatewayIn):
                return Line(number, True, (await gateways.create(connection, given)).code)
            return Line(number, True, (await devices.create(connection, given)).name)
    except CaudalError as error:
        return Line(number, False, row.get("code") or row.get("name") or "", error.sentence)
    except asyncpg.DataError:
        return Line(number, False, error="a value is outside of what can be stored")


_EXPORT: dict[Kind, str] = {
    "gateways": "select g.*, s.name as site from caudal.gateway g left join caudal.site s on s.id = g.site_id"
    " where g.id > $1 order by g.id limit 1000",
    "devices": "select d.*, s.name as site, g.code as gateway, p.name as profile from caudal.device d"
    " left join caudal.site s on s.id = d.site_id left join caudal.gateway g on g.id = d.gateway_id"
    " left join caudal.profile p on p.id = d.profile_id where d.id > $1 order by d.id limit 1000",
}


async def dump(fetch: Callable[[str, int], Awaitable[list[Any]]], kind: Kind) -> AsyncIterator[str]:
    """All rows as CSV, a thousand at a time; `fetch(query, after)` runs in the tenant's transaction."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS[kind])
    after = 0
    while True:
        rows = await fetch(_EXPORT[kind], after)
        for row in rows:
            writer.writerow([_shown(row[name]) for name in COLUMNS[kind]])
        yield out.getvalue()
        out.seek(0)
        out.truncate()
        if len(rows) < 1000:
            return
        after = rows[-1]["id"]
