"""A coverage-guided fuzz target for the MQTT codec and stream.

Needs atheris. Takes libFuzzer's arguments (`-max_total_time=60`).
The first byte of an input chooses the version and how the rest is cut. Held to three rules: nothing but
MqttError ever comes out; what was read can be written and means the same; the cuts make no difference.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import atheris

with atheris.instrument_imports(include=["caudal.mqtt"]):
    from caudal.mqtt import packets as pk
    from caudal.mqtt.codec import decode, encode
    from caudal.mqtt.codes import MqttError
    from caudal.mqtt.ports import Counters, Inbound
    from caudal.mqtt.stream import PacketStream
    from caudal.mqtt.turns import Turns
    from caudal.mqtt.wheel import Wheel
    from caudal.mqtt.wire import Reader

LIMIT = 100_000


class Collector(PacketStream):
    """Reads a stream and decodes all of it, as an endpoint would."""

    def __init__(self, version: int) -> None:
        super().__init__(Wheel(), Turns(), Counters(), LIMIT)
        self.version = version
        self.publishing = True
        self.max_aliases = 4
        self.found: list[object] = []
        self.reason: int | None = None

    def admit(self, topic: str) -> bool:
        return not topic.startswith("no")

    def refuse(self, qos: int, packet_id: int) -> None:
        self.found.append((qos, packet_id))

    def duplicate(self, packet_id: int) -> bool:
        return False

    def gate(self) -> bool:
        return True

    def hold(self, size: int) -> None:
        raise AssertionError("the gate is open")

    def wait_turn(self, size: int) -> None:
        self.proceed()

    def deliver(self, batch: list[Inbound], size: int) -> None:
        self.found += [(m.topic, m.payload, m.qos, m.retain, m.dup, m.packet_id, m.props) for m in batch]

    def on_packet(self, head: int, body: bytes) -> None:
        packet = decode(head, body, self.version)
        version = packet.version if isinstance(packet, pk.Connect) else self.version
        assert again(encode(packet, version), version) == packet
        self.found.append(packet)

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None: ...

    def fail(self, error: MqttError) -> None:
        assert error.reason >= 0x80
        self.reason = error.reason
        self.closed = True


def again(data: bytes, version: int) -> pk.Packet:
    reader = Reader(data, 1)
    assert reader.varint() == reader.left
    return decode(data[0], reader.rest(), version)


def read(data: bytes, version: int, step: int) -> Collector:
    collector = Collector(version)
    for start in range(0, len(data), step):
        if collector.closed:
            break
        collector.data_received(data[start : start + step])
    return collector


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    version, step, stream = 4 + (data[0] & 1), (data[0] >> 1) + 1, data[1:]
    whole, pieces = read(stream, version, len(stream) or 1), read(stream, version, step)
    # A message and a packet of another kind may change places between batches; what they are may not.
    assert sorted(map(repr, whole.found)) == sorted(map(repr, pieces.found))
    assert whole.reason == pieces.reason
    assert pieces.waiting <= LIMIT


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
