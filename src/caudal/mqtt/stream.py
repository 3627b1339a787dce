"""Packets out of a byte stream: the hot path, shared by the endpoint's connections and the subscriber.

PUBLISH is read here, straight from the chunk the loop hands over: no reader object, no task, no future; what
costs something (a topic never seen on this connection, properties, QoS 2) is left to methods. Everything else
goes to `on_packet`. One `Inbound` is made for each message, one `deliver` called for each chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time_ns

from .codes import MqttError, PacketType, Reason, malformed, protocol_error
from .ports import Counters, Inbound, Principal
from .properties import Properties, read_properties
from .topics import valid_name
from .turns import Turns
from .wheel import Wheel
from .wire import Reader, utf8

# Bytes after the topic that a PUBLISH must have at least, by version and QoS bits (0, 2, 4; 6 is none).
_TAIL_V4 = (0, 0, 2, 0, 2, 0, 2)
_TAIL_V5 = (1, 0, 3, 0, 3, 0, 3)
# What may stand between PUBLISHes of one batch: it neither ends the connection nor changes rights.
_IN_BATCH = frozenset((PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP, 12, 13))
MAX_TOPICS = 256  # remembered for each connection


class PacketStream(asyncio.Protocol):
    """The reading half of a connection. Subclasses implement the methods that raise NotImplementedError."""

    __slots__ = (
        "_chunk",
        "_need",
        "_parsed",
        "_rest",
        "aliases",
        "client_id",
        "closed",
        "counters",
        "max_aliases",
        "max_packet",
        "principal",
        "publishing",
        "seen",
        "stopped",
        "topics",
        "turns",
        "version",
        "wheel",
    )

    principal: Principal
    client_id: str

    def __init__(self, wheel: Wheel, turns: Turns, counters: Counters, max_packet: int) -> None:
        self.wheel = wheel
        self.turns = turns
        self.counters = counters
        self.max_packet = max_packet
        self.max_aliases = 0
        self.version = 4
        self.publishing = False  # may PUBLISH come now?
        self.stopped = False  # keep what comes, unread
        self.closed = False
        self.seen = 0
        self.topics: dict[bytes, str] = {}
        self.aliases: dict[int, bytes] | None = None
        self._rest: bytearray | None = None
        # A chunk that waits for its turn, and how much of it is done; what comes meanwhile is in `_rest`.
        self._chunk = b""
        self._parsed = 0
        self._need = 0
        self.principal = Principal()
        self.client_id = ""

    # What subclasses say.

    def admit(self, topic: str) -> bool:
        """May the other side publish on it? Asked once for each topic."""
        raise NotImplementedError

    def refuse(self, qos: int, packet_id: int) -> None:
        """A message on a topic that is not admitted. May raise MqttError, which ends the connection."""
        raise NotImplementedError

    def duplicate(self, packet_id: int) -> bool:
        """Is this QoS 2 packet identifier one we have already taken in? Notes it if not."""
        raise NotImplementedError

    def gate(self) -> bool:
        """May messages be taken in now? When not, the rest of the chunk waits for `proceed`."""
        raise NotImplementedError

    def hold(self, size: int) -> None:
        """The gate is closed: `size` bytes are kept, and `proceed` must be called once it opens."""
        raise NotImplementedError

    def deliver(self, batch: list[Inbound], size: int) -> None:
        """The messages of a chunk; `size` is the bytes of their payloads."""
        raise NotImplementedError

    def on_packet(self, head: int, body: bytes) -> None:
        """Any packet that is not a PUBLISH (or a PUBLISH while `publishing` is false)."""
        raise NotImplementedError

    def fail(self, error: MqttError) -> None:
        """The other side broke a rule: say so where the version can, and hang up."""
        raise NotImplementedError

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None:
        """Acknowledges messages of this connection (the `Origin` of them all)."""
        raise NotImplementedError

    def wait_turn(self, size: int) -> None:
        """A large chunk: `size` bytes of it are kept, and `proceed` is called when others had their turn."""
        raise NotImplementedError

    def room(self, size: int) -> bool:
        """May so many more bytes of a packet that comes in several chunks be kept?"""
        return True

    def collected(self) -> None:
        """The packet that came in pieces is whole; what was kept is kept no more."""

    from_server = False  # a broker may mark messages as retained and name subscriptions; a client may not

    # The stream.

    def data_received(self, data: bytes) -> None:
        self.seen = self.wheel.now
        self.counters.bytes_in += len(data)
        if self.closed:
            return  # read only so that our last words are not lost to a reset
        rest = self._rest
        if rest is None and self.stopped:
            self._rest = bytearray(data)
            return
        if rest is not None:
            rest += data
            if self.stopped:
                return
            if len(rest) < self._need:
                if not self.room(len(data)):
                    self.fail(MqttError(Reason.SERVER_BUSY, "too many large packets at once"))
                return
            data = bytes(rest)
            self._rest = None
            self.collected()
        self._feed(data)

    def proceed(self) -> None:
        """Goes on with what was kept while `stopped`."""
        self.stopped = False
        chunk, parsed, rest = self._chunk, self._parsed, self._rest
        self._chunk, self._parsed, self._rest = b"", 0, None
        if self.closed:
            return
        if rest is not None:
            chunk, parsed = chunk[parsed:] + rest, 0
        if chunk:
            self._feed(chunk, parsed)

    def dispose(self) -> None:
        """Forget what was kept."""
        self._chunk, self._parsed, self._rest = b"", 0, None

    @property
    def waiting(self) -> int:
        """Bytes kept: part of a packet, or what came while stopped."""
        return len(self._chunk) - self._parsed + (0 if self._rest is None else len(self._rest))

    def _feed(self, data: bytes, pos: int = 0) -> None:
        now = time_ns() // 1000
        topics = self.topics
        batch: list[Inbound] = []
        append = batch.append
        v5 = self.version >= 5
        tails = _TAIL_V5 if v5 else _TAIL_V4
        publishing = self.publishing and self.gate()
        limit = self.max_packet
        end = len(data)
        share = min(end - 1, pos + self.turns.share(end))
        payloads = packets = self._need = 0
        turn = False
        error: MqttError | None = None
        try:
            while pos < share:
                head = data[pos]
                size = data[pos + 1]
                at = pos + 2
                if size > 127:
                    size, at = _long_size(data, at, size & 127, end)
                    if size < 0:
                        break
                stop = at + size
                if stop - pos > limit:
                    raise MqttError(Reason.PACKET_TOO_LARGE, f"packet of {stop - pos} bytes; at most {limit}")
                if stop > end:
                    self._need = stop - pos
                    break
                packets += 1
                if publishing and head & 0xF0 == 0x30:
                    if size < 2:
                        raise malformed("PUBLISH without a topic")
                    qos = head & 6
                    body = at + 2 + (data[at] << 8 | data[at + 1])
                    if body + tails[qos] > stop:
                        raise malformed("PUBLISH ends inside its header")
                    raw = data[at + 2 : body]
                    number = 0
                    if qos:
                        number = data[body] << 8 | data[body + 1]
                        if not number:
                            raise protocol_error("packet identifier 0")
                        body += 2
                    if head & 9 or qos == 6:
                        self._check_flags(head)
                    props = None
                    if v5:
                        if data[body]:
                            props, body = self._properties(data, body, stop)
                            if props.topic_alias is not None:
                                raw = self._alias(raw, props.topic_alias)
                        else:
                            body += 1
                    topic = topics.get(raw)
                    if topic is None:
                        topic = self._topic(raw)
                        if topic is None:
                            pos = stop
                            self.counters.publishes_refused += 1
                            self.refuse(qos >> 1, number)
                            continue
                    if qos == 4 and self.duplicate(number):
                        self.counters.duplicates_in += 1
                    else:
                        payloads += stop - body
                        append(
                            Inbound(
                                topic,
                                data[body:stop],
                                qos >> 1,
                                head & 1 == 1,
                                head & 8 == 8,
                                number,
                                self,
                                now,
                                props,
                            )
                        )
                    pos = stop
                    continue
                if head & 0xF0 == 0x30 and self.publishing:
                    # The gate is closed: this message and what follows it wait, unread.
                    packets -= 1
                    self.stopped = True
                    self.hold(end - pos)
                    break
                if batch and head >> 4 not in _IN_BATCH:
                    self.deliver(batch, payloads)
                    batch = []
                    append = batch.append
                    payloads = 0
                pos = stop
                self.on_packet(head, data[at:stop])
                if self.stopped or self.closed:
                    break
                v5 = self.version >= 5
                tails = _TAIL_V5 if v5 else _TAIL_V4
                publishing = self.publishing and self.gate()
                limit = self.max_packet
            else:
                turn = self.stopped = end - pos > 1
        except MqttError as failure:
            error = failure
        self.counters.packets_in += packets
        if turn:
            self._chunk, self._parsed = data, pos
        elif self.stopped or (pos < end and error is None):
            self._rest = bytearray(data[pos:])
            if not self.stopped and not self.room(end - pos):
                error = MqttError(Reason.SERVER_BUSY, "too many large packets at once")
        if batch:
            self.deliver(batch, payloads)
        if error is not None and not self.closed:
            self.fail(error)
        elif turn and not self.closed:
            self.wait_turn(end - pos)

    def _check_flags(self, head: int) -> None:
        if head & 6 == 6:
            raise malformed("QoS 3")
        if head & 14 == 8:
            raise malformed("a QoS 0 message marked as sent again")
        if head & 1 and self.version >= 5 and not self.from_server:
            raise MqttError(Reason.RETAIN_NOT_SUPPORTED, "retained messages are not kept")

    def _properties(self, data: bytes, at: int, stop: int) -> tuple[Properties, int]:
        reader = Reader(data, at, stop)
        props = read_properties(reader, PacketType.PUBLISH)
        if props.response_topic is not None and not valid_name(props.response_topic):
            raise protocol_error("response topic with wildcards")
        if props.subscription_identifiers and not self.from_server:
            raise protocol_error("a client sends no subscription identifier")
        return props, reader.at

    def _alias(self, raw: bytes, alias: int) -> bytes:
        if alias > self.max_aliases:
            raise MqttError(Reason.TOPIC_ALIAS_INVALID, f"topic alias {alias}; at most {self.max_aliases}")
        if self.aliases is None:
            self.aliases = {}
        if raw:
            self.aliases[alias] = raw
            return raw
        known = self.aliases.get(alias)
        if known is None:
            raise protocol_error(f"topic alias {alias} stands for nothing")
        return known

    def _topic(self, raw: bytes) -> str | None:
        topic = utf8(raw)
        if not topic and self.version >= 5:
            raise protocol_error("neither topic nor topic alias")
        if not valid_name(topic):
            raise MqttError(Reason.TOPIC_NAME_INVALID, "topic name is empty or has wildcards")
        if not self.admit(topic):
            return None
        if len(self.topics) >= MAX_TOPICS:
            self.topics.clear()
        self.topics[raw] = topic
        return topic


def _long_size(data: bytes, at: int, size: int, end: int) -> tuple[int, int]:
    """The rest of a long remaining length, and where the body begins; -1 when more must come."""
    shift = 7
    while at < end:
        byte = data[at]
        at += 1
        size |= (byte & 127) << shift
        if byte < 128:
            if byte == 0:
                raise malformed("remaining length is not in its shortest form")
            return size, at
        shift += 7
        if shift > 21:
            raise malformed("remaining length is longer than four bytes")
    return -1, at
