"""The order of a delivery's states: it only ever moves forward, whatever order news of it comes in.

    pending < sending < unknown < sent < failed < delivered < read

A delivery is at (attempt, state); each call to the provider is a new attempt. News of an attempt moves the
delivery if it lies beyond where it is. `delivered` and `read` count whichever attempt they are about: the
person has it. What is nearer to the person wins, so `delivered` after `failed` counts and `failed` after
`delivered` does not.

The database applies the same order (`caudal.delivery_rank`, migration 0203); a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    SENDING = "sending"
    UNKNOWN = "unknown"
    SENT = "sent"
    FAILED = "failed"
    DELIVERED = "delivered"
    READ = "read"

    @property
    def rank(self) -> int:
        """Its place in the order."""
        return _ORDER[self]


_ORDER = {state: place for place, state in enumerate(State)}
ARRIVED = frozenset({State.DELIVERED, State.READ})
# Nothing more will be done for these unless somebody asks.
SETTLED = frozenset({State.UNKNOWN, State.SENT, State.FAILED, State.DELIVERED, State.READ})


class Position(NamedTuple):
    """A delivery's place: which attempt, and how far it is."""

    attempt: int
    state: State


def advance(now: Position, news: Position) -> Position:
    """Where a delivery is after `news`, never behind `now`; the order of the news does not matter."""
    if news.state.rank <= now.state.rank:
        return now
    if news.state in ARRIVED or news.attempt == now.attempt:
        return Position(now.attempt, news.state)
    return now


STATUS = {State.SENT: "SENT", State.FAILED: "FAILED", State.DELIVERED: "DELIVERED", State.READ: "READ"}
STATE = {status: state for state, status in STATUS.items()}
