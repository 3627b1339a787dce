"""Commands to devices: asked, checked against the profile, published, settled by the device's own word.

States: `pending` (not yet published), `sent` (the device, or the broker, has taken it), and in the end
`acknowledged` or `failed` (the device said so), `timed_out` (sent, no answer), `expired` (not sent in
time). What goes by a gateway's topic ends as `sent`, with `settled_at`: gateways have no topic to answer on,
and a time-out would say that something is wrong. A trigger on the acks settles a command in the transaction
that stores the ack; the device's word beats our clock, and nothing turns it back.
"""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput

from . import rules
from .paging import Page, Where
from .profiles import CommandSpec, Param

State: TypeAlias = Literal["pending", "sent", "acknowledged", "failed", "timed_out", "expired"]
PARAMS_MAX = 8_192


class CommandIn(msgspec.Struct, forbid_unknown_fields=True):
    """A command to send.

    `expires_in` (seconds): not published later than that. `retries`: published again that often when no
    answer comes within the profile's `ack_seconds`; a device recognises it by `cmd_id`. With the same
    `idempotency_key` the first one is answered again.
    """

    name: str
    params: dict[str, Any] = {}
    idempotency_key: str | None = None
    expires_in: int = 300
    retries: int = 0


class Command(msgspec.Struct):
    """A command and how it stands."""

    id: int
    cmd_id: str
    device_id: int | None
    gateway_id: int | None
    name: str
    params: dict[str, Any]
    status: State
    error: str | None
    attempts: int
    max_attempts: int
    profile_version: int | None
    idempotency_key: str | None
    created_by: str
    created_at: str
    expires_at: str
    sent_at: str | None
    settled_at: str | None


class Event(msgspec.Struct):
    """One step of a command's history."""

    at: str
    status: State
    detail: str | None


class CommandHistory(msgspec.Struct):
    """A command with all its steps, oldest first."""

    command: Command
    history: list[Event]


SELECT = "select c.* from caudal.command c"


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def made(row: Any) -> Command:
    """A row of caudal.command as a Command."""
    return Command(
        id=row["id"], cmd_id=row["cmd_id"], device_id=row["device_id"], gateway_id=row["gateway_id"],
        name=row["name"], params=row["params"], status=row["status"], error=row["error"],
        attempts=row["attempts"], max_attempts=row["max_attempts"], profile_version=row["profile_version"],
        idempotency_key=row["idempotency_key"], created_by=row["created_by"],
        created_at=row["created_at"].isoformat(), expires_at=row["expires_at"].isoformat(),
        sent_at=_iso(row["sent_at"]), settled_at=_iso(row["settled_at"]),
    )  # fmt: skip


async def create(connection: Any, device: int, given: CommandIn, *, by: str = "") -> tuple[Command, bool]:
    """A command to a device, and whether it is new (False: the idempotency key was used before).

    Raises InvalidInput for what the profile does not know, Conflict when a key comes back with another
    command or the device is not in service.
    """
    row = rules.existing(
        await connection.fetchrow(
            "select d.id, d.status, p.commands, p.version from caudal.device d"
            " left join caudal.profile p on p.id = d.profile_id where d.id = $1::bigint",
            device,
        ),
        "device",
    )
    if row["status"] in ("quarantined", "rejected"):
        raise Conflict("The device is in quarantine; claim it first.")
    rules.whole(given.expires_in, 1, 30 * 86_400, "expires_in")
    rules.whole(given.retries, 0, 19, "retries")
    key = given.idempotency_key and rules.text(given.idempotency_key, "idempotency_key", least=1)
    specs = {spec.name: spec for spec in msgspec.convert(row["commands"] or [], list[CommandSpec])}
    spec = specs.get(given.name)
    if spec is None:
        known = ", ".join(sorted(specs)) or "none; give the device a profile that has commands"
        raise InvalidInput(f"name: the device's profile has no such command. It has: {known}.")
    params = check(spec, given.params)
    try:
        # A savepoint: who lost the race for the key reads the winner's row in this same transaction.
        async with connection.transaction():
            new = await connection.fetchrow(
                "insert into caudal.command(tenant_id, device_id, cmd_id, idempotency_key, name, params,"
                " profile_version, max_attempts, ack_seconds, expires_at, created_by)"
                " values (caudal.current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, now() + $9, $10)"
                " returning *",
                device, uuid.uuid4().hex, key, given.name, params, row["version"], given.retries + 1,
                spec.ack_seconds, timedelta(seconds=given.expires_in), by,
            )  # fmt: skip
        return made(new), True
    except asyncpg.UniqueViolationError:
        before = await connection.fetchrow(
            f"{SELECT} where c.device_id = $1 and c.idempotency_key = $2", device, key
        )
        if before is None:
            raise
        if (before["name"], before["params"]) != (given.name, params):
            raise Conflict("idempotency_key: it was used for another command of this device.") from None
        return made(before), False


