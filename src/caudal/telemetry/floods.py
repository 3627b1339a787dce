"""Who floods, and what a flood may have while others are heard.

A tenant with more than its share in flight floods, until it has far less again and none of its connections
waits. While another tenant has something to say, all floods together have half the writers, in transactions
that take the database a few milliseconds, with a rest after each; and hardly more of theirs is read than the
next such transaction holds. So a flood is read, or written, or at rest, but seldom two of it at once, and
there is a processor for whoever else comes. With nobody else about it has everything.

Who floods without end has no burst but a load: what it may have doubles every half a minute, so that a
large tenant that fell behind catches up beside small ones (ADR 0103).

What is not read waits in the sender's socket. A connection that is held back stops after what was parsed of
it in its turn, and connections are let go one after the other: what they have waiting must not come at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from caudal.mqtt.ports import Origin, Patient, patient
from caudal.telemetry.settings import IngestSettings

# For so many seconds after a message of another tenant floods are held down.
RESTRAINED_SECONDS = 10.0
# After each of its transactions a flood that is held down rests for this part of the time that it took.
REST = 1.0
# What such a transaction holds: messages, and bytes of rows (some seven hundred of them).
PIECE_MESSAGES = 32
PIECE_BYTES = 24 << 10
# A flood that is held down for so many seconds, and again as many, may have twice as much; so often at most.
EASE_SECONDS = 30.0
EASE_MOST = 5
# Connections that are let go at once, and how long until the next are when those had nothing to say.
AT_ONCE = 4
TICK = 0.002
# So long a tenant that was held back is taken for a flood yet, though it has little in flight.
LINGER = 0.25


class Floods:
    """Shares, and the tenants that exceed them. One event loop, no locks."""

    def __init__(self, settings: IngestSettings) -> None:
        self.share = max(settings.ingest_batch_size // 2, settings.ingest_queue_max // 100)
        self.most = max(2 * self.share, settings.ingest_queue_max // 4)
        """Messages in flight from which on a tenant is held back, whoever else is heard or not."""
        self.in_flight: Counter[int] = Counter()
        """By tenant."""
        self.rest_until = 0.0
        self._writers = max(1, settings.ingest_writers // 2)
        self._writing = 0
        self._restrained_until = 0.0
        self._since: float | None = None
        """Since when floods are held down without a pause."""
        self._speaker: int | None = None
        # When a message came that was not of the tenant of the one before.
        self._changed = -RESTRAINED_SECONDS
        # The tenants that flood, and when each was last seen to have too much.
        self._who: dict[int, float] = {}
        self._held: dict[int, dict[Patient, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def restrained(self, now: float) -> bool:
        """Whether floods are held down, because another tenant was heard."""
        return now < self._restrained_until

    def piece(self, now: float) -> tuple[int, int]:
        """What a transaction of floods that are held down holds: messages, and bytes of rows."""
        ease = self._ease(now)
        return PIECE_MESSAGES * ease, PIECE_BYTES * ease

    def _ease(self, now: float) -> int:
        if self._since is None or not self.restrained(now):
            return 1
        return 1 << min(EASE_MOST, int((now - self._since) / EASE_SECONDS))

    def _hold_down(self, until: float) -> None:
        now = _now()
        if self._since is None or not self.restrained(now):
            self._since = now
        self._restrained_until = max(self._restrained_until, until)

    def may_write(self, now: float) -> bool:
        """Whether another transaction of a flood may begin."""
        return not self.restrained(now) or (self._writing < self._writers and now >= self.rest_until)

    def is_one(self, tenant: int) -> bool:
        """Whether this tenant, which has just been heard, floods."""
        who = self._who
        if tenant != self._speaker:
            if self._speaker is not None:
                self._changed = _now()
            self._speaker = tenant
        if self.in_flight[tenant] > self.share:
            if tenant not in who:
                who[tenant] = _now()
                # Whoever was heard just before has its next message on the way.
                self._hold_down(self._changed + RESTRAINED_SECONDS)
            return True
        if not who:
            return False
        if tenant in who:
            return True
        self._hold_down(_now() + RESTRAINED_SECONDS)
        return False

    def exceeds(self, tenant: int) -> None:
        """It is beyond its quota: what it sends must not be in one batch with what others send."""
        self._who[tenant] = _now()

    def took(self, tenant: int, count: int, origin: Origin) -> None:
        """So many messages of `tenant` came by `origin`, which is held back if that is too much."""
        total = self.in_flight[tenant] = self.in_flight[tenant] + count
        if total <= PIECE_MESSAGES or (total <= self.most and tenant not in self._who):
            return
        now = _now()
        if total <= self.most and (not self.restrained(now) or total <= self.piece(now)[0]):
            return
        if tenant in self._who:
            self._who[tenant] = now
        sender = patient(origin)
        if sender is not None and sender not in self._held.get(tenant, ()):
            self._held.setdefault(tenant, {})[sender] = None
            sender.hold_back()

    def begins(self) -> None:
        """A transaction of a flood begins."""
        self._writing += 1

    def ends(self, since: float) -> None:
        """It is committed; it began at `since`."""
        now = _now()
        self._writing -= 1
        self.rest_until = now + REST * (now - since) / self._ease(now)

    def settled(self, counts: Counter[int]) -> None:
        """So many messages of each tenant are in flight no more."""
        now = _now()
        for tenant, count in counts.items():
            left = self.in_flight[tenant] = self.in_flight[tenant] - count
            over = self._who.get(tenant)
            if over is None or left > self.share // 4 or tenant in self._held:
                continue
            if not self.restrained(now) or now > over + LINGER:
                del self._who[tenant]
                if not self._who:
                    self._since = None

    def let_go(self) -> None:
        """Read those again whose tenants have little enough in flight; call it after what was settled."""
        if not self._held:
            return
        now = _now()
        restrained = self.restrained(now)
        ease = self._ease(now)
        little = PIECE_MESSAGES * ease // 2
        again = False
        for tenant in list(self._held):
            if not restrained:
                if self.in_flight[tenant] <= self.most // 2:
                    for origin in self._held.pop(tenant):
                        origin.let_go()
                continue
            held = self._held[tenant]
            for _ in range(min(AT_ONCE * ease, len(held))):
                if self.in_flight[tenant] > little:
                    break
                # Those that have been waiting for longest; what they had parsed already comes in at once.
                origin = next(iter(held))
                del held[origin]
                origin.let_go()
            if not held:
                del self._held[tenant]
            again = again or self.in_flight[tenant] <= little
        if self._timer is not None and again:
            self._timer.cancel()
            self._timer = None
        if restrained and self._held and self._timer is None:
            # Nothing may be committed meanwhile that would bring us back here.
            wait = TICK if again else self._restrained_until - now
            self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.let_go()


def _now() -> float:
    return asyncio.get_running_loop().time()
