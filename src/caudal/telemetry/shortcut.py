"""Topics that are known by heart: their last message was good numbers of a known device, in usual units.

The next one most likely is, too, and then goes from its bytes to its rows past everything that looks for what
may be wrong with a message; those that came together are read together. What is unusual in any way goes the
whole way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from caudal.core import logs
from caudal.mqtt.ports import Inbound
from caudal.registry.directory import Directory
from caudal.registry.entries import DeviceEntry, TenantEntry
from caudal.telemetry.batch import Entry
from caudal.telemetry.formats.v1 import Numbers, numbers, rows_of, single_rows
from caudal.telemetry.model import Decoded
from caudal.telemetry.queue import OVERHEAD, Queue, Run
from caudal.telemetry.rows import NO_META, PACKED_SIZE, pack_numbers, times

log = logs.get("pipeline")

TOPICS_MAX = 50_000
TOPIC_LONGEST = 512
"""A topic may have 65,535 bytes; the bound has to be one of bytes, too."""


class Shortcut:
    """The devices that topics name, for as long as nothing of the registry changes.

    `skew` is how far ahead, in microseconds, a good clock may be, and `longest` the bytes of a payload.
    """

    def __init__(self, directory: Directory, queue: Queue, *, skew: int, longest: int) -> None:
        self._directory = directory
        self._queue = queue
        self._skew = skew
        self._longest = longest
        self._generation = directory.generation
        self._devices: dict[str, DeviceEntry] = {}

    def take(self, batch: list[Inbound], whole_way: Callable[[Inbound], None]) -> None:
        """Queue what is usual of `batch`, in its order; every other message of it goes to `whole_way`."""
        queue = self._queue
        skew = self._skew
        devices, documents = self._read(batch)
        run = self._alike(batch, devices, documents)
        if run is not None:
            queue.add_run(run)
            return
        for message, device, document in zip(batch, devices, documents, strict=True):
            found = None
            received = message.received
            if device is not None and document is not None and not device.tenant.full:
                try:
                    found = rows_of(document, device.heads, received, received + skew)
                except Exception:
                    log.exception("the short way failed; a message goes the long one", topic=message.topic)
            if device is None or found is None:
                if run is not None:
                    queue.add_run(run)
                    run = None
                self._devices.pop(message.topic, None)  # the next is read carefully at once
                queue.arrived(message)
                whole_way(message)
                continue
            tenant = device.tenant
            if run is None or message.origin is not run.origin or tenant is not run.tenant:
                if run is not None:
                    queue.add_run(run)
                run = Run(tenant, message.origin)
            rows, count, ts = found
            run.heard[device.id] = received
            run.entries.append(
                Entry(
                    message, tenant.id, count, rows, count, "v1", tenant_name=tenant.name,
                    device_name=device.name, oldest=ts, latest=ts, simple=True, lane=tenant.id,
                    cost=len(message.payload) + len(rows) + 2 * OVERHEAD,
                )
            )  # fmt: skip
        if run is not None:
            queue.add_run(run)

    def _read(self, batch: list[Inbound]) -> tuple[Sequence[DeviceEntry | None], Sequence[Numbers | None]]:
        """For each message its device and what its payload says; None where it is not what is usual."""
        if self._generation != self._directory.generation:
            self._generation = self._directory.generation
            self._devices.clear()
        known = self._devices.get
        devices = [known(message.topic) for message in batch]
        payloads = [message.payload for message in batch]
        try:
            if None not in devices and max(map(len, payloads), default=0) <= self._longest:
                return devices, numbers(payloads)
            devices = [
                device if len(payload) <= self._longest else None
                for device, payload in zip(devices, payloads, strict=True)
            ]
            found = iter(numbers([each for each, device in zip(payloads, devices, strict=True) if device]))
            return devices, [next(found) if device else None for device in devices]
        except Exception:
            log.exception("the short way failed; messages go the long one")
            return devices, [None] * len(batch)

    def _alike(
        self,
        batch: list[Inbound],
        devices: Sequence[DeviceEntry | None],
        documents: Sequence[Numbers | None],
    ) -> Run | None:
        """All of `batch` in one run, if it is single numbers of one tenant by one connection; else None."""
        known = [device for device in devices if device is not None]
        read = [document for document in documents if document is not None]
        if not len(batch) == len(known) == len(read) > 1:
            return None
        origin, received, tenant = batch[0].origin, batch[0].received, known[0].tenant
        if tenant.full or [device for device in known if device.tenant is not tenant]:
            return None
        if [each for each in batch if each.origin is not origin or each.received != received]:
            return None
        try:
            found = single_rows(read, [device.heads for device in known], received, received + self._skew)
        except Exception:
            log.exception("the short way failed; messages go another")
            return None
        if found is None:
            return None
        run = Run(tenant, origin)
        run.heard = dict.fromkeys([device.id for device in known], received)
        number, name = tenant.id, tenant.name
        run.entries = [
            Entry(
                message, number, 1, row, 1, "v1", tenant_name=name, device_name=device.name, oldest=ts,
                latest=ts, simple=True, lane=number, cost=len(message.payload) + PACKED_SIZE + 2 * OVERHEAD,
            )
            for message, device, row, ts in zip(batch, known, *found, strict=True)
        ]  # fmt: skip
        return run

    def place(self, message: Inbound, decoded: Decoded, tenant: TenantEntry, device: DeviceEntry) -> bool:
        """Queue a decoded message that is good numbers of one instant in usual units, as nearly every one is.

        False, and nothing done, for every other.
        """
        samples = decoded.samples
        if not samples:
            return False
        known = device.heads.get
        ts = samples[0][2]
        middle = times(ts, message.received)
        parts: list[bytes | float] = []
        bare = False
        for name, point, at, num, _, _, unit, qual in samples:
            found = known(point)
            if found is None or num is None or found[0] != unit or qual or at != ts or name is not None:
                return False
            bare = bare or unit is None
            parts += (found[1], middle, num, NO_META)
        count = len(samples)
        queue = self._queue
        if tenant.message_rate or tenant.point_rate:
            queue.meter(tenant, message.origin, count)
        self._learn(message.topic, device, decoded.format)
        batch = queue.batch_for(tenant.id)
        batch.heard[device.id] = message.received
        queue.add(
            Entry(
                message, tenant.id, count, pack_numbers(parts, count, bare=bare), count, decoded.format,
                tenant_name=tenant.name, device_name=device.name, oldest=ts, latest=ts, simple=True,
            ),
            batch,
        )  # fmt: skip
        return True

    def _learn(self, topic: str, device: DeviceEntry, format_: str) -> None:
        """A message on `topic` was of the usual kind."""
        if format_ != "v1" or device.format not in (None, "v1") or len(topic) > TOPIC_LONGEST:
            return
        if self._generation == self._directory.generation:
            if len(self._devices) >= TOPICS_MAX:
                self._devices.clear()
            self._devices[topic] = device
