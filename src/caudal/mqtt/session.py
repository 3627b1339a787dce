"""What a client owns beyond its connection: subscriptions, messages for it, QoS 2 state, its will.

In memory: a process that restarts begins without sessions and says so (session present 0).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from . import packets as pk
from .codec import encode_publish
from .codes import Reason
from .ports import Inbound, Principal
from .properties import Properties

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Endpoint

Done = Callable[[int], None]  # gets the reason code that a message to a client ended with


class Outgoing(msgspec.Struct, eq=False):
    """One message to one session. `expires` is a second of the wheel; `done` is called exactly once."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    props: Properties | None = None
    expires: int | None = None
    done: Done | None = None

    def finish(self, reason: int) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(reason)


class Interest(msgspec.Struct, eq=False):
    """A session's subscription to one filter."""

    session: Session
    qos: int
    no_local: bool
    retain_as_published: bool
    identifier: int | None


class WillOrigin:
    """Stands for a client that is gone: nobody waits for the acknowledgement of a will."""

    __slots__ = ("client_id", "principal")

    def __init__(self, principal: Principal, client_id: str) -> None:
        self.principal = principal
        self.client_id = client_id

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None:
        pass


class PendingWill:
    """A will that waits for its delay."""

    __slots__ = ("endpoint", "session", "slot", "will")

    def __init__(self, endpoint: Endpoint, session: Session, will: pk.Will) -> None:
        self.endpoint = endpoint
        self.session = session
        self.will = will
        self.slot = -1

    def due(self) -> None:
        self.session.pending_will = None
        self.endpoint.submit_will(self.session, self.will)


class Session:
    """Containers are made when they are first needed: most sessions never need most of them."""

    __slots__ = (
        "_next_id",
        "_queue",
        "_queued_bytes",
        "_sent",
        "client_id",
        "connection",
        "ended",
        "endpoint",
        "expiry",
        "pending_will",
        "principal",
        "received",
        "slot",
        "subscriptions",
        "will",
    )

    def __init__(self, endpoint: Endpoint, principal: Principal, client_id: str) -> None:
        self.endpoint = endpoint
        self.principal = principal
        self.client_id = client_id
        self.expiry = 0
        self.connection: Connection | None = None
        self.will: pk.Will | None = None
        self.pending_will: PendingWill | None = None
        self.ended = False
        self.slot = -1
        self.subscriptions: dict[str, Interest] | None = None
        # QoS 2 in, by packet identifier: False until the commit, True once PUBREC has been sent.
        self.received: dict[int, bool] | None = None
        self._queue: deque[Outgoing] | None = None
        self._queued_bytes = 0
        self._sent: dict[int, Outgoing] | None = None
        self._next_id = 0

    @property
    def key(self) -> tuple[str, str]:
        return (self.principal.name, self.client_id)

    def due(self) -> None:
        """The session has expired."""
        self.endpoint.end_session(self)

    # To the client.

    def offer(self, message: Outgoing) -> None:
        """Sends it now, queues it, or ends it with a reason; never blocks."""
        connection = self.connection
        if message.qos == 0:
            if connection is None or connection.congested:
                self._drop(message, Reason.QUOTA_EXCEEDED)
            else:
                self._send(connection, message, 0)
            return
        if self.ended or (connection is None and self.expiry == 0):
            self._drop(message, Reason.NO_MATCHING_SUBSCRIBERS)
            return
        queue = self._queue
        if not queue and connection is not None and not connection.congested and self._window(connection):
            self._send(connection, message, self._packet_id())
            return
        settings = self.endpoint.settings
        size = len(message.payload)
        if queue is None:
            queue = self._queue = deque()
        full = len(queue) >= settings.queue_messages or self._queued_bytes + size > settings.queue_bytes
        if full:
            # The oldest commands are those the device was promised first: the new one is turned away.
            self._drop(message, Reason.QUOTA_EXCEEDED)
            return
        queue.append(message)
        self._queued_bytes += size

    def pump(self) -> None:
        """Sends what waits, as far as the client's window and socket allow."""
        connection = self.connection
        queue = self._queue
        while queue and connection is not None and not connection.congested and self._window(connection):
            message = queue.popleft()
            self._queued_bytes -= len(message.payload)
            if message.expires is not None and message.expires <= self.endpoint.wheel.now:
                self._drop(message, Reason.MESSAGE_RATE_TOO_HIGH)
                continue
            self._send(connection, message, self._packet_id())
        if queue is not None and not queue:
            self._queue = None

    def resend(self) -> None:
        """On a new connection: first what was sent and not acknowledged, marked as such, then the queue."""
        connection = self.connection
        if connection is not None and self._sent:
            for number, message in list(self._sent.items()):
                self._send(connection, message, number, dup=True)
        self.pump()

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """PUBACK. One for a message we do not know is left alone: it is from a session we have lost."""
        message = self._sent.pop(packet_id, None) if self._sent else None
        if message is None:
            return
        self.endpoint.counters.acked_out += 1
        message.finish(reason)
        self.pump()

    def abandon(self) -> None:
        """The session has ended: nothing will be delivered any more."""
        for message in (*(self._sent or {}).values(), *(self._queue or ())):
            self._drop(message, Reason.NO_MATCHING_SUBSCRIBERS)
        self._sent = self._queue = None
        self._queued_bytes = 0

    def _window(self, connection: Connection) -> bool:
        return self._sent is None or len(self._sent) < connection.send_window

    def _packet_id(self) -> int:
        sent = self._sent
        if sent is None:
            sent = self._sent = {}
        while True:
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in sent:
                return self._next_id

    def _send(self, connection: Connection, message: Outgoing, number: int, *, dup: bool = False) -> None:
        props = message.props
        if props is not None and message.expires is not None and connection.version >= 5:
            left = max(1, message.expires - self.endpoint.wheel.now)
            props = msgspec.structs.replace(props, message_expiry_interval=left)
        data = encode_publish(
            message.topic,
            message.payload,
            message.qos,
            number,
            connection.version,
            retain=message.retain,
            dup=dup,
            props=props,
        )
        if len(data) > connection.max_send:
            if self._sent is not None:
                self._sent.pop(number, None)
            self._drop(message, Reason.PACKET_TOO_LARGE)
            return
        if message.qos and self._sent is not None:
            self._sent[number] = message
        connection.write(data)
        self.endpoint.counters.publishes_out += 1
        if not message.qos:
            message.finish(Reason.SUCCESS)

    def _drop(self, message: Outgoing, reason: Reason) -> None:
        self.endpoint.counters.dropped_out += 1
        message.finish(reason)
