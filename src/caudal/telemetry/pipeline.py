"""From what came in to what is committed: decode, find each series, batch, store, acknowledge.

One event loop, no locks. `submit` takes messages from any door and never blocks; writers take batches and
settle their messages after the commit. What names a device or a point that the directory does not hold goes
aside until it has been fetched or registered, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import tzinfo
from time import perf_counter

from caudal.core import logs, tracing
from caudal.mqtt.ports import Inbound, settle
from caudal.registry.directory import Directory
from caudal.registry.entries import DeviceEntry, GatewayEntry, TenantEntry, Wanted
from caudal.telemetry.aside import TURNS, Aside, Need
from caudal.telemetry.batch import Batch, Dead, Entry, Tally, Told
from caudal.telemetry.decode import decode
from caudal.telemetry.facts import Facts
from caudal.telemetry.metrics import IngestMetrics
from caudal.telemetry.model import Decoded, Limits, Reject
from caudal.telemetry.queue import DAY_US, Queue
from caudal.telemetry.refusals import absent_sentence, is_full, missing
from caudal.telemetry.rows import head, other, pack_double, tail, times
from caudal.telemetry.settings import IngestSettings
from caudal.telemetry.shortcut import Shortcut
from caudal.telemetry.storage import Writer
from caudal.telemetry.topics import Route, TopicTable

log = logs.get("pipeline")


class Pipeline:
    """The one path of telemetry. It is a `Sink` (see mqtt.ports) for every door.

    `in_flight` messages and bytes are bounded: beyond the bound `accepting` is False, and the doors leave
    what is not yet read where it is. A bound may be overrun by what one read brought in.
    """

    def __init__(
        self,
        directory: Directory,
        topics: TopicTable,
        settings: IngestSettings,
        metrics: IngestMetrics,
    ) -> None:
        self._directory = directory
        self.topics = topics
        self._settings = settings
        self._metrics = metrics
        self._after_commit: list[Callable[[Batch], None]] = []
        self._limits = Limits(payload_bytes=settings.ingest_payload_max)
        self._skew = settings.ingest_clock_skew_s * 1_000_000
        self.queue = Queue(settings)
        self._aside = Aside(directory)
        self._shortcut = Shortcut(directory, self.queue, skew=self._skew, longest=self._limits.payload_bytes)
        self._facts = Facts()

    # -- the sink

    @property
    def accepting(self) -> bool:
        """Whether there is room for more."""
        return self.queue.room.is_set()

    def on_resume(self, callback: Callable[[], None]) -> None:
        """Have `callback` called each time there is room again."""
        self.queue.on_resume(callback)

    def submit(self, batch: list[Inbound]) -> None:
        """Take messages in; each is settled once what it came to is committed."""
        self._shortcut.take(batch, self._whole_way)
        self.queue.check()

    @property
    def topic_tenant(self) -> str:
        """Whose the topics are that name no tenant."""
        return self._settings.topic_tenant

    def tenants_of(self, filters: Iterable[str]) -> set[str | None]:
        """The tenants whose topics these filters take in; None stands for any."""
        return {self.topics.tenant_of(pattern, self.topic_tenant) for pattern in filters}

    @property
    def messages(self) -> int:
        """In flight: received and not yet settled."""
        return self.queue.messages

    def overdrawn(self, tenant: str) -> float:
        """Seconds to wait before more of a tenant is taken by a door that cannot hold its senders back."""
        entry = self._directory.tenant(tenant)
        return 0.0 if entry is None else self.queue.overdrawn(entry)

    async def room(self) -> None:
        """Return once `accepting`: for a door that waits in a coroutine instead of registering a callback."""
        await self.queue.room.wait()

    def forget(self, change: str) -> None:
        """Fetch anew what `change` names (`device:tenant id:name`), without waiting for its notification."""
        self._directory.forget(change)

    def on_commit(self, act: Callable[[Batch], None]) -> None:
        """Have `act` called with each batch once it is committed and acknowledged. It must not raise."""
        self._after_commit.append(act)

    async def drained(self) -> None:
        """Return once nothing is in flight."""
        await self.queue.empty.wait()

    # -- one message

    def _whole_way(self, message: Inbound) -> None:
        self._take_safely(message, 0)

    def _take_safely(self, message: Inbound, turn: int) -> None:
        try:
            self._take(message, turn)
        except Exception as error:
            # A defect of ours must cost one message, visibly, and not the stream.
            log.exception("a message could not be processed", topic=message.topic)
            self._refuse(message, None, Dead("storage", f"processing failed: {error!r}"))

    def _take(self, message: Inbound, turn: int) -> None:
        """Decode, find the series, put it into the open batch; or set it aside to be resolved.

        `turn` counts how often it was set aside: a device, then its points, then what was evicted meanwhile.
        Beyond `TURNS` what is not there will not be.
        """
        route = self.topics.match(message.topic)
        if route is None:
            self._refuse(message, None, Dead("topic", self.topics.explain(message.topic)))
            return
        directory = self._directory
        if route.mac is not None:
            gateway = directory.gateway(route.mac)
            if gateway is not None:
                self._decode(message, turn, route, gateway.tenant, gateway.zone, None, gateway)
            elif turn < TURNS and directory.absent("", route.mac) is None:
                self._aside.put(message, turn, Need(mac=route.mac))
            else:
                sentence = f"no gateway has the MAC {route.mac}; register it first"
                self._refuse(message, route, Dead("unknown_device", sentence))
            return
        tenant, name = route.tenant or self.topic_tenant, route.device or ""
        device = directory.device(tenant, name)
        if device is not None:
            self._decode(message, turn, route, device.tenant, device.zone, device, None)
            return
        asset = route.kind == "asset"
        reason = directory.absent(tenant, name, register=not asset)
        if reason is None and turn < TURNS:
            wanted = Wanted(tenant, route.site, name, register=not asset)
            self._aside.put(message, turn, Need(devices=(wanted,)))
            return
        owner = directory.tenant(tenant)
        if asset and reason != "unknown_tenant":
            # The payload names the device; what stands on the topic is only where it is.
            if owner is not None:
                self._decode(message, turn, route, owner, owner.zone_of(route.site), None, None)
                return
            if turn < TURNS:
                # The tenant was forgotten, because something of it changed, after it had been asked for.
                wanted = Wanted(tenant, route.site, name, register=False)
                self._aside.put(message, turn, Need(devices=(wanted,)))
                return
        reason = reason or "unknown_device"
        self._refuse(message, route, Dead(reason, absent_sentence(reason, tenant, name)))

    def _decode(
        self,
        message: Inbound,
        turn: int,
        route: Route,
        tenant: TenantEntry,
        zone: tzinfo | None,
        device: DeviceEntry | None,
        gateway: GatewayEntry | None,
    ) -> None:
        decoded = decode(
            route, message.payload, bound_format=device.format if device else None, zone=zone,
            now=message.received, max_skew_us=self._skew, limits=self._limits,
        )  # fmt: skip
        if isinstance(decoded, Reject):
            refused = Dead(decoded.reason, decoded.sentence, decoded.pointer)
            self._refuse(message, route, refused, tenant)
        elif tenant.full and decoded.ack is None:
            # A command's outcome is small, and somebody waits for it.
            sentence = (
                f"tenant {tenant.name!r:.80} has used the storage of its quota; raise it, and replay this"
            )
            self._refuse(message, route, Dead("too_large", sentence, "", decoded.format), tenant)
        else:
            self._place(message, turn, route, decoded, tenant, device, gateway)

    def _place(
        self,
        message: Inbound,
        turn: int,
        route: Route,
        decoded: Decoded,
        tenant: TenantEntry,
        device: DeviceEntry | None,
        gateway: GatewayEntry | None,
    ) -> None:
        """Turn samples into rows under their series' numbers."""
        if device is not None:
            if device.held:
                self._hold_whole(message, decoded, tenant, device)
                return
            if decoded.plain and self._shortcut.place(message, decoded, tenant, device):
                return
        # Formats that name devices in the payload must not let one device speak for another.
        own = getattr(message.origin.principal, "device", None)
        if own is not None and {s[0] for s in decoded.samples}.union(decoded.device_meta or ()) - {None, own}:
            sentence = f"the payload names a device other than {own!r:.80}, which signed in"
            self._refuse(message, route, Dead("unknown_device", sentence, "", decoded.format), tenant)
            return
        held: dict[str, int] = {}
        parts: list[bytes] = []
        wanted: dict[str, dict[str, int]] = {}
        units: set[str] = set()
        batch = self.queue.batch_for(tenant.id)
        current, last_name = device, None
        ts_before = oldest = latest = 0
        middle = b""
        meta = decoded.meta
        end = tail(meta)
        for name, point, ts, num, flag, text, unit, qual in decoded.samples:
            if name != last_name or current is None:
                last_name = name
                current = self._directory.device(tenant.name, name or route.device or "")
            if current is not None and current.held:
                held[current.name] = held.get(current.name, 0) + 1
                continue
            number = current.series.get(point) if current is not None else None
            if number is None or current is None:
                points = wanted.setdefault(name or route.device or "", {})
                points[point] = points.get(point, 0) + 1
                if unit is not None:
                    units.add(unit)
                continue
            unit_number = None if unit is None else self._directory.unit(unit)
            if unit is not None and unit_number is None and turn < TURNS:
                units.add(unit)
                continue
            first = head(number, qual, unit_number)
            if qual == 0 and (unit is None) == (unit_number is None):
                current.heads[point] = (unit, first)
            if ts != ts_before or not middle:
                ts_before = ts
                middle = times(ts, message.received)
                if not oldest or ts < oldest:
                    oldest = ts
                latest = max(latest, ts)
                if ts // DAY_US not in batch.days:
                    batch.days.add(ts // DAY_US)
            if num is not None:
                parts.append(first + middle + pack_double(num) + end)
            else:
                parts.append(first + middle[:-4] + other(flag, text, meta))
        dead: list[Dead] = []
        if wanted or units:
            for name in [name for name in wanted if is_full(self._directory, tenant.name, name, turn)]:
                dead.extend(missing(self._directory, tenant.name, name, wanted.pop(name)))
            known = self._directory.absent
            if turn < TURNS and (units or not all(known(tenant.name, name) for name in wanted)):
                devices = tuple(
                    Wanted(tenant.name, route.site, name, frozenset(points), gateway.id if gateway else None)
                    for name, points in wanted.items()
                )
                self._aside.put(message, turn, Need(devices=devices, units=frozenset(units)))
                return
            for name, points in wanted.items():
                dead.extend(missing(self._directory, tenant.name, name, points))
        dead.extend(Dead(f.reason, f.sentence, f.pointer, decoded.format) for f in decoded.faults)
        entry = Entry(
            message, tenant.id, decoded.items, b"".join(parts), len(parts), decoded.format, dead or None,
            tenant_name=tenant.name, device_name=route.device or route.mac, oldest=oldest, latest=latest,
        )  # fmt: skip
        if tenant.message_rate or tenant.point_rate:
            self.queue.meter(tenant, message.origin, len(parts))
        if held:
            # The claim of a device replays the whole message; what is stored already is then a duplicate.
            entry.held_for = held
        if device is not None and decoded.ack is not None:
            entry.ack = (device.id, decoded.ack)
        if device is not None and decoded.event is not None:
            entry.event = (device.id, decoded.event)
        if decoded.device_meta:
            entry.metadata = self._facts.new(self._directory, decoded.device_meta, tenant.name, device)
        if gateway is not None:
            batch.gateways[gateway.id] = message.received
        if current is not None:
            batch.heard[current.id] = message.received
        if device is not None:
            batch.heard[device.id] = message.received
        self.queue.add(entry, batch)

    def _hold_whole(
        self, message: Inbound, decoded: Decoded, tenant: TenantEntry, device: DeviceEntry
    ) -> None:
        """Keep the message for its device's claim."""
        entry = Entry(
            message, tenant.id, decoded.items, format=decoded.format, held_for={device.name: decoded.items},
            tenant_name=tenant.name, device_name=device.name,
        )  # fmt: skip
        batch = self.queue.batch_for(tenant.id)
        batch.heard[device.id] = message.received
        self.queue.add(entry, batch)

    # -- what cannot be stored

    def _refuse(
        self, message: Inbound, route: Route | None, dead: Dead, tenant: TenantEntry | None = None
    ) -> None:
        """The whole message is one dead letter."""
        name = route.tenant if route else None
        if tenant is None and name is not None:
            tenant = self._directory.tenant(name)
        entry = Entry(
            message, tenant.id if tenant else 0, 1, dead=[dead], tenant_name=tenant.name if tenant else name,
            device_name=(route.device or route.mac) if route else None,
        )  # fmt: skip
        self.queue.add(entry, self.queue.batch_for(entry.tenant_id))

    async def resolve_for_ever(self) -> None:
        """Fetch and register what messages wait for; one task of the process runs this."""
        await self._aside.run(self._take_safely, self.queue.wake)

    # -- writing

    async def write_for_ever(self, writer: Writer, *, express: bool = False) -> None:
        """Store one batch after the other; one task for each writer runs this (see Queue for `express`)."""
        while True:
            batch = await self.queue.take(express=express)
            began = perf_counter()
            tallies = await writer.store(batch)
            if tracing.on:
                about: dict[str, str | int] = {
                    "writer": writer.name,
                    "batch": str(writer.batch),
                    "messages": len(batch.entries),
                    "stored": sum(tally.stored for tally in tallies.values()),
                    "duplicates": sum(tally.duplicates for tally in tallies.values()),
                    "dead": sum(tally.dead for tally in tallies.values()),
                }
                tracing.record("ingest batch", perf_counter() - began, about, kind="consumer")
            self._settle(batch, tallies)

    def _settle(self, batch: Batch, tallies: dict[int, Tally]) -> None:
        """The batch is committed: tell everybody, make room."""
        if batch.told:
            for entry in batch.entries:
                origin = entry.message.origin
                if isinstance(origin, Told):
                    origin.tell(entry.message, entry.outcome or entry.all_stored(), entry.letters or [])
        self._metrics.committed(batch, tallies)
        settle([entry.message for entry in batch.entries])
        for act in self._after_commit:
            act(batch)
        self.queue.settled(batch)
