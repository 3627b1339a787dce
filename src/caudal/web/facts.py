"""What the rules of fields say, for the description of the API: bounds, words, unknown fields.

The rules themselves (registry/rules.py and its like) have sentences for people, so they are not written as
constraints of the structs; here they are said once more, for machines. The fuzzer holds each against the API.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler

from caudal.registry import rules

_LAST = 2**63 - 1


def _whole(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _words(*allowed: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(allowed)}


def _decimal(least: float, most: float) -> dict[str, Any]:
    # A number, or its digits in a string, for those who keep decimals exact.
    return {"type": ["number", "string"], "minimum": least, "maximum": most}


_PLACE = {"latitude": _decimal(-90, 90), "longitude": _decimal(-180, 180)}
_GATEWAY = {**_PLACE, "capacity": _whole(1, 32), "heartbeat_seconds": _whole(1, 31_536_000)}
_DEVICE = {
    "kind": _words(*rules.KINDS),
    "mode": _words(*rules.MODES),
    "status": _words(*rules.STATUSES),
    "modbus_register": _whole(1, 65_535),
    "modbus_slave": _whole(1, 247),
    "alarm_day": {"type": ["number", "string"], "minimum": 0},
    "alarm_month": {"type": ["number", "string"], "minimum": 0},
}
_POINT = {"kind": _words(*rules.POINT_KINDS)}

FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "SiteIn": _PLACE,
    "SitePatch": _PLACE,
    "GatewayIn": _GATEWAY,
    "GatewayPatch": _GATEWAY,
    "DeviceIn": _DEVICE,
    "DevicePatch": _DEVICE,
    "Claim": {"kind": _words(*rules.KINDS)},
    "PointIn": _POINT,
    "PointPatch": _POINT,
    "ProfileIn": {"heartbeat_seconds": _whole(1, 31_536_000)},
    "CommandIn": {"expires_in": _whole(1, 30 * 86_400), "retries": _whole(0, 19)},
}
# Who signs in says who they are in one way or the other.
EITHER = {
    "Credentials": [
        {"required": ["username"], "properties": {"username": {"type": "string"}}},
        {"required": ["email"], "properties": {"email": {"type": "string"}}},
    ]
}


def _state(described: dict[str, Any], fact: dict[str, Any]) -> dict[str, Any]:
    """`fact` in place of the type that was described; whether it may be null, and its default, stay."""
    kept: dict[str, Any] = {key: described[key] for key in ("default", "description") if key in described}
    nullable = any(one.get("type") == "null" for one in described.get("oneOf", ()))
    return {**kept, "anyOf": [fact, {"type": "null"}]} if nullable else {**kept, **fact}


def _closed(kind: Any) -> set[str]:
    """Names of the structs in `kind` that refuse fields they do not know."""
    found: set[str] = set()
    seen: set[int] = set()

    def walk(info: Any) -> None:
        if id(info) in seen or not isinstance(info, msgspec.inspect.Type):
            return
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.StructType):
            if info.forbid_unknown_fields:
                found.add(info.cls.__name__)
            for field in info.fields:
                walk(field.type)
        for name in ("item_type", "value_type", "type"):
            walk(getattr(info, name, None))
        for one in getattr(info, "types", ()):
            walk(one)

    walk(msgspec.inspect.type_info(kind))
    return found


def closed_by(handler: HTTPRouteHandler) -> set[str]:
    """The structs of a route's body that refuse unknown fields."""
    data = handler.parsed_fn_signature.parameters.get("data")
    if data is None:
        return set()
    try:
        return _closed(data.annotation)
    except (TypeError, ValueError):
        return set()  # no body that msgspec reads


def state(schemas: dict[str, Any], closed: set[str]) -> None:
    """Add what is known to the described `schemas`."""
    for name, facts in FIELDS.items():
        described = schemas[name]["properties"] if name in schemas else {}
        for field in described.keys() & facts.keys():
            described[field] = _state(described[field], facts[field])
    for name, ways in EITHER.items():
        if name in schemas:
            schemas[name]["anyOf"] = ways
    for name in closed & schemas.keys():
        schemas[name]["additionalProperties"] = False


def whole(parameter: dict[str, Any]) -> None:
    """Bounds of whole numbers are whole: as floats the largest number of a row would be one too large."""
    shape = parameter.get("schema", {})
    if shape.get("type") == "integer":
        for bound in ("minimum", "maximum"):
            if isinstance(shape.get(bound), float):
                shape[bound] = min(int(shape[bound]), _LAST)
