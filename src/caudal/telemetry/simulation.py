"""What a simulated fleet publishes: values that look measured, in any format, faults as ordered. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import msgspec

from caudal.telemetry.topics import Kind, Scheme

DAY: Final = 86_400.0
Message: TypeAlias = tuple[str, bytes]
Maker: TypeAlias = Callable[["Machine", str, float, Mapping[str, Any], int], object]

FAULTS: Final[Mapping[str, str]] = {
    "late": "measured an hour to a year ago",
    "duplicated": "published twice",
    "malformed": "no JSON, or a value of the wrong type",
    "ahead": "measured by a clock that is an hour ahead",
}


class Faults(msgspec.Struct, frozen=True):
    """Parts (0 to 1) of the messages that have each fault."""

    late: float = 0.0
    duplicated: float = 0.0
    malformed: float = 0.0
    ahead: float = 0.0


class Machine:
    """One device: a chiller with a temperature of daily shape, a counter that grows, and a compressor."""

    def __init__(self, site: int, number: int, seed: int) -> None:
        self.name = f"chiller-{number:04}"
        self.site = f"site-{site:02}"
        self._number = number
        self._chance = random.Random(f"{seed}/{site}/{number}")  # noqa: S311 - guards nothing
        self._level = self._chance.uniform(4.0, 9.0)
        self._swing = self._chance.uniform(1.0, 3.0)
        self._phase = self._chance.uniform(-2, 2) * 3600
        self._energy = self._chance.uniform(1_000, 90_000)
        self._power = self._chance.uniform(12, 45)
        self._drift = 0.0
        self._last: float | None = None

    def mac(self, tenant: str) -> str:
        """Its address as a gateway of `tenant`: a MAC is one tenant's alone."""
        # Locally administered, so that it is no real box's.
        whose = hashlib.sha256(tenant.encode()).digest()[:2]
        return b"".join((b"\x02", whose, self._number.to_bytes(3, "big"))).hex(":")

    def measure(self, at: float) -> dict[str, float | bool | str]:
        """The points at `at` (Unix seconds); each call moves the machine on."""
        chance = self._chance
        warmth = math.sin((at + self._phase - 9 * 3600) / DAY * 2 * math.pi)
        # Noise that remembers itself: a temperature does not jump.
        self._drift = 0.95 * self._drift + chance.gauss(0, 0.05)
        temperature = self._level + self._swing * warmth + self._drift
        running = temperature > self._level - 0.5 * self._swing
        power = self._power * (1 + 0.3 * warmth) * (1 if running else 0.05) * chance.uniform(0.97, 1.03)
        if self._last is not None:
            # A machine whose clock jumps does not consume for the time it skipped.
            self._energy += power * min(max(at - self._last, 0.0), 900.0) / 3600
        self._last = at
        return {
            "temp_water": round(temperature, 2),
            "temp_return": round(temperature + 4 + 2 * (power / self._power), 2),
            "power_kw": round(power, 2),
            "energy_kwh": round(self._energy, 3),
            "compressor_1_on": running,
            "status": "RUN" if running else "STOP",
        }


UNITS: Final = {"temp_water": "°C", "temp_return": "°C", "power_kw": "kW", "energy_kwh": "kWh"}


def _v1(machine: Machine, tenant: str, at: float, values: Mapping[str, Any], points: int) -> object:
    listed = [
        {
            "name": name,
            "t": "bool" if isinstance(value, bool) else "enum" if isinstance(value, str) else "num",
            "v": value,
            **({"u": UNITS[name]} if name in UNITS else {}),
        }
        for name, value in values.items()
    ][:points]
    level = values["temp_water"]
    extra = [{"name": f"p{n}", "t": "num", "v": round(level + n / 7, 3)} for n in range(points - len(listed))]
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return {"schema": "v1", "ts": moment, "points": listed + extra, "meta": {"fw": "2.4.1"}}


def _senml(machine: Machine, tenant: str, at: float, values: Mapping[str, Any], points: int) -> object:
    records: list[dict[str, Any]] = [
        {"n": name, "v": value, **({"u": UNITS[name]} if name in UNITS else {})}
        for name, value in values.items()
        if not isinstance(value, bool | str)
    ][:points]
    return [{"bn": machine.name, "bt": round(at, 3)}, *records]


