"""The way in: from a first packet to a CONNACK, with a bound on everything before we know who speaks."""

from __future__ import annotations

import asyncio
from collections import deque
from time import time_ns
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from . import packets as pk
from .codec import decode, encode
from .codes import MqttError, PacketType, Reason, malformed, protocol_error
from .connection import Connection, usable_will
from .paced import PAUSE_AUTH, PAUSE_SINK
from .ports import Certificate, ConnectInfo, Principal
from .properties import Properties
from .session import Session

if TYPE_CHECKING:
    from .endpoint import Endpoint

log = structlog.get_logger(__name__)


class Door:
    """Asks the hook who it is, for a few clients at a time; the others wait their turn or give up."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.settings = endpoint.settings
        self._authenticating: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[Connection, pk.Connect]] = deque()

    def close(self) -> None:
        """Lets nobody in any more."""
        self._waiting.clear()
        for task in list(self._authenticating):
            task.cancel()

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
        if self.endpoint.counters.connections >= self.settings.max_connections:
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
                answer = await self.endpoint.hooks.authenticate(info)
        except Exception:
            log.exception("mqtt.authenticate_failed", client_id=connect.client_id)
        if connection.closed:
            return
        try:
            self._enter(connection, connect, answer)
        except Exception:
            log.exception("mqtt.connect_failed", client_id=connect.client_id)
            connection.abort()  # half let in is not in

    def _authenticated(self, task: asyncio.Task[None]) -> None:
        self._authenticating.discard(task)
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
        if connect.will is not None and not self.endpoint.hooks.may_publish(answer, connect.will.topic):
            connection.refuse_connect(Reason.NOT_AUTHORIZED, version)
            return
        client_id = connect.client_id or uuid4().hex
        session, present = self.endpoint.open_session(answer, client_id, connect)
        if session is None:
            connection.refuse_connect(Reason.QUOTA_EXCEEDED, version)
            return
        keep_alive = connect.keep_alive
        ceiling = self.settings.max_keep_alive
        if version >= 5 and ceiling and not 0 < keep_alive <= ceiling:
            keep_alive = ceiling
        connection.welcome(answer, session, connect, keep_alive)
        session.connection = connection
        self.endpoint.counters.pending -= 1
        self.endpoint.counters.connections += 1
        self.endpoint.counters.connects += 1
        props = self._offer(connect, session, keep_alive) if version >= 5 else None
        connection.write(encode(pk.Connack(present, 0, props), version))
        self.endpoint.hooks.connected(answer, client_id, time_ns() // 1000)
        session.resend()
        if self.endpoint.draining:
            connection.pause(PAUSE_SINK)
        connection.resume(PAUSE_AUTH)

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
