"""Publishers whose every message can be recognised afterwards, and what must be true once all is over."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from caudal.core import db
from caudal.mqtt import packets as pk
from caudal.mqtt.loadclient import LoadFleet
from caudal.mqtt.loadstats import Totals
from caudal.telemetry import ledger
from caudal.telemetry.others import digest

BEGAN = datetime(2025, 10, 7, tzinfo=UTC)
TENANT = "crash"


class CountedTotals(Totals):
    """Totals that wake whoever waits for a number of acknowledgements."""

    def __init__(self) -> None:
        self._acked = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        super().__init__()

    @property
    def acked(self) -> int:
        return self._acked

    @acked.setter
    def acked(self, value: int) -> None:
        self._acked = value
        for wanted, future in self._waiting:
            if value >= wanted and not future.done():
                future.set_result(None)
        self._waiting = [waiting for waiting in self._waiting if not waiting[1].done()]

    async def reach(self, wanted: int, timeout: float = 60.0) -> None:
        """Return once that many messages were acknowledged. Raises TimeoutError."""
        if self._acked >= wanted:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, future))
        async with asyncio.timeout(timeout):
            await future


@dataclass
class Sent:
    """One message as its publisher knows it: what it must leave behind once it is acknowledged."""

    topic: str
    payload: bytes
    rows: list[tuple[str, str, datetime, float]]
    letters: int = 0


@dataclass
class Load:
    """A fleet that publishes until told to stop. Some of it is rubbish, some comes twice."""

    port: int
    seed: int
    clients: int = 8
    rate: float = 1500
    prefix: str = "d"
    sent: list[list[Sent]] = field(default_factory=list)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.totals = CountedTotals()
        connects = [
            pk.Connect(
                f"{self.prefix}{number}", version=5 if number % 2 else 4, keep_alive=5, clean_start=True
            )
            for number in range(self.clients)
        ]
        self.fleet = LoadFleet("127.0.0.1", self.port, connects, window=100, reconnect=True)
        self.fleet.totals = self.totals
        for client in self.fleet.clients:
            client.totals = self.totals
        self.sent = [[] for _ in connects]
        self._task: asyncio.Task[Totals] | None = None

    async def start(self) -> None:
        """Connect and begin."""
        await self.fleet.open()
        sources = [self._source(number) for number in range(self.clients)]
        self._task = asyncio.create_task(self.fleet.run(sources, rate=self.rate), name="load")

    async def finish(self, timeout: float = 60.0) -> None:
        """Stop publishing, and return once everything is acknowledged. Raises TimeoutError."""
        self.stopping = True
        assert self._task is not None
        try:
            async with asyncio.timeout(timeout):
                await self._task
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.fleet.close()

    def _source(self, client: int) -> Iterator[tuple[str, bytes]]:
        chance = random.Random(f"{self.seed}/{client}")
        device = f"{self.prefix}{client}"
        mine = self.sent[client]
        number = 0
        while not self.stopping:
            number += 1
            if mine and chance.random() < 0.05:
                # Published a second time, as devices do after they lost an answer.
                again = chance.choice(mine[-50:])
                message = Sent(again.topic, again.payload, again.rows, 0 if not again.letters else -1)
            else:
                message = _message(device, number, chance)
            mine.append(message)
            yield message.topic, message.payload


def _message(device: str, number: int, chance: random.Random) -> Sent:
    topic = f"traksense/{TENANT}/site/{device}/telem"
    if chance.random() < 0.02:
        return Sent(topic, b'{"number": %d, "device": "%s", ' % (number, device.encode()), [], 1)
    at = BEGAN + timedelta(milliseconds=number)
    values = {f"p{point}": float(chance.randrange(1_000_000)) for point in range(chance.randint(1, 3))}
    points: list[dict[str, Any]] = [{"name": name, "t": "num", "v": value} for name, value in values.items()]
    bad = chance.random() < 0.02
    if bad:
        points.append({"name": "bad", "t": "num", "v": "warm"})
    body = {"schema": "v1", "ts": at.isoformat(), "points": points}
    rows = [(device, name, at, value) for name, value in values.items()]
    return Sent(topic, json.dumps(body).encode(), rows, int(bad))


async def prove(url: str, loads: list[Load], note: str, *, broker: bool = False) -> dict[str, int]:
    """Acknowledged is stored, known to be stored, or a dead letter; nothing is there twice; the sums agree.

    `note` (the seed) is in every failure. A `broker` between hands on what a publisher sent again, and after
    a restart what it had handed on before, as messages of their own: then rubbish leaves a letter each time.
    Returns counts for whoever wants to see them.
    """
    pool = await db.open_pool(url, minimum=1, maximum=2)
    try:
        rows = await pool.fetch(
            "select device_id, point_id, ts, v_num from ts_measure where tenant_id = $1", TENANT
        )
        letters = await pool.fetch("select digest, count(*) as n from caudal.dead_letter group by 1")
        async with pool.acquire() as connection:
            lines = await ledger.sums(connection)
            checks = await ledger.verify(connection)
    finally:
        await pool.close()
    stored = {(row["device_id"], row["point_id"], row["ts"]): row["v_num"] for row in rows}
    assert len(stored) == len(rows), f"{note}: a row is there twice"
    dead = {bytes(row["digest"]): row["n"] for row in letters}
    acked = lost = 0
    sent_keys = set()
    published: dict[bytes, int] = {}
    for load in loads:
        for client, messages in zip(load.fleet.clients, load.sent, strict=True):
            assert client.acked is not None
            for index, message in enumerate(messages):
                sent_keys.update(row[:3] for row in message.rows)
                if message.letters:
                    mark = digest(message.topic, message.payload)
                    published[mark] = published.get(mark, 0) + 1
                if index >= len(client.acked) or not client.acked[index]:
                    continue
                acked += 1
                missing = [row for row in message.rows if stored.get(row[:3]) != row[3]]
                no_letter = message.letters and digest(message.topic, message.payload) not in dead
                lost += bool(missing or no_letter)
    assert lost == 0, f"{note}: {lost} of {acked} acknowledged messages are not there"
    assert stored.keys() <= sent_keys, f"{note}: rows that nobody sent"
    # What is no good leaves one letter each time it is published, and none for being sent again.
    twice = {mark: n for mark, n in dead.items() if n > published.get(mark, 0)}
    assert broker or not twice, f"{note}: {len(twice)} dead letters are there twice"
    assert all(line.agrees for line in lines), f"{note}: the ledger's sums do not agree"
    wrong = [check for check in checks if not check.agrees]
    assert not wrong, f"{note}: the ledger and the tables do not agree: {wrong}"
    return {"acked": acked, "rows": len(rows), "dead": sum(dead.values())}
