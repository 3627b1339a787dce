"""The MQTT endpoint devices connect to: listeners, sessions, who is subscribed to what.

An endpoint, not a broker: what is published goes to the sink, nothing is retained, and a message reaches
another client only when the platform sends it (`publish`, `send`) or shows it to those who watch (`fan_out`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from time import time_ns

import structlog

from . import packets as pk
from .codes import MqttError, Reason
from .connection import Connection
from .delivery import Delivery
from .door import Door
from .paced import PAUSE_SINK
from .ports import Hooks, Inbound, Principal, Sink
from .session import PendingWill, Session, WillOrigin
from .settings import EndpointSettings

log = structlog.get_logger(__name__)


class Endpoint(Delivery):
    """One for each process; all its methods belong to the loop's thread."""

    def __init__(
        self,
        settings: EndpointSettings,
        sink: Sink,
        hooks: Hooks,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(settings)
        self.sink = sink
        self.hooks = hooks
        self.door = Door(self)
        self.partial = 0  # bytes of packets that have not come whole
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._ports: list[int] = []
        self._connections: set[Connection] = set()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._held: dict[Connection, int] = {}
        self._held_bytes = 0
        self._wills: deque[tuple[Session, pk.Will]] = deque()
        self._empty = asyncio.Event()
        self.draining = False
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
        self._ports.append(int(server.sockets[0].getsockname()[1]))

    async def renew_tls(self, tls: ssl.SSLContext) -> None:
        """New TLS connections use `tls` (a renewed certificate, another authority); those there are stay.

        The new listener shares the port with the old one until that is closed (needs `reuse_port`).
        """
        old = self._servers[1]
        await self._listen(self.settings.tls_host, self.tls_port, tls)
        self._servers[1] = self._servers.pop()
        self._ports.pop()
        old.close()

    @property
    def port(self) -> int:
        """The port that plain TCP is served on."""
        return self._ports[0]

    @property
    def tls_port(self) -> int:
        """The port that TLS is served on."""
        return self._ports[1]

    def drain(self) -> None:
        """Stops listening and reading; what has been read is still settled. First step of a clean stop."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.pause(PAUSE_SINK)

    async def close(self, timeout: float = 2.0) -> None:
        """Says goodbye to every client (0x8B) and waits for the sockets. No wills: nobody has gone but us."""
        self.drain()
        self.door.close()
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
        if self.draining or self.counters.pending > settings.max_pending:
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

    def open_session(
        self, principal: Principal, client_id: str, connect: pk.Connect
    ) -> tuple[Session | None, bool]:
        """The session for a CONNECT (None: there are too many), and whether it was there before."""
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
        try:
            self.hooks.disconnected(session.principal, session.client_id, time_ns() // 1000, reason)
        except Exception:  # the books of this connection must be closed whatever the hook does
            log.exception("mqtt.hook_failed", client_id=session.client_id)

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
        while self._held and self.sink.accepting and not self.draining:
            connection = next(iter(self._held))
            self._held_bytes -= self._held.pop(connection)
            connection.resume(PAUSE_SINK)

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
