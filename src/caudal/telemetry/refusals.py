"""Why a message, or a point of it, has no place: by what the registry says of its device and tenant."""

from __future__ import annotations

import time

from caudal.registry.directory import ABSENT_SECONDS, Directory
from caudal.telemetry.batch import Dead


def absent_sentence(reason: str, tenant: str, name: str) -> str:
    """Why what `name` sent cannot be stored, for a person."""
    if reason == "unknown_tenant":
        return f"there is no tenant {tenant!r:.80}; make it, or set UNKNOWN_TENANTS=register"
    if reason == "too_large":
        return f"tenant {tenant!r:.80} has as many devices as it may; {name!r:.80} would be one more"
    return f"tenant {tenant!r:.80} has no device {name!r:.80}; register it, or let unknown ones register"


def is_full(directory: Directory, tenant: str, name: str, turn: int) -> bool:
    """Whether the device `name` gets no more points, as its tenant has all its series.

    `turn` is how often the message has been resolved. Whoever sends on regardless is asked about once in a
    while, and not for each message.
    """
    device = directory.device(tenant, name)
    if device is None or device.tenant.series_count < device.tenant.max_series:
        return False
    now = time.monotonic()
    if turn:
        device.full_until = now + ABSENT_SECONDS
    return now < device.full_until


def missing(directory: Directory, tenant: str, name: str, points: dict[str, int]) -> list[Dead]:
    """The dead letters of points, each with how many samples it has, that a device cannot have."""
    device = directory.device(tenant, name)
    if device is not None:
        limit = device.tenant.max_series
        return [
            Dead(
                "too_large",
                f"the tenant has its {limit} series; {point!r:.80} would be one more",
                items=points[point],
            )
            for point in sorted(points)
        ]
    reason = directory.absent(tenant, name) or "unknown_device"
    return [Dead(reason, absent_sentence(reason, tenant, name), items=sum(points.values()))]
