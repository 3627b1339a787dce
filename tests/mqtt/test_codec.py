"""The codec: what can be written reads back the same, and what the standard forbids has its reason code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.mqtt import packets as pk
from caudal.mqtt import wire
from caudal.mqtt.codec import decode, encode
from caudal.mqtt.codes import MqttError, PacketType, Reason
from caudal.mqtt.properties import TABLE, Properties, read_properties, write_properties
from caudal.mqtt.wire import Reader

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
blobs = st.binary(max_size=60)
ids = st.integers(1, 65_535)
KINDS = {
    "flag": st.integers(0, 1),
    "u16": st.integers(0, 65_535),
    "u16+": st.integers(1, 65_535),
    "u32": st.integers(0, 2**32 - 1),
    "u32+": st.integers(1, 2**32 - 1),
    "varint+": st.integers(1, wire.MAX_VARINT),
    "text": texts,
    "binary": blobs,
    "pair": st.tuples(texts, texts),
}


def properties(packet: PacketType) -> st.SearchStrategy[Properties]:
    fields = {}
    for name, kind, where in TABLE.values():
        if packet not in where:
            continue
        one = KINDS[kind] if name != "topic_alias" else st.integers(1, 65_535)
        if name == "user_properties":
            one = st.lists(one, max_size=3).map(tuple)
        elif name == "subscription_identifiers":
            one = st.lists(one, max_size=3 if packet is PacketType.PUBLISH else 1).map(tuple)
        fields[name] = one

    def build(values: dict[str, object]) -> Properties:
        if "authentication_data" in values:
            values.setdefault("authentication_method", "x")
        return Properties(**values)

    return st.fixed_dictionaries({}, optional=fields).map(build)


def wills(version: int) -> st.SearchStrategy[pk.Will]:
    props = properties(PacketType.WILL) if version == 5 else st.none()
    return st.builds(pk.Will, texts, blobs, st.integers(0, 2), st.booleans(), props)


@st.composite
def packets(draw: st.DrawFn, version: int) -> pk.Packet:
    v5 = version == 5

    def props(packet: PacketType) -> Properties | None:
        return draw(properties(packet)) if v5 else None

    kind = draw(st.sampled_from([k for k in PacketType if k and (v5 or k != PacketType.AUTH)]))
    match kind:
        case PacketType.CONNECT:
            username = draw(st.none() | texts)
            password = draw(st.none() | blobs) if v5 or username is not None else None
            will = draw(st.none() | wills(version))
            keep = draw(st.integers(0, 65_535))
            connect_props = props(kind)
            return pk.Connect(
                draw(texts), version, draw(st.booleans()), keep, username, password, will, connect_props
            )
        case PacketType.CONNACK:
            reason = draw(st.sampled_from([0, 0x84, 0x85, 0x86, 0x87, 0x88]))
            return pk.Connack(draw(st.booleans()) and not reason, reason, props(kind))
        case PacketType.PUBLISH:
            qos = draw(st.integers(0, 2))
            dup = draw(st.booleans()) if qos else False
            number = draw(ids) if qos else 0
            return pk.Publish(draw(texts), draw(blobs), qos, draw(st.booleans()), dup, number, props(kind))
        case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
            cls = {4: pk.Puback, 5: pk.Pubrec, 6: pk.Pubrel, 7: pk.Pubcomp}[kind]
            codes = [0, 0x87] if kind < 6 else [0, 0x92]
            return cls(draw(ids), draw(st.sampled_from(codes)) if v5 else 0, props(kind))
        case PacketType.SUBSCRIBE:
            options = st.builds(
                pk.Subscription,
                texts.filter(lambda t: not t.startswith("$share/")),
                st.integers(0, 2),
                *([st.booleans(), st.booleans(), st.integers(0, 2)] if v5 else []),
            )
            return pk.Subscribe(draw(ids), draw(st.lists(options, min_size=1, max_size=4)), props(kind))
        case PacketType.SUBACK:
            return pk.Suback(draw(ids), draw(st.lists(st.sampled_from([0, 1, 2, 0x80]))), props(kind))
        case PacketType.UNSUBSCRIBE:
            return pk.Unsubscribe(draw(ids), draw(st.lists(texts, min_size=1, max_size=4)), props(kind))
        case PacketType.UNSUBACK:
            return pk.Unsuback(
                draw(ids), draw(st.lists(st.sampled_from([0, 0x11, 0x87]))) if v5 else [], props(kind)
            )
        case PacketType.PINGREQ:
            return pk.Pingreq()
        case PacketType.PINGRESP:
            return pk.Pingresp()
        case PacketType.DISCONNECT:
            return pk.Disconnect(draw(st.sampled_from([0, 4, 0x8E])), props(kind)) if v5 else pk.Disconnect()
        case _:
            return pk.Auth(draw(st.sampled_from([0, 0x18, 0x19])), props(kind))


def read(data: bytes, version: int) -> pk.Packet:
    reader = Reader(data, 1)
    size = reader.varint()
    assert reader.left == size
    return decode(data[0], reader.rest(), version)


@given(st.data(), st.sampled_from([4, 5]))
def test_what_is_written_reads_back(data: st.DataObject, version: int) -> None:
    packet = data.draw(packets(version))
    assert read(encode(packet, version), version) == packet


@given(st.integers(0, 255), st.binary(max_size=80), st.sampled_from([4, 5]))
def test_any_bytes_give_a_packet_or_a_reason(head: int, body: bytes, version: int) -> None:
    try:
        packet = decode(head, body, version)
    except MqttError:
        pass
    else:
        # What was accepted can be written again and means the same.
        if isinstance(packet, pk.Connect):
            version = packet.version
        assert read(encode(packet, version), version) == packet


@given(st.data(), st.sampled_from([4, 5]), st.integers(0, 200), st.integers(0, 255))
def test_a_flipped_byte_is_read_or_refused(data: st.DataObject, version: int, where: int, value: int) -> None:
    raw = bytearray(encode(data.draw(packets(version)), version))
    raw[where % len(raw)] = value
    try:
        decode(raw[0], bytes(raw[2:]), version)
    except MqttError:
        pass


@given(st.integers(0, wire.MAX_VARINT))
def test_variable_byte_integers(value: int) -> None:
    data = wire.varint(value)
    assert len(data) <= 4
    assert Reader(data).varint() == value


@given(st.data(), st.sampled_from(list(PacketType)))
def test_properties_of_each_packet(data: st.DataObject, packet: PacketType) -> None:
    props = data.draw(properties(packet))
    assert read_properties(Reader(write_properties(props, packet)), packet) == props


M, E = Reason.MALFORMED_PACKET, Reason.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("name", "head", "body", "version", "reason"),
    [
        ("connect: reserved flag", 0x10, b"\0\4MQTT\4\3\0\0\0\0", 4, M),
        ("connect: will qos without will", 0x10, b"\0\4MQTT\4\x0a\0\0\0\0", 4, M),
        ("connect: will qos 3", 0x10, b"\0\4MQTT\4\x1e\0\0\0\0\0\1a\0\0", 4, M),
        ("connect: password alone in 3.1.1", 0x10, b"\0\4MQTT\4\x42\0\0\0\0\0\0", 4, M),
        ("connect: 3.1", 0x10, b"\0\6MQIsdp\3\2\0\0\0\0", 4, Reason.UNSUPPORTED_PROTOCOL_VERSION),
        ("connect: version 6", 0x10, b"\0\4MQTT\6\2\0\0\0\0\0", 5, Reason.UNSUPPORTED_PROTOCOL_VERSION),
        ("connect: bytes left over", 0x10, b"\0\4MQTT\4\2\0\0\0\0x", 4, M),
        ("connect: receive maximum 0", 0x10, b"\0\4MQTT\5\2\0\0\3\x21\0\0\0\0", 5, E),
        ("connect: property twice", 0x10, b"\0\4MQTT\5\2\0\0\6\x21\0\1\x21\0\1\0\0", 5, E),
        ("connect: property of another packet", 0x10, b"\0\4MQTT\5\2\0\0\3\x23\0\1\0\0", 5, M),
        ("connect: unknown property", 0x10, b"\0\4MQTT\5\2\0\0\2\x7f\0\0\0", 5, M),
        ("connect: U+0000 in the client id", 0x10, b"\0\4MQTT\4\2\0\0\0\1\0", 4, M),
        ("connect: surrogate in the client id", 0x10, b"\0\4MQTT\4\2\0\0\0\3\xed\xa0\x80", 4, M),
        ("connect: reserved bits", 0x11, b"\0\4MQTT\4\2\0\0\0\0", 4, M),
        ("publish: qos 3", 0x36, b"\0\1a\0\1", 4, M),
        ("publish: dup at qos 0", 0x38, b"\0\1a", 4, M),
        ("publish: packet id 0", 0x32, b"\0\1a\0\0", 4, E),
        ("publish: topic alias 0", 0x30, b"\0\1a\3\x23\0\0", 5, Reason.TOPIC_ALIAS_INVALID),
        ("publish: payload format 2", 0x30, b"\0\1a\2\1\2", 5, E),
        ("puback: unknown reason", 0x40, b"\0\1\x42", 5, E),
        ("puback: reason in 3.1.1", 0x40, b"\0\1\0", 4, M),
        ("pubrel: reserved bits", 0x60, b"\0\1", 4, M),
        ("subscribe: empty", 0x82, b"\0\1", 4, E),
        ("subscribe: qos 3", 0x82, b"\0\1\0\1a\3", 4, M),
        ("subscribe: options in 3.1.1", 0x82, b"\0\1\0\1a\4", 4, M),
        ("subscribe: retain handling 3", 0x82, b"\0\1\0\0\1a\x30", 5, E),
        ("subscribe: no local and shared", 0x82, b"\0\1\0\0\x0a$share/g/a\4", 5, E),
        ("subscribe: reserved bits", 0x80, b"\0\1\0\1a\0", 4, M),
        ("unsubscribe: empty", 0xA2, b"\0\1", 4, E),
        ("pingreq: with a body", 0xC0, b"x", 4, M),
        ("disconnect: with a body in 3.1.1", 0xE0, b"\0", 4, M),
        ("disconnect: reason of another packet", 0xE0, b"\x92", 5, E),
        ("auth in 3.1.1", 0xF0, b"", 4, M),
        ("type 0", 0x00, b"", 5, M),
        ("properties: length not in its shortest form", 0xE0, b"\0\x80\0", 5, M),
        ("properties: longer than the packet", 0xE0, b"\0\5\x11", 5, M),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_standard_forbids(name: str, head: int, body: bytes, version: int, reason: Reason) -> None:
    with pytest.raises(MqttError) as caught:
        decode(head, body, version)
    assert caught.value.reason == reason, caught.value.text


def test_what_cannot_be_written_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="no place"):
        encode(pk.Connect("c", 5, props=Properties(topic_alias=1)), 5)
    with pytest.raises(ValueError):
        encode(pk.Publish("a\0b", b""), 4)
    with pytest.raises(ValueError):
        encode(pk.Publish("a" * 70_000, b""), 4)
