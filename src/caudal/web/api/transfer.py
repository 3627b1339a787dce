"""Gateways and devices as CSV."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, get, post
from litestar.params import FromQuery
from litestar.response import Stream

from caudal.core.errors import InvalidInput
from caudal.registry import audit, transfer
from caudal.registry.transfer import Report
from caudal.web.api._registry import READ, WRITE
from caudal.web.inject import Caller, Database

CSV_BYTES_MAX = 5 << 20


async def _import(
    request: Request[Any, Any, Any], door: Database, principal: Caller, kind: transfer.Kind, dry_run: bool
) -> Report:
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("The file is not UTF-8; save it as such (in Excel: CSV UTF-8).") from error
    async with door.write() as connection:
        report = await transfer.load(connection, kind, text, dry_run=dry_run)
        if report.stored:
            await audit.record(connection, principal, f"{kind}.imported", "", count=report.good)
    return report


@post("/api/gateways/import", guards=WRITE, status_code=200, request_max_body_size=CSV_BYTES_MAX)
async def import_gateways(
    request: Request[Any, Any, Any], door: Database, principal: Caller, dry_run: FromQuery[bool] = True
) -> Report:
    """Import gateways from CSV (UTF-8, the body): a dry run unless `dry_run=false`. All lines or none."""
    return await _import(request, door, principal, "gateways", dry_run)


@post("/api/devices/import", guards=WRITE, status_code=200, request_max_body_size=CSV_BYTES_MAX)
async def import_devices(
    request: Request[Any, Any, Any], door: Database, principal: Caller, dry_run: FromQuery[bool] = True
) -> Report:
    """Import devices from CSV (UTF-8, the body): a dry run unless `dry_run=false`. All lines or none."""
    return await _import(request, door, principal, "devices", dry_run)


def _export(door: Database, kind: transfer.Kind) -> Stream:
    async def fetch(query: str, after: int) -> list[Any]:
        async with door.read() as connection:
            rows: list[Any] = await connection.fetch(query, after)
            return rows

    async def lines() -> AsyncIterator[str]:
        async for text in transfer.dump(fetch, kind):
            yield text

    return Stream(
        lines, media_type="text/csv", headers={"content-disposition": f'attachment; filename="{kind}.csv"'}
    )


@get("/api/gateways/export", guards=READ, media_type="text/csv")
async def export_gateways(door: Database) -> Stream:
    """All gateways as CSV, as `import` takes it."""
    return _export(door, "gateways")


@get("/api/devices/export", guards=READ, media_type="text/csv")
async def export_devices(door: Database) -> Stream:
    """All devices as CSV, as `import` takes it."""
    return _export(door, "devices")


ROUTES = [import_gateways, import_devices, export_gateways, export_devices]
