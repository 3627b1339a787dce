"""What is in flight: batches that fill, writers that wait for them, and the bounds on both.

Two lanes keep a tenant that floods from slowing the others. A tenant with more than its share in flight goes
into the heavy lane, until it has far less again, and all others into the light one. A writer takes from each
in turn, and one, the express writer, from the light lane alone; so a quiet tenant's message does not wait for
a batch of the flood. What a flood may have while others are heard is in `floods.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from caudal.mqtt.ports import Inbound, Origin, Patient, patient
from caudal.registry.entries import TenantEntry
from caudal.registry.quotas import Limiter
from caudal.telemetry.batch import Batch, Entry, Told
from caudal.telemetry.floods import Floods
from caudal.telemetry.settings import IngestSettings

# What a message costs us beside its payload: its record, its place in a batch, its connection's slot.
OVERHEAD = 400
DAY_US = 86_400_000_000
# Full batches that one transaction may take, when they queue up.
MERGED = 4


class _Lane:
    """Batches that are full, in order, and the one that fills."""

    __slots__ = ("closed", "next_open", "open")

    def __init__(self) -> None:
        self.closed: deque[Batch] = deque()
        self.open: Batch | None = None
        self.next_open = 0.0
        """When the batch that fills may be taken, for it is paced."""

    @property
    def filling(self) -> bool:
        return self.open is not None and bool(self.open.entries)

    def ready(self, now: float) -> int:
        """How many batches a writer may take now."""
        return len(self.closed) + (self.filling and now >= self.next_open)


class Run:
    """Simple entries of one tenant and origin that came one after the other: they share their bookkeeping."""

    __slots__ = ("entries", "heard", "origin", "tenant")

    def __init__(self, tenant: TenantEntry, origin: Origin) -> None:
        self.tenant = tenant
        self.origin = origin
        self.entries: list[Entry] = []
        self.heard: dict[int, int] = {}
        """As in `Batch`."""


class Queue:
    """Everything received and not yet settled. One event loop, no locks."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._floods = Floods(settings)
        self._light, self._heavy = _Lane(), _Lane()
        self._heavy_next = False
        self._pace = settings.ingest_pace_ms / 1000
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # uvloop's handle of what is due at once cannot say
        self._idle: deque[asyncio.Future[None]] = deque()
        self._idle_express: deque[asyncio.Future[None]] = deque()
        self._metered: set[Patient] = set()
        self._messages_meter, self._points_meter = Limiter(0), Limiter(0)
        self._resume: list[Callable[[], None]] = []
        self.messages = 0
        self.bytes = 0
        self.room = asyncio.Event()
        """Set while there is room for more."""
        self.room.set()
        self.empty = asyncio.Event()
        """Set while nothing is in flight."""
        self.empty.set()

    # -- bounds

    def on_resume(self, callback: Callable[[], None]) -> None:
        """Have `callback` called each time there is room again."""
        self._resume.append(callback)

    def arrived(self, message: Inbound) -> None:
        """Count a message that has just come in."""
        self.messages += 1
        self.bytes += len(message.payload) + OVERHEAD

    def check(self) -> None:
        """After a chunk of arrivals: close the doors when the bound is reached, wake writers."""
        if self.messages:
            self.empty.clear()
        self.wake()
        settings = self._settings
        if self.messages >= settings.ingest_queue_max or self.bytes >= settings.ingest_queue_bytes:
            self.room.clear()

    # -- filling

    def batch_for(self, tenant: int) -> Batch:
        """The batch that this tenant's next entry goes into."""
        lane = self._heavy if self._floods.is_one(tenant) else self._light
        batch = lane.open
        if batch is None:
            batch = lane.open = Batch()
        return batch

    def add(self, entry: Entry, batch: Batch) -> None:
        """Put `entry`, that has `arrived`, into `batch`, which `batch_for` gave; a full batch is closed."""
        origin = entry.message.origin
        batch.entries.append(entry)
        batch.told = batch.told or isinstance(origin, Told)
        batch.size += len(entry.rows)
        cost = len(entry.rows) + OVERHEAD
        entry.cost = cost + len(entry.message.payload) + OVERHEAD
        self.bytes += cost
        tenant = entry.lane = entry.tenant_id
        if entry.simple:
            batch.days.add(entry.oldest // DAY_US)
        self._close_full(batch)
        self._floods.took(tenant, 1, origin)

    def add_run(self, run: Run) -> None:
        """As `arrived`, `meter` and `add`. A batch may exceed its bytes by what one read brought."""
        tenant, origin, entries = run.tenant, run.origin, run.entries
        number = tenant.id
        told = isinstance(origin, Told)
        if tenant.message_rate or tenant.point_rate:
            self.meter(tenant, origin, sum([entry.count for entry in entries]), messages=len(entries))
        self.messages += len(entries)
        self.bytes += sum([entry.cost for entry in entries])
        while entries:
            batch = self.batch_for(number)
            room = self._settings.ingest_batch_size - len(batch.entries)
            part, entries = entries[:room], entries[room:]
            batch.entries += part
            batch.told = batch.told or told
            batch.size += sum([len(entry.rows) for entry in part])
            batch.days.update({entry.oldest // DAY_US for entry in part})
            batch.heard.update(run.heard)
            self._close_full(batch)
            self._floods.took(number, len(part), origin)

    def _close_full(self, batch: Batch) -> None:
        settings = self._settings
        if len(batch.entries) >= settings.ingest_batch_size or batch.size >= settings.ingest_batch_bytes:
            for lane in (self._light, self._heavy):
                if lane.open is batch:
                    lane.closed.append(batch)
                    lane.open = None

    def meter(self, tenant: TenantEntry, origin: Origin, points: int, *, messages: int = 1) -> None:
        """Charge messages to the quotas of its tenant; who has used them up is not read until they refill.

        Nothing is refused: what has come in is stored, and the next is made to wait at its sender.
        """
        wait = 0.0
        if tenant.message_rate:
            wait = self._messages_meter.charge(tenant.id, messages, tenant.message_rate)
        if tenant.point_rate:
            wait = max(wait, self._points_meter.charge(tenant.id, points, tenant.point_rate))
        if wait:
            self._floods.exceeds(tenant.id)
        sender = patient(origin) if wait else None
        if sender is not None and sender not in self._metered:
            self._metered.add(sender)
            sender.hold_back(quota=True)
            asyncio.get_running_loop().call_later(min(wait, 60.0), self._refilled, sender)

    def overdrawn(self, tenant: TenantEntry) -> float:
        """Seconds that who cannot be held back should wait: for the quotas of its tenant, or its share."""
        wait = max(
            self._messages_meter.debt(tenant.id, tenant.message_rate),
            self._points_meter.debt(tenant.id, tenant.point_rate),
        )
        return max(wait, 1.0) if self._floods.in_flight[tenant.id] > self._floods.most else wait

    def _refilled(self, sender: Patient) -> None:
        self._metered.discard(sender)
        sender.let_go(quota=True)

    # -- writing

    def wake(self) -> None:
        """Wake as many idle writers as there are batches, those that still fill in their time."""
        if not (self._idle or self._idle_express):
            return
        light, heavy = self._light, self._heavy
        if not (light.closed or heavy.closed or light.filling or heavy.filling):
            return
        now = asyncio.get_running_loop().time()
        for_express = light.ready(now)
        ready = for_express + (heavy.ready(now) if self._floods.may_write(now) else 0)
        for idle in (self._idle, self._idle_express):
            while ready and idle and (idle is self._idle or for_express):
                waiter = idle.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    ready -= 1
        if self._idle or self._idle_express:
            self._wake_later(now)

    def _wake_later(self, now: float) -> None:
        """For what waits for its time alone."""
        light, heavy = self._light, self._heavy
        times = [lane.next_open for lane in (light, heavy) if lane.filling and lane.next_open > now]
        if (heavy.closed or heavy.filling) and self._floods.rest_until > now:
            times.append(self._floods.rest_until)
        if not times:
            return
        at = min(times)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._paced)

    def _paced(self) -> None:
        self._timer = None
        self.wake()

    async def take(self, *, express: bool = False) -> Batch:
        """The next batch to store; for the express writer, the next of the light lane.

        A writer that has nothing to do takes what there is at once, so a quiet system answers in
        milliseconds. Batches that are not full follow each other no faster than `INGEST_PACE_MS`: fifteen
        thousand devices would otherwise make hundreds of tiny transactions a second. A full one waits for
        nothing but a writer, and `INGEST_BATCH_MS` is kept by itself.
        """
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for lane in (self._light,) if express else self._in_turn():
                if not lane.ready(now) or (lane is self._heavy and not self._floods.may_write(now)):
                    continue
                batch = self._merged(lane, now) if lane.closed else lane.open
                restrained = lane is self._heavy and self._floods.restrained(now)
                if batch is lane.open:
                    lane.open = None
                    # A flood that is held down has its rests instead.
                    lane.next_open = 0.0 if restrained else now + self._pace
                assert batch is not None
                if lane is self._heavy:
                    if restrained:
                        rest = batch.cut(*self._floods.piece(now))
                        if rest is not None:
                            lane.closed.appendleft(rest)
                    batch.heavy_since = now
                    self._floods.begins()
                return batch
            waiter = loop.create_future()
            (self._idle_express if express else self._idle).append(waiter)
            self.wake()
            await waiter

    def _merged(self, lane: _Lane, now: float) -> Batch:
        """The oldest full batch, and those behind it while every other writer is busy too.

        A transaction has a price of its own; when batches queue up it is paid once for several.
        """
        batch = lane.closed.popleft()
        settings = self._settings
        while (
            lane.closed
            and not self._idle
            and not (lane is self._heavy and self._floods.restrained(now))
            and len(batch.entries) < MERGED * settings.ingest_batch_size
            and batch.size + lane.closed[0].size <= settings.ingest_batch_bytes
        ):
            batch.absorb(lane.closed.popleft())
        return batch

    def _in_turn(self) -> tuple[_Lane, ...]:
        self._heavy_next = not self._heavy_next
        return (self._light, self._heavy) if self._heavy_next else (self._heavy, self._light)

    def settled(self, batch: Batch) -> None:
        """Everything in `batch` is committed and acknowledged: make room."""
        floods = self._floods
        self.bytes -= sum([entry.cost for entry in batch.entries])
        self.messages -= len(batch.entries)
        floods.settled(Counter([entry.lane for entry in batch.entries]))
        if batch.heavy_since:
            floods.ends(batch.heavy_since)
            self.wake()
        floods.let_go()
        if self.messages == 0:
            floods.in_flight.clear()
            self.empty.set()
        settings = self._settings
        # Half empty before the doors open again, so that they do not flap.
        if (
            not self.room.is_set()
            and self.messages <= settings.ingest_queue_max // 2
            and self.bytes <= settings.ingest_queue_bytes // 2
        ):
            self.room.set()
            for callback in self._resume:
                callback()
