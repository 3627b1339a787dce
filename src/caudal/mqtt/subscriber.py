"""The subscriber: takes messages from a broker people already run (Mosquitto, EMQX) into the same sink.

A persistent session and acknowledgements after the commit: what we had not committed when we died, the broker
sends again. QoS 2 identifiers are kept in memory, so that after a restart such a message may come twice; the
store recognises it by (series, ts).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Container
from urllib.parse import unquote, urlsplit

import structlog

from .broker import BrokerConnection, BrokerError
from .codes import Reason, reason_name
from .ports import Counters, Principal, Sink
from .settings import SubscriberSettings, client_tls
from .turns import Turns
from .wheel import Wheel

log = structlog.get_logger(__name__)
STABLE = 30.0  # seconds a connection must last before the pauses begin again from the shortest
TAKEN_OVER_PAUSE = 10.0  # at least, when another client uses our id: two that fight get nothing done


class Subscriber:
    """Start it, and it stays connected until closed. All methods belong to the loop's thread."""

    def __init__(self, settings: SubscriberSettings, sink: Sink) -> None:
        address = urlsplit(settings.url)
        if address.scheme not in ("mqtt", "mqtts", "tcp", "ssl") or not address.hostname:
            raise ValueError("MQTT_URL must look like mqtt://user:password@host:1883 or mqtts://host")
        self.settings = settings
        self.sink = sink
        self.counters = Counters()
        self.principal = Principal(f"broker {address.hostname}")
        self.connection: BrokerConnection | None = None
        self.received: dict[int, bool] = {}  # QoS 2 in, as in a session of the endpoint
        self.granted: dict[str, int] = {}  # filter: the SUBACK's code
        self.last_error: str | None = None
        self.wheel = Wheel()
        self.turns = Turns()
        self.online = asyncio.Event()  # subscribed, and messages may come
        self._host = address.hostname
        secure = address.scheme in ("mqtts", "ssl")
        self._tls: ssl.SSLContext | None = None
        if secure:
            self._tls = client_tls(settings.ca_file, settings.cert_file, settings.key_file)
        self._port = address.port or (8883 if secure else 1883)
        self._username = unquote(address.username) if address.username else None
        self._password = unquote(address.password).encode() if address.password else None
        self._version = settings.version
        self._task: asyncio.Task[None] | None = None
        self._next_id = 0
        self._draining = False
        sink.on_resume(self._resume)

    @property
    def filters(self) -> list[str]:
        """As they go to the broker."""
        group = self.settings.group
        return [f"$share/{group}/{topic}" if group else topic for topic in self.settings.topics]

    def start(self) -> asyncio.Task[None]:
        """The task that keeps us connected; it ends only with `close`, or with an error that is a bug."""
        self.wheel.start()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="mqtt subscriber")
        return self._task

    def drain(self) -> None:
        """Takes no more from the broker; what has come is still acknowledged. First step of a clean stop."""
        self._draining = True
        if self._task is not None:
            self._task.cancel()
        if self.connection is not None:
            self.connection.hold(0)

    async def close(self) -> None:
        """Hangs up. The broker keeps the session, and what is unacknowledged, for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.connection is not None:
            self.connection.write(b"\xe0\x00")
            self.connection.finish(None)
            self.connection = None
        self.wheel.stop()

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> int:
        """Publishes through the broker; the PUBACK's reason code. BrokerError when not connected."""
        connection = self.connection
        if connection is None or not connection.publishing:
            raise BrokerError(Reason.SERVER_UNAVAILABLE, "not connected to the broker")
        return await connection.publish(topic, payload, qos)

    def next_packet_id(self, taken: Container[int]) -> int:
        """Not reused soon after, so that a late PUBACK of an earlier connection meets nobody."""
        while True:
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in taken:
                return self._next_id

    def _resume(self) -> None:
        if self.connection is not None and not self._draining:
            self.connection.release()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            began = loop.time()
            try:
                error = await self._live()
            except (OSError, ssl.SSLError, TimeoutError) as failure:
                error = BrokerError(Reason.SERVER_UNAVAILABLE, f"cannot connect ({failure!r})")
            except BrokerError as failure:
                error = failure
            except Exception:
                log.exception("mqtt.subscriber_failed")  # a bug of ours; what is unacknowledged comes again
                error = BrokerError(Reason.IMPLEMENTATION_SPECIFIC, "internal error")
            finally:
                # When cancelled (a clean stop) the connection stays for the acknowledgements under way.
                self.online.clear()
            self.connection = None
            self.counters.connections = 0
            if error is None:
                return
            self.last_error = str(error)
            if error.reason == Reason.UNSUPPORTED_PROTOCOL_VERSION and self._version == 5:
                log.info("mqtt.broker_speaks_3_1_1", host=self._host)
                self._version = 4
                continue
            attempt = 1 if loop.time() - began > STABLE else attempt + 1
            pause = self.pause(attempt, error.reason)
            log.warning("mqtt.broker_lost", host=self._host, error=self.last_error, retry_in=round(pause, 2))
            await asyncio.sleep(pause)

    def pause(self, attempt: int, reason: int) -> float:
        """Seconds before the next attempt (from 1): growing bounds, and all of it left to chance."""
        settings = self.settings
        bound = min(settings.retry_max, settings.retry_first * 2.0 ** min(attempt - 1, 20))
        pause = random.uniform(0.0, bound)  # noqa: S311 - spreads a herd, guards nothing
        return TAKEN_OVER_PAUSE + pause if reason == Reason.SESSION_TAKEN_OVER else pause

    async def _live(self) -> BrokerError | None:
        """One connection from beginning to end."""
        settings = self.settings
        async with asyncio.timeout(settings.connect_timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: BrokerConnection(self, self._version),
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
            try:
                self.connection = connection
                connection.greet(self._username, self._password)
                await connection.connected
                codes = await connection.subscribe(self.filters, settings.qos)
            except BaseException:
                connection.finish(BrokerError(Reason.UNSPECIFIED, "gave up connecting"))
                raise
        self.granted = dict(zip(self.filters, codes, strict=False))
        refused = {pattern: reason_name(code) for pattern, code in self.granted.items() if code >= 0x80}
        if refused:
            self.last_error = f"the broker refused subscriptions: {refused}"
            log.error("mqtt.subscription_refused", host=self._host, refused=refused)
        if len(refused) == len(self.granted):
            error = BrokerError(next(iter(self.granted.values())), "the broker refused every subscription")
            connection.finish(error)
            return error
        self.counters.connections = 1
        self.counters.connects += 1
        self.online.set()
        log.info(
            "mqtt.broker_connected",
            host=self._host,
            version=connection.version,
            session_present=connection.session_present,
        )
        # Shielded: a clean stop cancels this task while acknowledgements are still to go out.
        return await asyncio.shield(connection.ended)
