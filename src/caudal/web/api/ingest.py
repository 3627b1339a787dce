"""Telemetry over HTTP: the same formats, ledger and dead letters as over MQTT, through the same pipeline.

202 comes after the commit, and says of each message what it came to; a dead letter is an outcome, no error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from litestar import Request, post
from litestar.params import PathParameter, QueryParameter

from caudal.core.errors import Forbidden, InvalidInput, RateLimited, TooLarge
from caudal.mqtt.ports import Principal as Sender
from caudal.mqtt.topics import valid_name
from caudal.registry import access
from caudal.registry.access import Access, AccessSettings, Client
from caudal.registry.devices_http import DevicePrincipal
from caudal.registry.permissions import Action
from caudal.telemetry import bodies
from caudal.telemetry.envelope import Envelope
from caudal.telemetry.model import Limits, Reject
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.settings import IngestSettings
from caudal.telemetry.submit import Outcome, submit
from caudal.telemetry.topics import Route
from caudal.web.api.mqtt_auth import BROKER, from_broker
from caudal.web.door import Door
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"pipeline", "rules", "access_settings", "ingest_settings"})
SEND = [requires(Action.TELEMETRY_WRITE)]
PACKED_MAX = 8 << 20
UNPACKED_MAX = 32 << 20
MESSAGES_MAX = 10_000
TIMEOUT_SECONDS = 30.0
# Unpacking and taking apart this much is worth a thread.
THREAD_BYTES = 64 << 10

Name: TypeAlias = Annotated[str, PathParameter(min_length=1, max_length=256)]
Site: TypeAlias = Annotated[
    str, QueryParameter(min_length=1, max_length=256, description="The site, as on the topic")
]
Result: TypeAlias = Literal["stored", "duplicate", "held", "empty", "partly", "dead", "refused"]


class Fault(msgspec.Struct):
    """Why a message, or a part of it, became a dead letter or was refused."""

    reason: str
    sentence: str
    pointer: str = ""


class MessageOutcome(msgspec.Struct):
    """What one message came to; `partly`: some of its parts became dead letters. Counts are of its parts."""

    index: int
    result: Result
    stored: int = 0
    duplicates: int = 0
    held: int = 0
    dead: int = 0
    errors: list[Fault] = []


class Accepted(msgspec.Struct):
    """What a body came to: committed when this is read. Refused messages are the caller's to look at."""

    messages: int
    refused: int
    outcomes: list[MessageOutcome]


Request_: TypeAlias = Request[Any, Any, Any]


async def _body(request: Request_) -> bytes:
    packed = await request.body()
    encoding = request.headers.get("content-encoding", "")
    if len(packed) < THREAD_BYTES:
        return bodies.unpack(packed, encoding, UNPACKED_MAX)
    return await asyncio.to_thread(bodies.unpack, packed, encoding, UNPACKED_MAX)


def _ndjson(request: Request_) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("application/x-ndjson", "application/jsonl", "application/ndjson")


def _outcome(index: int, came: Outcome) -> MessageOutcome:
    tally = came.tally
    good: Result = (
        "stored" if tally.stored else "held" if tally.held else "duplicate" if tally.duplicates else "empty"
    )
    result: Result = good if not came.dead else "dead" if good == "empty" else "partly"
    return MessageOutcome(
        index, result, tally.stored, tally.duplicates, tally.held, tally.dead,
        [Fault(dead.reason, dead.sentence, dead.pointer) for dead in came.dead],
    )  # fmt: skip


async def _in_time(request: Request_, pipeline: Pipeline, principal: Caller) -> None:
    """That the tenant's messages are not used up: what a device on MQTT is not read for, is said here.

    Raises RateLimited, as late as any refusal. A body is taken whole, and its excess paid off by waiting.
    """
    wait = pipeline.overdrawn(principal.tenant)
    if wait:
        await request.app.state.gate.hold(principal.tenant_id)
        raise RateLimited("Your tenant's messages are used up for the moment. Wait.", retry_after=wait)


