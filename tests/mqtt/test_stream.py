"""The hot path: any cut of the byte stream gives the same messages as none; limits hold inside it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.mqtt import packets as pk
from caudal.mqtt.codec import encode, encode_publish
from caudal.mqtt.codes import MqttError, Reason
from caudal.mqtt.ports import Counters, Inbound
from caudal.mqtt.properties import Properties
from caudal.mqtt.stream import PacketStream
from caudal.mqtt.turns import WAITING_MAX, Turns
from caudal.mqtt.wheel import Wheel


class Collector(PacketStream):
    def __init__(self, version: int, limit: int = 1 << 20) -> None:
        super().__init__(Wheel(), Turns(), Counters(), limit)
        self.version = version
        self.publishing = True
        self.max_aliases = 4
        self.messages: list[Inbound] = []
        self.others: list[tuple[int, bytes]] = []
        self.refused: list[int] = []
        self.error: MqttError | None = None
        self.asked: list[str] = []
        self.is_open = True
        self.waits: list[int] = []

    def admit(self, topic: str) -> bool:
        self.asked.append(topic)
        return topic != "no"

    def refuse(self, qos: int, packet_id: int) -> None:
        self.refused.append(packet_id)

    def duplicate(self, packet_id: int) -> bool:
        return False

    def gate(self) -> bool:
        return self.is_open

    def wait_turn(self, size: int) -> None:
        self.waits.append(size)

    def hold(self, size: int) -> None:
        assert size > 0

    def deliver(self, batch: list[Inbound], size: int) -> None:
        assert size == sum(len(message.payload) for message in batch)
        self.messages += batch

    def on_packet(self, head: int, body: bytes) -> None:
        self.others.append((head, body))

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None: ...

    def fail(self, error: MqttError) -> None:
        self.error = error
        self.closed = True

    @property
    def seen_messages(self) -> list[tuple[object, ...]]:
        return [(m.topic, m.payload, m.qos, m.retain, m.dup, m.packet_id, m.props) for m in self.messages]


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=300)
props = st.none() | st.builds(Properties, user_properties=st.just((("a", "b"),)), content_type=st.just("x"))


@st.composite
def publishes(draw: st.DrawFn, version: int) -> pk.Publish:
    qos = draw(st.integers(0, 2))
    return pk.Publish(
        draw(names.filter(lambda name: name != "no")),
        draw(st.binary(max_size=300)),
        qos,
        draw(st.booleans()) and version == 4,
        bool(qos) and draw(st.booleans()),
        draw(st.integers(1, 65_535)) if qos else 0,
        draw(props) if version == 5 else None,
    )


@given(st.data(), st.sampled_from([4, 5]))
def test_any_cut_of_the_stream_gives_the_same_messages(data: st.DataObject, version: int) -> None:
    sent = data.draw(st.lists(publishes(version) | st.just(pk.Pingreq()) | st.just(pk.Puback(7)), max_size=8))
    stream = b"".join(encode(packet, version) for packet in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    collector = Collector(version)
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        collector.data_received(stream[start:stop])
    assert collector.error is None
    assert collector.waiting == 0
    expected = [
        (p.topic, p.payload, p.qos, p.retain, p.dup, p.packet_id, p.props)
        for p in sent
        if isinstance(p, pk.Publish)
    ]
    assert collector.seen_messages == expected
    assert len(collector.others) == len(sent) - len(expected)
    assert collector.counters.packets_in == len(sent)
    assert collector.counters.bytes_in == len(stream)


@given(st.binary(max_size=400), st.sampled_from([4, 5]), st.integers(1, 400))
def test_any_bytes_end_in_messages_or_an_error(data: bytes, version: int, step: int) -> None:
    collector = Collector(version, limit=1000)
    for start in range(0, len(data), step):
        if collector.error is None:
            collector.data_received(data[start : start + step])
    assert collector.error is not None or collector.waiting <= 1000


@given(st.data(), st.sampled_from([4, 5]))
def test_what_is_kept_while_closed_comes_when_opened(data: st.DataObject, version: int) -> None:
    sent = data.draw(st.lists(publishes(version), min_size=1, max_size=5))
    collector = Collector(version)
    collector.is_open = False
    for packet in sent:
        collector.data_received(encode(packet, version))
    assert collector.stopped
    assert collector.messages == []
    collector.is_open = True
    collector.proceed()
    assert [m.payload for m in collector.messages] == [p.payload for p in sent]


@pytest.mark.parametrize(
    ("data", "version", "reason"),
    [
        (b"\x36\x05\0\1a\0\1", 4, Reason.MALFORMED_PACKET),
        (b"\x38\x03\0\1a", 4, Reason.MALFORMED_PACKET),
        (b"\x30\x00", 4, Reason.MALFORMED_PACKET),
        (b"\x30\x01\0", 4, Reason.MALFORMED_PACKET),
        (b"\x30\x03\0\2a", 4, Reason.MALFORMED_PACKET),
        (b"\x32\x04\0\1a\0", 4, Reason.MALFORMED_PACKET),
        (b"\x30\x03\0\1a", 5, Reason.MALFORMED_PACKET),
        (b"\x32\x05\0\1a\0\0", 4, Reason.PROTOCOL_ERROR),
        (b"\x30\x03\0\1+", 4, Reason.TOPIC_NAME_INVALID),
        (b"\x30\x02\0\0", 4, Reason.TOPIC_NAME_INVALID),
        (b"\x30\x03\0\1\xff", 4, Reason.MALFORMED_PACKET),
        (b"\x30\x03\0\1\0", 4, Reason.MALFORMED_PACKET),
        (b"\x30\x03\0\0\0", 5, Reason.PROTOCOL_ERROR),
        (b"\x30\x06\0\0\3\x23\0\1", 5, Reason.PROTOCOL_ERROR),
        (b"\x30\x07\0\1a\3\x23\0\5", 5, Reason.TOPIC_ALIAS_INVALID),
        (b"\x31\x04\0\1a\0", 5, Reason.RETAIN_NOT_SUPPORTED),
        (b"\x30\xff\xff\xff\xff\x01", 4, Reason.MALFORMED_PACKET),
        (b"\x30\x83\x00", 4, Reason.MALFORMED_PACKET),
        (b"\x30\xff\xff\x7f", 4, Reason.PACKET_TOO_LARGE),
    ],
)
def test_broken_publishes(data: bytes, version: int, reason: Reason) -> None:
    good = encode(pk.Publish("a", b"1"), version)
    collector = Collector(version)
    collector.data_received(good + data)
    assert collector.error is not None
    assert collector.error.reason == reason
    assert len(collector.messages) == 1  # what came before it counts


def test_a_topic_is_asked_for_once() -> None:
    collector = Collector(4)
    for _ in range(3):
        collector.data_received(encode(pk.Publish("a", b"1"), 4))
    collector.data_received(encode(pk.Publish("no", b"1", 1, packet_id=9), 4))
    assert collector.asked == ["a", "no"]
    assert collector.refused == [9]
    assert len(collector.messages) == 3


def test_topic_aliases() -> None:
    collector = Collector(5)
    for topic, alias in [("a", 1), ("b", 2), ("", 1), ("c", 1), ("", 1), ("", 2)]:
        collector.data_received(encode(pk.Publish(topic, b"", props=Properties(topic_alias=alias)), 5))
    assert [m.topic for m in collector.messages] == ["a", "b", "a", "c", "c", "b"]


def test_a_large_chunk_is_read_in_turns_and_in_order() -> None:
    packets = [encode_publish(f"t/{n % 7}", bytes(500), 1, n, 4) for n in range(1, 402)]
    stream = Collector(4)
    stream.data_received(b"".join(packets[:-1]))
    assert stream.stopped
    assert 0 < len(stream.messages) < 80
    stream.data_received(packets[-1])  # behind what waits
    turns = 0
    while stream.waiting:
        turns += 1
        # What is said to wait is what bounds memory; all but the first were told before the last one came.
        assert stream.waits[-1] == stream.waiting - (len(packets[-1]) if turns == 1 else 0)
        stream.proceed()
    assert [message.packet_id for message in stream.messages] == list(range(1, 402))
    assert turns > 4


def test_beyond_a_bound_of_waiting_bytes_chunks_are_read_whole() -> None:
    stream = Collector(4)
    stream.turns.bytes = WAITING_MAX
    stream.data_received(b"".join(encode_publish("t", bytes(500), 1, n, 4) for n in range(1, 401)))
    assert not stream.stopped
    assert len(stream.messages) == 400
