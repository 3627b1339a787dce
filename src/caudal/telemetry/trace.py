"""What became of a message: the rows, dead letters and held messages it left, and the ledger that counted it.

By its bytes, when they are at hand: then each of its samples is looked up under its own key. Or by topic or
device and a span of time of receipt. Functions take an administrator's connection.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from caudal.core.errors import InvalidInput
from caudal.telemetry.decode import decode
from caudal.telemetry.model import Decoded
from caudal.telemetry.others import digest, instant
from caudal.telemetry.storage import now_us
from caudal.telemetry.topics import Route, Scheme

# When a row's transaction was committed; null where the server does not keep track, or no longer knows.
COMMITTED = """
case when current_setting('track_commit_timestamp') = 'on' then pg_xact_commit_timestamp({0}.xmin) end
"""

ROWS = f"""
select t.name as tenant, d.name as device, r.name as point, s.ts,
       s.v_num, s.v_bool, s.v_text, s.qual, s.received,
       {COMMITTED.format("s")} as committed
from caudal.tenant t join caudal.device d on d.tenant_id = t.id join caudal.series r on r.device_id = d.id
join caudal.sample s on s.series = r.id
"""

ROWS_RECEIVED = (
    ROWS
    + """
where t.name = $1 and d.name = $2 and s.received >= $3 and s.received < $4
order by s.received, s.ts, r.name limit $5
"""
)

ROWS_NAMED = (
    ROWS
    + """
join unnest($2::text[], $3::text[], $4::timestamptz[]) as w(device, point, ts)
  on w.device = d.name and w.point = r.name and w.ts = s.ts
where t.name = $1
"""
)

LETTERS = f"""
select d.id, d.topic, d.reason, d.sentence, d.status, d.received, d.stored,
       {COMMITTED.format("d")} as committed
from caudal.dead_letter d
"""

HELD = """
select h.id, h.topic, h.device_name as device, h.items, h.received, h.stored as committed
from caudal.held_message h
"""

ACKS = f"""
select 'ack' as kind, d.name as device, a.cmd_id as name, a.ok::text as value, a.ts_exec as ts,
       a.created_at as received, {COMMITTED.format("a")} as committed
from caudal.tenant t join caudal.device d on d.tenant_id = t.id join caudal.ack a on a.device_id = d.id
where t.name = $1 and d.name = $2 and a.created_at >= $3 and a.created_at < $4
  and ($5::text is null or a.cmd_id = $5)
union all
select 'event', d.name, e.event_id, e.event_type, e.ts, e.received, {COMMITTED.format("e")}
from caudal.tenant t join caudal.device d on d.tenant_id = t.id join caudal.event e on e.device_id = d.id
where t.name = $1 and d.name = $2 and e.received >= $3 and e.received < $4
  and ($5::text is null or e.event_id = $5)
order by received limit 1000
"""

LEDGER = """
select l.day, coalesce(t.name, '') as tenant, l.writer, l.messages, l.received, l.stored, l.duplicates,
       l.dead, l.held, l.empty, l.first_received, l.last_received, l.last_committed
