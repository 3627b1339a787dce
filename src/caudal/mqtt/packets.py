"""The control packets, one class each. What only MQTT 5 has is absent (None, 0) when 3.1.1 is spoken."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .properties import Properties


class Will(msgspec.Struct):
    """What is published for a client that goes away without a DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    props: Properties | None = None


class Connect(msgspec.Struct):
    """`version` is 4 (MQTT 3.1.1) or 5; `keep_alive` in seconds, 0 for none."""

    client_id: str
    version: int = 4
    clean_start: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    props: Properties | None = None


class Connack(msgspec.Struct):
    session_present: bool
    reason: int
    props: Properties | None = None


class Publish(msgspec.Struct):
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    props: Properties | None = None


class Ack(msgspec.Struct):
    """What PUBACK, PUBREC, PUBREL and PUBCOMP have in common."""

    packet_id: int
    reason: int = 0
    props: Properties | None = None


class Puback(Ack):
    pass


class Pubrec(Ack):
    pass


class Pubrel(Ack):
    pass


class Pubcomp(Ack):
    pass


class Subscription(msgspec.Struct):
    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct):
    packet_id: int
    subscriptions: list[Subscription]
    props: Properties | None = None


class Suback(msgspec.Struct):
    packet_id: int
    reasons: list[int]
    props: Properties | None = None


class Unsubscribe(msgspec.Struct):
    packet_id: int
    filters: list[str]
    props: Properties | None = None


class Unsuback(msgspec.Struct):
    """`reasons` is empty in 3.1.1, which gives none."""

    packet_id: int
    reasons: list[int]
    props: Properties | None = None


class Pingreq(msgspec.Struct):
    pass


class Pingresp(msgspec.Struct):
    pass


class Disconnect(msgspec.Struct):
    reason: int = 0
    props: Properties | None = None


class Auth(msgspec.Struct):
    reason: int = 0
    props: Properties | None = None


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
