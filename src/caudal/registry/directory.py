"""What ingest knows of the registry, in memory: who a topic or a payload names, and each series' number.

Looking up is synchronous and costs a dictionary access; what is not here is fetched, and where the tenant's
policy says so registered, for many messages in one go. Changes reach it by notification within a second;
what was not found is asked again after `ABSENT_SECONDS`.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import asyncpg
import msgspec

from caudal.core import logs

from .entries import Absent, DeviceEntry, GatewayEntry, TenantEntry, Wanted

log = logs.get("directory")

ABSENT_SECONDS = 3.0
FETCHES_MAX = 5


class DirectorySettings(msgspec.Struct, frozen=True):
    """Bounds and policies of the cache."""

    unknown_tenants: Literal["register", "refuse"] = "refuse"
    series_cached: int = 500_000


class Directory:
    """The cache. Not to be shared between event loops."""

    def __init__(self, pool: asyncpg.Pool[Any], settings: DirectorySettings) -> None:
        self._pool = pool
        self._settings = settings
        self._tenants: dict[str, TenantEntry] = {}
        self._devices: dict[tuple[str, str], DeviceEntry] = {}
        self._gateways: dict[str, GatewayEntry] = {}
        self._absent: dict[tuple[str, str, bool], tuple[float, Absent]] = {}
        self._units: dict[str, int] = {}
        self._series_cached = 0
        self._forgotten = 0
        self.generation = 0
        """Grows with every change; who remembers an entry must compare it."""

    # -- looking up: synchronous, on the hot path

    def device(self, tenant: str, name: str) -> DeviceEntry | None:
        """The device, or None when it is not in the cache."""
        return self._devices.get((tenant, name))

    def gateway(self, mac: str) -> GatewayEntry | None:
        """The gateway, or None when it is not in the cache."""
        return self._gateways.get(mac)

    def absent(self, tenant: str, name: str, *, register: bool = True) -> Absent | None:
        """Why there is no such device, if that was asked a moment ago, in the same manner."""
        found = self._absent.get((tenant, name, register))
        if found is None or found[0] < time.monotonic():
            return None
        return found[1]

    def tenant(self, name: str) -> TenantEntry | None:
        """The tenant, or None when it is not in the cache."""
        return self._tenants.get(name)

    def unit(self, name: str) -> int | None:
        """The number of a unit, if it is in the cache."""
        return self._units.get(name)

    # -- fetching and registering

    async def load_gateway(self, mac: str) -> GatewayEntry | None:
        """Fetch a gateway; None (remembered for a moment) when nobody registered it."""
        row = await self._pool.fetchrow(
            "select g.id, g.capacity, t.name as tenant, coalesce(s.time_zone, t.time_zone) as zone"
            " from caudal.gateway g join caudal.tenant t on t.id = g.tenant_id"
            " left join caudal.site s on s.id = g.site_id where g.mac = $1",
            mac,
        )
        if row is None:
            self._note_absent("", mac, "unknown_device")
            return None
        tenant = await self._tenant(row["tenant"])
        if tenant is None:
            return None
        entry = GatewayEntry(row["id"], tenant, mac, row["capacity"], _zone(row["zone"]))
        self._gateways[mac] = entry
        return entry

    async def ensure_units(self, names: Collection[str]) -> None:
        """Have a number for each unit. Units are few; beyond 30,000 a name is left without a number."""
        missing = sorted(set(names) - self._units.keys())
        if not missing:
            return
        async with self._pool.acquire() as connection:
            if await connection.fetchval("select coalesce(max(id), 0) from caudal.unit") < 30_000:
                await connection.execute(
                    "insert into caudal.unit(name) select n from unnest($1::text[]) n"
                    " where not exists (select from caudal.unit u where u.name = n)"
                    " on conflict do nothing",
                    missing,
                )
            rows = await connection.fetch("select name, id from caudal.unit where name = any($1)", missing)
        self._units.update({row["name"]: row["id"] for row in rows})

    async def ensure(self, wanted: Collection[Wanted]) -> None:
        """Fetch the devices and points, registering those that policy and limits allow.

        Afterwards each is either in the cache, or `absent` says why not. A point that a device lacks after
        this call is beyond its tenant's limit of series.
        """
        by_tenant: dict[str, dict[str, Wanted]] = {}
        for want in wanted:
            devices = by_tenant.setdefault(want.tenant, {})
            known = devices.get(want.device)
            if known:
                want = msgspec.structs.replace(
                    want, points=want.points | known.points, register=want.register or known.register
                )
            devices[want.device] = want
        for name, devices in sorted(by_tenant.items()):
            # What changed while it was being fetched may have been fetched before it changed.
            for _ in range(FETCHES_MAX):
                forgotten = self._forgotten
                await self._ensure_tenant(name, devices)
                if self._forgotten == forgotten:
                    break

    async def _ensure_tenant(self, name: str, devices: dict[str, Wanted]) -> None:
        tenant = await self._tenant(name)
        if tenant is not None and tenant.active:
            await self._ensure_devices(tenant, devices)
            return
        for device, want in devices.items():
            self._note_absent(name, device, "unknown_tenant", register=want.register)

    async def _tenant(self, name: str) -> TenantEntry | None:
        entry = self._tenants.get(name)
        if entry is not None:
            return entry
        if self._settings.unknown_tenants == "register":
            await self._pool.execute(
                "insert into caudal.tenant(name) select $1 where not exists"
                " (select from caudal.tenant where name = $1) on conflict do nothing",
                name,
            )
        row = await self._pool.fetchrow(
            "select id, unknown_devices, max_series, status, time_zone,"
            " array(select s.name from caudal.site s where s.tenant_id = t.id order by s.id) as sites,"
            " array(select s.time_zone from caudal.site s where s.tenant_id = t.id order by s.id) as zones,"
            " (select count(*) from caudal.series r where r.tenant_id = t.id) as series,"
            " (select count(*) from caudal.device d where d.tenant_id = t.id) as devices,"
            " coalesce(q.messages_per_second, 0) as messages, coalesce(q.points_per_second, 0) as points,"
            " coalesce(u.over, false) as full"
            " from caudal.tenant t left join caudal.quota q on q.tenant_id = t.id"
            " left join caudal.usage u on u.tenant_id = t.id where name = $1",
            name,
        )
        if row is None:
            return None
        entry = TenantEntry(
            row["id"], name, row["unknown_devices"], row["max_series"], row["status"] == "active",
            _zone(row["time_zone"]),
            {site: _zone(zone) for site, zone in zip(row["sites"], row["zones"], strict=True) if zone},
            row["series"], row["devices"], row["messages"], row["points"], row["full"],
        )  # fmt: skip
        self._tenants[name] = entry
        return entry

    async def _ensure_devices(self, tenant: TenantEntry, wanted: dict[str, Wanted]) -> None:
        names = sorted(wanted)
        async with self._pool.acquire() as connection, connection.transaction():
            found = await self._fetch(connection, tenant, names)
            new = [name for name in names if name not in found and wanted[name].register]
            if new:
                await self._register(connection, tenant, [wanted[name] for name in new])
                found.update(await self._fetch(connection, tenant, new))
            await self._add_points(connection, tenant, found, wanted)
        for name in names:
            entry = found.get(name)
            if entry is None or entry.rejected:
                want = wanted[name]
                full = entry is None and want.register and tenant.policy != "refuse" and want.gateway is None
                why: Absent = "too_large" if full else "unknown_device"
                self._note_absent(tenant.name, name, why, register=want.register)
            else:
                self._remember(entry)

    async def _fetch(self, connection: Any, tenant: TenantEntry, names: list[str]) -> dict[str, DeviceEntry]:
        rows = await connection.fetch(
            "select d.id, d.name, d.status, d.format, d.gateway_id,"
            " coalesce(s.time_zone, t.time_zone) as zone,"
            " array(select r.name from caudal.series r where r.device_id = d.id order by r.id) as points,"
            " array(select r.id from caudal.series r where r.device_id = d.id order by r.id) as numbers"
            " from caudal.device d join caudal.tenant t on t.id = d.tenant_id"
            " left join caudal.site s on s.id = d.site_id"
            " where d.tenant_id = $1 and d.name = any($2)",
            tenant.id,
            names,
        )
        return {
            row["name"]: DeviceEntry(
                row["id"], tenant, row["name"], row["status"] == "quarantined", row["format"],
                _zone(row["zone"]), row["gateway_id"],
                dict(zip(row["points"], row["numbers"], strict=True)),
                rejected=row["status"] == "rejected",
            )
            for row in rows
        }  # fmt: skip

    async def _register(self, connection: Any, tenant: TenantEntry, wanted: list[Wanted]) -> None:
        if tenant.policy == "refuse":
            return
        # One device needs at least one series to be of use, so the limit of series bounds devices too.
        room = max(0, tenant.max_series - tenant.device_count)
        chosen = wanted[:room]
        if not chosen:
            return
        sites = sorted({want.site for want in chosen if want.site})
        await connection.execute(
            "insert into caudal.site(tenant_id, name) select $1, n from unnest($2::text[]) n"
            " where not exists (select from caudal.site where tenant_id = $1 and name = n)"
            " on conflict do nothing",
            tenant.id,
            sites,
        )
        status = await connection.execute(
            "insert into caudal.device(tenant_id, site_id, gateway_id, name, code, kind, status)"
            " select $1, coalesce(s.id, g.site_id), g.id, w.name,"
            "  case when g.id is not null then substr(w.name, length(g.mac) + 2) end,"
            "  case when g.id is not null then 'meter' else 'sensor' end, $5"
            " from unnest($2::text[], $3::text[], $4::bigint[]) with ordinality"
            " as w(name, site, gateway, ord)"
            " left join caudal.site s on s.tenant_id = $1 and s.name = w.site"
            " left join caudal.gateway g on g.id = w.gateway"
            # A gateway speaks for as many devices as its capacity says.
            " where g.id is null or $5 = 'quarantined' or g.capacity >="
            "  (select count(*) from caudal.device d where d.gateway_id = g.id and d.status = 'active')"
            "  + (select count(*) from unnest($4::bigint[]) with ordinality as o(gateway, ord)"
            "     where o.gateway = g.id and o.ord <= w.ord)"
            " order by w.name on conflict do nothing",
            tenant.id,
            [want.device for want in chosen],
            [want.site for want in chosen],
            [want.gateway for want in chosen],
            "quarantined" if tenant.policy == "hold" else "active",
        )
        tenant.device_count += int(status.split()[-1])

    async def _add_points(
        self, connection: Any, tenant: TenantEntry, found: dict[str, DeviceEntry], wanted: dict[str, Wanted]
    ) -> None:
        missing = [
            (entry.id, point)
            for name, entry in sorted(found.items())
            if not entry.held and not entry.rejected
            for point in sorted(wanted[name].points - entry.series.keys())
        ]
        missing = missing[: max(0, tenant.max_series - tenant.series_count)]
        if not missing:
            return
        status = await connection.execute(
            "insert into caudal.series(tenant_id, device_id, name)"
            " select $1, d, n from unnest($2::bigint[], $3::text[]) as w(d, n) on conflict do nothing",
            tenant.id,
            [device for device, _ in missing],
            [point for _, point in missing],
        )
        tenant.series_count += int(status.split()[-1])
        rows = await connection.fetch(
            "select device_id, name, id from caudal.series where device_id = any($1)",
            sorted({device for device, _ in missing}),
        )
        by_id = {entry.id: entry for entry in found.values()}
        for row in rows:
            by_id[row["device_id"]].series[row["name"]] = row["id"]

    # -- forgetting

    def _remember(self, entry: DeviceEntry) -> None:
        key = (entry.tenant.name, entry.name)
        before = self._devices.pop(key, None)
        self._series_cached += len(entry.series) - (len(before.series) if before else 0)
        self._devices[key] = entry
        self._absent.pop((*key, True), None)
        self._absent.pop((*key, False), None)
        while self._series_cached > self._settings.series_cached and len(self._devices) > 1:
            # Oldest fetched goes first; a device that is still talking comes back with one query.
            oldest = next(iter(self._devices))
            self._series_cached -= len(self._devices.pop(oldest).series)
        self.generation += 1

    def _note_absent(self, tenant: str, name: str, why: Absent, *, register: bool = True) -> None:
        if len(self._absent) >= 10_000:
            self._absent.clear()
        self._absent[(tenant, name, register)] = (time.monotonic() + ABSENT_SECONDS, why)

    def forget(self, payload: str) -> None:
        """Act on a notification `table:tenant:name` of the database."""
        table, _, rest = payload.partition(":")
        number, _, name = rest.partition(":")
        gone = {entry.name for entry in self._tenants.values() if str(entry.id) == number}
        if table == "device" and name:
            for tenant in gone:
                if entry := self._devices.pop((tenant, name), None):
                    self._series_cached -= len(entry.series)
        else:
            for key in [key for key in self._devices if key[0] in gone]:
                self._series_cached -= len(self._devices.pop(key).series)
            for mac in [mac for mac, entry in self._gateways.items() if entry.tenant.name in gone]:
                del self._gateways[mac]
            for tenant in gone:
                self._tenants.pop(tenant, None)
        self._absent.clear()
        self._forgotten += 1
        self.generation += 1

    def forget_all(self) -> None:
        """Start over: notifications may have been missed."""
        self._tenants.clear()
        self._devices.clear()
        self._gateways.clear()
        self._absent.clear()
        self._series_cached = 0
        self._forgotten += 1
        self.generation += 1


_zones: dict[str, ZoneInfo | None] = {}


def _zone(name: str | None) -> ZoneInfo | None:
    """The zone, or None where none is set or nobody knows it; UTC as a default counts as none."""
    if name is None or name == "UTC":
        return None
    if name not in _zones:
        try:
            _zones[name] = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            log.warning("unknown time zone; naive timestamps are read as UTC", zone=name)
            _zones[name] = None
    return _zones[name]
