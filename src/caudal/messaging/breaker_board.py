"""Breakers where people can see them: each worker writes how its own stand, and takes that back when it ends.

A breaker is what one worker saw of one account, so the table has a row for each of both. `at` is renewed
while the worker lives; a row that is older than `STALE` was left behind by one that was killed, and says
nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

import asyncpg

from caudal.core import logs
from caudal.messaging.limits import State

log = logs.get("connector")
STALE = 60.0
"""Seconds after which a row counts no more."""
RENEW = 20.0
MOST = 1000

_WRITE = """
insert into caudal.breaker as b (worker, account_id, tenant_id, state)
select $1, a.id, a.tenant_id, w.state from unnest($2::bigint[], $3::text[]) as w(id, state)
join caudal.channel_account a on a.id = w.id
on conflict (worker, account_id) do update set
  state = excluded.state, at = now(), since = case when b.state = excluded.state then b.since else now() end
"""


class Breakers(Protocol):
    """What is shown."""

    def states(self) -> Mapping[int, State]:
        """The state of each account's breaker."""
        ...


class BreakerBoard:
    """Writes one worker's breakers to the database: within `pause` s of a change, and every `RENEW` s."""

    def __init__(
        self, pool: asyncpg.Pool[Any], worker: str, breakers: Breakers, *, pause: float = 1.0
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._breakers = breakers
        self._pause = pause
        self._shown: dict[int, State] = {}
        self._renewed = 0.0

    async def run(self) -> None:
        """Write for ever. While the database is away, lanes wait for it anyhow."""
        while True:
            try:
                await self.once()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("the breakers' states could not be written", error=repr(error))
            await asyncio.sleep(self._pause)

    async def once(self) -> None:
        """Write what changed, or everything when it is time."""
        present = dict(list(self._breakers.states().items())[:MOST])
        due = time.monotonic() - self._renewed >= RENEW
        wanted = {
            number: state
            for number, state in sorted(present.items())
            if due or self._shown.get(number) is not state
        }
        if not wanted:
            return
        names = [state.name.lower() for state in wanted.values()]
        await self._pool.execute(_WRITE, self._worker, list(wanted), names)
        self._shown.update(wanted)
        if due:
            self._renewed = time.monotonic()
            # Killed workers cannot take theirs back.
            await self._pool.execute("delete from caudal.breaker where at < now() - interval '1 day'")

    async def withdraw(self) -> None:
        """Take this worker's rows back, at its end."""
        try:
            await self._pool.execute("delete from caudal.breaker where worker = $1", self._worker)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("the breakers' states stay behind", error=repr(error))
