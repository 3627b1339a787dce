"""How fast a number may send, and when to leave its provider alone.

Rates are kept in PostgreSQL, because every worker sends through the same numbers: two workers that each kept
to 80 a second would be 160. The circuit breaker is each worker's own: it is about what this worker sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum
from functools import partial
from typing import Any

import asyncpg
import msgspec

from caudal.core.metrics import Metrics
from caudal.messaging.provider import Account, Verdict

TAKE = "select * from caudal.channel_take($1, $2, $3, $4, $5, $6)"
HOLD = "select caudal.channel_hold($1, $2, $3, $4, $5)"
GIVE_BACK = """
update caudal.channel_limit l set repaid = l.repaid - make_interval(secs => k.gap)
from unnest($2::text[], $3::float8[]) k(key, gap) where l.account_id = $1 and l.key = k.key
"""
EASE = """
update caudal.channel_limit set strikes = 0, not_before = '-infinity' where account_id = $1 and key = any($2)
"""


class Turn(msgspec.Struct, frozen=True):
    """The answer to "may I send?": `wait` seconds first; not at all for now unless `taken`."""

    taken: bool
    wait: float
    strikes: int
    contact: str | None
    wrote_at: datetime | None


class Limits:
    """Token buckets of numbers and pairs; `patience` is the longest wait in seconds worth holding a lane."""

    def __init__(self, pool: asyncpg.Pool[Any], *, patience: float, operator_pause: float) -> None:
        self._pool = pool
        self._patience = patience
        self._operator_pause = operator_pause

    async def take(self, account: Account, address: str, *, media: bool) -> Turn:
        """Take the next free place for a message to `address`, and learn what is known of the person."""
        rate = self._rate(account, media)
        # A tenth of a second's worth at once: smooth enough for whatever window the provider counts in.
        keys = ["media" if media else ""]
        intervals, bursts = [1 / rate], [max(int(rate / 10), 1)]
        if account.pair_interval:
            keys.append(address)
            intervals.append(account.pair_interval)
            bursts.append(account.pair_burst)
        row = await self._pool.fetchrow(TAKE, account.id, keys, intervals, bursts, self._patience, address)
        assert row is not None
        return Turn(*row.values())

    async def give_back(self, account: Account, address: str, *, media: bool) -> None:
        """Return a turn that was taken and not used."""
        keys, intervals = ["media" if media else ""], [1 / self._rate(account, media)]
        if account.pair_interval:
            keys.append(address)
            intervals.append(account.pair_interval)
        await self._pool.execute(GIVE_BACK, account.id, keys, intervals)

    @staticmethod
    def _rate(account: Account, media: bool) -> float:
        return account.media_per_second if media else account.per_second

    async def hold(
        self, account: Account, address: str, verdict: Verdict, retry_after: float | None
    ) -> float:
        """Leave the number, or the pair, alone for a while after `verdict`; returns for how many seconds."""
        first, factor, most, keys = 1.0, 2.0, 300.0, ["", "media"]
        if verdict is Verdict.PAIR:
            # Meta's own advice: 4^n seconds, beginning with n = 0.
            first, factor, most, keys = 1.0, 4.0, 3600.0, [address]
        elif verdict is Verdict.OPERATOR:
            first, factor, most = self._operator_pause, 1.0, self._operator_pause
        if retry_after is not None:
            first, most = max(retry_after, first), max(retry_after, most)
        waits = [float(await self._pool.fetchval(HOLD, account.id, key, first, factor, most)) for key in keys]
        return max(waits)

    async def ease(self, account: Account, address: str) -> None:
        """A message went through: past refusals count no more."""
        await self._pool.execute(EASE, account.id, ["", "media", address])


class State(IntEnum):
    """Of a circuit breaker; the numbers are what the metric shows."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


Changed = Callable[[State, State], None]


class Breaker:
    """Opens after `failures` in a row, lets one call through after `seconds`, closes when it succeeds."""

    def __init__(
        self,
        failures: int,
        seconds: float,
        *,
        changed: Changed = lambda old, new: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._changed = changed
        self._in_a_row = 0
        self._open_until = 0.0
        self._probing = False
        self.state = State.CLOSED

    def _go(self, state: State) -> None:
        old, self.state = self.state, state
        if old is not state:
            self._changed(old, state)

    def admit(self) -> float:
        """0 when a call may be made, which must then be answered for; else the seconds to wait."""
        if self.state is State.CLOSED:
            return 0.0
        left = self._open_until - self._clock()
        if self.state is State.OPEN:
            if left > 0:
                return left
            self._go(State.HALF_OPEN)
        if self._probing:
            return 1.0
        self._probing = True
        return 0.0

    def succeeded(self) -> None:
        """The provider answered, whatever it said of the message."""
        self._in_a_row = 0
        self._probing = False
        self._go(State.CLOSED)

    def failed(self) -> None:
        """The provider did not answer, or not as one that works."""
        self._probing = False
        self._in_a_row += 1
        if self.state is State.HALF_OPEN or self._in_a_row >= self._most:
            self._open_until = self._clock() + self._seconds
            self._go(State.OPEN)

    def unused(self) -> None:
        """The call that was admitted was not made."""
        self._probing = False


class Breakers:
    """One breaker an account, and the metrics of all of them by channel: the worst one shows."""

    MOST = 10_000

    def __init__(self, metrics: Metrics, channels: list[str], *, failures: int, seconds: float) -> None:
        self._failures = failures
        self._seconds = seconds
        self._breakers: dict[tuple[str, int], Breaker] = {}
        self._transitions = metrics.counter(
            "circuit_breaker_transitions", "Changes of circuit breakers' states", "channel", "from", "to"
        )
        state = metrics.gauge(
            "circuit_breaker_state", "Of the worst account: 0 closed, 1 open, 2 half-open", "channel"
        )
        for channel in channels:
            state.labels(channel).set_function(partial(self._worst, channel))
            # There from the start, so that the first change is an increase and not a new series.
            for old, new in (
                (State.CLOSED, State.OPEN),
                (State.OPEN, State.HALF_OPEN),
                (State.HALF_OPEN, State.CLOSED),
                (State.HALF_OPEN, State.OPEN),
            ):
                self._transitions.labels(channel, old.name.lower(), new.name.lower())

    def _worst(self, channel: str) -> float:
        states = [breaker.state for (name, _), breaker in list(self._breakers.items()) if name == channel]
        return float(next((s for s in (State.OPEN, State.HALF_OPEN) if s in states), State.CLOSED))

    def states(self) -> dict[int, State]:
        """How each account's breaker stands, of those used since the start."""
        return {number: breaker.state for (_, number), breaker in list(self._breakers.items())}

    def of(self, connector: str, account_id: int) -> Breaker:
        """The breaker of an account."""
        found = self._breakers.get((connector, account_id))
        if found is None:
            if len(self._breakers) >= self.MOST:
                self._breakers.pop(next(iter(self._breakers)))

            def changed(old: State, new: State) -> None:
                self._transitions.labels(connector, old.name.lower(), new.name.lower()).inc()

            found = Breaker(self._failures, self._seconds, changed=changed)
            self._breakers[connector, account_id] = found
        return found
