"""Every topic, attacked from the tenant next door: at our endpoint, by each kind of client that there is.

What each may do is asked of the broker, not of our rules: a subscription that is granted, a publish that is
taken, a message that arrives, a row that appears.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import pytest

from caudal.app.doors import open_endpoint
from caudal.app.ingest import build
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.registry import credentials
from caudal.registry.access import TOPICS, AccessSettings
from caudal.telemetry.settings import DoorSettings, IngestSettings
from tests.integration.pki.conftest import Client

OURS, THEIRS = "ours", "zebra"
MACS = {OURS: "02:00:00:00:00:01", THEIRS: "02:00:00:00:00:02"}
Pool: TypeAlias = "asyncpg.Pool[Any]"

TENANTS = """
with t as (insert into caudal.tenant(name) values ($1) returning id),
s as (insert into caudal.site(tenant_id, name) select id, $1 || '-site' from t returning id, tenant_id),
g as (insert into caudal.gateway(tenant_id, site_id, code, mac) select tenant_id, id, 'G', $2 from s)
insert into caudal.device(tenant_id, site_id, name) select tenant_id, id, $1 || '-pump' from s"""


def payload(number: int) -> bytes:
    """What every tenant's device might send: SenML, which names the device in the payload too."""
    return json.dumps(
        {
            "schema": "v1",
            "ts": f"2026-03-01T00:00:{number % 60:02d}Z",
            "points": [{"name": "zebra", "v": number}],
        }
    ).encode()


class Ground:
    """The endpoint, a closed door, and a client of each kind for each tenant."""

    def __init__(self, pool: Pool, port: int) -> None:
        self.pool = pool
        self.port = port
        self.clients: dict[tuple[str, str], Client] = {}

    async def client(self, tenant: str, role: str) -> Client:
        async with self.pool.acquire() as c, c.transaction():
            if role in ("device", "gateway"):
                number = await c.fetchval(
                    f"select x.id from caudal.{role} x join caudal.tenant t on t.id = x.tenant_id"
                    f" where t.name = $1 order by 1 limit 1",
                    tenant,
                )
                made = await credentials.issue(c, role, number, AccessSettings())  # type: ignore[arg-type]
                user, password = made.username, made.password
            else:
                user = f"{role}-{tenant}"
                password = await credentials.add_user(c, user, role, tenant)  # type: ignore[arg-type]
        client = Client(f"{tenant}-{role}", None, user, password)
        assert await client.connect(self.port)
        self.clients[tenant, role] = client
        return client


@pytest.fixture
async def ground(database_url: str, pool: Pool) -> AsyncIterator[Ground]:
    for tenant in (OURS, THEIRS):
        await pool.execute(TENANTS, tenant, MACS[tenant])
    life = Lifecycle()
    made = await build(life, database_url, IngestSettings(unknown_tenants="refuse"), Metrics(), worker="t")
    endpoint = await open_endpoint(
        life, DoorSettings(mqtt_port=0), made, AccessSettings(mqtt_auth="required")
    )
    ready = Ground(pool, endpoint.port)
    for tenant, role in itertools.product((OURS, THEIRS), ("device", "gateway", "backend", "dashboard")):
        await ready.client(tenant, role)
    yield ready
    for client in ready.clients.values():
        await client.close()
    await life.stop()


def theirs(template: str) -> list[str]:
    """Topics of the other tenant, also as somebody might hide them."""
    names = {"tenant": THEIRS, "site": f"{THEIRS}-site", "device": f"{THEIRS}-pump", "mac": MACS[THEIRS]}
    plain = template.format(**names)
    made = {plain, plain.upper(), f"/{plain}", f"{plain}/", plain.replace("/", "//"), f"$share/g/{plain}"}
    made |= {template.format(**{**names, "mac": MACS[THEIRS].upper()}), f"$SYS/{plain}", f"{plain}/x"}
    for field in names:
        # One level of theirs in a topic that is otherwise ours.
        mine = {"tenant": OURS, "site": f"{OURS}-site", "device": f"{OURS}-pump", "mac": MACS[OURS]}
        if f"{{{field}}}" in template and field in ("tenant", "mac"):
            made.add(template.format(**{**mine, field: names[field]}))
    return sorted(made)


def filters() -> list[str]:
    """Subscriptions that would take in something of the other tenant."""
    made = {
        "#",
        "+/#",
        "/#",
        "$SYS/#",
        "$share/g/#",
        "+/+/+/+/+",
        "+/+/+/+",
        "traksense/#",
        "tds_new/#",
        "tenants/#",
    }
    for template in TOPICS.values():
        levels = template.split("/")
        made.update(theirs(template))
        for index, level in enumerate(levels):
            if "{" in level:
                wild = [*levels[:index], "+", *levels[index + 1 :]]
                for tenant in (OURS, THEIRS):
                    made.add(
                        "/".join(wild).format(
                            tenant=tenant, site=f"{tenant}-site", device=f"{THEIRS}-pump", mac=MACS[THEIRS]
                        )
                    )
                made.add(
                    "/".join([*levels[:index], "#"]).format(tenant=THEIRS, site="x", device="x", mac="x")
                )
    return sorted(made)


