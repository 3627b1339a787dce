"""One client's connection to the endpoint: what it sends, what it is answered, when it is not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from . import packets as pk
from .acks import PUBACKS
from .codec import decode, encode, encode_ack, encode_end
from .codes import MqttError, PacketType, Reason, protocol_error
from .paced import MOMENTARY, PAUSE_OWN, PAUSE_SINK, Paced
from .ports import Inbound, Principal
from .properties import Properties
from .topics import shared_filter, valid_filter, valid_name

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .session import Session

P = PacketType
LINGER = 3  # seconds for our last words to reach a client, and for it to hang up


class Connection(Paced):
    """Made by the listener; belongs to the endpoint until the transport is lost."""

    __slots__ = (
        "connect",
        "endpoint",
        "max_send",
        "outstanding",
        "partial",
        "publisher",
        "send_window",
        "unsettled",
        "unsettled_bytes",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.wheel, endpoint.turns, endpoint.counters, endpoint.settings.max_packet)
        self.endpoint = endpoint
        self.connect: pk.Connect | None = None
        self.max_send = 0
        self.send_window = 0
        self.outstanding = 0  # QoS 1 received and not acknowledged
        self.unsettled = 0
        self.unsettled_bytes = 0
        self.partial = 0
        self.publisher = False

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # While we do not read, only unanswered writes tell us that a peer is gone.
                timeout = self.endpoint.settings.user_timeout * 1000
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.endpoint.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.wheel.remove(self)
        self.collected()
        self.gone(Reason.UNSPECIFIED, will=True)
        self.endpoint.lost(self)
        self._transport = None

    # Reading: what the stream asks.

    def admit(self, topic: str) -> bool:
        return self.endpoint.hooks.may_publish(self.principal, topic)

    def refuse(self, qos: int, packet_id: int) -> None:
        if self.version < 5:
            # 3.1.1 can only acknowledge, which would promise that it was stored, or hang up.
            raise MqttError(Reason.NOT_AUTHORIZED, "topic not allowed")
        if qos:
            self.write(encode_ack(P.PUBACK if qos == 1 else P.PUBREC, packet_id, Reason.NOT_AUTHORIZED))

    def gate(self) -> bool:
        return self.endpoint.sink.accepting

    def hold(self, size: int) -> None:
        self.pause(PAUSE_SINK)
        self.endpoint.hold(self, size)

    def duplicate(self, packet_id: int) -> bool:
        session = self.session
        if session is None:
            return False
        received = session.received
        if received is None:
            received = session.received = {}
        if packet_id not in received:
            received[packet_id] = False
            return False
        if received[packet_id]:
            self.write(encode_ack(P.PUBREC, packet_id))
        return True

    def deliver(self, batch: list[Inbound], size: int) -> None:
        count = len(batch)
        settings = self.endpoint.settings
        if self.version >= 5:
            self.outstanding += sum([message.qos == 1 for message in batch])
        received = self.session.received if self.session is not None else None
        double = len(received) if received else 0
        # 3.1.1 has no receive maximum, and QoS 2 state no other bound.
        allowed = settings.max_inflight if self.version >= 5 else 4 * settings.max_inflight
        if self.outstanding + double > allowed:
            self._forget(batch)
            self.fail(MqttError(Reason.RECEIVE_MAXIMUM_EXCEEDED, f"more than {allowed} in flight"))
            return
        self.publisher = True
        self.unsettled += count
        self.unsettled_bytes += size
        self.counters.publishes_in += count
        self.counters.unsettled += count
        endpoint = self.endpoint
        endpoint.sink.submit(batch)
        if self.unsettled > settings.max_inflight or self.unsettled_bytes > settings.max_inflight_bytes:
            self.pause(PAUSE_OWN)
        if not endpoint.sink.accepting:
            self.hold(0)

    def _forget(self, batch: list[Inbound]) -> None:
        """These were not handed on: their identifiers must not look like duplicates later."""
        received = self.session.received if self.session is not None else None
        for message in batch:
            if message.qos == 2 and received:
                received.pop(message.packet_id, None)

    def room(self, size: int) -> bool:
        self.partial += size
        self.endpoint.partial += size
        return self.endpoint.partial <= self.endpoint.settings.max_partial

    def collected(self) -> None:
        if self.partial:
            self.endpoint.partial -= self.partial
            self.partial = 0

    def fail(self, error: MqttError) -> None:
        self.counters.protocol_errors += 1
        self.endpoint.complain(self, error)
        self.shut(error.reason)

    # Settling.

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None:
        count = len(messages)
        self.unsettled -= count
        self.counters.unsettled -= count
        self.counters.settled += count
        if reason:
            self._settle_with(messages, reason)
        else:
            self.unsettled_bytes -= sum([len(message.payload) for message in messages])
            acks = [PUBACKS[message.packet_id] for message in messages if message.qos == 1]
            if len(acks) < count:
                for message in messages:
                    if message.qos == 2:
                        self._received(message.packet_id, 0)
            if acks and not self.closed and self._transport is not None:
                if self.version >= 5:
                    self.outstanding -= len(acks)
                self.counters.bytes_out += 4 * len(acks)
                self.counters.packets_out += len(acks)
                self._transport.write(b"".join(acks))
        if self.paused & PAUSE_OWN:
            settings = self.endpoint.settings
            low = self.unsettled * 2 <= settings.max_inflight
            if low and self.unsettled_bytes * 2 <= settings.max_inflight_bytes:
                self.resume(PAUSE_OWN)

    def _settle_with(self, messages: Sequence[Inbound], reason: int) -> None:
        for message in messages:
            self.unsettled_bytes -= len(message.payload)
            if message.qos == 2:
                self._received(message.packet_id, reason)
            elif message.qos == 1 and not self.closed:
                if self.version >= 5:
                    self.outstanding -= 1
                if self.version >= 5 or reason < 0x80:
                    self.write(encode_ack(P.PUBACK, message.packet_id, reason if self.version >= 5 else 0))
        if reason >= 0x80 and self.version < 5 and any(message.qos for message in messages):
            # It cannot be told: hanging up without an acknowledgement makes it send again.
            self.shut(Reason(reason))

    def _received(self, packet_id: int, reason: int) -> None:
        """QoS 2 belongs to the session: the answer goes to whichever connection it has now."""
        session = self.session
        if session is None or not session.received or packet_id not in session.received:
            return
        if reason < 0x80:
            session.received[packet_id] = True
        else:
            del session.received[packet_id]
        connection = session.connection
        if connection is not None and (reason < 0x80 or connection.version >= 5):
            connection.write(encode_ack(P.PUBREC, packet_id, reason if connection.version >= 5 else 0))

    # Everything that is not a PUBLISH.

    def on_packet(self, head: int, body: bytes) -> None:
        if self.connect is None:
            self.endpoint.door.greet(self, head, body)
            return
        packet = decode(head, body, self.version)
        session = self.session
        if session is None:
            raise protocol_error("packet before CONNACK")
        match packet:
            case pk.Pingreq():
                self.answer_ping()
            case pk.Puback(number, reason):
                session.acknowledged(number, reason)
            case pk.Pubrel(number):
                self._release(session, number)
            case pk.Subscribe():
                self._subscribe(session, packet)
            case pk.Unsubscribe(number, filters):
                found = [self.endpoint.unsubscribe(session, pattern) for pattern in filters]
                codes = [0 if was else int(Reason.NO_SUBSCRIPTION_EXISTED) for was in found]
                self.write(encode(pk.Unsuback(number, codes), self.version))
            case pk.Disconnect(reason, props):
                self._goodbye(session, reason, props)
            case _:
                raise protocol_error(f"{type(packet).__name__} is not for us")

    def _release(self, session: Session, number: int) -> None:
        state = session.received.pop(number, None) if session.received else None
        if state is False:
            raise protocol_error("PUBREL before PUBREC")
        missing = state is None and self.version >= 5
        self.write(encode_ack(P.PUBCOMP, number, Reason.PACKET_ID_NOT_FOUND if missing else 0))

    def _subscribe(self, session: Session, packet: pk.Subscribe) -> None:
        identifiers = packet.props.subscription_identifiers if packet.props is not None else ()
        identifier = identifiers[0] if identifiers else None
        codes = [self._grant(session, wanted, identifier) for wanted in packet.subscriptions]
        self.write(encode(pk.Suback(packet.packet_id, codes), self.version))

    def _grant(self, session: Session, wanted: pk.Subscription, identifier: int | None) -> int:
        if shared_filter(wanted.filter) is not None:
            return Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if not valid_filter(wanted.filter):
            return Reason.TOPIC_FILTER_INVALID
        if not self.endpoint.hooks.may_subscribe(self.principal, wanted.filter):
            return Reason.NOT_AUTHORIZED
        return self.endpoint.subscribe(session, wanted, identifier)

    def _goodbye(self, session: Session, reason: int, props: Properties | None) -> None:
        expiry = props.session_expiry_interval if props is not None else None
        if expiry is not None:
            if expiry and not session.expiry:
                raise protocol_error("session expiry cannot be raised from 0")
            session.expiry = min(expiry, self.endpoint.settings.max_session_expiry)
        self.gone(reason, will=reason != 0)
        if self._transport is not None:
            self._transport.close()

    # The end.

    def refuse_connect(self, reason: int, version: int) -> None:
        """CONNACK with a refusal, and hang up."""
        self.counters.connects_refused += 1
        self.write(encode(pk.Connack(False, reason), version))
        self.closed = True
        self._close()

    def shut(self, reason: Reason, *, will: bool = True) -> None:
        """Tells an MQTT 5 client why, and hangs up."""
        if self.session is not None and self.version >= 5:
            self.write(encode_end(P.DISCONNECT, reason))
        self.gone(reason, will=will)
        self._close()

    def gone(self, reason: int, *, will: bool) -> None:
        """The connection is over for the session; safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self.dispose()
        self.collected()
        if self.paused & ~MOMENTARY:
            self.counters.paused -= 1
        if self.session is not None:
            self.endpoint.detach(self, self.session, reason, will=will)

    def abort(self) -> None:
        """Drops the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        """Hangs up so that the client still gets what we said last.

        To close a socket that has unread bytes resets the connection, and a reset may overtake the reason we
        gave. So we end our half, and read on, unheeding, until the client ends its half or `LINGER` is over.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.wheel.add(self, LINGER)
        if not transport.can_write_eof():  # TLS, which ends with a farewell of its own
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # the client was faster
            transport.abort()
            return
        if self.paused:
            transport.resume_reading()

    def welcome(self, principal: Principal, session: Session, connect: pk.Connect, keep_alive: int) -> None:
        """Authentication has succeeded: from here on the client is heard."""
        settings = self.endpoint.settings
        props = connect.props or Properties()
        self.principal = principal
        self.session = session
        self.client_id = session.client_id
        self.keep_alive = keep_alive
        self.max_send = props.maximum_packet_size or 268_435_460
        self.send_window = min(settings.send_window, props.receive_maximum or 65_535)
        self.max_aliases = settings.max_topic_aliases if self.version >= 5 else 0
        self.publishing = True
        self.wheel.remove(self)
        self._expect()


def usable_will(will: pk.Will, version: int) -> Reason:
    """SUCCESS, or why a will cannot be taken."""
    if not valid_name(will.topic):
        return Reason.TOPIC_NAME_INVALID
    return Reason.RETAIN_NOT_SUPPORTED if will.retain and version >= 5 else Reason.SUCCESS
