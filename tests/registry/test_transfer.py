"""CSV as spreadsheets write it, and as nobody should."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import pytest

from caudal.core import db
from caudal.core.errors import InvalidInput, TooLarge
from caudal.registry import gateways, transfer
from caudal.registry.gateways import GatewayIn
from caudal.registry.transfer import LINES_MAX, Kind, Report

Pool: TypeAlias = "asyncpg.Pool[Any]"
TENANT = "acme"


async def load(pool: Pool, text: str, kind: Kind = "gateways", *, dry_run: bool = True) -> Report:
    async with db.tenant_transaction(pool, TENANT) as connection:
        return await transfer.load(connection, kind, text, dry_run=dry_run)


async def dump(pool: Pool, kind: Kind) -> str:
    async def fetch(query: str, after: int) -> list[Any]:
        async with db.tenant_transaction(pool, TENANT) as connection:
            rows: list[Any] = await connection.fetch(query, after)
            return rows

    return "".join([part async for part in transfer.dump(fetch, kind)])


async def test_as_excel_writes_it_in_brazil(app_pool: Pool) -> None:
    """A byte order mark, semicolons, decimal commas, empty columns at the end, empty lines."""
    text = (
        "\ufeffcode;mac;name;latitude;longitude;;\r\n"
        'gw1;aa:bb:cc:dd:ee:01;"Usina; norte";-23,55052;-46,633308;;\r\n'
        ";;;;;;\r\n"
        "gw2;aa:bb:cc:dd:ee:02;;;;;\r\n"
        "gw3;aa:bb:cc:dd:ee:03;;1.234,5;;;\r\n"
    )
    report = await load(app_pool, text)
    assert [(line.line, line.ok) for line in report.lines] == [(2, True), (4, True), (5, False)]
    assert report.lines[2].error == "latitude: '1.234,5' is no number."
    await load(app_pool, text.rpartition("gw3")[0], dry_run=False)
    async with db.tenant_transaction(app_pool, TENANT) as connection:
        first = (await gateways.find(connection)).items[0]
    assert (first.name, first.latitude, first.longitude) == ("Usina; norte", -23.55052, -46.633308)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no header"),
        ("\ufeff", "there is no header"),
        (";;;\n", "there is no header"),
        ("code,mac,code\na,b,c\n", "column code is there twice"),
        ("code,mac,colour\n", "unknown column 'colour'"),
        ("code;mac,name\n", "unknown column 'mac,name'"),
        ('"code\n', "Line 1 is no CSV"),
        ("PK\x03\x04\x14\n", "unknown column"),
    ],
)
async def test_a_header_that_is_none(app_pool: Pool, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await load(app_pool, text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("g", "it has 1 cells, the header 4"),
        ("g,aa:bb:cc:dd:ee:01,1,2,3", "it has 5 cells"),
        ("g,aa:bb:cc:dd:ee:01,1_0,", "capacity: '1_0' is no number"),
        ("g,aa:bb:cc:dd:ee:01,33,", "capacity: give a whole number from 1 to 32"),
        ("g,aa:bb:cc:dd:ee:01,,NaN", "latitude: 'NaN' is no number"),
        ("g,aa:bb:cc:dd:ee:01,,91", "latitude: give degrees"),
        ("g,,,", "mac: it is missing"),
        ("g,aa-bb-cc-dd-ee-01,,", "mac: write it as"),
        ("g\0,aa:bb:cc:dd:ee:01,,", "control characters"),
        ('"g,aa:bb:cc:dd:ee:01,,', "no CSV"),
        ('"g"x,aa:bb:cc:dd:ee:01,,', "no CSV"),
        ("x" * 200_000 + ",aa:bb:cc:dd:ee:01,,", "no CSV"),
    ],
)
async def test_a_line_says_what_is_wrong(app_pool: Pool, line: str, said: str) -> None:
    report = await load(app_pool, f"code,mac,capacity,latitude\n{line}\n", dry_run=False)
    assert not report.stored
    assert said in report.lines[0].error


async def test_too_many_lines_are_refused_before_any_is_tried(app_pool: Pool) -> None:
    lines = "".join(f"g{n},02:00:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}\n" for n in range(100_000))
    with pytest.raises(TooLarge, match=f"{LINES_MAX} lines"):
        await load(app_pool, f"code,mac\n{lines}")


@pytest.mark.parametrize(
    "name",
    ["=1+1", "+55 11", "-", "@SUM(A1)", "'=x", "''=x", "'quoted'", "a=b", '="x"', "=cmd|' /C calc'!A0"],
)
async def test_what_a_spreadsheet_would_run_comes_back_as_text(app_pool: Pool, name: str) -> None:
    async with db.tenant_transaction(app_pool, TENANT) as connection:
        made = await gateways.create(
            connection,
            GatewayIn(code="g1", mac="aa:bb:cc:dd:ee:01", name=name, longitude=Decimal(-46)),
        )
    text = await dump(app_pool, "gateways")
    row = next(csv.DictReader(io.StringIO(text)))
    assert row["name"][:1] not in "=+-@"
    assert row["longitude"] == "-46.000000"
    async with db.tenant_transaction(app_pool, TENANT) as connection:
        await gateways.delete(connection, made.id)
    assert (await load(app_pool, text, dry_run=False)).stored
    async with db.tenant_transaction(app_pool, TENANT) as connection:
        assert (await gateways.find(connection)).items[0].name == name
