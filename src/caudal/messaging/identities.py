"""Identities: the addresses at which a person is reached on other channels."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.core.eventlog.port import Connection
from caudal.messaging.addresses import SHAPES, spelled


class Identity(msgspec.Struct, frozen=True):
    """An address of a person's. Verified once a message came from it."""

    user_id: str
    platform: str
    value: str
    verified: bool
    linked_at: datetime


COLUMNS = "user_id, platform, value, verified, linked_at"
SENTENCES = {
    "whatsapp": "A WhatsApp number is written as +5511999998888.",
    "instagram": "An Instagram name is @ and 1 to 30 of letters, digits, dot, underscore.",
}


def check(platform: str, value: str) -> None:
    """Raises InvalidInput for a platform or value that cannot be linked."""
    if platform not in SHAPES:
        raise InvalidInput("The platform must be whatsapp or instagram.")
    if not SHAPES[platform].fullmatch(value):
        raise InvalidInput(SENTENCES[platform])


async def link(connection: Connection, user_id: str, platform: str, value: str) -> Identity:
    """Link an address to a person. Raises InvalidInput; Conflict when it is somebody's already."""
    check(platform, value)
    try:
        row = await connection.fetchrow(
            "insert into caudal.identity(tenant_id, platform, value, user_id)"
            f" values (caudal.current_tenant(), $1, $2, $3) returning {COLUMNS}",
            platform, spelled(platform, value), user_id,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict("That address is linked already.") from error
    assert row is not None
    return Identity(**row)


async def list_of(connection: Connection, user_id: str) -> list[Identity]:
    """A person's addresses, in the order they were linked."""
    rows = await connection.fetch(
        f"select {COLUMNS} from caudal.identity where user_id = $1 order by linked_at, platform, value",
        user_id,
    )
    return [Identity(**row) for row in rows]


async def unlink(connection: Connection, user_id: str, platform: str, value: str) -> None:
    """Take an address from a person. Raises NotFound when it is not theirs."""
    gone = await connection.fetchval(
        "delete from caudal.identity where platform = $1 and value = $2 and user_id = $3 returning value",
        platform, spelled(platform, value), user_id,
    )  # fmt: skip
    if gone is None:
        raise NotFound("You have not linked that address.")
