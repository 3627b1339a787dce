"""Packets to bytes and back, for MQTT 3.1.1 (version 4) and 5. Source: the OASIS standards, chapter 3.

`decode` takes one packet whose length is known; finding packets in a stream, and reading PUBLISH fast, is
`stream.py`'s work. Both are strict: what the standard forbids raises MqttError with the reason it names.
"""

from __future__ import annotations

from collections.abc import Callable

from . import packets as pk
from . import wire
from .codes import MqttError, PacketType, Reason, connack_code, connack_reason, malformed, protocol_error
from .properties import Properties, read_properties, write_properties
from .wire import Reader

P = PacketType
PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
_RESERVED_BITS = {P.PUBREL: 2, P.SUBSCRIBE: 2, P.UNSUBSCRIBE: 2}
_ACK_TYPES: dict[PacketType, type[pk.Puback | pk.Pubrec | pk.Pubrel | pk.Pubcomp]] = {
    P.PUBACK: pk.Puback,
    P.PUBREC: pk.Pubrec,
    P.PUBREL: pk.Pubrel,
    P.PUBCOMP: pk.Pubcomp,
}
# Reason codes each packet may carry (MQTT 5, tables of chapter 3); any other is a protocol error.
_ACK_REASONS = {
    P.PUBACK: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    P.PUBREC: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    P.PUBREL: {0x00, 0x92},
    P.PUBCOMP: {0x00, 0x92},
}
_SUBACK_REASONS = {0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}
_UNSUBACK_REASONS = {0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91}
_DISCONNECT_REASONS = {0x00, 0x04, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, *range(0x93, 0xA3), *range(0x80, 0x84)} | {
    0x87,
    0x89,
}
_CONNACK_REASONS = {0, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F}


def decode(head: int, body: bytes, version: int) -> pk.Packet:
    """The packet of first byte `head` and `body` (without the remaining length). MqttError if it is none."""
    kind = head >> 4
    if kind == P.PUBLISH:
        return _publish(head, body, version)
    if kind == 0 or (kind == P.AUTH and version < 5):
        raise malformed(f"packet type {kind}")
    packet = PacketType(kind)
    if head & 0x0F != _RESERVED_BITS.get(packet, 0):
        raise malformed(f"reserved bits of {packet.name}")
    reader = Reader(body)
    found = _DECODERS[packet](reader, packet, version)
    reader.finish()
    return found


def _props(reader: Reader, packet: PacketType, version: int) -> Properties | None:
    return read_properties(reader, packet) if version >= 5 else None


def _packet_id(reader: Reader) -> int:
    number = reader.u16()
    if number == 0:
        raise protocol_error("packet identifier 0")
    return number


def _reason(reader: Reader, allowed: set[int]) -> int:
    code = reader.u8()
    if code not in allowed:
        raise protocol_error(f"reason code 0x{code:02X} has no place here")
    return code


def _connect(reader: Reader, _packet: PacketType, _version: int) -> pk.Packet:
    if reader.binary() != b"MQTT":
        # MQTT 3.1 ("MQIsdp") ends here too: it left the field before the devices did arrive in it.
        raise MqttError(Reason.UNSUPPORTED_PROTOCOL_VERSION, "protocol name is not MQTT")
    version = reader.u8()
    if version not in (4, 5):
        raise MqttError(Reason.UNSUPPORTED_PROTOCOL_VERSION, f"protocol version {version}")
    flags = reader.u8()
    will_qos = flags >> 3 & 3
    if flags & 1:
        raise malformed("reserved bit of CONNECT")
    if (not flags & 4 and flags & 0x38) or will_qos == 3:
        raise malformed("will flags contradict each other")
    if version == 4 and flags & 0xC0 == 0x40:
        raise malformed("a password without a user name")
    keep_alive = reader.u16()
    props = _props(reader, P.CONNECT, version)
    client_id = reader.text()
    will = None
    if flags & 4:
        will_props = _props(reader, P.WILL, version)
        will = pk.Will(reader.text(), reader.binary(), will_qos, bool(flags & 0x20), will_props)
    username = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    return pk.Connect(client_id, version, bool(flags & 2), keep_alive, username, password, will, props)


def _connack(reader: Reader, _packet: PacketType, version: int) -> pk.Packet:
    flags = reader.u8()
    if flags > 1:
        raise malformed("reserved bits of CONNACK")
    code = reader.u8()
    if code not in _CONNACK_REASONS if version >= 5 else code > 5:
        raise protocol_error(f"CONNACK code {code}")
    if code and flags:
        raise protocol_error("a refused connection has no session")
    return pk.Connack(bool(flags), connack_reason(code, version), _props(reader, P.CONNACK, version))


