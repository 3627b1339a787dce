"""The properties of MQTT 5 (section 2.2.2): which packet may carry which, once or more, with which values."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from . import wire
from .codes import MqttError, PacketType, Reason, malformed, protocol_error
from .wire import Reader

P = PacketType


class Properties(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All properties; None or () is absent. Times are in seconds, sizes in bytes."""

    payload_format_indicator: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_interval: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_interval: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_subscription_available: int | None = None
    subscription_identifiers_available: int | None = None
    shared_subscription_available: int | None = None


Kind = Literal["flag", "u16", "u16+", "u32", "u32+", "varint+", "text", "binary", "pair"]
_PUB, _WILL, _CON, _CACK, _DISC, _AUTH = P.PUBLISH, P.WILL, P.CONNECT, P.CONNACK, P.DISCONNECT, P.AUTH
_ACKS = (P.PUBACK, P.PUBREC, P.PUBREL, P.PUBCOMP, P.SUBACK, P.UNSUBACK)

# id: (name, how it is written, the packets it may stand in). A "+" forbids zero; a flag is 0 or 1.
TABLE: dict[int, tuple[str, Kind, tuple[PacketType, ...]]] = {
    0x01: ("payload_format_indicator", "flag", (_PUB, _WILL)),
    0x02: ("message_expiry_interval", "u32", (_PUB, _WILL)),
    0x03: ("content_type", "text", (_PUB, _WILL)),
    0x08: ("response_topic", "text", (_PUB, _WILL)),
    0x09: ("correlation_data", "binary", (_PUB, _WILL)),
    0x0B: ("subscription_identifiers", "varint+", (_PUB, P.SUBSCRIBE)),
    0x11: ("session_expiry_interval", "u32", (_CON, _CACK, _DISC)),
    0x12: ("assigned_client_identifier", "text", (_CACK,)),
    0x13: ("server_keep_alive", "u16", (_CACK,)),
    0x15: ("authentication_method", "text", (_CON, _CACK, _AUTH)),
    0x16: ("authentication_data", "binary", (_CON, _CACK, _AUTH)),
    0x17: ("request_problem_information", "flag", (_CON,)),
    0x18: ("will_delay_interval", "u32", (_WILL,)),
    0x19: ("request_response_information", "flag", (_CON,)),
    0x1A: ("response_information", "text", (_CACK,)),
    0x1C: ("server_reference", "text", (_CACK, _DISC)),
    0x1F: ("reason_string", "text", (_CACK, _DISC, _AUTH, *_ACKS)),
    0x21: ("receive_maximum", "u16+", (_CON, _CACK)),
    0x22: ("topic_alias_maximum", "u16", (_CON, _CACK)),
    0x23: ("topic_alias", "u16", (_PUB,)),
    0x24: ("maximum_qos", "flag", (_CACK,)),
    0x25: ("retain_available", "flag", (_CACK,)),
    0x26: (
        "user_properties",
        "pair",
        (_PUB, _WILL, _CON, _CACK, _DISC, _AUTH, P.SUBSCRIBE, P.UNSUBSCRIBE, *_ACKS),
    ),
    0x27: ("maximum_packet_size", "u32+", (_CON, _CACK)),
    0x28: ("wildcard_subscription_available", "flag", (_CACK,)),
    0x29: ("subscription_identifiers_available", "flag", (_CACK,)),
    0x2A: ("shared_subscription_available", "flag", (_CACK,)),
}
_REPEATED = {"user_properties", "subscription_identifiers"}


def _read(reader: Reader, kind: Kind, name: str) -> Any:
    if kind == "text":
        return reader.text()
    if kind == "binary":
        return reader.binary()
    if kind == "pair":
        return (reader.text(), reader.text())
    value = (
        reader.u8()
        if kind == "flag"
        else reader.varint()
        if kind == "varint+"
        else reader.u16()
        if kind.startswith("u16")
        else reader.u32()
    )
    if (kind == "flag" and value > 1) or (kind.endswith("+") and value == 0):
        raise protocol_error(f"{name} must not be {value}")
    if name == "topic_alias" and value == 0:
        raise MqttError(Reason.TOPIC_ALIAS_INVALID, "topic alias 0")
    return value


def read_properties(reader: Reader, packet: PacketType) -> Properties:
    """The properties that come next. MqttError when one is unknown, misplaced, repeated or wrong."""
    size = reader.varint()
    if size == 0:
        return Properties()
    inner = Reader(reader.data, reader.at, reader.at + size)
    reader.take(size)
    found: dict[str, Any] = {}
    while inner.left:
        # Identifiers are variable byte integers on the wire, though all that exist fit one byte.
        entry = TABLE.get(inner.varint())
        if entry is None or packet not in entry[2]:
            raise malformed(f"property not allowed in {packet.name}")
        name, kind, _ = entry
        value = _read(inner, kind, name)
        if name in _REPEATED:
            if name == "subscription_identifiers" and packet is P.SUBSCRIBE and name in found:
                raise protocol_error("more than one subscription identifier")
            found[name] = (*found.get(name, ()), value)
        elif name in found:
            raise protocol_error(f"{name} given twice")
        else:
            found[name] = value
    if "authentication_data" in found and "authentication_method" not in found:
        raise protocol_error("authentication data without a method")
    return Properties(**found)


def _write(kind: Kind, value: Any) -> bytes:
    if kind == "text":
        return wire.text(value)
    if kind == "binary":
        return wire.binary(value)
    if kind == "pair":
        return wire.text(value[0]) + wire.text(value[1])
    if kind == "varint+":
        return wire.varint(value)
    return int(value).to_bytes(1 if kind == "flag" else 2 if kind.startswith("u16") else 4, "big")


def write_properties(properties: Properties | None, packet: PacketType) -> bytes:
    """The properties with their length. ValueError for one that has no place in `packet`."""
    if properties is None:
        return b"\0"
    out = []
    for number, (name, kind, where) in TABLE.items():
        value = getattr(properties, name)
        if value is None or value == ():
            continue
        if packet not in where:
            raise ValueError(f"{name} has no place in {packet.name}")
        for item in value if name in _REPEATED else (value,):
            out.append(bytes((number,)) + _write(kind, item))
    body = b"".join(out)
    return wire.varint(len(body)) + body