def _sensors(machine: Machine, tenant: str, at: float, values: Mapping[str, Any], points: int) -> object:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    listed = [
        {"sensor_id": name, "value": value, **({"unit": UNITS[name]} if name in UNITS else {})}
        for name, value in values.items()
        if not isinstance(value, str)
    ][:points]
    return {"device_id": machine.name, "timestamp": moment, "sensors": listed}


def _parsec(machine: Machine, tenant: str, at: float, values: Mapping[str, Any], points: int) -> object:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return {"di1": int(values["compressor_1_on"]), "di2": 0, "rssi": -70, "ts": moment}


def _je02(machine: Machine, tenant: str, at: float, values: Mapping[str, Any], points: int) -> object:
    running = int(values["compressor_1_on"])
    data = {"TS": int(at), "INPUT1": running, "INPUT2": 0, "VAR0": round(values["temp_water"] * 10)}
    return {"DATA": {**data, "VAR1": 550, "WRSSI": -64, "UPTIME": int(at) % 10**6, "CNTSERR": 0, "RELE": 0}}


def _leituras(machine: Machine, tenant: str, at: float, values: Mapping[str, Any], points: int) -> object:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    listed = [
        {"dispositivo_codigo": name, "valor": value, "unidade": UNITS[name]}
        for name, value in values.items()
        if name in UNITS
    ]
    level = values["temp_water"]
    extra = [
        {"dispositivo_codigo": f"M{n}", "valor": round(level + n / 7, 3), "unidade": "kWh"}
        for n in range(points - len(listed))
    ]
    return {"gateway_mac": machine.mac(tenant), "timestamp": moment, "leituras": (listed + extra)[:points]}


FORMATS: Final[Mapping[str, tuple[Kind, Maker]]] = {
    "v1": ("telem", _v1),
    "parsec_v1": ("telem", _parsec),
    "je02_v1": ("telem", _je02),
    "senml": ("asset", _senml),
    "sensors": ("asset", _sensors),
    "leituras": ("meter", _leituras),
}
"""Formats that can be simulated: the kind of topic, and the maker of the payload's document."""


def publish(
    machine: Machine,
    tenant: str,
    *,
    clock: Callable[[], float],
    topics: Scheme,
    form: str = "v1",
    points: int = 6,
    faults: Faults | None = None,
    seed: int = 0,
    count: int | None = None,
) -> Iterator[Message]:
    """What `machine` publishes, one message each time it is asked, measured when `clock` (Unix seconds) says.

    `count` ends it after so many messages; with the same seed and clock it is the same again. Raises
    ValueError when `topics` has none for the format, or a name cannot stand on it.
    """
    kind, make = FORMATS[form]
    topic = topics.build(kind, tenant=tenant, site=machine.site, device=machine.name, mac=machine.mac(tenant))
    return _messages(
        machine, tenant, topic, make, clock, points, faults or Faults(),
        random.Random(f"{seed}/{machine.site}/{machine.name}"),  # noqa: S311 - guards nothing
        count,
    )  # fmt: skip


def _messages(
    machine: Machine, tenant: str, topic: str, make: Maker, clock: Callable[[], float], points: int,
    faults: Faults, chance: random.Random, count: int | None,
) -> Iterator[Message]:  # fmt: skip
    sent = 0
    before = 0.0
    while count is None or sent < count:
        # As fast as can be, but never two measurements of one millisecond: they would contradict each other.
        at = before = max(clock(), before + 0.001)
        if chance.random() < faults.late:
            at -= chance.uniform(3600, 365 * DAY)
        elif chance.random() < faults.ahead:
            at += 3600
        payload = json.dumps(make(machine, tenant, at, machine.measure(at), points)).encode()
        if chance.random() < faults.malformed:
            payload = chance.choice((payload[: len(payload) // 2], b"\xff\xfe\x00", b'{"ts": 1, "temp": 7}'))
        sent += 1
        yield topic, payload
        if chance.random() < faults.duplicated and (count is None or sent < count):
            sent += 1
            yield topic, payload


def fleet(devices: int, sites: int, seed: int) -> list[Machine]:
    """`devices` machines, spread over `sites`."""
    return [Machine(number % max(1, sites) + 1, number + 1, seed) for number in range(devices)]