async def _send(pipeline: Pipeline, sender: Sender, wanted: Sequence[tuple[str, bytes] | Fault]) -> Accepted:
    """Submit what is not refused; outcomes in order."""
    chosen = [(index, item) for index, item in enumerate(wanted) if not isinstance(item, Fault)]
    came = await submit(
        pipeline, [(topic, payload, sender) for _, (topic, payload) in chosen], timeout=TIMEOUT_SECONDS
    )
    found: dict[int, MessageOutcome] = {
        index: _outcome(index, outcome) for (index, _), outcome in zip(chosen, came, strict=True)
    }
    for index, item in enumerate(wanted):
        if isinstance(item, Fault):
            found[index] = MessageOutcome(index, "refused", errors=[item])
    return Accepted(len(wanted), len(wanted) - len(chosen), [found[index] for index in range(len(wanted))])


class _Rights:
    """What a caller may send on. MACs name their account, so those of a body are looked up together."""

    def __init__(self, principal: Caller, rules: Access, macs: frozenset[str]) -> None:
        self._principal = principal
        self._rules = rules
        self._macs = macs

    def refusal(self, topic: str, route: Route | None) -> Fault | None:
        """Why not, or None."""
        if not valid_name(topic):
            return Fault("topic", "that is no topic to publish on")
        principal = self._principal
        if isinstance(principal, DevicePrincipal):
            if self._rules.may_publish(principal.client, topic):
                return None
            return Fault("topic", "the device may publish on its own topics alone")
        if route is None:
            return Fault("topic", "no topic template fits it")
        if route.mac is not None:
            mine = route.mac in self._macs
            return None if mine else Fault("unknown_device", "no gateway of this account has that MAC")
        if (route.tenant or self._rules.topic_tenant) != principal.tenant:
            return Fault("unknown_tenant", "the topic is of another account than the credentials")
        return None


async def _rights(principal: Caller, rules: Access, door: Door, routes: Sequence[Route | None]) -> _Rights:
    macs = {route.mac for route in routes if route is not None and route.mac is not None}
    if macs and not isinstance(principal, DevicePrincipal):
        async with door.read() as connection:
            rows = await connection.fetch("select mac from caudal.gateway where mac = any($1)", sorted(macs))
        macs = {row["mac"] for row in rows}
    return _Rights(principal, rules, frozenset(macs))


def _sender(principal: Caller) -> Sender:
    return principal.client if isinstance(principal, DevicePrincipal) else Sender(principal.actor)


async def _own(
    request: Request_, topic: str, pipeline: Pipeline, principal: Caller, rules: Access, door: Door
) -> Accepted:
    """Payloads of one topic: the body is one, or holds one a line."""
    await _in_time(request, pipeline, principal)
    body = await _body(request)
    payloads = list(bodies.lines(body)) if _ndjson(request) else [body]
    if len(payloads) > MESSAGES_MAX:
        raise TooLarge(f"At most {MESSAGES_MAX} messages at a time.")
    route = pipeline.topics.match(topic)
    refusal = (await _rights(principal, rules, door, [route])).refusal(topic, route)
    if refusal is not None:
        raise Forbidden(f"{refusal.sentence[:1].upper()}{refusal.sentence[1:]}.", code=refusal.reason)
    return await _send(pipeline, _sender(principal), [(topic, payload) for payload in payloads])


@post("/api/ingest/devices/{device:str}", guards=SEND, status_code=202, request_max_body_size=PACKED_MAX,
      opt={"problems": (400, 413)})  # fmt: skip
async def ingest_device(
    request: Request_,
    device: Name,
    pipeline: Given[Pipeline],
    principal: Caller,
    rules: Given[Access],
    door: Database,
    site: Site = "-",
) -> Accepted:
    """Telemetry of one device: the body is a payload of any format, or NDJSON with one a line."""
    for name in (device, site, principal.tenant):
        if not access.addressable(name):
            raise InvalidInput("A name of tenant, site or device cannot stand on a topic.")
    topic = rules.topic("telem", tenant=principal.tenant, site=site, device=device)
    if topic is None:
        raise InvalidInput("No topic of this installation is for telemetry of a device of this account.")
    return await _own(request, topic, pipeline, principal, rules, door)


