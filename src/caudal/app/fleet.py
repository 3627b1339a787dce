"""Devices that are not there: a simulated fleet, a recording played back, and the demonstration's."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from caudal.core import logs
from caudal.core.errors import InvalidInput, Unavailable
from caudal.core.lifecycle import Lifecycle
from caudal.core.readiness import announce
from caudal.core.settings import load
from caudal.mqtt import packets as pk
from caudal.mqtt.loadclient import LoadError, LoadFleet, Message
from caudal.mqtt.loadstats import Totals
from caudal.mqtt.settings import client_tls
from caudal.registry.settings import PeopleSettings
from caudal.telemetry.settings import IngestSettings
from caudal.telemetry.simulation import Faults, Machine, fleet, publish
from caudal.telemetry.topics import Scheme

log = logs.get("fleet")

TENANT = PeopleSettings().default_tenant
URL_VARIABLE = "FLEET_MQTT_URL"


class Summary(msgspec.Struct):
    """What was published and what came of it. Latencies, publish to acknowledgement, in milliseconds."""

    sent: int
    acked: int
    refused: int
    unacked: int
    resent: int
    reconnects: int
    seconds: float
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, totals: Totals, seconds: float) -> Summary:
        """Made of a fleet's totals."""
        p50, p95, p99 = (round(totals.latencies.percentile(part) * 1000, 1) for part in (0.5, 0.95, 0.99))
        return cls(
            totals.sent, totals.acked, sum(totals.refused.values()), totals.unacked, totals.resent,
            totals.reconnects, round(seconds, 2), round(totals.acked / max(seconds, 0.001), 1), p50, p95, p99,
        )  # fmt: skip


def sources(machines: Sequence[Machine], tenant: str, scheme: Scheme, **how: Any) -> list[Iterable[Message]]:
    """What each machine publishes; `how` as `simulation.publish` has it. Raises InvalidInput."""
    try:
        return [publish(machine, tenant, topics=scheme, **how) for machine in machines]
    except ValueError as error:
        text = str(error)
        raise InvalidInput(f"{text[:1].upper()}{text[1:]}. Name another tenant or format.") from None


async def connect(
    url: str, names: Sequence[str], *, qos: int = 1, window: int = 200, reconnect: bool = True
) -> LoadFleet:
    """A connection for each name. Raises InvalidInput (the address), Unavailable (nobody, or refused)."""
    wrong = InvalidInput(f"{url!r:.80} is no address such as mqtt://user:password@host:1883.")
    try:
        address = urlsplit(url)
        port = address.port
    except ValueError:
        raise wrong from None
    if address.scheme not in ("mqtt", "mqtts") or not address.hostname or port == 0:
        raise wrong
    secure = address.scheme == "mqtts"
    password = unquote(address.password).encode() if address.password else None
    connects = [
        pk.Connect(
            client_id=name, version=5, keep_alive=60,
            username=unquote(address.username) if address.username else None, password=password,
        )
        for name in names
    ]  # fmt: skip
    made = LoadFleet(
        address.hostname, address.port or (8883 if secure else 1883), connects,
        tls=client_tls(None, None, None) if secure else None, qos=qos, window=window, keep=False,
        reconnect=reconnect,
    )  # fmt: skip
    try:
        await made.open()
    except* (OSError, TimeoutError, LoadError) as errors:
        first = errors.exceptions[0]
        await made.close()
        raise Unavailable(
            f"Cannot publish at {address.hostname}:{address.port}: {first}. Is it up, and may you publish?"
        ) from None
    return made


async def run(
    url: str,
    names: Sequence[str],
    sources: Sequence[Iterable[Message]],
    *,
    rate: float | None = None,
    seconds: float | None = None,
    qos: int = 1,
    progress: Callable[[int, int], None] = lambda _acked, _sent: None,
    total: int | None = None,
) -> Summary:
    """Publish each source under its name until all are exhausted, or for `seconds`; `rate` is for all."""
    made = await connect(url, names, qos=qos)
    began = time.monotonic()

    async def watch() -> None:
        while True:
            progress(made.totals.acked, total or made.totals.sent)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch(), name="progress")
    try:
        totals = await made.run(sources, rate=rate, seconds=seconds)
        return Summary.of(totals, time.monotonic() - began)
    finally:
        watching.cancel()
        await made.close()