from caudal.ledger l left join caudal.tenant t on t.id = l.tenant_id
where ($1::text is null or t.name = $1) and l.first_received <= $3 and l.last_received >= $2
order by l.last_committed limit 100
"""

BEGINNING, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


class Row(msgspec.Struct):
    """A sample that is stored, and whether the message says the same (None when it was not given)."""

    tenant: str
    device: str
    point: str
    ts: datetime
    value: float | bool | str | None
    qual: int
    received: datetime
    committed: datetime | None
    same: bool | None = None


class Trace(msgspec.Struct):
    """All that was found. `verdict` is one sentence."""

    topic: str | None
    verdict: str = ""
    rows: list[Row] = []
    missing: list[str] = []
    """Samples of the given message that are not stored."""
    letters: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    """Acks and events."""
    ledger: list[dict[str, Any]] = []


async def by_time(
    connection: Any, scheme: Scheme, *, topic: str | None, tenant: str | None, device: str | None,
    since: datetime, until: datetime, limit: int = 200,
) -> Trace:  # fmt: skip
    """What was received from `since` to `until`, on `topic`, or from `device` of `tenant`."""
    route = scheme.match(topic) if topic is not None else None
    if route is not None:
        tenant, device = tenant or route.tenant, device or route.device
    found = Trace(topic)
    if tenant is not None and device is not None:
        found.rows = _rows(await connection.fetch(ROWS_RECEIVED, tenant, device, since, until, limit))
        found.others = _dicts(await connection.fetch(ACKS, tenant, device, since, until, None))
    given = (topic, tenant, device, since, until, limit)
    if topic is None and (tenant is None or device is None):
        raise InvalidInput("Name a topic, or a tenant and a device.")
    where = (
        " where ($1::text is null or topic = $1) and ($1::text is not null or"
        " (tenant_name = $2 and device_name = $3)) and received >= $4 and received < $5 order by id limit $6"
    )
    found.letters = _dicts(await connection.fetch(LETTERS + where, *given))
    of_device = where.replace(
        "tenant_name = $2", "tenant_id = (select t.id from caudal.tenant t where t.name = $2)"
    )
    found.held = _dicts(await connection.fetch(HELD + of_device, *given))
    found.ledger = _dicts(await connection.fetch(LEDGER, tenant, since, until))
    found.verdict = _verdict(found)
    return found


async def by_payload(connection: Any, scheme: Scheme, topic: str, payload: bytes) -> Trace:
    """What became of the message with these bytes on this topic, whenever it came."""
    found = Trace(topic)
    mark = digest(topic, payload)
    found.letters = _dicts(await connection.fetch(LETTERS + " where digest = $1 order by id", mark))
    found.held = _dicts(await connection.fetch(HELD + " where digest = $1 order by id", mark))
    route = scheme.match(topic)
    if route is not None:
        await _look_up(connection, found, route, payload, mark)
    instants = [row.received for row in found.rows]
    instants += [entry["received"] for entry in (*found.letters, *found.held, *found.others)]
    if instants:
        found.ledger = _dicts(await connection.fetch(LEDGER, None, min(instants), max(instants)))
    found.verdict = _verdict(found)
    return found


async def _look_up(connection: Any, found: Trace, route: Route, payload: bytes, mark: bytes) -> None:
    owner = await connection.fetchrow(
        "select t.name as tenant, d.format, coalesce(s.time_zone, z.time_zone, t.time_zone) as zone"
        " from caudal.tenant t left join caudal.device d on d.tenant_id = t.id and d.name = $2"
        " left join caudal.site s on s.id = d.site_id"
        " left join caudal.site z on z.tenant_id = t.id and z.name = $3"
        " where t.name = $1 or t.id = (select g.tenant_id from caudal.gateway g where g.mac = $4)",
        route.tenant, route.device or route.mac, route.site, route.mac,
    )  # fmt: skip
    if owner is None:
        return
    zone = ZoneInfo(owner["zone"]) if owner["zone"] else None
    decoded = decode(
        route, payload, bound_format=owner["format"], zone=zone, now=now_us(), max_skew_us=1 << 60
    )
    if not isinstance(decoded, Decoded):
        return
    default = route.device or route.mac or ""
    wanted = {(name or default, point, instant(ts)): sample for sample in decoded.samples
              for name, point, ts in [sample[:3]]}  # fmt: skip
    keys = list(wanted)
    columns = [[key[part] for key in keys] for part in range(3)]
    found.rows = _rows(await connection.fetch(ROWS_NAMED, owner["tenant"], *columns))
    for row in found.rows:
        _, _, _, num, flag, text, _, _ = wanted.pop((row.device, row.point, row.ts))
        row.same = row.value == next(value for value in (num, flag, text) if value is not None)
    found.missing = [f"{device} {point} {at.isoformat()}" for device, point, at in wanted]
    names = [decoded.ack.cmd_id] if decoded.ack else []
    if decoded.event:
        names.append(decoded.event.event_id or "~" + mark.hex())
    for name in names:
        found.others += _dicts(await connection.fetch(ACKS, owner["tenant"], default, BEGINNING, END, name))


def _rows(rows: Any) -> list[Row]:
    made = []
    for row in rows:
        fields = dict(row)
        values = [fields.pop(name) for name in ("v_num", "v_bool", "v_text")]
        made.append(Row(**fields, value=next((value for value in values if value is not None), None)))
    return made


def _dicts(rows: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]


def _verdict(found: Trace) -> str:
    parts = []
    if found.rows or found.others:
        parts.append(f"{len(found.rows) + len(found.others)} stored")
    different = sum(row.same is False for row in found.rows)
    if different:
        parts.append(f"of which {different} with another value, which came first")
    if found.letters:
        parts.append(
            f"{len(found.letters)} dead letters ({', '.join(str(x['id']) for x in found.letters[:5])})"
        )
    if found.held:
        parts.append(f"{len(found.held)} held for a device in quarantine")
    if found.missing:
        parts.append(f"{len(found.missing)} samples not there")
    if not parts:
        return "Nothing of it is here: it was not acknowledged, came on another topic, or has expired."
    return "; ".join(parts) + "."
