"""Facts about devices (firmware, model, labels of points) on their way to the registry: only what is new."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from caudal.registry.directory import Directory
from caudal.registry.entries import DeviceEntry

SEEN_MAX = 100_000


class Facts:
    """Remembers the last facts of each device, as most say the same ones with every message."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def new(
        self,
        directory: Directory,
        facts: Mapping[str | None, dict[str, object]],
        tenant: str,
        device: DeviceEntry | None,
    ) -> list[tuple[int, bytes]] | None:
        """(device id, JSON) of what was not said before. `facts` are by device name; None is `device`."""
        found = []
        for name, said in facts.items():
            of = device if name is None else directory.device(tenant, name)
            if of is None:
                continue
            raw = msgspec.json.encode(said)
            if self._seen.get(of.id) == hash(raw):
                continue
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen[of.id] = hash(raw)
            found.append((of.id, raw))
        return found or None
