"""What ingest's cache of the registry holds, and what it is asked for."""

from __future__ import annotations

from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

Policy: TypeAlias = Literal["register", "hold", "refuse"]


class TenantEntry(msgspec.Struct, eq=False):
    """A tenant as ingest sees it. `series_count` and `device_count` lag by what other workers just made."""

    id: int
    name: str
    policy: Policy
    max_series: int
    active: bool
    zone: ZoneInfo | None
    zones: dict[str, ZoneInfo | None]
    series_count: int = 0
    device_count: int = 0
    message_rate: int = 0
    point_rate: int = 0
    """Its quotas, a second; 0 is none."""
    full: bool = False
    """Whether it keeps as much as its quota of storage allows."""

    def zone_of(self, site: str | None) -> ZoneInfo | None:
        """The zone that timestamps without an offset are in, at that site."""
        return self.zones.get(site or "") or self.zone


class DeviceEntry(msgspec.Struct, eq=False):
    """A device as ingest sees it; `series` is its points by name, to the number its samples carry."""

    id: int
    tenant: TenantEntry
    name: str
    held: bool
    format: str | None
    zone: ZoneInfo | None
    gateway_id: int | None
    series: dict[str, int]
    heads: dict[str, tuple[str | None, bytes]] = msgspec.field(default_factory=dict)
    """By point, its usual unit and the first columns of its rows, for the pipeline's short way."""
    full_until: float = 0.0
    """Until then (monotonic) it is known to get no more points, its tenant having all its series."""
    rejected: bool = False
    """Somebody has refused it: what it sends is as from no device of ours. Never remembered as one."""


class GatewayEntry(msgspec.Struct, eq=False):
    """A gateway, which its MAC alone names."""

    id: int
    tenant: TenantEntry
    mac: str
    capacity: int
    zone: ZoneInfo | None


class Wanted(msgspec.Struct, frozen=True):
    """A device that messages name and the cache lacks, or lacks points of."""

    tenant: str
    site: str | None
    device: str
    points: frozenset[str] = frozenset()
    gateway: int | None = None
    register: bool = True
    """False to look it up alone: the asset on a topic whose payload names the device."""


Absent: TypeAlias = Literal["unknown_tenant", "unknown_device", "too_large"]
