"""Health that really asks the parts: each check contacts its part, with a time limit, and says how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Literal

import asyncpg
import msgspec

Check = Callable[[], Awaitable[object]]
Status = Literal["UP", "DOWN"]
SECONDS = 2.0


class Component(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part: whether it answered, in how many milliseconds, and if not, what kind of error it was."""

    status: Status
    latency_ms: float
    error: str = ""


class Report(msgspec.Struct, frozen=True):
    """UP only when every component is."""

    status: Status
    components: dict[str, Component]


class Health:
    """The checks of one process, by component. `database` is always among them."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._checks: dict[str, Check] = {"database": lambda: pool.fetchval("select 1")}
        self._running: asyncio.Task[Report] | None = None

    def add(self, component: str, check: Check) -> None:
        """Have `check` asked too: it contacts its part and raises when that does not answer."""
        self._checks[component] = check

    async def report(self) -> Report:
        """Ask every part now; who asks while others wait shares their answer."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._ask_all(), name="health")
        return await asyncio.shield(self._running)

    async def _ask_all(self) -> Report:
        names = list(self._checks)
        components = await asyncio.gather(*(self._ask(self._checks[name]) for name in names))
        up = all(component.status == "UP" for component in components)
        return Report("UP" if up else "DOWN", dict(zip(names, components, strict=True)))

    @staticmethod
    async def _ask(check: Check) -> Component:
        started = perf_counter()
        status: Status = "UP"
        error = ""
        try:
            async with asyncio.timeout(SECONDS):
                await check()
        except Exception as failure:
            # The kind alone: texts of drivers carry hosts and user names, and health is open to all.
            status, error = "DOWN", type(failure).__name__
        return Component(status, round((perf_counter() - started) * 1000, 2), error)