async def play(
    url: str, name: str, source: Iterable[Message], pauses: Iterable[float],
    progress: Callable[[int, int], None] = lambda _acked, _sent: None,
) -> Summary:  # fmt: skip
    """Publish `source` as one device, each message after its pause (seconds)."""
    made = await connect(url, [name])
    (client,) = made.clients
    began = due = time.monotonic()
    try:
        client.credit = 0
        client.feed(source)
        for pause in pauses:
            due += pause
            # By the clock and not by the last message, so that small delays do not add up.
            if (left := due - time.monotonic()) > 0:
                client.pump()
                await asyncio.sleep(left)
                client.ping()
            client.credit += 1
            progress(made.totals.acked, made.totals.sent)
        client.pump()
        client.credit = float("inf")
        client.pump()
        async with asyncio.timeout(30):
            await client.finished()
    except TimeoutError:
        log.warning("not everything was acknowledged in time")
    finally:
        await made.close()
    return Summary.of(made.totals, time.monotonic() - began)


DEMO_SITES, DEMO_DEVICES, DEMO_SEED = 3, 12, 7
DEMO_STEP = 300.0
"""Seconds between the samples of the history that the demonstration begins with."""
DEMO_PERIOD = 5.0
"""Seconds between a device's messages from then on."""


def _history(machine: Machine, scheme: Scheme, now: float, *, ends: float = 0.0) -> Iterable[Message]:
    """A day of it, up to `ends` seconds ago."""
    instants = iter(
        [now - age * DEMO_STEP for age in range(int(86_400 / DEMO_STEP), int(ends / DEMO_STEP), -1)]
    )
    count = int(86_400 / DEMO_STEP) - int(ends / DEMO_STEP)
    return publish(machine, TENANT, clock=lambda: next(instants), topics=scheme, seed=DEMO_SEED, count=count)


def demo_sources(machines: Sequence[Machine], scheme: Scheme, now: float) -> list[Iterable[Message]]:
    """Each machine's day of history and then what it measures; one has gone silent, one sends rubbish."""
    made: list[Iterable[Message]] = []
    for number, machine in enumerate(machines):
        if number == len(machines) - 1:
            made.append(_history(machine, scheme, now, ends=2 * 3600))
            continue
        rubbish = Faults(malformed=0.02) if number == len(machines) - 2 else None
        live = publish(machine, TENANT, clock=time.time, topics=scheme, faults=rubbish, seed=DEMO_SEED)
        made.append(chain(_history(machine, scheme, now), live))
    return made


async def start_demo(life: Lifecycle, environ: Mapping[str, str] = os.environ) -> None:
    """Publish as the demonstration's fleet for as long as the process lives."""
    machines = fleet(DEMO_DEVICES, DEMO_SITES, DEMO_SEED)
    made = await connect(environ[URL_VARIABLE], [f"demo-{machine.name}" for machine in machines])
    life.on_stop("fleet", made.close)
    settings = load(IngestSettings, environ)
    scheme = Scheme(settings.topic_templates, settings.topic_tenant)
    for client, source in zip(made.clients, demo_sources(machines, scheme, time.time()), strict=True):
        client.feed(source)

    async def go() -> None:
        # The history at once; from then on each in its turn, spread over the period.
        for client in made.clients:
            client.credit = 86_400 / DEMO_STEP
            client.pump()
        while True:
            for client in made.clients:
                await asyncio.sleep(DEMO_PERIOD / len(made.clients))
                client.credit = min(client.credit + 1, 86_400 / DEMO_STEP)
                client.pump()
                client.ping()

    life.spawn("demo fleet", go())
    await announce(life, environ, {})
    log.info("the fleet publishes", devices=len(machines))