def _publish(head: int, body: bytes, version: int) -> pk.Packet:
    qos = head >> 1 & 3
    if qos == 3 or (qos == 0 and head & 8):
        raise malformed("flags of PUBLISH")
    reader = Reader(body)
    topic = reader.text()
    number = _packet_id(reader) if qos else 0
    props = _props(reader, P.PUBLISH, version)
    return pk.Publish(topic, reader.rest(), qos, bool(head & 1), bool(head & 8), number, props)


def _ack(reader: Reader, packet: PacketType, version: int) -> pk.Packet:
    number = _packet_id(reader)
    reason = 0
    props = None
    if version >= 5:
        if reader.left:
            reason = _reason(reader, _ACK_REASONS[packet])
        if reader.left:
            props = read_properties(reader, packet)
    return _ACK_TYPES[packet](number, reason, props)


def _subscribe(reader: Reader, packet: PacketType, version: int) -> pk.Packet:
    number = _packet_id(reader)
    props = _props(reader, packet, version)
    found = []
    while reader.left:
        topic = reader.text()
        options = reader.u8()
        if options & 3 == 3 or options & (0xC0 if version >= 5 else 0xFC):
            raise malformed("subscription options")
        if options >> 4 == 3:
            raise protocol_error("retain handling 3")
        if options & 4 and topic.startswith("$share/"):
            raise protocol_error("no local on a shared subscription")
        found.append(
            pk.Subscription(topic, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3)
        )
    if not found:
        raise protocol_error("SUBSCRIBE without a topic filter")
    return pk.Subscribe(number, found, props)


def _suback(reader: Reader, packet: PacketType, version: int) -> pk.Packet:
    number = _packet_id(reader)
    props = _props(reader, packet, version)
    allowed = _SUBACK_REASONS if version >= 5 else {0, 1, 2, 0x80}
    return pk.Suback(number, [_reason(reader, allowed) for _ in range(reader.left)], props)


def _unsubscribe(reader: Reader, packet: PacketType, version: int) -> pk.Packet:
    number = _packet_id(reader)
    props = _props(reader, packet, version)
    filters = []
    while reader.left:
        filters.append(reader.text())
    if not filters:
        raise protocol_error("UNSUBSCRIBE without a topic filter")
    return pk.Unsubscribe(number, filters, props)


def _unsuback(reader: Reader, packet: PacketType, version: int) -> pk.Packet:
    number = _packet_id(reader)
    if version < 5:
        return pk.Unsuback(number, [])
    props = read_properties(reader, packet)
    return pk.Unsuback(number, [_reason(reader, _UNSUBACK_REASONS) for _ in range(reader.left)], props)


def _pingreq(_reader: Reader, _packet: PacketType, _version: int) -> pk.Packet:
    return pk.Pingreq()


def _pingresp(_reader: Reader, _packet: PacketType, _version: int) -> pk.Packet:
    return pk.Pingresp()


def _disconnect(reader: Reader, packet: PacketType, version: int) -> pk.Packet:
    if version < 5 or not reader.left:
        return pk.Disconnect()
    reason = _reason(reader, _DISCONNECT_REASONS)
    return pk.Disconnect(reason, read_properties(reader, packet) if reader.left else None)


def _auth(reader: Reader, packet: PacketType, _version: int) -> pk.Packet:
    if not reader.left:
        return pk.Auth()
    reason = _reason(reader, {0x00, 0x18, 0x19})
    return pk.Auth(reason, read_properties(reader, packet) if reader.left else None)


_DECODERS: dict[PacketType, Callable[[Reader, PacketType, int], pk.Packet]] = {
    P.CONNECT: _connect,
    P.CONNACK: _connack,
    P.PUBACK: _ack,
    P.PUBREC: _ack,
    P.PUBREL: _ack,
    P.PUBCOMP: _ack,
    P.SUBSCRIBE: _subscribe,
    P.SUBACK: _suback,
    P.UNSUBSCRIBE: _unsubscribe,
    P.UNSUBACK: _unsuback,
    P.PINGREQ: _pingreq,
    P.PINGRESP: _pingresp,
    P.DISCONNECT: _disconnect,
    P.AUTH: _auth,
}


