"""One connection of the load client: sends cheaply, knows what was acknowledged, and how long that took."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import cast

from . import packets as pk
from . import wire
from .codec import decode, encode, encode_ack
from .codes import PacketType, connack_reason, reason_name
from .loadstats import Totals

Message = tuple[str, bytes]  # topic, payload
IDS = tuple(number.to_bytes(2, "big") for number in range(65_536))


class LoadError(Exception):
    """The other side refused a connection."""


class LoadClient(asyncio.Protocol):
    """One connection. `acked[n]` is 1 once the n-th message of its source has been acknowledged."""

    __slots__ = (
        "_blocked",
        "_closing",
        "_done",
        "_heads",
        "_next_id",
        "_opened",
        "_outstanding",
        "_ready",
        "_rest",
        "_source",
        "_transport",
        "acked",
        "client_id",
        "connect",
        "credit",
        "end_reason",
        "lost",
        "on_message",
        "qos",
        "totals",
        "window",
    )

    def __init__(
        self, connect: pk.Connect, totals: Totals, *, qos: int = 1, window: int = 200, keep: bool = True
    ) -> None:
        self.connect = connect
        self.client_id = connect.client_id
        self.totals = totals
        self.qos = qos
        self.window = min(window, 65_000)
        self.credit: float = 0  # messages it may send now; infinite when there is no rate
        self.acked = bytearray() if keep else None
        self.lost: Callable[[LoadClient], None] | None = None
        self.on_message: Callable[[pk.Publish], None] | None = None
        self.end_reason: int | None = None  # of the other side's DISCONNECT
        self._source: Iterator[Message] | None = None
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[int] | None = None
        self._done: asyncio.Event = asyncio.Event()
        self._blocked = False
        self._ready = False
        self._closing = False
        self._rest = b""
        self._next_id = 0
        # By packet identifier: the message's number, when it was first sent, topic, payload.
        self._outstanding: dict[int, tuple[int, float, str, bytes]] = {}
        self._heads: dict[tuple[str, int], bytes] = {}

    # The connection.

    async def open(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, timeout: float = 30
    ) -> None:
        """Connects, and sends again what was unacknowledged. LoadError when refused, OSError when alone."""
        loop = asyncio.get_running_loop()
        self._opened = loop.create_future()
        self._rest = b""
        # Nothing goes out before what must be sent again: it would be among that, and go out twice.
        self._ready = False
        try:
            async with asyncio.timeout(timeout):
                transport, _ = await loop.create_connection(lambda: self, host, port, ssl=tls)
                self._transport = transport
                transport.write(encode(self.connect, self.connect.version))
                reason = await self._opened
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            raise
        if reason:
            transport.abort()
            raise LoadError(f"{self.client_id} refused: {reason_name(reason)}")
        if self._outstanding:
            parts: list[bytes] = []
            for number, (_, _, topic, payload) in self._outstanding.items():
                head = self._head(topic, len(payload))
                parts += (bytes((head[0] | 8,)), head[1:], IDS[number])
                parts += (b"\0", payload) if self.connect.version >= 5 else (payload,)
            self.totals.resent += len(self._outstanding)
            transport.write(b"".join(parts))
        self._ready = True
        self.pump()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def outstanding(self) -> int:
        return len(self._outstanding)

    def close(self, *, politely: bool = True) -> None:
        """Hangs up, with a DISCONNECT or as if the power had failed."""
        self._closing = True
        if self._transport is None:
            return
        if politely:
            self._transport.write(b"\xe0\x00")
            self._transport.close()
        else:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._blocked = False
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(exc or ConnectionResetError("closed before CONNACK"))
        elif self.lost is not None and not self._closing:
            self.lost(self)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self.pump()

    def ping(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.write(b"\xc0\x00")

    # Sending.

    def feed(self, source: Iterable[Message]) -> None:
        """What to publish from now on; `finished` waits for its end."""
        self._source = iter(source)
        self._done.clear()
        self.pump()

    async def finished(self) -> None:
        """Until the source is exhausted and everything is acknowledged (or refused)."""
        await self._done.wait()

    def stop_feeding(self) -> None:
        self._source = None
        if not self._outstanding:
            self._done.set()

    def give_up(self) -> None:
        """Waits for nothing any more; what is unacknowledged stays so."""
        self._done.set()

    def pump(self) -> None:
        """Sends as much as credit, window and socket allow, in one write."""
        source = self._source
        transport = self._transport
        if source is None or transport is None or self._blocked or not self._ready:
            return
        room = min(self.credit, self.window - len(self._outstanding))
        if room < 1:
            return
        v5 = self.connect.version >= 5
        parts: list[bytes] = []
        add = parts.append
        now = perf_counter()
        count = 0
        first = self.totals.sent if self.acked is None else len(self.acked)
        while count < room and count < 2000:
            message = next(source, None)
            if message is None:
                self._source = None
                break
            topic, payload = message
            add(self._heads.get((topic, len(payload))) or self._head(topic, len(payload)))
            if self.qos:
                number = self._next_id = self._next_id % 65_535 + 1
                self._outstanding[number] = (first + count, now, topic, payload)
                add(IDS[number])
            if v5:
                add(b"\0")
            add(payload)
            count += 1
        if count:
            transport.write(b"".join(parts))
            self.credit -= count
            self.totals.sent += count
            if self.acked is not None:
                self.acked += bytes(count) if self.qos else b"\1" * count
            if not self.qos:
                self.totals.acked += count
        if self._source is None and not self._outstanding:
            self._done.set()
        elif count and not self.qos and self.credit >= 1:
            asyncio.get_running_loop().call_soon(self.pump)

    def _head(self, topic: str, size: int) -> bytes:
        """First byte, remaining length and topic: the same for all messages of one topic and size."""
        name = wire.text(topic)
        more = (2 if self.qos else 0) + (1 if self.connect.version >= 5 else 0)
        head = bytes((0x30 | self.qos << 1,)) + wire.varint(len(name) + more + size) + name
        if len(self._heads) > 1000:
            self._heads.clear()
        self._heads[(topic, size)] = head
        return head

    # Receiving.

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        now = perf_counter()
        pos, end = 0, len(data)
        pop = self._outstanding.pop
        totals = self.totals
        add = totals.latencies.add
        acked = self.acked
        count = 0
        while end - pos > 1:
            size = data[pos + 1]
            if data[pos] != 0x40 or size > 127:
                stop = self._other(data, pos)
                if not stop:
                    break
                pos = stop
                continue
            stop = pos + 2 + size
            if stop > end:
                break
            found = pop(data[pos + 2] << 8 | data[pos + 3], None)
            if found is not None:
                if size > 2 and data[pos + 4] >= 0x80:
                    totals.refused[data[pos + 4]] = totals.refused.get(data[pos + 4], 0) + 1
                else:
                    count += 1
                    add(now - found[1])
                    if acked is not None:
                        acked[found[0]] = 1
            pos = stop
        totals.acked += count
        self._rest = data[pos:]
        if self._source is not None:
            self.pump()
        elif not self._outstanding:
            self._done.set()

    def _other(self, data: bytes, pos: int) -> int:
        """Anything but a PUBACK: where it ends, or 0 when it is not complete."""
        size = shift = 0
        at = pos + 1
        while True:
            if at >= len(data):
                return 0
            size |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
        if at + size > len(data):
            return 0
        head, body = data[pos], data[at : at + size]
        kind = head >> 4
        if kind == PacketType.CONNACK and self._opened is not None and not self._opened.done():
            self._opened.set_result(connack_reason(body[1], self.connect.version))
        elif kind == PacketType.DISCONNECT:
            self.end_reason = body[0] if body else 0
        elif kind == PacketType.PUBLISH:
            packet = decode(head, body, self.connect.version)
            if isinstance(packet, pk.Publish):
                if packet.qos:
                    self._write(encode_ack(PacketType.PUBACK, packet.packet_id))
                if self.on_message is not None:
                    self.on_message(packet)
        return at + size

    def subscribe(self, pattern: str, qos: int = 1) -> None:
        """Asks for the device's commands; they go to `on_message`."""
        wanted = pk.Subscribe(1, [pk.Subscription(pattern, qos)])
        self._write(encode(wanted, self.connect.version))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
