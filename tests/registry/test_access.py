"""The rules of who may do what on a topic, as such and as each door applies them."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.db import tenant_transaction
from caudal.core.errors import InvalidInput, SettingsError
from caudal.mqtt.codes import Reason
from caudal.mqtt.ports import ConnectInfo
from caudal.mqtt.topics import matches
from caudal.registry import access, credentials, devices, gateways, sites
from caudal.registry.access import TOPICS, Access, AccessSettings, Client, covers
from caudal.registry.devices import DeviceIn, DevicePatch
from caudal.registry.door import DoorHooks
from caudal.registry.gateways import GatewayIn
from caudal.registry.sites import SiteIn

Pool: TypeAlias = "asyncpg.Pool[Any]"
MAC = "aa:bb:cc:dd:ee:01"
DEVICE = Client(name="t:acme:d:pump", role="device", tenant="acme", device="pump")
BACKEND = Client(name="b", role="backend")
BOUND = Client(name="b", role="backend", tenant="acme")
DASHBOARD = Client(name="d", role="dashboard")
GATEWAY = Client(name=MAC, role="gateway", mac=MAC, tenant="acme", site="plant")


def test_topics_are_those_of_telemetry() -> None:
    from caudal.telemetry.topics import TEMPLATES

    assert TEMPLATES.items() <= TOPICS.items()


CASES = [
    (DEVICE, "publish", "traksense/acme/plant/pump/{}", ("telem", "state", "event", "alarm", "ack"), True),
    (DEVICE, "publish", "traksense/acme/plant/pump/{}", ("cmd", "other", "telem/x"), False),
    (DEVICE, "publish", "traksense/{}/telem", ("rival/plant/pump", "acme/plant/other", "acme/pump"), False),
    (DEVICE, "publish", "tds_new/devices/{}/telemetry", (MAC,), False),
    (DEVICE, "publish", "tenants/acme/sites/x/assets/{}/telemetry", ("pump", "other"), False),
    (DEVICE, "subscribe", "traksense/acme/{}/pump/cmd", ("plant", "+"), True),
    (DEVICE, "subscribe", "{}", ("#", "traksense/#", "traksense/+/+/+/cmd", "traksense/acme/+/+/cmd",
                                 "traksense/acme/+/pump/#", "traksense/acme/p/pump/telem", "$SYS/#"), False),
    (GATEWAY, "publish", "tds_new/devices/{}/telemetry", (MAC, MAC.upper()), True),
    (GATEWAY, "publish", "tds_new/devices/{}", ("aa:bb:cc:dd:ee:02/telemetry", f"{MAC}/commands"), False),
    (GATEWAY, "publish", "tenants/{}/assets/a/telemetry", ("acme/sites/plant",), True),
    (GATEWAY, "publish", "tenants/{}/assets/a/telemetry", ("acme/sites/b", "rival/sites/plant"), False),
    (GATEWAY, "publish", "traksense/acme/plant/{}/telem", ("pump",), False),
    (GATEWAY, "subscribe", "tds_new/devices/{}/commands", (MAC, MAC.upper()), True),
    (GATEWAY, "subscribe", "tds_new/devices/{}/commands", ("+", "aa:bb:cc:dd:ee:02"), False),
    (BACKEND, "publish", "{}", ("traksense/a/b/c/cmd", f"tds_new/devices/{MAC}/commands"),
     True),
    (BACKEND, "publish", "{}", ("traksense/a/b/c/telem", "x"), False),
    (BACKEND, "subscribe", "{}", ("traksense/+/+/+/telem", "tds_new/devices/+/telemetry"),
     True),
    (BOUND, "subscribe", "{}", ("traksense/acme/+/+/telem",), True),
    (BOUND, "subscribe", "{}",
     ("traksense/+/+/+/telem", "tds_new/devices/+/telemetry"), False),
    (BOUND, "publish", "traksense/{}/b/c/cmd", ("rival",), False),
    (DASHBOARD, "publish", "{}", ("traksense/a/b/c/cmd", "traksense/a/b/c/telem"), False),
    (DASHBOARD, "subscribe", "{}", ("traksense/+/+/+/ack",), True),
    (DASHBOARD, "subscribe", "{}", ("traksense/+/+/+/cmd", "#"), False),
    (Client(name="a", role="administrator"), "publish", "{}", ("anything/at/all",), True),
    (Client(name="a", role="administrator"), "subscribe", "{}", ("#", "$SYS/#"), True),
]  # fmt: skip


@pytest.mark.parametrize(("client", "action", "template", "values", "expected"), CASES)
def test_rules(client: Client, action: str, template: str, values: tuple[str, ...], expected: bool) -> None:
    rules = Access()
    may = rules.may_publish if action == "publish" else rules.may_subscribe
    assert {value: may(client, template.format(value)) for value in values} == dict.fromkeys(values, expected)


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "$x", "a\nuser admin", " a", "a\0"])
def test_names_that_cannot_be_on_a_topic_open_nothing(name: str) -> None:
    client = Client(name="x", role="device", tenant="acme", device=name)
    assert Access().grants(client) == access.Grants()
    assert Access().grants(Client(name="x", role="device", tenant=name, device="d")) == access.Grants()


def test_another_scheme_of_topics() -> None:
    rules = Access({"telem": "fleet/dev-{device}/up", "cmd": "fleet/dev-{device}/down"}, topic_tenant="acme")
    assert rules.may_publish(DEVICE, "fleet/dev-pump/up")
    assert not rules.may_publish(DEVICE, "fleet/dev-other/up")
    with pytest.raises(SettingsError):
        Access({"telem": "x/s-{site}/{device}"})


LEVEL = st.sampled_from(["a", "b", "$c", "+", "#", ""])
FILTER = st.lists(LEVEL, min_size=1, max_size=4).map(
    lambda x: "/".join(x[: x.index("#") + 1] if "#" in x else x)
)
TOPIC = st.lists(st.sampled_from(["a", "b", "$c", ""]), min_size=1, max_size=4).map("/".join)


@given(FILTER, FILTER, TOPIC)
def test_a_filter_that_is_covered_never_shows_more(grant: str, pattern: str, topic: str) -> None:
    if covers(grant, pattern) and matches(pattern, topic):
        assert matches(grant, topic)


@given(st.text(min_size=1), st.text(min_size=1))
def test_user_names_come_back(tenant: str, device: str) -> None:
    if ":d:" in tenant:
        return
    user = access.device_user(tenant, device)
    assert access.split_device(user) == (tenant, device)
    if access.addressable(tenant) and access.addressable(device):
        spelling = access.mosquitto_user(user)
        assert ":" not in spelling
        assert access.split_device(spelling) == (tenant, device)


def test_mosquitto_reads_our_hash(tmp_path: Path, require: Any) -> None:
    """mosquitto_passwd -U rehashes only what it takes for plain text."""
    path = tmp_path / "passwords"
    path.write_text(f"user:{credentials.mosquitto_hash('secret')}\n")
    before = path.read_text()
    subprocess.run([require("mosquitto_passwd"), "-b", str(path), "other", "x"], check=True)
    assert path.read_text().startswith(before)


# -- the endpoint's door


def info(user: str | None, password: str | None) -> ConnectInfo:
    return ConnectInfo("c", user, None if password is None else password.encode(), "127.0.0.1", 5)


SETTINGS = AccessSettings()


async def make_device(
    app_pool: Pool, name: str = "pump", tenant: str = "acme"
) -> tuple[int, credentials.Issued]:
    async with tenant_transaction(app_pool, tenant) as c:
        device = (await devices.create(c, DeviceIn(name))).id
        return device, await credentials.issue(c, "device", device, SETTINGS, by="ana")


async def test_passwords(app_pool: Pool, ingest_pool: Pool, pool: Pool) -> None:
    device, first = await make_device(app_pool)
    assert first.username == "t:acme:d:pump"
    kept = await pool.fetchrow("select * from caudal.credential")
    assert kept["digest"] == hashlib.sha256(first.password.encode()).digest()
    assert first.password not in str(dict(kept))
    door = DoorHooks(ingest_pool, Access())
    for user in (first.username, first.mosquitto_username):
        found = await door.authenticate(info(user, first.password))
        assert isinstance(found, Client)
        assert (found.name, found.tenant, found.device_id) == ("t:acme:d:pump", "acme", device)
    for user, password in (
        (first.username, "wrong"), (first.username, ""), ("t:rival:d:pump", first.password),
        ("t:acme:d:other", first.password), ("nobody", first.password), ("t:\0:d:x", "x"),
        ("admin", ""), (MAC, first.password),
    ):  # fmt: skip
        assert await door.authenticate(info(user, password)) == Reason.BAD_USER_NAME_OR_PASSWORD
    assert await door.authenticate(info(None, None)) == Reason.NOT_AUTHORIZED
    # The API's own role sees no more than whether it is right.
    assert await access.find(app_pool, first.username, access.digest(first.password.encode()))
    assert not await access.find(app_pool, first.username, access.digest(b"wrong"))
    assert await app_pool.fetch("select * from caudal.credential") == []


async def test_rotation_with_grace(app_pool: Pool, ingest_pool: Pool, pool: Pool) -> None:
    device, first = await make_device(app_pool)

    async def opens(issued: credentials.Issued) -> bool:
        door = DoorHooks(ingest_pool, Access())
        return isinstance(await door.authenticate(info(issued.username, issued.password)), Client)

    async def rotate() -> credentials.Issued:
        async with tenant_transaction(app_pool, "acme") as c:
            return await credentials.issue(c, "device", device, SETTINGS)

    second = await rotate()
    assert await opens(first)
    assert await opens(second)
    third = await rotate()
    assert [await opens(x) for x in (first, second, third)] == [False, True, True]
    await pool.execute("update caudal.credential set expires_at = now() where id = 2")
    assert [await opens(x) for x in (second, third)] == [False, True]
    async with tenant_transaction(app_pool, "acme") as c:
        found = await credentials.find(c, "device", device)
        assert [x.state for x in found] == ["valid", "expired", "revoked"]
        assert await credentials.due(c) == []
        await pool.execute("update caudal.credential set due_at = now() - interval '1 s' where id = 3")
        assert [x.device_id for x in await credentials.due(c)] == [device]
        counted = "select credentials_due, credentials_expired from caudal.watch()"
        assert tuple(await pool.fetchrow(counted)) == (1, 0)
        # Once it opens nothing it is a device that is out, not one that is due.
        await pool.execute("update caudal.credential set expires_at = now() - interval '1 h' where id = 3")
        assert await credentials.due(c) == []
        assert tuple(await pool.fetchrow(counted)) == (0, 1)
        await pool.execute("update caudal.credential set expires_at = now() + interval '1 d' where id = 3")
        assert await credentials.revoke(c, "device", device) == 2
    assert not await opens(third)


async def test_only_who_can_be_on_a_topic_gets_a_password(app_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = (await gateways.create(c, GatewayIn("g", MAC))).id
        meter = DeviceIn(gateway_id=gateway, code="D1", kind="meter", modbus_register=1, modbus_slave=1)
        with pytest.raises(InvalidInput):
            await credentials.issue(c, "device", (await devices.create(c, meter)).id, SETTINGS)
        assert (
            await credentials.issue(c, "gateway", gateway, SETTINGS)
        ).mosquitto_username == "aa-bb-cc-dd-ee-01"


async def test_open_and_required(ingest_pool: Pool) -> None:
    opened = DoorHooks(ingest_pool, Access(), open_to_all=True, admin_password="geheim")
    anonymous = await opened.authenticate(info(None, None))
    assert isinstance(anonymous, Client)
    assert opened.may_publish(anonymous, "x/y")
    # A credential that is shown is checked, also where none is asked for.
    assert await opened.authenticate(info("admin", "wrong")) == Reason.BAD_USER_NAME_OR_PASSWORD
    admin = await opened.authenticate(info("admin", "geheim"))
    assert isinstance(admin, Client)
    assert admin.role == "administrator"
    assert AccessSettings().open("127.0.0.1")
    assert not AccessSettings().open("0.0.0.0")
    assert not AccessSettings(mqtt_auth="required").open("127.0.0.1")


class Thrown:
    """Stands for the endpoint: those inside, and who was thrown out."""

    def __init__(self, door: DoorHooks) -> None:
        self.door = door
        self.inside: dict[str, Client] = {}
        self.out: asyncio.Queue[str] = asyncio.Queue()

    async def enter(self, user: str, password: str) -> Client:
        found = await self.door.authenticate(info(user, password))
        assert isinstance(found, Client)
        self.inside[user] = found
        self.door.connected(found, user, 0)
        return found

    def disconnect(self, predicate: Any, reason: Reason = Reason.SUCCESS, *, forget: bool = False) -> int:
        gone = [name for name, client in self.inside.items() if predicate(client, name)]
        for name in gone:
            self.door.disconnected(self.inside.pop(name), name, 0, int(reason))
            self.out.put_nowait(name)
        return len(gone)


@pytest.mark.parametrize("how", ["revoke", "reject", "suspend", "rename", "delete", "expire"])
async def test_out_within_seconds(
    how: str, app_pool: Pool, ingest_pool: Pool, pool: Pool, database_url: str
) -> None:
    from caudal.core.notifications import listen_for_ever

    device, mine = await make_device(app_pool)
    _, other = await make_device(app_pool, "other", "rival")
    door = DoorHooks(ingest_pool, Access())
    endpoint = Thrown(door)
    await endpoint.enter(mine.username, mine.password)
    await endpoint.enter(other.username, other.password)
    ready = asyncio.Event()

    def gap() -> None:
        door.changed_all()
        ready.set()

    tasks = [
        asyncio.create_task(door.watch(endpoint, every_seconds=0.2)),
        asyncio.create_task(
            listen_for_ever(
                lambda: asyncpg.connect(database_url), {"caudal_access": door.changed}, on_gap=gap
            )
        ),
    ]
    try:
        await asyncio.wait_for(ready.wait(), 30)
        async with tenant_transaction(app_pool, "acme") as c:
            if how == "revoke":
                await credentials.revoke(c, "device", device)
            elif how == "rename":
                await c.execute("update caudal.device set name = 'new' where id = $1", device)
            elif how == "delete":
                await devices.delete(c, device)
            else:
                # A change that takes nothing away throws nobody out.
                await devices.change(c, device, DevicePatch(status="maintenance"))
        if how == "reject":
            await pool.execute("update caudal.device set status = 'rejected' where id = $1", device)
        elif how == "suspend":
            await pool.execute("update caudal.tenant set status = 'suspended' where name = 'acme'")
        elif how == "expire":
            client = endpoint.inside[mine.username]
            door._inside[(client.name, mine.username)] = short = access.msgspec.structs.replace(
                client, until=1.0
            )
            endpoint.inside[mine.username] = short
        assert await asyncio.wait_for(endpoint.out.get(), 30) == mine.username
        assert list(endpoint.inside) == [other.username]
        if how != "expire":
            refused = await door.authenticate(info(mine.username, mine.password))
            assert refused == Reason.BAD_USER_NAME_OR_PASSWORD
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_gateways_grants_follow_its_site(app_pool: Pool, ingest_pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        site = (await sites.create(c, SiteIn("plant"))).id
        gateway = (await gateways.create(c, GatewayIn("g", MAC, site_id=site))).id
        issued = await credentials.issue(c, "gateway", gateway, SETTINGS)
    door = DoorHooks(ingest_pool, Access())
    found = await door.authenticate(info(MAC.upper(), issued.password))
    assert isinstance(found, Client)
    assert door.may_publish(found, "tenants/acme/sites/plant/assets/x/telemetry")
    assert door.may_subscribe(found, f"tds_new/devices/{MAC}/commands")
    async with tenant_transaction(app_pool, "acme") as c:
        await gateways.change(c, gateway, gateways.GatewayPatch(site_id=None))
    assert not await access.still(ingest_pool, found)
