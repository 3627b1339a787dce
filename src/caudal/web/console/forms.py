"""What a form sent, as the registry's structs want it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec

from caudal.core.errors import InvalidInput

T = TypeVar("T")

WHOLE = frozenset({
    "site_id", "gateway_id", "profile_id", "capacity", "heartbeat_seconds", "modbus_register", "modbus_slave",
})  # fmt: skip
DECIMAL = frozenset({"latitude", "longitude", "alarm_day", "alarm_month"})
FLOAT = frozenset({"limit_low", "limit_high"})
# Texts that may be empty but not absent.
TEXT = frozenset({"name", "description"})


def patch(kind: type[T], form: Mapping[str, str], names: tuple[str, ...]) -> T:
    """`kind` from the fields `names` that the form has; an empty one becomes None.

    Raises InvalidInput for what is no number where one is wanted.
    """
    given: dict[str, Any] = {}
    for name in names:
        if name in form:
            given[name] = _value(name, form[name].strip())
    try:
        return kind(**given)
    except TypeError as error:
        raise InvalidInput("A field that is needed was left empty.") from error


def _value(name: str, text: str) -> Any:
    if not text:
        return "" if name in TEXT else None
    try:
        if name in WHOLE:
            return int(text)
        if name in DECIMAL:
            return _decimal(text)
        if name in FLOAT:
            return float(_decimal(text))
    except (ValueError, InvalidOperation) as error:
        raise InvalidInput(f"{name}: {text[:40]!r} is no number.") from error
    return text


def whole(form: Mapping[str, str], name: str) -> int | None:
    """A whole number in a form; None when it is left empty. Raises InvalidInput."""
    text = form.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise InvalidInput(f"{name}: {text[:40]!r} is no whole number.")
    return int(text)


def decimal(form: Mapping[str, str], name: str) -> float | None:
    """A number in a form, with a comma or a point; None when it is left empty. Raises InvalidInput."""
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        found = _decimal(text)
    except InvalidOperation as error:
        raise InvalidInput(f"{name}: {text[:40]!r} is no number.") from error
    if not found.is_finite():
        raise InvalidInput(f"{name}: {text[:40]!r} is no number.")
    return float(found)


def _decimal(text: str) -> Decimal:
    # People write 12,5 as readily as 12.5; a comma can be nothing else where thousands are not grouped.
    return Decimal(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def texts(form: Any) -> dict[str, str]:
    """A form's text fields, empty ones too."""
    return {name: value for name, value in form.items() if isinstance(value, str)}


def command_value(kind: str, text: str) -> Any:
    """A command's parameter as its profile has it; None when left empty."""
    text = text.strip()
    if not text:
        return None
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if kind in ("number", "integer"):
        try:
            found = float(_decimal(text))
        except InvalidOperation as error:
            raise InvalidInput(f"params: {text[:40]!r} is no number.") from error
        return int(found) if found.is_integer() else found
    return text


def json_of(value: object) -> str:
    """Something as JSON for people to read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
