"""One connection of ours to a broker: what we read from it, what we acknowledge, what we publish."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from . import packets as pk
from .acks import PUBACKS
from .codec import PINGREQ, decode, encode, encode_ack, encode_publish
from .codes import MqttError, PacketType, Reason, protocol_error, reason_name
from .ports import Inbound
from .properties import Properties
from .stream import PacketStream

if TYPE_CHECKING:
    from .subscriber import Subscriber

P = PacketType

# Why we do not read: any of them will do.
HOLD_SINK, HOLD_SHARE, HOLD_QUOTA = 1, 2, 4


class BrokerError(Exception):
    """The broker refused or broke something; `reason` as in MQTT 5. The subscriber tries again later."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(f"{text}: {reason_name(reason)}")
        self.reason = reason


class BrokerConnection(PacketStream):
    """Lives from one TCP connection to its loss; what must outlive it is the subscriber's."""

    __slots__ = (
        "_order",
        "_publishing",
        "_settled",
        "_subscribed",
        "_transport",
        "_why",
        "connected",
        "ended",
        "held",
        "session_present",
        "slot",
        "subscriber",
        "turning",
        "window",
    )

    from_server = True

    def __init__(self, subscriber: Subscriber, version: int) -> None:
        # A 3.1.1 broker cannot be told our limit, and a packet turned away would come again for ever.
        limit = subscriber.settings.max_packet if version >= 5 else 268_435_460
        super().__init__(subscriber.wheel, subscriber.turns, subscriber.counters, limit)
        self.subscriber = subscriber
        self.version = version
        self.client_id = subscriber.settings.client_id
        self.principal = subscriber.principal
        self.slot = -1
        self.held = False
        self._why = 0
        self.turning = False
        self.session_present = False
        self.window = 65_535
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[pk.Connack] = loop.create_future()
        self.ended: asyncio.Future[BrokerError | None] = loop.create_future()
        self._subscribed: asyncio.Future[list[int]] = loop.create_future()
        # QoS 1 received and not acknowledged, in order, and which of them are settled.
        self._order: deque[int] = deque()
        self._settled: set[int] = set()
        self._publishing: dict[int, asyncio.Future[int]] = {}
        self._transport: asyncio.Transport | None = None

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish(BrokerError(Reason.UNSPECIFIED, f"connection lost ({exc or 'closed by the broker'})"))
        self._transport = None

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.closed:
            self.counters.bytes_out += len(data)
            self.counters.packets_out += 1
            self._transport.write(data)

    def finish(self, error: BrokerError | None) -> None:
        """Ends the connection; the first reason given is the one that counts."""
        self.closed = True
        self.wheel.remove(self)
        if self.held:
            self.held = False
            self.counters.paused -= 1
        if not self.ended.done():
            self.ended.set_result(error)
        gone = error or BrokerError(Reason.UNSPECIFIED, "connection closed")
        futures: list[asyncio.Future[Any]] = [self.connected, self._subscribed, *self._publishing.values()]
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # seen: nobody need be waiting
        self._publishing.clear()
        if self._transport is not None:
            if error is not None and error.reason == Reason.KEEP_ALIVE_TIMEOUT:
                self._transport.abort()  # nobody is there to flush to
            else:
                self._transport.close()

    def fail(self, error: MqttError) -> None:
        self.counters.protocol_errors += 1
        if self.version >= 5:
            self.write(encode(pk.Disconnect(error.reason), 5))
        self.finish(BrokerError(error.reason, f"the broker sent what it must not: {error.text}"))

    # Keep-alive: ours to give.

    def due(self) -> None:
        keep_alive = self.subscriber.settings.keep_alive
        if not self.held and self.wheel.now - self.seen > keep_alive * 1.5 + 2:
            self.finish(BrokerError(Reason.KEEP_ALIVE_TIMEOUT, "no answer from the broker"))
            return
        self.write(PINGREQ)
        self.wheel.add(self, max(1, keep_alive // 2))

    # Messages.

    def admit(self, topic: str) -> bool:
        return True  # whether anything can be done with a topic is the pipeline's question

    def refuse(self, qos: int, packet_id: int) -> None:
        raise protocol_error("unreachable: every topic is admitted")

    def gate(self) -> bool:
        return self.subscriber.sink.accepting

    def hold(self, size: int) -> None:
        self._hold(HOLD_SINK)

    def _hold(self, why: int) -> None:
        self._why |= why
        if not self.held and self._transport is not None:
            self.held = True
            self.counters.paused += 1
            self.counters.pauses += 1
            self._transport.pause_reading()

    def release(self) -> None:
        """Reads again, now that the sink has room, unless there is another reason not to."""
        self._release(HOLD_SINK)

    def _release(self, why: int) -> None:
        self._why &= ~why
        if self.held and not self._why and self._transport is not None and not self.closed:
            self.held = False
            self.counters.paused -= 1
            self.seen = self.wheel.now
            self._read_on()

    def wait_turn(self, size: int) -> None:
        self.turning = True
        if self._transport is not None:
            self._transport.pause_reading()
        self.turns.wait(self, size)

    def take_turn(self) -> None:
        """Parse on, and read again once what was kept is parsed."""
        self.turning = False
        self._read_on()

    def _read_on(self) -> None:
        if self.stopped and not (self.held or self.turning or self.closed):
            self.proceed()
        if self._transport is not None and not (self.held or self.turning or self.closed):
            self._transport.resume_reading()

    def hold_back(self, *, quota: bool = False) -> None:
        """As a device's connection is held back, where all that comes by this one is one tenant's.

        Otherwise it would hold up everybody: MQTT has no flow control for a part of a connection.
        """
        if self.subscriber.settings.alone:
            self._hold(HOLD_QUOTA if quota else HOLD_SHARE)
        elif quota:
            self.counters.over_quota += 1

    def let_go(self, *, quota: bool = False) -> None:
        """Reads again, unless there is another reason not to."""
        self._release(HOLD_QUOTA if quota else HOLD_SHARE)

    def duplicate(self, packet_id: int) -> bool:
        received = self.subscriber.received
        if packet_id not in received:
            received[packet_id] = False
            return False
        if received[packet_id]:
            self.write(encode_ack(P.PUBREC, packet_id))
        return True

    def deliver(self, batch: list[Inbound], size: int) -> None:
        self.counters.publishes_in += len(batch)
        self.counters.unsettled += len(batch)
        self._order.extend([message.packet_id for message in batch if message.qos == 1])
        sink = self.subscriber.sink
        sink.submit(batch)
        if not sink.accepting:
            self.hold(0)

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None:
        self.counters.unsettled -= len(messages)
        self.counters.settled += len(messages)
        if reason >= 0x80:
            # A broker takes any PUBACK for a receipt and forgets the message. Without one, it keeps it, and
            # sends it again on the next connection.
            for message in messages:
                self.subscriber.received.pop(message.packet_id, None)
            self.finish(BrokerError(reason, "messages could not be taken"))
            return
        numbers = [message.packet_id for message in messages if message.qos == 1]
        if len(numbers) < len(messages):
            for message in messages:
                if message.qos == 2:
                    self._received(message.packet_id)
        if numbers:
            self._acknowledge(numbers)

    def _acknowledge(self, numbers: list[int]) -> None:
        """PUBACKs go out in the order the messages came in, whichever was committed first (MQTT 5, 4.6).

        Brokers rely on it: Mosquitto looks through everything under way for one that is not the first.
        """
        order, settled = self._order, self._settled
        settled.update(numbers)
        acks = []
        while order and order[0] in settled:
            number = order.popleft()
            settled.remove(number)
            acks.append(PUBACKS[number])
        if acks:
            self.write(b"".join(acks))

    def _received(self, packet_id: int) -> None:
        received = self.subscriber.received
        if packet_id in received:
            received[packet_id] = True
            connection = self.subscriber.connection
            if connection is not None:
                connection.write(encode_ack(P.PUBREC, packet_id))

    # Everything else.

    def on_packet(self, head: int, body: bytes) -> None:
        # A broker that knows no MQTT 5 refuses it in the words of 3.1.1.
        old_words = head >> 4 == P.CONNACK and len(body) == 2
        packet = decode(head, body, 4 if old_words else self.version)
        match packet:
            case pk.Connack() if not self.connected.done():
                self._connack(packet)
            case pk.Suback(_, reasons) if not self._subscribed.done():
                self._subscribed.set_result(reasons)
            case pk.Puback(number, reason):
                waiting = self._publishing.pop(number, None)
                if waiting is not None and not waiting.done():
                    self.counters.acked_out += 1
                    waiting.set_result(reason)
            case pk.Pubrel(number):
                self.subscriber.received.pop(number, None)
                self.write(encode_ack(P.PUBCOMP, number))
            case pk.Pingresp() | pk.Unsuback():
                pass
            case pk.Disconnect(reason, _):
                self.finish(BrokerError(reason, "the broker hung up"))
            case _:
                raise protocol_error(f"{type(packet).__name__} from a broker")

    def _connack(self, packet: pk.Connack) -> None:
        if packet.reason:
            self.finish(BrokerError(packet.reason, "the broker refused the connection"))
            return
        self.session_present = packet.session_present
        if not packet.session_present:
            self.subscriber.received.clear()
        self.publishing = True
        if packet.props is not None:
            self.window = packet.props.receive_maximum or 65_535
        self.wheel.add(self, max(1, self.subscriber.settings.keep_alive // 2))
        self.connected.set_result(packet)

    def greet(self, username: str | None, password: bytes | None) -> None:
        """Sends CONNECT."""
        settings = self.subscriber.settings
        props = None
        if self.version >= 5:
            props = Properties(
                session_expiry_interval=settings.session_expiry,
                receive_maximum=settings.receive_maximum,
                maximum_packet_size=settings.max_packet,
            )
        connect = pk.Connect(
            settings.client_id,
            self.version,
            clean_start=False,
            keep_alive=settings.keep_alive,
            username=username,
            password=password,
            props=props,
        )
        self.write(encode(connect, self.version))

    async def subscribe(self, filters: Sequence[str], qos: int) -> list[int]:
        """One code for each filter: the QoS granted, or why not."""
        # Retain handling 1: retained messages once, when the subscription is new, not at every reconnect.
        handling = 1 if self.version >= 5 else 0
        wanted = [pk.Subscription(pattern, qos, retain_handling=handling) for pattern in filters]
        self.write(encode(pk.Subscribe(1, wanted), self.version))
        return await self._subscribed

    async def publish(self, topic: str, payload: bytes, qos: int) -> int:
        """Reason code of the PUBACK. BrokerError when the connection goes first: it may have arrived."""
        if qos == 0:
            self.write(encode_publish(topic, payload, 0, 0, self.version))
            return 0
        if len(self._publishing) >= self.window - 1:
            raise BrokerError(Reason.QUOTA_EXCEEDED, "too many publishes under way")
        number = self.subscriber.next_packet_id(self._publishing)
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._publishing[number] = waiting
        self.write(encode_publish(topic, payload, qos, number, self.version))
        self.counters.publishes_out += 1
        return await waiting
