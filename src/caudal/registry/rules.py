"""The rules of the registry's fields, each in one place: forms, CSV and the API say the same sentence."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput, NotFound

GATEWAY_CODE_MAX = 30
DEVICE_CODE_MAX = 20
NAME_MAX = 200
TEXT_MAX = 2000

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_LIMIT = Decimal(10) ** 11
_CENTS = Decimal("0.0001")

KINDS = ("meter", "sensor", "actuator")
MODES = ("auto", "manual")
STATUSES = ("active", "inactive", "maintenance")
POINT_KINDS = ("gauge", "counter", "delta", "state")


def text(value: str, field: str, *, most: int = NAME_MAX, least: int = 0) -> str:
    """The text without blanks around it. InvalidInput when too short, too long or unprintable."""
    value = value.strip()
    if not least <= len(value) <= most:
        raise InvalidInput(f"{field}: give {least} to {most} characters; these are {len(value)}.")
    if any(character < " " and character not in "\n\t" for character in value) or "\x7f" in value:
        raise InvalidInput(f"{field}: control characters are not allowed.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{field}: that is no valid Unicode.") from None
    return value


def topic_name(value: str, field: str) -> str:
    """A name that can stand as one level of a topic."""
    value = text(value, field, least=1)
    if any(character in value for character in "/+#\n\t"):
        raise InvalidInput(f"{field}: '/', '+', '#', tabs and line breaks cannot stand in a topic's level.")
    if value.startswith("$"):
        raise InvalidInput(f"{field}: a name cannot begin with '$'.")
    return value


def code(value: str, most: int, field: str = "code") -> str:
    """A gateway's (30) or a device's (20) code."""
    return topic_name(text(value, field, most=most, least=1), field)


def gateway_code(value: str) -> str:
    """Upper-cased; lengths are counted after that, since a letter may become two."""
    return code(value.strip().upper(), GATEWAY_CODE_MAX)


def mac(value: str) -> str:
    """`aa:bb:cc:dd:ee:ff`, lower-cased. Other spellings are refused: a MAC is compared as text elsewhere."""
    value = value.strip().lower()
    if not _MAC.fullmatch(value):
        raise InvalidInput("mac: write it as aa:bb:cc:dd:ee:ff.")
    return value


def whole(value: int | None, least: int, most: int, field: str) -> int | None:
    """A whole number within its bounds, or none."""
    if value is not None and not least <= value <= most:
        raise InvalidInput(f"{field}: give a whole number from {least} to {most}.")
    return value


def one_of(value: str, allowed: tuple[str, ...], field: str) -> str:
    """One of a few words."""
    if value not in allowed:
        raise InvalidInput(f"{field}: use one of {', '.join(allowed)}.")
    return value


def limit(value: Decimal | None, field: str) -> Decimal | None:
    """numeric(15,4), not negative; more decimals are refused, not rounded away."""
    if value is None:
        return None
    if not value.is_finite() or value < 0 or value >= _LIMIT or value != value.quantize(_CENTS):
        raise InvalidInput(f"{field}: give a number from 0 to 99999999999.9999 with at most four decimals.")
    return value


def coordinate(value: Decimal | None, most: int, field: str) -> Decimal | None:
    """numeric(9,6): a latitude (90) or longitude (180), rounded to six decimals (11 cm)."""
    if value is None:
        return None
    if not value.is_finite() or abs(value) > most:
        raise InvalidInput(f"{field}: give degrees from -{most} to {most}.")
    return round(value, 6)


def time_zone(value: str | None) -> str | None:
    """A name of the time zone database, or none."""
    if value is None or value == "":
        return None
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        raise InvalidInput(f"time_zone: {value[:60]!r} is no known time zone.") from None
    return value


def modbus(kind: str, register: int | None, slave: int | None) -> None:
    """Bounds, and that a meter has both."""
    whole(register, 1, 65535, "modbus_register")
    whole(slave, 1, 247, "modbus_slave")
    if kind == "meter" and (register is None or slave is None):
        raise InvalidInput("modbus_register, modbus_slave: a meter needs both.")


_SENTENCES = {
    "gateway_tenant_id_code_key": "code: another gateway of this account has it.",
    "gateway_mac_key": "mac: it is registered already.",
    "site_tenant_id_name_key": "name: another site has it.",
    "device_name_tenant_id_key": "name: another device of this account has it.",
    "device_code": "code: another device of this gateway has it.",
    "series_device_id_name_key": "name: the device has a point of this name.",
    "profile_tenant_id_name_key": "name: another profile has it.",
    "device_gateway_id_fkey": "The gateway still has devices; move or delete them first.",
    "device_site_id_fkey": "The site still has devices; move them first.",
    "gateway_site_id_fkey": "The site still has gateways; move them first.",
    "device_profile_id_fkey": "Devices still use this profile.",
    "series_device_id_fkey": "The device has points; set it to inactive to keep its history.",
    "ack_device_id_fkey": "The device has answered commands; set it to inactive to keep its history.",
    "event_device_id_fkey": "The device has told of events; set it to inactive to keep its history.",
    "certificate_gateway_id_fkey": "The gateway has had certificates, whose record stays.",
    "mqtt_user_name_key": "name: another MQTT user has it.",
}


def refused(error: asyncpg.PostgresError) -> NoReturn:
    """Turn a constraint's refusal into the sentence for it; anything else goes on as it is."""
    name = getattr(error, "constraint_name", None) or ""
    if name == "gateway_capacity":
        raise Conflict(f"capacity: {error.args[0]}.") from error
    if isinstance(error, asyncpg.UniqueViolationError | asyncpg.ForeignKeyViolationError):
        raise Conflict(_SENTENCES.get(name, "What is asked contradicts what is there.")) from error
    raise error


async def visible(connection: Any, table: str, number: int | None, field: str) -> None:
    """That a row referred to is one the tenant can see: a foreign key alone looks past row security."""
    if number is None:
        return
    # A bigint column and a number beyond it: there is no such row, and no error of the driver.
    known = abs(number) < 2**63 and await connection.fetchval(
        f"select 1 from caudal.{table} where id = $1::bigint", number
    )
    if not known:
        raise InvalidInput(f"{field}: there is no such {table}.")


def existing(row: Any, what: str) -> Any:
    """The row, or NotFound."""
    if row is None:
        raise NotFound(f"There is no such {what}.")
    return row


def metadata(value: dict[str, Any]) -> dict[str, Any]:
    """A small object that PostgreSQL's jsonb can hold."""
    raw = msgspec.json.encode(value)
    if len(raw) > 16_384:
        raise InvalidInput("metadata: keep it below 16 KiB.")
    if b"\\u0000" in raw:
        raise InvalidInput("metadata: NUL characters cannot be stored.")
    return value
