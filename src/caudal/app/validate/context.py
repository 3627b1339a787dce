"""What every check is given: addresses, a tenant, and the few things that checks do again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from caudal.app.validate.ground import Ground
from caudal.app.validate.line import Ack, Address, Line
from caudal.app.validate.settings import Load, Target
from caudal.telemetry.topics import Kind

T = TypeVar("T")
SITE = "validation"
ANSWER_SECONDS = 15.0
"""How long anything may take that is no figure of its own."""

ROWS = """
select point_id, ts, v_num, v_bool, v_text, unit, qual, meta from ts_measure where device_id = $1
order by point_id, ts
"""
COMMITTED = "select coalesce(sum(messages), 0)::bigint from caudal.ledger where tenant_id = $1"
LETTERS = "select reason, payload from ingest_errors where topic = $1 order by id"


class Failed(Exception):
    """A check cannot go on; says why."""


class Context:
    """One run. `baseline` is what the counters said before anything was sent."""

    def __init__(self, target: Target, load: Load, ground: Ground, http: httpx.AsyncClient) -> None:
        self.target = target
        self.load = load
        self.ground = ground
        self.http = http
        self.acknowledged = 0
        """Messages of telemetry that were acknowledged, by whatever door."""
        self.baseline: dict[str, float] = {}
        self._address = Address.of(target.mqtt)
        self._line: Line | None = None
        self._lines: list[Line] = []
        self._tokens: dict[str, tuple[str, dict[str, str]]] = {}

    # -- names

    def device(self, name: str) -> str:
        """A device's name that no other run has."""
        return f"{self.ground.run}-{name}"

    def topic(self, device: str, kind: Kind = "telem") -> str:
        """Where a device (for `meter`: a MAC) publishes. Raises Failed where there is no such topic."""
        levels = {"mac": device} if kind == "meter" else {"site": SITE, "device": device}
        try:
            return self.target.scheme.build(kind, tenant=self.ground.tenant, **levels)
        except ValueError as error:
            raise Failed(f"{error}; the check needs one of its own tenant") from None

    def conversation(self, name: str) -> str:
        """A conversation's name that no other run has."""
        return f"validate-{self.ground.run}-{name}"

    # -- sending

    async def line(self, name: str, *, version: int = 5, address: Address | None = None) -> Line:
        """A connection of its own. Raises Refused, OSError, TimeoutError."""
        made = Line(address or self._address, f"validate-{self.ground.run}-{name}", version=version)
        self._lines.append(made)
        return await made.open()

    @property
    def address(self) -> Address:
        """Where MQTT is, and as whom we publish."""
        return self._address

    async def send(self, topic: str, payload: object, *, times: int = 1) -> Ack:
        """Publish at QoS 1 and wait for the PUBACK. Raises Failed when there is none, or a refusal."""
        if self._line is None or self._line.closed.is_set():
            self._line = await self.line("main")
        body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        before = await self._committed() if self.load.broker else 0
        ack = Ack(0, 0.0)
        for _ in range(times):
            ack = await self.settled(self._line.publish(topic, body))
        if self.load.broker:
            # It acknowledges first and passes on then; the ledger says when the message was here.
            await self.eventually(self._committed, lambda count: count >= before + times)
        return ack

    async def _committed(self) -> int:
        """Messages of the tenant in the ledger."""
        count: int = await self.ground.admin.fetchval(COMMITTED, self.ground.tenant_id)
        return count

    async def settled(self, future: asyncio.Future[Ack]) -> Ack:
        """The acknowledgement. Raises Failed when there is none, or a refusal."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ack = await future
        except TimeoutError:
            raise Failed(f"No acknowledgement within {ANSWER_SECONDS:.0f} s.") from None
        if ack.reason >= 0x80:
            raise Failed(f"A message was refused: 0x{ack.reason:02X}.")
        self.acknowledged += 1
        return ack

    # -- looking

    async def rows(self, device: str) -> list[Any]:
        """What people see of a device."""
        return list(await self.ground.reader.fetch(ROWS, device))

    async def letters(self, topic: str) -> list[Any]:
        """Dead letters of a topic: their reason (`code: sentence`) and payload, as people see them."""
        return list(await self.ground.reader.fetch(LETTERS, topic))

    async def eventually(
        self, look: Callable[[], Awaitable[T]], good: Callable[[T], bool], seconds: float = ANSWER_SECONDS
    ) -> T:
        """Look until it is good or the time is over; the last look."""
        until = asyncio.get_running_loop().time() + seconds
        while True:
            found = await look()
            if good(found) or asyncio.get_running_loop().time() > until:
                return found
            await asyncio.sleep(0.05)

    async def counters(self) -> dict[str, float]:
        """Samples of all metrics pages by name, labels summed up; and by name and label, `name{value}`."""
        sums: dict[str, float] = {}
        for url in self.target.metrics:
            answer = await self.http.get(url)
            answer.raise_for_status()
            for family in text_string_to_metric_families(answer.text):
                for sample in family.samples:
                    label = next(iter(sample.labels.values()), None)
                    for name in (sample.name, *([f"{sample.name}{{{label}}}"] if label is not None else [])):
                        sums[name] = sums.get(name, 0.0) + sample.value
        return sums

    async def signed_in(self, name: str = "one") -> tuple[str, dict[str, str]]:
        """A person's id, and the headers of their requests. Raises Failed."""
        if name not in self._tokens:
            number, username, password = await self.ground.person(name)
            answer = await self.http.post(
                f"{self.target.http}/auth/token", json={"username": username, "password": password}
            )
            if answer.status_code != 200:
                raise Failed(f"Signing in was answered with {answer.status_code}.")
            self._tokens[name] = number, {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return self._tokens[name]

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        who: str = "one",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """A request to the API as one of the tenant's people."""
        _, token = await self.signed_in(who)
        return await self.http.request(
            method, self.target.http + path, json=body, headers={**token, **(headers or {})}
        )

    async def history(self, conversation: str, *, who: str = "one") -> list[dict[str, Any]]:
        """The first messages of a conversation, as that person sees them. Raises Failed."""
        answer = await self.call("GET", f"/v1/conversations/{conversation}/messages?limit=100", who=who)
        if answer.status_code != 200:
            raise Failed(f"The history was answered with {answer.status_code}.")
        found: list[dict[str, Any]] = answer.json()["messages"]
        return found

    def close(self) -> None:
        """Hang up all lines."""
        for line in self._lines:
            line.close()


def v1(at: datetime, points: Mapping[str, float | bool | str], **more: object) -> dict[str, object]:
    """A payload of the format `v1`."""
    kinds = {bool: "bool", str: "text"}
    listed = [
        {"name": name, "t": kinds.get(type(value), "num"), "v": value} for name, value in points.items()
    ]
    return {"schema": "v1", "ts": at.isoformat(), "points": listed, **more}


def now() -> datetime:
    """The present, in whole milliseconds."""
    at = datetime.now(UTC)
    return at - timedelta(microseconds=at.microsecond % 1000)


def percentiles(values: list[float], prefix: str) -> dict[str, float]:
    """p50, p95, p99 and the greatest of seconds, in milliseconds; nothing of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        f"{prefix}_{name}_ms": round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 2)
        for name, part in parts.items()
    }
