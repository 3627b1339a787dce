"""Sites, gateways, devices, points, profiles: the contract's rules, and that tenants never meet."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import pytest

from caudal.core.db import tenant_transaction
from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.registry import devices, gateways, points, profiles, quarantine, sites
from caudal.registry.devices import DeviceIn, DevicePatch
from caudal.registry.gateways import GatewayIn, GatewayPatch
from caudal.registry.points import PointIn, PointPatch
from caudal.registry.profiles import CommandSpec, Param, PointSpec, ProfileIn
from caudal.registry.sites import SiteIn, SitePatch

Pool: TypeAlias = "asyncpg.Pool[Any]"
MAC = "aa:bb:cc:dd:ee:0"


async def test_site_round(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        made = await sites.create(
            c, SiteIn(" plant ", time_zone="America/Sao_Paulo", latitude=Decimal("-23.5"))
        )
        assert (made.name, made.latitude, made.devices) == ("plant", -23.5, 0)
        changed = await sites.change(c, made.id, SitePatch(display_name="The plant", time_zone=None))
        assert (changed.display_name, changed.time_zone, changed.name) == ("The plant", None, "plant")
    for wrong in (
        SiteIn("a/b"), SiteIn(""), SiteIn("x\0"), SiteIn("x", time_zone="Mars/Base"),
        SiteIn("x", latitude=Decimal(91)), SiteIn("x", longitude=Decimal("NaN")),
        SiteIn("x", time_zone="../etc"),
    ):  # fmt: skip
        async with tenant_transaction(app_pool, "acme") as c:
            with pytest.raises(InvalidInput):
                await sites.create(c, wrong)
    with pytest.raises(Conflict, match="another site"):
        async with tenant_transaction(app_pool, "acme") as c:
            await sites.create(c, SiteIn("plant"))
    async with tenant_transaction(app_pool, "rival") as c:
        assert (await sites.find(c)).items == []
        for attempt in (
            sites.get(c, made.id),
            sites.change(c, made.id, SitePatch("x")),
            sites.delete(c, made.id),
        ):
            with pytest.raises(NotFound):
                await attempt
        assert (await sites.create(c, SiteIn("plant"))).id != made.id
    async with tenant_transaction(app_pool, "acme") as c:
        await sites.delete(c, made.id)


async def test_gateway_rules(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        made = await gateways.create(
            c, GatewayIn("gw-a", "AA:BB:CC:DD:EE:01", latitude=Decimal("1.23456789"))
        )
        assert (made.code, made.mac, made.capacity) == ("GW-A", f"{MAC}1", 8)
        assert (made.status, made.latitude) == ("never_connected", 1.234568)
    for field, wrong in {
        "code": GatewayIn("x" * 31, f"{MAC}2"),
        "mac": GatewayIn("b", "aabbccddee02"),
        "capacity": GatewayIn("b", f"{MAC}2", capacity=33),
        "site_id": GatewayIn("b", f"{MAC}2", site_id=999),
        "latitude": GatewayIn("b", f"{MAC}2", latitude=Decimal("90.1")),
    }.items():
        async with tenant_transaction(app_pool, "acme") as c:
            with pytest.raises(InvalidInput, match=field):
                await gateways.create(c, wrong)
    with pytest.raises(Conflict, match="code"):
        async with tenant_transaction(app_pool, "acme") as c:
            await gateways.create(c, GatewayIn("Gw-A", f"{MAC}3"))
    with pytest.raises(Conflict, match="mac"):
        async with tenant_transaction(app_pool, "rival") as c:
            await gateways.create(c, GatewayIn("gw-a", f"{MAC}1"))
    async with tenant_transaction(app_pool, "rival") as c:
        await gateways.create(c, GatewayIn("gw-a", f"{MAC}4"))  # a code is the account's own
        with pytest.raises(NotFound):
            await gateways.get(c, made.id)


async def test_gateway_keeps_its_devices(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = await gateways.create(c, GatewayIn("g", f"{MAC}1"))
        device = await devices.create(c, meter(gateway.id, "D01"))
    with pytest.raises(Conflict, match="still has devices"):
        async with tenant_transaction(app_pool, "acme") as c:
            await gateways.delete(c, gateway.id)
    async with tenant_transaction(app_pool, "acme") as c:
        await devices.delete(c, device.id)
        await gateways.delete(c, gateway.id)


async def test_what_was_declared_may_go_and_what_was_measured_stays(app_pool: Pool, pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        fresh = await devices.create(c, DeviceIn("fresh"))
        used = await devices.create(c, DeviceIn("used"))
        await points.create(c, PointIn(fresh.id, "a"))
        a = await points.create(c, PointIn(used.id, "a"))
        b = await points.create(c, PointIn(used.id, "b"))
    await pool.execute(
        "insert into caudal.sample(series, ts, received, v_num) values ($1, now(), now(), 1)", a.id
    )
    async with tenant_transaction(app_pool, "acme") as c:
        await devices.delete(c, fresh.id)
        await points.delete(c, b.id)
    for refused in (devices.delete, points.delete):
        with pytest.raises(Conflict, match=r"inactive|samples"):
            async with tenant_transaction(app_pool, "acme") as c:
                await refused(c, used.id if refused is devices.delete else a.id)
    for gone in (devices.delete, points.delete):
        with pytest.raises(NotFound):
            async with tenant_transaction(app_pool, "rival") as c:
                await gone(c, used.id if gone is devices.delete else a.id)
    assert await pool.fetchval("select array_agg(name) from caudal.series") == ["a"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tenant_transaction(app_pool, "acme") as c:
            await c.execute("delete from caudal.series")


def meter(gateway: int, code: str, status: str = "active") -> DeviceIn:
    return DeviceIn(
        gateway_id=gateway, code=code, kind="meter", modbus_register=1, modbus_slave=1, status=status
    )


async def test_meter_rules(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = (await gateways.create(c, GatewayIn("g", f"{MAC}1"))).id
        made = await devices.create(c, meter(gateway, "D01"))
        assert made.name == f"{MAC}1/D01"
        for wrong in (
            DeviceIn(gateway_id=gateway, code="D02", kind="meter", modbus_register=1),
            DeviceIn(gateway_id=gateway, code="D02", kind="meter", modbus_slave=1),
            DeviceIn(gateway_id=gateway, code="D02", kind="meter", modbus_register=65536, modbus_slave=1),
            DeviceIn(gateway_id=gateway, code="D02", kind="meter", modbus_register=1, modbus_slave=248),
            DeviceIn(gateway_id=gateway, code="D" * 21, name="x"),
            DeviceIn(code="D02", name="x"),
            DeviceIn(name="x", kind="toaster"),
            DeviceIn(name="x", status="quarantined"),
            DeviceIn(name="x", alarm_day=Decimal("100000000000")),
            DeviceIn(name="x", alarm_day=Decimal("0.00001")),
            DeviceIn(name="x", alarm_month=Decimal(-1)),
            DeviceIn(name="x", metadata={"a": "\0"}),
            DeviceIn(name="a/b"), DeviceIn(name="a+"), DeviceIn(), DeviceIn(name="x", site_id=10**12),
        ):  # fmt: skip
            with pytest.raises(InvalidInput):
                await devices.create(c, wrong)
        # The rules hold for what will stand after a change too.
        with pytest.raises(InvalidInput, match="meter needs both"):
            await devices.change(c, made.id, DevicePatch(modbus_slave=None))
        with pytest.raises(InvalidInput):
            await devices.change(c, made.id, DevicePatch(gateway_id=None, kind="sensor"))
        exact = await devices.change(c, made.id, DevicePatch(alarm_month=Decimal("99999999999.9999")))
        assert exact.alarm_month == 99999999999.9999
        assert (await devices.change(c, made.id, DevicePatch(code="D09"))).name == f"{MAC}1/D09"
    with pytest.raises(Conflict):
        async with tenant_transaction(app_pool, "acme") as c:
            await devices.create(c, meter(gateway, "D09"))


async def test_another_tenants_gateway_is_no_place(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = (await gateways.create(c, GatewayIn("g", f"{MAC}1"))).id
        profile = (await profiles.create(c, ProfileIn("p"))).id
    async with tenant_transaction(app_pool, "rival") as c:
        for wrong in (
            meter(gateway, "D01"),
            DeviceIn("x", profile_id=profile),
            DeviceIn("x", gateway_id=gateway),
        ):
            with pytest.raises(InvalidInput, match="there is no such"):
                await devices.create(c, wrong)


async def test_capacity_holds_when_all_come_at_once(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = (await gateways.create(c, GatewayIn("g", f"{MAC}1", capacity=3))).id
        idle = [await devices.create(c, meter(gateway, f"I{n}", "inactive")) for n in range(4)]

    async def add(n: int) -> bool:
        try:
            async with tenant_transaction(app_pool, "acme") as c:
                if n < 4:
                    await devices.change(c, idle[n].id, DevicePatch(status="active"))
                else:
                    await devices.create(c, meter(gateway, f"D{n}"))
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*(add(n) for n in range(12)))) == 3
    async with tenant_transaction(app_pool, "acme") as c:
        full = await gateways.get(c, gateway)
        assert (full.active_devices, full.capacity) == (3, 3)
    with pytest.raises(Conflict, match="capacity"):
        async with tenant_transaction(app_pool, "acme") as c:
            await gateways.change(c, gateway, GatewayPatch(capacity=2))


async def test_a_full_gateway_does_not_stop_ingest(app_pool: Pool, ingest_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = (await gateways.create(c, GatewayIn("g", f"{MAC}1", capacity=1))).id
    rows = await ingest_pool.fetch(
        "insert into caudal.device(tenant_id, gateway_id, name, code, kind)"
        " select g.tenant_id, g.id, g.mac || '/' || d, d, 'meter'"
        " from caudal.gateway g, unnest(array['D1','D2']) d where g.id = $1 returning name, status",
        gateway,
    )
    assert [row["status"] for row in rows] == ["active", "quarantined"]


async def test_pages_stay_valid_while_rows_come_and_go(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        made = [await devices.create(c, DeviceIn(f"dev-{n:02}")) for n in range(10)]
        first = await devices.find(c, limit=4)
        await devices.delete(c, made[1].id)
        await devices.create(c, DeviceIn("late"))
        seen = [item.name for item in first.items]
        after = first.after
        while after is not None:
            following = await devices.find(c, limit=4, after=after)
            seen += [item.name for item in following.items]
            after = following.after
        assert seen == [f"dev-{n:02}" for n in range(10)] + ["late"]
        assert [d.name for d in (await devices.find(c, search="DEV-03")).items] == ["dev-03"]
        assert (await devices.find(c, search="%")).items == []
        with pytest.raises(InvalidInput):
            await devices.find(c, search="\0")


async def test_profile_versions_reach_devices(app_pool: Pool) -> None:
    given = ProfileIn(
        "chiller",
        format="v1",
        heartbeat_seconds=60,
        points=[PointSpec("temp", unit="celsius", limit_high=40), PointSpec("kwh", kind="counter")],
        commands=[CommandSpec("setpoint", [Param("value", "number", required=True, minimum=4, maximum=20)])],
    )
    async with tenant_transaction(app_pool, "acme") as c:
        profile = await profiles.create(c, given, "ana")
        device = await devices.create(c, DeviceIn("ch-1", profile_id=profile.id))
        assert device.format == "v1"
        found = {p.name: p for p in (await points.find(c, device_id=device.id)).items}
        assert (found["kwh"].kind, found["temp"].limit_high) == ("counter", 40)
        extra = await points.create(c, PointIn(device.id, "hours", "counter", limit_low=0))
        with pytest.raises(InvalidInput):
            await points.change(c, extra.id, PointPatch(limit_high=-1))
        given.points[0].limit_high = 35
        given.format = None
        following = await profiles.replace(c, profile.id, given, "bo", expected=1)
        assert following.version == 2
        assert (await devices.get(c, device.id)).format is None
        found = {p.name: p for p in (await points.find(c, device_id=device.id)).items}
        assert (found["temp"].limit_high, found.keys()) == (35, {"temp", "kwh", "hours"})
        history = await profiles.versions(c, profile.id)
        assert [(v.version, v.created_by) for v in history] == [(2, "bo"), (1, "ana")]
        assert history[1].document.points[0].limit_high == 40
        with pytest.raises(Conflict):
            await profiles.replace(c, profile.id, given, expected=1)
    with pytest.raises(Conflict, match="still use"):
        async with tenant_transaction(app_pool, "acme") as c:
            await profiles.delete(c, profile.id)


async def test_points_keep_to_the_accounts_limit(app_pool: Pool, pool: Pool) -> None:
    await pool.execute("update caudal.tenant set max_series = 1 where name = 'acme'")
    async with tenant_transaction(app_pool, "acme") as c:
        device = (await devices.create(c, DeviceIn("d"))).id
        await points.create(c, PointIn(device, "a"))
        with pytest.raises(Conflict, match="limit"):
            await points.create(c, PointIn(device, "b"))
        profile = (await profiles.create(c, ProfileIn("p", points=[PointSpec("x")]))).id
        with pytest.raises(Conflict, match="limit"):
            await devices.change(c, device, DevicePatch(profile_id=profile))


async def test_quarantine(app_pool: Pool, ingest_pool: Pool) -> None:
    await ingest_pool.execute(
        "insert into caudal.device(tenant_id, name, status)"
        " select id, n, 'quarantined' from caudal.tenant, unnest(array['good','bad']) n"
        " where tenant.name = 'acme'"
    )
    await ingest_pool.execute(
        "insert into caudal.held_message(tenant_id, device_name, topic, payload, received, digest)"
        " select id, d, 't', 'x', now(), '\\x00' from caudal.tenant, unnest(array['good','bad','bad']) d"
        " where tenant.name = 'acme'"
    )
    async with tenant_transaction(app_pool, "rival") as c:
        assert (await quarantine.find(c)).items == []
    async with tenant_transaction(app_pool, "acme") as c:
        held = {h.device.name: h for h in (await quarantine.find(c)).items}
        assert (held["good"].messages, held["bad"].messages, held["bad"].bytes) == (1, 2, 2)
        good, bad = held["good"].device.id, held["bad"].device.id
        with pytest.raises(Conflict, match="quarantine"):
            await devices.change(c, good, DevicePatch(status="active"))
    async with tenant_transaction(app_pool, "rival") as c:
        for attempt in (quarantine.claim(c, good, quarantine.Claim()), quarantine.reject(c, bad)):
            with pytest.raises(NotFound):
                await attempt
    async with tenant_transaction(app_pool, "acme") as c:
        assert (await quarantine.claim(c, good, quarantine.Claim("Good one"))).status == "active"
        assert await quarantine.reject(c, bad) == 2
        assert (
            await c.fetchval("select count(*) from caudal.dead_letter where reason = 'unknown_device'") == 2
        )
        ledger = await c.fetchrow("select held, dead, received from caudal.ledger where writer = 'registry'")
        assert tuple(ledger) == (-2, 2, 0)
        with pytest.raises(Conflict):
            await quarantine.claim(c, good, quarantine.Claim())
    async with ingest_pool.acquire() as connection:
        assert await quarantine.unreleased(connection) == [("acme", "good")]