@post("/api/ingest/gateways/{mac:str}", guards=SEND, status_code=202, request_max_body_size=PACKED_MAX,
      opt={"problems": (400, 413)})  # fmt: skip
async def ingest_gateway(
    request: Request_,
    mac: Name,
    pipeline: Given[Pipeline],
    principal: Caller,
    rules: Given[Access],
    door: Database,
) -> Accepted:
    """Readings of the meters behind a gateway: the body is a payload, or NDJSON with one a line."""
    known = access.split_mac(mac)
    if known is None:
        raise InvalidInput("mac: write it as aa:bb:cc:dd:ee:ff.")
    topic = rules.topic("meter", mac=known)
    if topic is None:
        raise InvalidInput("No topic of this installation is for readings of a gateway.")
    return await _own(request, topic, pipeline, principal, rules, door)


async def open_body(request: Request_, settings: IngestSettings) -> list[Envelope | Reject]:
    """The messages of a body, each as it is or with what is wrong with it. Raises InvalidInput, TooLarge."""
    body = await _body(request)
    limits = Limits(payload_bytes=settings.ingest_payload_max)

    def take_apart() -> list[Envelope | Reject]:
        return bodies.envelopes(body, ndjson=_ndjson(request), limits=limits, most=MESSAGES_MAX)

    return take_apart() if len(body) < THREAD_BYTES else await asyncio.to_thread(take_apart)


def refused(reject: Reject) -> Fault:
    """A refusal in the API's words."""
    return Fault(reject.reason, reject.sentence, reject.pointer)


@post("/api/ingest", guards=SEND, status_code=202, request_max_body_size=PACKED_MAX,
      opt={"problems": (400, 413)})  # fmt: skip
async def ingest(
    request: Request_,
    pipeline: Given[Pipeline],
    principal: Caller,
    rules: Given[Access],
    ingest_settings: Given[IngestSettings],
    door: Database,
) -> Accepted:
    """Messages with their topics, `{topic, payload, client_id?, ts?}`: one, an array of them, or NDJSON.

    `payload` is an object, an array, or a string that holds what the device sent.
    """
    await _in_time(request, pipeline, principal)
    opened = await open_body(request, ingest_settings)
    routes = [pipeline.topics.match(item.topic) if isinstance(item, Envelope) else None for item in opened]
    rights = await _rights(principal, rules, door, routes)
    wanted: list[tuple[str, bytes] | Fault] = []
    for item, route in zip(opened, routes, strict=True):
        if isinstance(item, Reject):
            wanted.append(refused(item))
        else:
            wanted.append(rights.refusal(item.topic, route) or (item.topic, item.payload))
    return await _send(pipeline, _sender(principal), wanted)


@post("/api/ingest/emqx", guards=BROKER, status_code=202, request_max_body_size=PACKED_MAX,
      opt={"problems": (400, 401, 413, 503)})  # fmt: skip
async def ingest_emqx(
    request: Request_,
    pipeline: Given[Pipeline],
    access_settings: Given[AccessSettings],
    ingest_settings: Given[IngestSettings],
) -> Accepted:
    """What EMQX's webhook posts, for all accounts: the broker has checked who may publish on which topic."""
    from_broker(request, access_settings)
    opened = await open_body(request, ingest_settings)
    wanted: list[tuple[str, bytes] | Fault] = [
        (item.topic, item.payload) if isinstance(item, Envelope) else refused(item) for item in opened
    ]
    return await _send(pipeline, Client(name="emqx", role="backend"), wanted)


ROUTES = [ingest_device, ingest_gateway, ingest, ingest_emqx]
