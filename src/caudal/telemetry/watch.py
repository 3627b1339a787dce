"""What only the database knows and operators are alerted about, as gauges."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from caudal.core import logs
from caudal.core.metrics import Metrics

log = logs.get("watch")


class Watch:
    """Asks the database every `pause` seconds. A gauge whose answer is missing shows NaN, never a false 0."""

    def __init__(self, pool: asyncpg.Pool[Any], metrics: Metrics, *, pause: float = 30) -> None:
        self._pool = pool
        self._pause = pause
        self._gauges = {
            "ledger_difference": metrics.gauge(
                "ledger_difference_parts", "Parts received that the ledger cannot account for; 0 or a defect"
            ),
            "devices_online": metrics.gauge("devices_online", "Devices heard within their heartbeat"),
            "devices_silent": metrics.gauge("devices_silent", "Active devices that have fallen silent"),
            "dead_letters_open": metrics.gauge("dead_letters_open", "Dead letters that nobody has settled"),
            "held_messages": metrics.gauge("held_messages", "Messages waiting for their device's claim"),
            "certificate_seconds": metrics.gauge(
                "certificate_expiry_seconds", "Seconds until the first unrevoked certificate expires"
            ),
            "credentials_due": metrics.gauge(
                "credentials_due", "Devices and gateways whose password is due for rotation and still opens"
            ),
            "credentials_expired": metrics.gauge(
                "credentials_expired", "Devices and gateways whose newest password opens nothing any longer"
            ),
            "tenants_over_storage": metrics.gauge(
                "tenants_over_storage", "Tenants that have used the storage of their quota"
            ),
        }
        self._forget()

    def _forget(self) -> None:
        for gauge in self._gauges.values():
            gauge.set(float("nan"))

    async def once(self) -> None:
        """Ask once."""
        rows = await self._pool.fetch("select * from caudal.watch()")
        for name, gauge in self._gauges.items():
            value = rows[0][name]
            gauge.set(float("nan") if value is None else value)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            try:
                await self.once()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._forget()
                log.warning("the database cannot be asked", error=repr(error))
            await asyncio.sleep(self._pause)
