"""What a payload would become: decoded as ingest would, and forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from litestar import post

from caudal.core.errors import Forbidden, InvalidInput
from caudal.registry.permissions import Action
from caudal.telemetry.decode import decode
from caudal.telemetry.model import Decoded, Limits, Reject
from caudal.telemetry.settings import IngestSettings
from caudal.telemetry.topics import Route, topic_table
from caudal.web.api.ingest import PACKED_MAX, Fault, Request_, open_body, refused
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"ingest_settings"})


class TestSample(msgspec.Struct):
    """A sample as it would be stored. `ts` in UTC; `qual` 0 good, 1 suspect, 2 bad."""

    device: str
    point: str
    ts: str
    value: float | bool | str | None
    unit: str | None
    qual: int
    new_device: bool
    new_point: bool


class TestResult(msgspec.Struct):
    """What a payload would become; nothing was stored."""

    format: str | None
    samples: list[TestSample]
    errors: list[Fault]
    kind: str | None = None
    tenant: str | None = None
    metadata: bool = False


@post("/api/ingest/test", guards=[requires(Action.TELEMETRY_TEST)], status_code=200,
      request_max_body_size=PACKED_MAX, opt={"problems": (400, 413)})  # fmt: skip
async def test_payload(
    request: Request_,
    principal: Caller,
    door: Database,
    ingest_settings: Given[IngestSettings],
) -> TestResult:
    """What `{topic, payload}` would become. Stores nothing, registers nothing, counts nothing."""
    opened = await open_body(request, ingest_settings)
    if len(opened) != 1:
        raise InvalidInput("Give one message.")
    item = opened[0]
    if isinstance(item, Reject):
        return TestResult(None, [], [refused(item)])
    topics = topic_table(ingest_settings.topic_templates)
    route = topics.match(item.topic)
    if route is None:
        return TestResult(None, [], [Fault("topic", topics.explain(item.topic))])
    if route.mac is None and (route.tenant or ingest_settings.topic_tenant) != principal.tenant:
        raise Forbidden("The topic is of another account than yours.")
    async with door.read() as connection:
        bound, zone = await _binding(connection, route)
        found = decode(
            route, item.payload, bound_format=bound, zone=zone,
            now=int(datetime.now(UTC).timestamp() * 1e6),
            max_skew_us=ingest_settings.ingest_clock_skew_s * 1_000_000,
            limits=Limits(payload_bytes=ingest_settings.ingest_payload_max),
        )  # fmt: skip
        if isinstance(found, Reject):
            return TestResult(None, [], [refused(found)], route.kind, principal.tenant)
        samples = await _samples(connection, route, found)
    return TestResult(
        found.format, samples, [Fault(f.reason, f.sentence, f.pointer) for f in found.faults], route.kind,
        principal.tenant, found.device_meta is not None or found.meta is not None,
    )  # fmt: skip


async def _binding(connection: Any, route: Route) -> tuple[str | None, tzinfo | None]:
    """The format the device is bound to, and its site's time zone."""
    if route.mac is not None:
        row = await connection.fetchrow(
            "select null::text as format, coalesce(s.time_zone, t.time_zone) as zone from caudal.gateway g"
            " join caudal.tenant t on t.id = g.tenant_id left join caudal.site s on s.id = g.site_id"
            " where g.mac = $1",
            route.mac,
        )
    else:
        row = await connection.fetchrow(
            "select d.format, coalesce(s.time_zone, t.time_zone) as zone from caudal.device d"
            " join caudal.tenant t on t.id = d.tenant_id left join caudal.site s on s.id = d.site_id"
            " where d.name = $1",
            route.device,
        )
    if row is None:
        return None, None
    return row["format"], None if row["zone"] in (None, "UTC") else ZoneInfo(row["zone"])


async def _samples(connection: Any, route: Route, found: Decoded) -> list[TestSample]:
    names = sorted({sample[0] or route.device or "" for sample in found.samples})
    rows = await connection.fetch(
        "select d.name, array(select r.name from caudal.series r where r.device_id = d.id) as points"
        " from caudal.device d where d.name = any($1)",
        names,
    )
    known = {row["name"]: set(row["points"]) for row in rows}
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    made = []
    for name, point, ts, num, flag, text, unit, qual in found.samples[:1000]:
        device = name or route.device or ""
        value = num if num is not None else flag if flag is not None else text
        made.append(
            TestSample(
                device, point, (epoch + timedelta(microseconds=ts)).isoformat(), value, unit, qual,
                device not in known, point not in known.get(device, ()),
            )
        )  # fmt: skip
    return made


ROUTES = [test_payload]