def check(spec: CommandSpec, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters, if they are what the profile says. Raises InvalidInput naming the first that is not."""
    known = {param.name: param for param in spec.params}
    for name in params:
        if name not in known:
            raise InvalidInput(f"params.{name[:64]}: {spec.name} has no such parameter.")
    for param in spec.params:
        if params.get(param.name) is None:
            if param.required:
                raise InvalidInput(f"params.{param.name}: it is needed.")
            continue
        _check_one(param, params[param.name])
    raw = msgspec.json.encode(params)
    if len(raw) > PARAMS_MAX or b"\\u0000" in raw:
        raise InvalidInput(f"params: at most {PARAMS_MAX} bytes, and no NUL.")
    return params


def _check_one(param: Param, value: object) -> None:
    where = f"params.{param.name}"
    if param.type == "boolean":
        if not isinstance(value, bool):
            raise InvalidInput(f"{where}: give true or false.")
    elif param.type == "text":
        if not isinstance(value, str):
            raise InvalidInput(f"{where}: give a text.")
        _bounds(param, len(value), f"{where}: its length")
    else:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidInput(f"{where}: give a number.")
        if param.type == "integer" and value != int(value):
            raise InvalidInput(f"{where}: give a whole number.")
        _bounds(param, value, where)
    if param.choices is not None and value not in param.choices:
        raise InvalidInput(f"{where}: give one of {', '.join(map(str, param.choices))}.")


def _bounds(param: Param, value: float, where: str) -> None:
    if param.minimum is not None and value < param.minimum:
        raise InvalidInput(f"{where}: at least {param.minimum:g}.")
    if param.maximum is not None and value > param.maximum:
        raise InvalidInput(f"{where}: at most {param.maximum:g}.")


async def find(
    connection: Any,
    *,
    device_id: int | None = None,
    status: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Page[Command]:
    """A page of commands, newest first; `after` of the page is the id to go on `before`."""
    where = Where()
    where.add("c.device_id = {}::bigint", device_id)
    where.add("c.status = {}", status)
    where.add("c.id < {}::bigint", before)
    rows = await connection.fetch(f"{SELECT}{where} order by c.id desc limit {limit + 1}", *where.arguments)
    items = [made(row) for row in rows[:limit]]
    return Page(items, items[-1].id if len(rows) > limit else None)


async def get(connection: Any, command: int) -> CommandHistory:
    """A command with its history, or NotFound."""
    row = rules.existing(await connection.fetchrow(f"{SELECT} where c.id = $1::bigint", command), "command")
    events = await connection.fetch(
        "select at, status, detail from caudal.command_event where command_id = $1::bigint order by id",
        command,
    )
    return CommandHistory(
        made(row), [Event(event["at"].isoformat(), event["status"], event["detail"]) for event in events]
    )


def payload(row: Any) -> bytes:
    """What goes on the wire: `{schema, cmd_id, type, params, ts, expires_at, device?}`.

    `device` is the code behind the gateway that the command goes to, left out where the topic says it.
    """
    body: dict[str, Any] = {
        "schema": "v1",
        "cmd_id": row["cmd_id"],
        "type": row["name"],
        "params": row["params"],
        "ts": row["created_at"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "expires_at": row["expires_at"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }
    if row["mac"] is not None and row["code"] is not None:
        body["dispositivo_codigo"] = row["code"]
    return msgspec.json.encode(body)
