"""The MQTT endpoint devices connect to: listeners, sessions, who is subscribed to what.

An endpoint, not a broker: what is published goes to the sink, nothing is retained, and a message reaches
another client only when the platform sends it (`publish`, `send`) or shows it to those who watch (`fan_out`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from time import time_ns
from uuid import uuid4

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from . import packets as pk
from .codec import decode, encode
from .codes import MqttError, PacketType, Reason, malformed, protocol_error
from .connection import PAUSE_AUTH, PAUSE_SINK, Connection, usable_will
from .ports import Certificate, ConnectInfo, Counters, Hooks, Inbound, Principal, Sink
from .properties import Properties
from .session import Done, Interest, Outgoing, PendingWill, Session, WillOrigin
from .settings import EndpointSettings
from .topics import FilterIndex
from .wheel import Wheel

log = structlog.get_logger(__name__)


class Endpoint:
    """One for each process; all its methods belong to the loop's thread."""

    def __init__(
        self,
        settings: EndpointSettings,
        sink: Sink,
        hooks: Hooks,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.settings = settings
        self.sink = sink
        self.hooks = hooks
        self.counters = Counters()
        self.wheel = Wheel()
        self.partial = 0  # bytes promised to packets being collected
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._index: FilterIndex[Interest] = FilterIndex()
        self._held: dict[Connection, int] = {}
        self._held_bytes = 0
        self._wills: deque[tuple[Session, pk.Will]] = deque()
        self._authenticating: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[Connection, pk.Connect]] = deque()
        self._empty = asyncio.Event()
        self._draining = False
        sink.on_resume(self._resume)

    # Life.

    async def start(self) -> None:
        """Listens. OSError when a port is taken."""
        settings = self.settings
        self.wheel.start()
        await self._listen(settings.host, settings.port, None)
        if settings.tls_port is not None:
            if self._tls is None:
                raise ValueError("a TLS port needs a TLS context")
            await self._listen(settings.tls_host, settings.tls_port, self._tls)

    async def _listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=self.settings.connect_timeout if tls is not None else None,
            backlog=self.settings.backlog,
            reuse_port=self.settings.reuse_port,
        )
        self._servers.append(server)

    @property
    def port(self) -> int:
        """The port that plain TCP is served on."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    @property
    def tls_port(self) -> int:
        return int(self._servers[1].sockets[0].getsockname()[1])

    def drain(self) -> None:
        """Stops listening and reading; what has been read is still settled. First step of a clean stop."""
        self._draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.pause(PAUSE_SINK)

    async def close(self, timeout: float = 5.0) -> None:
        """Says goodbye to every client (0x8B) and waits for the sockets. No wills: nobody has gone but us."""
        self.drain()
        self._waiting.clear()
        for task in list(self._authenticating):
            task.cancel()
        for connection in list(self._connections):
            connection.shut(Reason.SERVER_SHUTTING_DOWN, will=False)
        try:
            async with asyncio.timeout(timeout):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
        for session in list(self._sessions.values()):
            session.abandon()
        self.wheel.stop()

    # Connections.

    def opened(self, connection: Connection) -> None:
        settings = self.settings
        self._connections.add(connection)
        self.counters.pending += 1
        self.wheel.add(connection, settings.connect_timeout)
        if self._draining or self.counters.pending > settings.max_pending:
            self.counters.connects_refused += 1
            connection.abort()

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._held_bytes -= self._held.pop(connection, 0)
        if connection.session is None:
            self.counters.pending -= 1
        else:
            self.counters.connections -= 1
        if not self._connections:
            self._empty.set()

    def greet(self, connection: Connection, head: int, body: bytes) -> None:
        """The first packet, which must be a CONNECT; what follows it waits until we know who speaks."""
        if head >> 4 != PacketType.CONNECT:
            raise protocol_error("the first packet is not CONNECT")
        level = body[6] if len(body) > 6 and body[:6] == b"\0\4MQTT" else 4
        version = 5 if level >= 5 else 4
        try:
            connect = decode(head, body, version)
            if not isinstance(connect, pk.Connect):
                raise malformed("not a CONNECT")
            connection.version = connect.version
            self._check(connect)
        except MqttError as error:
            connection.refuse_connect(error.reason, version)
            return
        connection.connect = connect
        connection.stopped = True
        connection.pause(PAUSE_AUTH)
        if len(self._authenticating) < self.settings.max_authenticating:
            self._authenticate(connection, connect)
        else:
            self._waiting.append((connection, connect))  # bounded by max_pending

    def _check(self, connect: pk.Connect) -> None:
        if len(connect.client_id) > self.settings.max_client_id:
            raise MqttError(Reason.CLIENT_IDENTIFIER_NOT_VALID, "client id too long")
        if not connect.client_id and connect.version < 5 and not connect.clean_start:
            raise MqttError(Reason.CLIENT_IDENTIFIER_NOT_VALID, "a lasting session needs a client id")
        if connect.props is not None and connect.props.authentication_method is not None:
            raise MqttError(Reason.BAD_AUTHENTICATION_METHOD, "no extended authentication")
        if connect.will is not None and (reason := usable_will(connect.will, connect.version)):
            raise MqttError(reason, "will")
        if self.counters.connections >= self.settings.max_connections:
            raise MqttError(Reason.QUOTA_EXCEEDED, "too many connections")

    def _authenticate(self, connection: Connection, connect: pk.Connect) -> None:
        task = asyncio.get_running_loop().create_task(
            self._ask(connection, connect), name=f"mqtt authenticate {connect.client_id}"
        )
        self._authenticating.add(task)
        task.add_done_callback(self._authenticated)

    async def _ask(self, connection: Connection, connect: pk.Connect) -> None:
        answer: Principal | int = Reason.SERVER_UNAVAILABLE
        try:
            info = _connect_info(connection, connect)
            async with asyncio.timeout(self.settings.connect_timeout):
                answer = await self.hooks.authenticate(info)
        except Exception:
            log.exception("mqtt.authenticate_failed", client_id=connect.client_id)
        if not connection.closed:
            self._enter(connection, connect, answer)

    def _authenticated(self, task: asyncio.Task[None]) -> None:
        self._authenticating.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("mqtt.connect_failed", error=repr(error))
        while self._waiting and len(self._authenticating) < self.settings.max_authenticating:
            connection, connect = self._waiting.popleft()
            if not connection.closed:
                self._authenticate(connection, connect)

    def _enter(self, connection: Connection, connect: pk.Connect, answer: Principal | int) -> None:
        """CONNACK, one way or the other."""
        version = connect.version
        if not isinstance(answer, Principal):
            connection.refuse_connect(answer, version)
            return
        if connect.will is not None and not self.hooks.may_publish(answer, connect.will.topic):
            connection.refuse_connect(Reason.NOT_AUTHORIZED, version)
            return
        client_id = connect.client_id or uuid4().hex
        session, present = self._open_session(answer, client_id, connect)
        if session is None:
            connection.refuse_connect(Reason.QUOTA_EXCEEDED, version)
            return
        keep_alive = connect.keep_alive
        ceiling = self.settings.max_keep_alive
        if version >= 5 and ceiling and not 0 < keep_alive <= ceiling:
            keep_alive = ceiling
        connection.welcome(answer, session, connect, keep_alive)
        session.connection = connection
        self.counters.pending -= 1
        self.counters.connections += 1
        self.counters.connects += 1
        props = self._offer(connect, session, keep_alive) if version >= 5 else None
        connection.write(encode(pk.Connack(present, 0, props), version))
        self.hooks.connected(answer, client_id, time_ns() // 1000)
        session.resend()
        if self._draining:
            connection.pause(PAUSE_SINK)
        connection.resume(PAUSE_AUTH)
        if not connection.paused:
            connection.proceed()

    def _offer(self, connect: pk.Connect, session: Session, keep_alive: int) -> Properties:
        settings = self.settings
        wanted = connect.props.session_expiry_interval if connect.props is not None else None
        return Properties(
            session_expiry_interval=session.expiry if wanted not in (None, session.expiry) else None,
            assigned_client_identifier=None if connect.client_id else session.client_id,
            server_keep_alive=keep_alive if keep_alive != connect.keep_alive else None,
            receive_maximum=settings.max_inflight,
            topic_alias_maximum=settings.max_topic_aliases,
            maximum_packet_size=settings.max_packet,
            retain_available=0,
            shared_subscription_available=0,
        )

    def _open_session(
        self, principal: Principal, client_id: str, connect: pk.Connect
    ) -> tuple[Session | None, bool]:
        key = (principal.name, client_id)
        found = self._sessions.get(key)
        if found is not None and found.connection is not None:
            self.counters.takeovers += 1
            found.connection.shut(Reason.SESSION_TAKEN_OVER)
            found = self._sessions.get(key)  # gone, if it did not outlive its connection
        if found is not None and connect.clean_start:
            self.end_session(found)
            found = None
        if found is None and len(self._sessions) >= self.settings.max_sessions:
            return None, False
        session = found or Session(self, principal, client_id)
        self._sessions[key] = session
        self.counters.sessions = len(self._sessions)
        self.wheel.remove(session)
        if session.pending_will is not None:
            self.wheel.remove(session.pending_will)
            session.pending_will = None
        session.principal = principal
        session.will = connect.will
        wanted = connect.props.session_expiry_interval if connect.props is not None else None
        if connect.version < 5:
            wanted = None if connect.clean_start else self.settings.max_session_expiry
        session.expiry = min(wanted or 0, self.settings.max_session_expiry)
        return session, found is not None

    def detach(self, connection: Connection, session: Session, reason: int, *, will: bool) -> None:
        """The session's connection is over."""
        self.counters.disconnects += 1
        session.connection = None
        last_will, session.will = session.will, None
        if will and last_will is not None:
            props = last_will.props
            delay = (props.will_delay_interval or 0) if props is not None else 0
            if min(delay, session.expiry):
                session.pending_will = PendingWill(self, session, last_will)
                self.wheel.add(session.pending_will, min(delay, session.expiry))
            else:
                self.submit_will(session, last_will)
        if session.expiry:
            self.wheel.add(session, session.expiry)
        else:
            self.end_session(session)
        self.hooks.disconnected(session.principal, session.client_id, time_ns() // 1000, reason)

    def end_session(self, session: Session) -> None:
        """Forgets it; what waited for its client is told so. A will that waits is published now."""
        session.ended = True
        self.wheel.remove(session)
        if session.pending_will is not None:
            self.wheel.remove(session.pending_will)
            session.pending_will.due()
        for pattern in session.subscriptions or ():
            self._index.discard(pattern, session)
        session.subscriptions = session.received = None
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
        self.counters.sessions = len(self._sessions)
        session.abandon()

    def submit_will(self, session: Session, will: pk.Will) -> None:
        """Publishes it like any message of the client, if the client still may."""
        if not self.sink.accepting:
            self._wills.append((session, will))  # one for each session at most
            return
        if not self.hooks.may_publish(session.principal, will.topic):
            self.counters.publishes_refused += 1
            return
        origin = WillOrigin(session.principal, session.client_id)
        now = time_ns() // 1000
        self.counters.publishes_in += 1
        message = Inbound(will.topic, will.payload, will.qos, will.retain, False, 0, origin, now, will.props)
        self.sink.submit([message])

    def complain(self, connection: Connection, error: MqttError) -> None:
        log.info(
            "mqtt.protocol_error",
            client_id=connection.client_id,
            principal=connection.principal.name,
            reason=error.reason.name,
            detail=error.text,
        )

    # Backpressure.

    def hold(self, connection: Connection, size: int) -> None:
        """The sink is full: this connection waits for it, `size` bytes of what it sent already in our hands.

        Others go on until they, too, bring a message. Only when that adds up to much is nobody read at all:
        to stop fifteen thousand quiet devices for every full batch would cost more than it saves.
        """
        self._held_bytes += size - self._held.get(connection, 0)
        self._held[connection] = size
        if self._held_bytes > self.settings.max_held:
            for other in self._connections:
                if other not in self._held and other.session is not None:
                    self._held[other] = 0
                    other.pause(PAUSE_SINK)

    def _resume(self) -> None:
        while self._wills and self.sink.accepting:
            self.submit_will(*self._wills.popleft())
        # In the order they were stopped, for as long as the sink takes more.
        while self._held and self.sink.accepting and not self._draining:
            connection = next(iter(self._held))
            self._held_bytes -= self._held.pop(connection)
            connection.resume(PAUSE_SINK)

    def reserve(self, connection: Connection, need: int) -> bool:
        """Room for a packet of `need` bytes that comes in pieces. Small ones are not counted."""
        if need > 16_384:
            if self.partial + need > self.settings.max_partial:
                return False
            self.partial += need
            connection.partial = need
        return True

    # Subscriptions and messages to clients.

    def subscribe(self, session: Session, wanted: pk.Subscription, identifier: int | None) -> int:
        """The QoS granted, or a reason code. Two is more than we send at."""
        mine = session.subscriptions
        if mine is None:
            mine = session.subscriptions = {}
        if wanted.filter not in mine and len(mine) >= self.settings.max_subscriptions:
            return Reason.QUOTA_EXCEEDED
        qos = min(wanted.qos, 1)
        interest = Interest(session, qos, wanted.no_local, wanted.retain_as_published, identifier)
        mine[wanted.filter] = interest
        self._index.add(wanted.filter, session, interest)
        return qos

    def unsubscribe(self, session: Session, pattern: str) -> bool:
        mine = session.subscriptions
        if mine is None or mine.pop(pattern, None) is None:
            return False
        self._index.discard(pattern, session)
        return True

    def send(
        self, topic: str, payload: bytes, qos: int = 1, *, expiry: int | None = None, done: Done | None = None
    ) -> int:
        """Sends to every session subscribed to `topic`; returns how many.

        `done` is called once for each session with how it ended: 0 acknowledged (QoS 0: written), the
        client's own refusal, QUOTA_EXCEEDED (its queue is full), PACKET_TOO_LARGE, NO_MATCHING_SUBSCRIBERS
        (its session ended), MESSAGE_RATE_TOO_HIGH (not sent within `expiry` seconds). Sessions of clients
        that are away keep QoS 1 messages until they come back.
        """
        targets = _by_session(self._index.match(topic))
        expires = None if expiry is None else self.wheel.now + expiry
        for session, interests in targets.items():
            props = _outgoing_props(interests, None, expiry)
            granted = min(qos, max(interest.qos for interest in interests))
            session.offer(Outgoing(topic, payload, granted, False, props, expires, done))
        return len(targets)

    async def publish(
        self, topic: str, payload: bytes, qos: int = 1, *, expiry: int | None = None
    ) -> list[int]:
        """As `send`, and waits: how each session ended, an empty list when nobody is subscribed."""
        outcomes: list[int] = []
        finished = asyncio.get_running_loop().create_future()
        expected = -1

        def done(reason: int) -> None:
            outcomes.append(reason)
            if len(outcomes) == expected and not finished.done():
                finished.set_result(None)

        expected = self.send(topic, payload, qos, expiry=expiry, done=done)
        if len(outcomes) < expected:
            await finished
        return outcomes

    def fan_out(self, messages: Iterable[Inbound]) -> None:
        """Shows messages to those who watch. Never blocks: who reads too slowly misses messages (counted)."""
        index = self._index
        if not len(index):
            return
        for message in messages:
            found = index.match(message.topic)
            if not found:
                continue
            for session, interests in _by_session(found).items():
                connection = session.connection
                local = connection is not None and connection is message.origin
                wanted = [i for i in interests if not (local and i.no_local)]
                if not wanted:
                    continue
                qos = min(message.qos, max(interest.qos for interest in wanted))
                retain = message.retain and any(interest.retain_as_published for interest in wanted)
                props = _outgoing_props(wanted, message.props, None)
                session.offer(Outgoing(message.topic, message.payload, qos, retain, props))

    # Administration.

    def disconnect(
        self,
        predicate: Callable[[Principal, str], bool],
        reason: Reason = Reason.ADMINISTRATIVE_ACTION,
        *,
        forget: bool = False,
    ) -> int:
        """Throws out the clients for whom `predicate(principal, client_id)` holds.

        With `forget` their sessions end too. Returns how many connections that were.
        """
        thrown = 0
        for session in list(self._sessions.values()):
            if predicate(session.principal, session.client_id):
                if session.connection is not None:
                    session.connection.shut(reason)
                    thrown += 1
                if forget and not session.ended:
                    self.end_session(session)
        return thrown

    def recheck(self, predicate: Callable[[Principal, str], bool]) -> None:
        """Forgets which topics these clients may publish on; ends subscriptions they may not have now."""
        for session in list(self._sessions.values()):
            if predicate(session.principal, session.client_id):
                if session.connection is not None:
                    session.connection.topics.clear()
                for pattern in list(session.subscriptions or ()):
                    if not self.hooks.may_subscribe(session.principal, pattern):
                        self.unsubscribe(session, pattern)

    def online(self, principal_name: str, client_id: str) -> bool:
        """Is this client connected to this process?"""
        session = self._sessions.get((principal_name, client_id))
        return session is not None and session.connection is not None


def _by_session(found: Iterable[Interest]) -> dict[Session, list[Interest]]:
    """One copy for each session, however many of its filters match."""
    targets: dict[Session, list[Interest]] = {}
    for interest in found:
        targets.setdefault(interest.session, []).append(interest)
    return targets


def _outgoing_props(
    interests: list[Interest], given: Properties | None, expiry: int | None
) -> Properties | None:
    identifiers = tuple(i.identifier for i in interests if i.identifier is not None)
    if given is None:
        if not identifiers and expiry is None:
            return None
        return Properties(subscription_identifiers=identifiers, message_expiry_interval=expiry)
    return Properties(
        payload_format_indicator=given.payload_format_indicator,
        message_expiry_interval=given.message_expiry_interval,
        content_type=given.content_type,
        response_topic=given.response_topic,
        correlation_data=given.correlation_data,
        user_properties=given.user_properties,
        subscription_identifiers=identifiers,
    )


def _connect_info(connection: Connection, connect: pk.Connect) -> ConnectInfo:
    peer = connection.about("peername")
    secure = connection.about("ssl_object")
    der = secure.getpeercert(binary_form=True) if secure is not None else None
    certificate = None
    if der:
        parsed = x509.load_der_x509_certificate(der)
        names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        certificate = Certificate(
            subject=parsed.subject.rfc4514_string(),
            common_name=str(names[0].value) if names else "",
            serial=format(parsed.serial_number, "x"),
            fingerprint=parsed.fingerprint(SHA256()).hex(),
        )
    return ConnectInfo(
        client_id=connect.client_id,
        username=connect.username,
        password=connect.password,
        address=str(peer[0]) if peer else "",
        version=connect.version,
        tls=secure is not None,
        certificate=certificate,
    )
