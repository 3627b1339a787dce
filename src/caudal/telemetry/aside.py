"""Messages that wait for what they name: one query for many fetches or registers it, and the rest goes on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import asyncpg
import msgspec

from caudal.core import logs
from caudal.mqtt.ports import Inbound
from caudal.registry.directory import Directory
from caudal.registry.entries import Wanted

log = logs.get("pipeline")

AT_ONCE = 2_000
# A message may wait for its device, then for its points and units, then for what was evicted meanwhile.
TURNS = 3


class Need(msgspec.Struct, frozen=True):
    """What a message waits for."""

    mac: str | None = None
    devices: tuple[Wanted, ...] = ()
    units: frozenset[str] = frozenset()


class Aside:
    """Holds them, in order, and has `take` called with each (and how often it has waited) once it is there.

    Bounded by what may be in flight: a message that waits is in flight like any other.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._waiting: deque[tuple[Inbound, int, Need]] = deque()
        self._work = asyncio.Event()

    def put(self, message: Inbound, turn: int, need: Need) -> None:
        """Have `message` wait for `need`."""
        self._waiting.append((message, turn + 1, need))
        self._work.set()

    async def run(self, take: Callable[[Inbound, int], None], done: Callable[[], None]) -> None:
        """Fetch and register for ever; `done` is called after each round."""
        attempt = 0
        while True:
            await self._work.wait()
            # In rounds: a tenant that names a million devices does not hold up the others' first message.
            work = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
            if not self._waiting:
                self._work.clear()
            try:
                await self._resolve([need for _, _, need in work])
            except Exception as error:
                if not _database_is_away(error):
                    log.exception("the registry could not be read; messages wait")
                attempt += 1
                self._waiting.extendleft(reversed(work))
                self._work.set()
                await asyncio.sleep(min(2.0, 0.05 * 2.0 ** min(attempt, 6)))
                continue
            attempt = 0
            for message, turn, _ in work:
                take(message, turn)
            done()

    async def _resolve(self, needs: list[Need]) -> None:
        for mac in sorted({need.mac for need in needs if need.mac}):
            await self._directory.load_gateway(mac)
        await self._directory.ensure_units({unit for need in needs for unit in need.units})
        await self._directory.ensure({device for need in needs for device in need.devices})


def _database_is_away(error: BaseException) -> bool:
    return isinstance(
        error, OSError | asyncpg.InterfaceError | asyncpg.PostgresConnectionError | TimeoutError
    )
