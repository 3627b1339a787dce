"""One MQTT connection as a device has it, that knows of each message when it was acknowledged, and how.

The load client counts; here each message has a future of its own, because what a check does at the moment of
an acknowledgement is the point. QoS 0, 1 and 2, both versions.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import msgspec

from caudal.core.errors import InvalidInput
from caudal.mqtt import packets as pk
from caudal.mqtt.codec import PINGREQ, decode, encode
from caudal.mqtt.codes import reason_name
from caudal.mqtt.settings import client_tls

OPEN_SECONDS = 10.0


class Refused(Exception):
    """The other side refused the connection; says why."""


class Ack(msgspec.Struct, frozen=True):
    """An acknowledgement: its reason code (from 0x80 a refusal), and the seconds since the publish."""

    reason: int
    seconds: float


class Address(msgspec.Struct, frozen=True):
    """Where to connect, and as whom."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: bytes | None

    @classmethod
    def of(cls, url: str) -> Address:
        """Of an `mqtt://` or `mqtts://` URL. Raises InvalidInput."""
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise InvalidInput(f"{url!r:.80} is no address such as mqtt://user:password@host:1883.")
        secure = parts.scheme == "mqtts"
        return cls(
            parts.hostname, parts.port or (8883 if secure else 1883), secure,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password).encode() if parts.password else None,
        )  # fmt: skip


class Line(asyncio.Protocol):
    """A connection. Not to be opened twice; who comes back is a new one with the same client id."""

    def __init__(self, address: Address, client_id: str, *, version: int = 5, clean: bool = True) -> None:
        self._address = address
        self._connect = pk.Connect(
            client_id=client_id, version=version, keep_alive=60, clean_start=clean,
            username=address.username, password=address.password,
        )  # fmt: skip
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, tuple[float, asyncio.Future[Ack]]] = {}
        self._pongs: list[asyncio.Future[None]] = []
        self._rest = b""
        self._next = 0
        self.closed = asyncio.Event()

    async def open(self) -> Line:
        """Connect. Raises Refused, OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        tls = client_tls(None, None, None) if self._address.tls else None
        async with asyncio.timeout(OPEN_SECONDS):
            await loop.create_connection(lambda: self, self._address.host, self._address.port, ssl=tls)
            reason = await self._opened
        if reason:
            self.drop()
            raise Refused(f"the connection was refused: {reason_name(reason)}")
        return self

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, dup: bool = False) -> asyncio.Future[Ack]:
        """Send a message; the future has its acknowledgement, or ConnectionError. QoS 0 has one at once."""
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        number = 0
        if qos:
            number = self._next = self._next % 65_535 + 1
            self._waiting[number] = (perf_counter(), future)
        else:
            future.set_result(Ack(0, 0.0))
        packet = pk.Publish(topic, payload, qos=qos, dup=dup, packet_id=number)
        self._write(encode(packet, self._connect.version))
        return future

    async def ping(self) -> float:
        """Seconds to the answer of a PINGREQ."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        began = perf_counter()
        self._write(PINGREQ)
        await future
        return perf_counter() - began

    def drop(self) -> None:
        """Vanish, as if the power had failed."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say goodbye and hang up."""
        if self._transport is not None:
            self._transport.write(b"\xe0\x00")
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(encode(self._connect, self._connect.version))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()
        gone = ConnectionResetError("the connection was closed before the answer came")
        waiting: list[asyncio.Future[Any]] = [self._opened, *self._pongs]
        waiting += [future for _, future in self._waiting.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(gone)
                future.exception()  # nobody need have waited for it
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        while (stop := self._packet(data, at)) > at:
            at = stop
        self._rest = data[at:]

    def _packet(self, data: bytes, start: int) -> int:
        """Act on the packet at `start`; returns where it ends, or `start` when it is not complete."""
        size = shift = 0
        at = start + 1
        while True:
            if at >= len(data):
                return start
            size |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
        if at + size > len(data):
            return start
        packet = decode(data[start], data[at : at + size], self._connect.version)
        match packet:
            case pk.Connack():
                if not self._opened.done():
                    self._opened.set_result(packet.reason)
            case pk.Puback() | pk.Pubcomp():
                self._settled(packet.packet_id, packet.reason)
            case pk.Pubrec():
                if packet.reason >= 0x80:
                    self._settled(packet.packet_id, packet.reason)
                else:
                    self._write(encode(pk.Pubrel(packet.packet_id), self._connect.version))
            case pk.Pingresp():
                # One that was not asked for is how a server that does not read says that it lives.
                if self._pongs:
                    self._pongs.pop(0).set_result(None)
            case _:
                pass
        return at + size

    def _settled(self, number: int, reason: int) -> None:
        sent, future = self._waiting.pop(number, (0.0, None))
        if future is not None and not future.done():
            future.set_result(Ack(reason, perf_counter() - sent))

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)
