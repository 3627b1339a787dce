"""What the MQTT layer asks of the rest: a sink for what comes in, hooks for who may do what.

The pipeline implements `Sink`, the registry `Hooks`; an `Origin` is whatever a message must be settled with:
a device's connection, the subscriber's connection to a broker, or a door of another kind (HTTP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Protocol, cast

import msgspec

from .properties import Properties


class Principal(msgspec.Struct, frozen=True):
    """Who has authenticated. `name` is unique on the platform (a user name, a certificate's subject).

    Sessions and client ids belong to a name, so that no one takes over a session by guessing another's client
    id. The registry subclasses it with what it knows (tenant, device, role).
    """

    name: str = ""


class Certificate(msgspec.Struct, frozen=True):
    """The client certificate the TLS layer has verified: DER's SHA-256 as lower-case hex, serial as hex."""

    subject: str
    common_name: str
    serial: str
    fingerprint: str


class ConnectInfo(msgspec.Struct, frozen=True):
    """What a CONNECT shows of who sends it. `version` is 4 (MQTT 3.1.1) or 5."""

    client_id: str
    username: str | None
    password: bytes | None
    address: str
    version: int
    tls: bool = False
    certificate: Certificate | None = None


class Origin(Protocol):
    """Where a message came from and where its acknowledgement goes."""

    @property
    def principal(self) -> Principal: ...
    @property
    def client_id(self) -> str: ...
    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None:
        """Acknowledges messages of this origin, in the order given. Never raises; a no-op when it is gone."""


class Patient(Origin, Protocol):
    """An origin that can be asked to wait: what it has not sent yet is not read between the two calls.

    The sink asks for it when one tenant has far more in flight than its share, or has used up its quota; it
    is let go once for each of the two.
    """

    def hold_back(self, *, quota: bool = False) -> None: ...
    def let_go(self, *, quota: bool = False) -> None: ...


def patient(origin: Origin) -> Patient | None:
    """`origin`, if it can be held back; a subscriber, which is one for many tenants, cannot."""
    return cast(Patient, origin) if hasattr(origin, "hold_back") else None


class Inbound(msgspec.Struct, gc=False, eq=False):
    """One PUBLISH received. `received` is in microseconds since the epoch, taken once for each chunk read.

    Not tracked by the garbage collector (hundreds of thousands live at once), so nothing an origin owns may
    refer back to one.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    origin: Origin
    received: int
    props: Properties | None = None


class Sink(Protocol):
    """Takes in what is published."""

    def submit(self, batch: list[Inbound]) -> None:
        """The PUBLISHes of one chunk read, in order. Never blocks, never raises; each is settled later."""

    @property
    def accepting(self) -> bool:
        """False while the process-wide budget (messages or bytes in flight) is used up."""

    def on_resume(self, callback: Callable[[], None]) -> None:
        """Registers what is called, in the loop's thread, each time `accepting` turns true again."""


class Hooks(Protocol):
    """Who may come in and what they may do. The synchronous ones are on the hot path: cheap, no I/O."""

    async def authenticate(self, info: ConnectInfo) -> Principal | int:
        """The principal, or the reason code of a refusal. If it raises, the answer is SERVER_UNAVAILABLE."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        """Remembered for each connection and topic until `Endpoint.recheck`."""

    def may_subscribe(self, principal: Principal, pattern: str) -> bool:
        """Asked once for each filter in a SUBSCRIBE."""

    def connected(self, principal: Principal, client_id: str, when: int) -> None:
        """CONNACK has gone out. `when` is in microseconds since the epoch."""

    def disconnected(self, principal: Principal, client_id: str, when: int, reason: int) -> None:
        """The connection is gone; `reason` 0 means that the client said goodbye."""


class Counters(msgspec.Struct):
    """Plain numbers for the metrics; those in `GAUGES` go up and down, the others only up."""

    connections: int = 0
    pending: int = 0  # sockets that have not finished their CONNECT
    paused: int = 0  # connections we do not read from at the moment
    sessions: int = 0  # with those whose client is away
    unsettled: int = 0  # messages received and not yet settled
    connects: int = 0
    connects_refused: int = 0
    disconnects: int = 0
    takeovers: int = 0
    keep_alive_timeouts: int = 0
    protocol_errors: int = 0
    pauses: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    publishes_in: int = 0
    publishes_refused: int = 0
    duplicates_in: int = 0  # QoS 2, recognised by packet identifier
    settled: int = 0
    publishes_out: int = 0
    acked_out: int = 0
    dropped_out: int = 0  # watchers too slow, queues full, expired
    over_quota: int = 0  # times a tenant went beyond its quota where it cannot be made to wait

    GAUGES = ("connections", "pending", "paused", "sessions", "unsettled")


_origin = attrgetter("origin")


def settle(messages: Sequence[Inbound], reason: int = 0) -> None:
    """Acknowledges messages of any number of origins: one write for each run of messages of one connection.

    `reason` is an MQTT 5 reason code; from 0x80 up the message counts as refused. A 3.1.1 client cannot be
    told so: its connection is closed, and it sends the message again.
    """
    for origin, run in groupby(messages, _origin):
        origin.settle(list(run), reason)