def encode(packet: pk.Packet, version: int) -> bytes:
    """The packet's bytes. ValueError for a field that cannot be written. What 3.1.1 lacks is left out."""
    v5 = version >= 5
    match packet:
        case pk.Publish():
            return encode_publish(
                packet.topic,
                packet.payload,
                packet.qos,
                packet.packet_id,
                version,
                retain=packet.retain,
                dup=packet.dup,
                props=packet.props,
            )
        case pk.Connect():
            return _encode_connect(packet)
        case pk.Connack(present, reason, props):
            code = connack_code(reason, version)
            tail = write_properties(props, P.CONNACK) if v5 else b""
            return wire.packet(0x20, bytes((present, code)), tail)
        case pk.Puback() | pk.Pubrec() | pk.Pubrel() | pk.Pubcomp():
            kind = next(number for number, cls in _ACK_TYPES.items() if type(packet) is cls)
            return encode_ack(
                kind, packet.packet_id, packet.reason if v5 else 0, packet.props if v5 else None
            )
        case pk.Subscribe(number, subscriptions, props):
            items = [
                wire.text(s.filter)
                + bytes(
                    (
                        s.qos | s.no_local << 2 | s.retain_as_published << 3 | s.retain_handling << 4
                        if v5
                        else s.qos,
                    )
                )
                for s in subscriptions
            ]
            head = number.to_bytes(2, "big") + (write_properties(props, P.SUBSCRIBE) if v5 else b"")
            return wire.packet(0x82, head, *items)
        case pk.Suback(number, reasons, props):
            codes = bytes(reasons) if v5 else bytes(0x80 if r >= 0x80 else r for r in reasons)
            tail = write_properties(props, P.SUBACK) if v5 else b""
            return wire.packet(0x90, number.to_bytes(2, "big"), tail, codes)
        case pk.Unsubscribe(number, filters, props):
            tail = write_properties(props, P.UNSUBSCRIBE) if v5 else b""
            return wire.packet(0xA2, number.to_bytes(2, "big"), tail, *map(wire.text, filters))
        case pk.Unsuback(number, reasons, props):
            tail = write_properties(props, P.UNSUBACK) + bytes(reasons) if v5 else b""
            return wire.packet(0xB0, number.to_bytes(2, "big"), tail)
        case pk.Pingreq():
            return PINGREQ
        case pk.Pingresp():
            return PINGRESP
        case pk.Disconnect(reason, props):
            return encode_end(P.DISCONNECT, reason, props) if v5 else b"\xe0\x00"
        case pk.Auth(reason, props):
            return encode_end(P.AUTH, reason, props)


def _encode_connect(packet: pk.Connect) -> bytes:
    v5 = packet.version >= 5
    will = packet.will
    flags = packet.clean_start << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    parts = [wire.text(packet.client_id)]
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        parts += [write_properties(will.props, P.WILL)] if v5 else []
        parts += [wire.text(will.topic), wire.binary(will.payload)]
    if packet.username is not None:
        parts.append(wire.text(packet.username))
    if packet.password is not None:
        parts.append(wire.binary(packet.password))
    head = b"\0\4MQTT" + bytes((packet.version, flags)) + packet.keep_alive.to_bytes(2, "big")
    return wire.packet(0x10, head, write_properties(packet.props, P.CONNECT) if v5 else b"", *parts)


def encode_publish(
    topic: str,
    payload: bytes,
    qos: int,
    packet_id: int,
    version: int,
    *,
    retain: bool = False,
    dup: bool = False,
    props: Properties | None = None,
) -> bytes:
    """A PUBLISH. `packet_id` counts for QoS 1 and 2 alone."""
    head = 0x30 | dup << 3 | qos << 1 | retain
    number = packet_id.to_bytes(2, "big") if qos else b""
    tail = write_properties(props, P.PUBLISH) if version >= 5 else b""
    return wire.packet(head, wire.text(topic), number, tail, payload)


def encode_ack(kind: PacketType, packet_id: int, reason: int = 0, props: Properties | None = None) -> bytes:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP; the short form (reason 0, no properties) fits both versions."""
    head = kind << 4 | _RESERVED_BITS.get(kind, 0)
    number = packet_id.to_bytes(2, "big")
    if props is not None:
        return wire.packet(head, number, bytes((reason,)), write_properties(props, kind))
    return wire.packet(head, number, bytes((reason,)) if reason else b"")


def encode_end(kind: PacketType, reason: int, props: Properties | None = None) -> bytes:
    """A DISCONNECT or AUTH of MQTT 5."""
    if props is not None:
        return wire.packet(kind << 4, bytes((reason,)), write_properties(props, kind))
    return wire.packet(kind << 4, bytes((reason,)) if reason else b"")
