"""Devices: the list, and one device with everything that is known of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import InvalidInput
from caudal.insight import raw
from caudal.registry import audit, commands, credentials, devices, points, presence, profiles
from caudal.registry.permissions import Action
from caudal.web.console import forms, history
from caudal.web.console.filters import number
from caudal.web.console.overview_data import value_of
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

READ = [requires(Action.REGISTRY_READ)]
WRITE = [requires(Action.REGISTRY_WRITE)]
PAGE = 50
STATUSES = ("active", "inactive", "maintenance", "quarantined", "rejected")
KINDS = ("meter", "sensor", "actuator")
MODES = ("auto", "manual")
FIELDS = (
    "display_name", "site_id", "gateway_id", "code", "kind", "mode", "status", "modbus_register",
    "modbus_slave", "alarm_day", "alarm_month", "format", "profile_id",
)  # fmt: skip
AVAILABILITY_DAYS = 30

LAST_MESSAGES = """
select r.name as point, coalesce(r.unit, '') as unit, s.* from caudal.console_last_samples($1, $2) s
join caudal.series r on r.id = s.series order by s.received desc, s.ts desc, r.name
"""


async def titles(connection: Any, table: str, limit: int = 500) -> list[tuple[int, str]]:
    """Sites, gateways or profiles to choose from: (id, what people call it)."""
    name = {
        "site": "coalesce(nullif(display_name, ''), name)",
        "gateway": "code || case when name <> '' then ' · ' || name else '' end",
        "profile": "name",
    }[table]
    rows = await connection.fetch(f"select id, {name} from caudal.{table} order by 2 limit {limit}")
    return [(row[0], row[1]) for row in rows]


@get("/devices", guards=READ)
async def device_list(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Devices by search, site and state."""
    given = request.query_params
    state = given.get("state") or None
    online = {"online": True, "offline": False}.get(state or "")
    status = state if state in STATUSES else None
    async with door.read() as connection:
        found = await devices.find(
            connection, search=given.get("search"), site_id=number(given, "site"), status=status,
            gateway_id=number(given, "gateway"), online=online, after=number(given, "after"), limit=PAGE,
        )  # fmt: skip
        choices = {name: await titles(connection, name) for name in ("site", "gateway", "profile")}
    sites = choices["site"]
    return view.page(
        "devices.html", section="devices", found=found, sites=sites, site_names=dict(sites),
        choices=choices, kinds=KINDS,
        states=("online", "offline", *STATUSES), state=state, search=given.get("search", ""),
        site_id=number(given, "site"), searched=any(given.get(name) for name in ("search", "site", "state")),
    )  # fmt: skip


@get("/devices/{device_id:int}", guards=READ)
async def device_page(
    request: Request[Any, Any, Any], device_id: FromPath[int], view: Given[View], door: Database
) -> Response[str]:
    """One device."""
    now = datetime.now(UTC)
    if view.may(Action.TELEMETRY_READ):
        async with door.write() as connection:
            await raw.ask(connection, device_id)
    async with door.read() as connection:
        device = await devices.get(connection, device_id)
        own_points = (await points.find(connection, device_id=device_id, limit=200)).items
        latest = {
            row["series"]: (value_of(row), row["ts"], row["qual"] or 0)
            for row in await connection.fetch(
                "select * from caudal.series_latest($1)", [point.id for point in own_points]
            )
        } if view.may(Action.TELEMETRY_READ) else {}  # fmt: skip
        messages = (
            await connection.fetch(LAST_MESSAGES, device_id, 20) if view.may(Action.TELEMETRY_READ) else []
        )
        letters = (
            await connection.fetchval(
                "select count(*) from caudal.dead_letter where device_name = $1 and status = 'open'",
                device.name,
            )
            if view.may(Action.DEAD_LETTERS_READ)
            else None
        )
        available = await presence.availability(
            connection, "device", device_id, now - timedelta(days=AVAILABILITY_DAYS), now
        )
        profile = await profiles.get(connection, device.profile_id) if device.profile_id else None
        sent = (
            (await commands.find(connection, device_id=device_id, limit=20)).items
            if view.may(Action.COMMANDS_READ)
            else []
        )
        secrets = await credentials.find(connection, "device", device_id)
        choices = {name: await titles(connection, name) for name in ("site", "gateway", "profile")}
    chosen = history.chosen(request.query_params, own_points)
    return view.page(
        "device.html", section="devices", device=device, points=own_points, latest=latest, messages=messages,
        letters=letters, available=available, availability_days=AVAILABILITY_DAYS, profile=profile,
        commands=sent, secrets=secrets, choices=choices, statuses=STATUSES[:3], kinds=KINDS, modes=MODES,
        value_of=value_of, chosen=chosen, spans=history.SPANS,
        span=history.span(request.query_params)[0],
    )  # fmt: skip