async def rows(pool: Pool, tenant: str) -> dict[str, str]:
    """A digest of everything that a tenant's messages can have left."""
    found = {}
    for name, query in {
        "sample": "select * from caudal.sample where series in"
        " (select id from caudal.series where tenant_id = $1)",
        "series": "select * from caudal.series where tenant_id = $1",
        "dead_letter": "select * from caudal.dead_letter where tenant_id = $1",
        "held": "select * from caudal.held_message where tenant_id = $1",
        "ack": "select * from caudal.ack where tenant_id = $1",
        "event": "select * from caudal.event where tenant_id = $1",
        "device": "select id, name, site_id, status, metadata from caudal.device where tenant_id = $1",
        "site": "select * from caudal.site where tenant_id = $1",
        "ledger": "select received, dead from caudal.ledger where tenant_id = $1",
    }.items():
        number = await pool.fetchval("select id from caudal.tenant where name = $1", tenant)
        lines = await pool.fetch(f"select x::text as row from ({query}) x order by 1", number)
        found[name] = hashlib.sha256("\n".join(line["row"] for line in lines).encode()).hexdigest()
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_topic_shows_or_changes_what_is_another_tenants(ground: Ground) -> None:
    leaks: list[str] = []
    granted: list[str] = []
    before = await rows(ground.pool, THEIRS)
    tried = 0
    for role in ("device", "gateway", "backend", "dashboard"):
        client = ground.clients[OURS, role]
        for template in TOPICS.values():
            for topic in theirs(template):
                tried += 1
                if not topic.startswith("$") and await client.publish(topic, payload(tried)):
                    leaks.append(f"{role} publishes on {topic}")
        for pattern in filters():
            tried += 1
            if await client.subscribe(pattern):
                granted.append(f"{role}: {pattern}")
    after = await rows(ground.pool, THEIRS)
    assert not leaks, "\n".join(leaks)
    assert {name for name in before if before[name] != after[name]} == set()
    # Whatever was granted (a wildcard within our own tenant): nothing of theirs arrives on it.
    sent = 0
    for role, names in {
        "device": ("state", "telem", "event", "alarm", "ack"),
        "gateway": ("meter", "asset"),
    }.items():
        for name in names:
            topic = TOPICS[name].format(
                tenant=THEIRS, site=f"{THEIRS}-site", device=f"{THEIRS}-pump", mac=MACS[THEIRS]
            )
            sent += await ground.clients[THEIRS, role].publish(topic, payload(sent))
    assert sent == 7, "their own devices cannot publish: nothing was proved"
    # A message of ours, behind theirs on the same connections, shows that theirs would have arrived by now.
    own = TOPICS["telem"].format(tenant=OURS, site=f"{OURS}-site", device=f"{OURS}-pump")
    dashboard = ground.clients[OURS, "dashboard"]
    assert await dashboard.subscribe(own)
    assert await ground.clients[OURS, "device"].publish(own, payload(1))
    async with asyncio.timeout(10):
        while not any(topic == own for topic, _ in dashboard.messages):
            await asyncio.sleep(0.02)
    heard = [
        (role, topic)
        for (tenant, role), client in ground.clients.items() if tenant == OURS
        for topic, _ in client.messages
        if THEIRS in topic or MACS[THEIRS] in topic.lower()
    ]  # fmt: skip
    assert heard == [], granted
    assert await ground.pool.fetchval("select count(*) from caudal.sample") > 0
    assert tried > 200


async def test_a_device_cannot_speak_for_another_in_its_payload(ground: Ground) -> None:
    """SenML names its device itself: a gateway of ours says it is a device of theirs."""
    before = await rows(ground.pool, THEIRS)
    client = ground.clients[OURS, "gateway"]
    own = TOPICS["asset"].format(tenant=OURS, site=f"{OURS}-site", device="asset", mac="")
    records = [{"bn": f"{THEIRS}-pump:", "n": "zebra", "t": 1772323200, "v": 1}]
    assert await client.publish(own, json.dumps(records).encode())
    readings = {"gateway_mac": MACS[THEIRS], "timestamp": "2026-02-18T12:46:36Z",
                "leituras": [{"dispositivo_codigo": "D01", "valor": 1, "unidade": "kWh"}]}  # fmt: skip
    meter = TOPICS["meter"].format(mac=MACS[OURS], tenant="", site="", device="")
    assert await client.publish(meter, json.dumps(readings).encode())
    assert await rows(ground.pool, THEIRS) == before
