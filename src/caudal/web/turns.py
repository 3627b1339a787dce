"""Requests in turn: a tenant that asks for everything at once does not make the others wait.

Whoever has no more than a few requests in progress is never held up, and a tenant that is alone never is. One
that has more while another is heard floods: its requests go one after the other then, with a rest after each,
until none of them waits. Nothing is refused that would be served within seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Any

from caudal.core.errors import RateLimited

AT_ONCE = 6
"""Requests of a tenant that may be in progress in any case; a browser opens as many connections."""
TOGETHER = 64
"""The same of those that wait for a commit they share, or for their own bytes, and cost little meanwhile."""
HEARD_SECONDS = 10.0
"""For so long after a request of another tenant floods are held down."""
REST = 0.5
"""A flood rests after each of its requests for this part of the time that it took."""
PATIENCE = 0.25
"""Seconds after which the next is let in, whatever holds up those before: a large file, a slow query."""
WAITING_MAX = 5000
"""Requests of a tenant that wait; beyond, they are refused and their connections closed."""


class _Line:
    __slots__ = ("key", "running", "timer", "together", "waiting")

    def __init__(self, tenant: int, together: bool) -> None:
        self.key = (tenant, together)
        self.together = together
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.timer: asyncio.TimerHandle | None = None


class Turn:
    """A request in progress. It ends when its answer begins: what it asked for has been found by then."""

    __slots__ = ("_began", "_line", "_turns")

    def __init__(self, turns: Turns, line: _Line) -> None:
        self._turns, self._line = turns, line
        self._began = monotonic()

    def end(self) -> None:
        """Let the next one in. To be called once."""
        self._turns._ended(self._line, monotonic() - self._began)


class Turns:
    """Who is in progress and who waits. One for each application; one event loop, no locks."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, bool], _Line] = {}
        # Who was heard last, and who was before that was another.
        self._last, self._other = (0, -HEARD_SECONDS), (0, -HEARD_SECONDS)

    @property
    def waiting(self) -> int:
        """Requests that wait, of all tenants."""
        return sum(len(line.waiting) for line in self._lines.values())

    async def begin(self, tenant: int, *, together: bool = False) -> Turn:
        """Wait for the turn of a request of `tenant`. Raises RateLimited when far too many wait."""
        now = monotonic()
        if self._last[0] != tenant:
            self._other = self._last
        self._last = (tenant, now)
        line = self._lines.get((tenant, together))
        if line is None:
            line = self._lines[(tenant, together)] = _Line(tenant, together)
        most = TOGETHER if together else AT_ONCE
        if not line.waiting and (line.running < most or not self._others(tenant, now)):
            line.running += 1
            return Turn(self, line)
        if len(line.waiting) >= WAITING_MAX:
            raise RateLimited("Far too many requests at once. Wait a moment.", closing=True)
        turn = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        if line.timer is None:
            self._later(line, PATIENCE)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._ended(line, 0.0)
            raise
        return Turn(self, line)

    def _others(self, tenant: int, now: float) -> bool:
        """Whether another tenant was heard within the last moment."""
        who, when = self._other if self._last[0] == tenant else self._last
        return who != tenant and now - when < HEARD_SECONDS

    def _ended(self, line: _Line, took: float) -> None:
        line.running -= 1
        if line.waiting and line.together:
            self._next(line)
        elif line.waiting and not line.running:
            self._later(line, REST * took)
        elif not line.running and line.timer is None:
            self._lines.pop(line.key, None)

    def _later(self, line: _Line, seconds: float) -> None:
        if line.timer is not None:
            line.timer.cancel()
        line.timer = asyncio.get_running_loop().call_later(seconds, self._next, line)

    def _next(self, line: _Line) -> None:
        """Let in the one that has waited for longest; everybody, when nobody else is about."""
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        everybody = not self._others(line.key[0], monotonic())
        while line.waiting:
            turn = line.waiting.popleft()
            if turn.done():
                continue
            line.running += 1
            turn.set_result(None)
            if not everybody:
                break
        if line.waiting:
            self._later(line, PATIENCE)
        elif not line.running:
            self._lines.pop(line.key, None)


def end_turn(state: dict[str, Any]) -> None:
    """End the turn of a request, if it has one that goes on; `state` is its scope's."""
    turn: Turn | None = state.pop("turn", None)
    if turn is not None:
        turn.end()
