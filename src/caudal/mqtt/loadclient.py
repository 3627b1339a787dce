"""A publisher that costs little, for simulations, replays and benchmarks: many connections, one loop.

Packets are put together from parts that are kept, written many at a time, and acknowledgements are counted
by scanning what comes back. It knows which messages were acknowledged, and how long that took. QoS 0 and 1.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterable, Sequence
from time import perf_counter

from . import packets as pk
from .loadconnection import LoadClient, LoadError, Message
from .loadstats import Totals

__all__ = ["LoadClient", "LoadError", "LoadFleet", "Message"]

TICK = 0.005


class LoadFleet:
    """Connections that publish side by side, at a rate of the whole or as fast as acknowledgements come."""

    def __init__(
        self,
        host: str,
        port: int,
        connects: Sequence[pk.Connect],
        *,
        tls: ssl.SSLContext | None = None,
        qos: int = 1,
        window: int = 200,
        keep: bool = True,
        reconnect: bool = False,
    ) -> None:
        self.totals = Totals()
        self.clients = [LoadClient(c, self.totals, qos=qos, window=window, keep=keep) for c in connects]
        self._host = host
        self._port = port
        self._tls = tls
        self._reconnect = reconnect
        self._tasks: set[asyncio.Task[None]] = set()
        self._returning: set[LoadClient] = set()

    async def open(self, at_once: int = 200) -> None:
        """Connects all, `at_once` at a time. LoadError or OSError of the first that fails."""
        waiting = iter(self.clients)

        async def work() -> None:
            for client in waiting:
                client.lost = self._lost
                await client.open(self._host, self._port, self._tls)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(self.clients))):
                group.create_task(work(), name="load connect")

    async def run(
        self,
        sources: Sequence[Iterable[Message]],
        *,
        rate: float | None = None,
        seconds: float | None = None,
        patience: float = 30.0,
    ) -> Totals:
        """Publishes a source on each connection until all are exhausted, or for `seconds`.

        `rate` is in messages a second for the fleet, spread evenly over connections and time. Then waits up
        to `patience` seconds for acknowledgements that are missing. Keeps connections alive meanwhile.
        """
        for client, source in zip(self.clients, sources, strict=True):
            client.credit = 0 if rate is not None else float("inf")
            client.feed(source)
        helpers = [asyncio.create_task(self._ping(), name="load pings")]
        if rate is not None:
            helpers.append(asyncio.create_task(self._spend(rate), name="load rate"))
        everyone = asyncio.gather(*(client.finished() for client in self.clients))
        try:
            done, _ = await asyncio.wait({everyone}, timeout=seconds)
            if not done:
                for client in self.clients:
                    client.stop_feeding()
                await asyncio.wait({everyone}, timeout=patience)
        finally:
            everyone.cancel()
            for task in helpers:
                task.cancel()
            await asyncio.gather(everyone, *helpers, return_exceptions=True)
        return self.totals

    async def close(self, *, politely: bool = True) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self.clients:
            client.close(politely=politely)

    async def _spend(self, rate: float) -> None:
        """Hands out credit, one message a connection in turn, as time passes."""
        clients = self.clients
        began = perf_counter()
        given = turn = 0
        while True:
            await asyncio.sleep(TICK)
            due = int((perf_counter() - began) * rate)
            # After a late tick everybody has the same again, and the remainder goes on in turn.
            each, rest = divmod(due - given, len(clients))
            given = due
            for number in range(len(clients) if each else rest):
                client = clients[(turn + number) % len(clients)]
                # One that cannot send for a while does not save up more than a window full.
                client.credit = min(client.credit + each + (number < rest), client.window)
                client.pump()
            turn = (turn + rest) % len(clients)

    async def _ping(self) -> None:
        shortest = min((c.connect.keep_alive for c in self.clients if c.connect.keep_alive), default=60)
        while True:
            await asyncio.sleep(max(0.5, shortest / 2))
            for client in self.clients:
                client.ping()

    def _lost(self, client: LoadClient) -> None:
        if not self._reconnect:
            self.totals.lost += 1
            client.stop_feeding()
            client.give_up()
            return
        if client in self._returning:
            return
        self._returning.add(client)
        task = asyncio.get_running_loop().create_task(self._again(client), name="load reconnect")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(self, client: LoadClient) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - spreads a herd, guards nothing
            try:
                await client.open(self._host, self._port, self._tls, timeout=5)
            except (OSError, TimeoutError, LoadError):
                continue
            if not client.is_open:
                continue
            self.totals.reconnects += 1
            self._returning.discard(client)
            return