@post("/devices", guards=WRITE, status_code=200)
async def make_device(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """A device before it publishes: a meter by gateway, code and Modbus address, any other by its name."""
    form = forms.texts(await request.form())
    given = forms.patch(
        devices.DeviceIn, {name: text for name, text in form.items() if text.strip()}, ("name", *FIELDS)
    )
    async with door.write() as connection:
        made = await devices.create(connection, given)
        await audit.record(connection, principal, "device.created", f"device:{made.id}", name=made.name)
    return view.go(f"/console/devices/{made.id}", done="saved")


@post("/devices/{device_id:int}", guards=WRITE, status_code=200)
async def change_device(
    request: Request[Any, Any, Any],
    device_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Rename, move, edit."""
    form = forms.texts(await request.form())
    given = forms.patch(devices.DevicePatch, form, FIELDS)
    async with door.write() as connection:
        await devices.change(connection, device_id, given)
        await audit.record(connection, principal, "device.changed", f"device:{device_id}")
    return view.go(f"/console/devices/{device_id}", done="saved")


@post("/devices/{device_id:int}/commands", guards=[requires(Action.COMMANDS_SEND)], status_code=200)
async def send_command(
    request: Request[Any, Any, Any],
    device_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Send a command of the device's profile; its outcome is shown as it comes."""
    form = forms.texts(await request.form())
    async with door.write() as connection:
        device = await devices.get(connection, device_id)
        profile = await profiles.get(connection, device.profile_id) if device.profile_id else None
        spec = next(
            (one for one in (profile.commands if profile else []) if one.name == form.get("name")), None
        )
        if spec is None:
            raise InvalidInput("name: the device's profile has no such command.")
        params = {
            one.name: value
            for one in spec.params
            if (value := forms.command_value(one.type, form.get(f"param.{one.name}", ""))) is not None
        }
        given = commands.CommandIn(spec.name, params, idempotency_key=form.get("key") or None)
        made, new = await commands.create(connection, device_id, given, by=principal.actor)
        if new:
            await audit.record(
                connection, principal, "command.sent", f"device:{device_id}", name=made.name,
                cmd_id=made.cmd_id,
            )  # fmt: skip
    return view.go(f"/console/devices/{device_id}", done="command_sent", part="commands")


@get("/devices/{device_id:int}/raw", guards=[requires(Action.TELEMETRY_READ)])
async def raw_messages(device_id: FromPath[int], view: Given[View], door: Database) -> Response[str]:
    """The newest messages as they came; the page asks again while it is open."""
    async with door.read() as connection:
        await devices.get(connection, device_id)
        found = await raw.newest(connection, device_id)
    return view.page("raw.html", device_id=device_id, found=found, shown=shown_bytes)


def shown_bytes(payload: bytes) -> str:
    """A payload for people: as text, where it is text; bytes that are none as escapes."""
    return payload.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


@get("/devices/{device_id:int}/commands", guards=[requires(Action.COMMANDS_READ)])
async def command_rows(device_id: FromPath[int], view: Given[View], door: Database) -> Response[str]:
    """The commands' part of the page, asked again while one is under way."""
    async with door.read() as connection:
        sent = (await commands.find(connection, device_id=device_id, limit=20)).items
    return view.page("commands.html", device_id=device_id, commands=sent)


@post("/devices/{device_id:int}/revoke", guards=[requires(Action.CREDENTIALS_WRITE)], status_code=200)
async def revoke(
    device_id: FromPath[int], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """End all passwords of the device."""
    async with door.write() as connection:
        count = await credentials.revoke(connection, "device", device_id)
        await audit.record(connection, principal, "credential.revoked", f"device:{device_id}", count=count)
    return view.go(f"/console/devices/{device_id}", done="revoked")


ROUTES = [
    make_device,
    device_list,
    device_page,
    change_device,
    send_command,
    command_rows,
    raw_messages,
    revoke,
]
