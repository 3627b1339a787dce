"""Telemetry over HTTP by devices with credentials of their own, and by those that nobody has claimed."""

from __future__ import annotations

import asyncio
import base64
import json

from caudal.registry.permissions import Role
from tests.integration.ingest.conftest import TELEM, Http, v1


async def test_device_credentials(http: Http) -> None:
    made = await http.api.client.post("/api/devices", headers=http.headers, json={"name": "pump"})
    path = f"/api/devices/{made.json()['id']}/credentials"
    issued = (await http.api.client.post(path, headers=http.headers)).json()

    def basic(password: str) -> dict[str, str]:
        raw = base64.b64encode(f"{issued['username']}:{password}".encode()).decode()
        return {"Authorization": f"Basic {raw}"}

    device = Http(http.api)
    device.headers = basic(issued["password"])
    assert (await device.send("/api/ingest/devices/pump", v1(1)))["outcomes"][0]["stored"] == 1
    await device.send("/api/ingest/devices/other", v1(1), 403)
    mixed = await device.send("/api/ingest", [{"topic": t, "payload": v1(2)} for t in (
        TELEM, "traksense/acme/plant/other/telem", "traksense/rival/plant/pump/telem",
        "traksense/acme/+/pump/telem",
    )])  # fmt: skip
    assert [outcome["result"] for outcome in mixed["outcomes"]] == ["stored"] + ["refused"] * 3
    # Formats that name devices in the payload do not let it speak for another.
    for name, result in (("other", "dead"), ("pump", "stored")):
        record = [{"bn": name, "bt": 1772323200, "n": "level", "u": "m", "v": 1}]
        came = await device.send("/api/ingest/devices/pump", record)
        assert came["outcomes"][0]["result"] == result, came
    assert "other" not in {row[1] for row in await http.rows()}
    assert (await http.api.client.get("/api/devices", headers=device.headers)).status_code == 403
    # It replaces its own password; both are good for a while.
    following = await http.api.client.post("/api/device/credentials", headers=device.headers)
    assert following.status_code == 201
    for password in (issued["password"], following.json()["password"]):
        device.headers = basic(password)
        await device.send("/api/ingest/devices/pump", v1(3))
    device.headers = basic("wrong")
    await device.send("/api/ingest/devices/pump", v1(4), 401)
    refused = await http.api.client.post("/api/device/credentials", headers=http.headers)
    assert refused.status_code == 401
    # Nothing comes in for a tenant that is suspended, whoever brings it.
    device.headers = basic(following.json()["password"])
    await http.api.admin.execute("update caudal.tenant set status = 'suspended' where name = 'acme'")
    for sender in (device, http):
        await sender.send("/api/ingest/devices/pump", v1(4), 401)
    await http.api.admin.execute("update caudal.tenant set status = 'active' where name = 'acme'")
    for sender in (device, http):
        await sender.send("/api/ingest/devices/pump", v1(4))
    viewer = Http(http.api)
    viewer.headers = await http.api.headers("acme", Role.VIEWER)
    await viewer.send("/api/ingest/devices/pump", v1(1), 403)


async def test_what_devices_ask_counts_against_their_tenant_s_requests(http: Http) -> None:
    made = await http.api.client.post("/api/devices", headers=http.headers, json={"name": "pump"})
    path = f"/api/devices/{made.json()['id']}/credentials"
    issued = (await http.api.client.post(path, headers=http.headers)).json()
    raw = base64.b64encode(f"{issued['username']}:{issued['password']}".encode()).decode()
    await http.api.admin.execute(
        "insert into caudal.quota(tenant_id, requests_per_second)"
        " select id, 1 from caudal.tenant where name = 'acme'"
    )
    # The quota begins with a full second's worth, taken by whoever of the tenant comes first.
    came = await asyncio.gather(
        *(
            http.api.client.post(
                "/api/ingest/devices/pump",
                content=json.dumps(v1(n)).encode(),
                headers={"Authorization": f"Basic {raw}"},
            )
            for n in range(3)
        )
    )
    assert sorted(answer.status_code for answer in came) == [202, 429, 429]


async def test_held_until_claimed(http: Http) -> None:
    await http.api.admin.execute("update caudal.tenant set unknown_devices = 'hold' where name = 'acme'")
    for n in range(30):
        came = await http.send("/api/ingest/devices/new", v1(n, n))
        assert came["outcomes"][0]["result"] == "held"
    assert await http.rows() == []
    held = (await http.api.client.get("/api/quarantine", headers=http.headers)).json()["items"]
    assert [(item["device"]["name"], item["messages"]) for item in held] == [("new", 30)]
    path = f"/api/devices/{held[0]['device']['id']}/claim"
    claimed = await http.api.client.post(path, headers=http.headers, json={})
    assert claimed.json()["released"] == 30, claimed.text
    assert [row[3] for row in await http.rows()] == list(range(30))
    ledger = await http.api.admin.fetchrow(
        "select sum(received) r, sum(stored) s, sum(held) h, sum(dead) d from caudal.ledger"
    )
    assert tuple(ledger) == (30, 30, 0, 0)


async def test_a_claimed_devices_messages_are_all_stored_in_the_order_they_came(http: Http) -> None:
    """Events say in which order they were stored; of two values for one instant the first that came stays."""
    await http.api.admin.execute("update caudal.tenant set unknown_devices = 'hold' where name = 'acme'")
    count = 700
    lines = []
    for n in range(count):
        event = {"schema": "v1", "event_id": f"e{n}", "event_type": "step", "ts": "2026-03-01T00:00:00Z"}
        topic = TELEM.replace("pump", "new")
        lines += [{"topic": topic.replace("telem", "event"), "payload": event},
                  {"topic": topic, "payload": v1(n % 60, n, f"p{n // 60}")},
                  # Contradicts the first of its second.
                  {"topic": topic, "payload": v1(n % 60, -1 - n, f"p{n // 60}")}]  # fmt: skip
    for start in range(0, len(lines), 150):
        body = b"\n".join(json.dumps(line).encode() for line in lines[start : start + 150])
        came = await http.send("/api/ingest", body, **{"content-type": "application/x-ndjson"})
        assert {outcome["result"] for outcome in came["outcomes"]} == {"held"}
    number = await http.api.admin.fetchval("select id from caudal.device where name = 'new'")
    path = f"/api/devices/{number}/claim"
    claimed = await http.api.client.post(path, headers=http.headers, json={})
    assert claimed.json()["released"] == len(lines)
    events = await http.api.admin.fetch("select event_id from caudal.event order by id")
    assert [row["event_id"] for row in events] == [f"e{n}" for n in range(count)]
    kept = {(row[2], row[3]) for row in await http.rows()}
    assert kept == {(f"p{n // 60}", float(n)) for n in range(count)}
    conflicts = await http.api.admin.fetchval(
        "select count(*) from caudal.dead_letter where reason = 'conflict'"
    )
    ledger = await http.api.admin.fetchrow(
        "select sum(received) r, sum(stored) s, sum(held) h from caudal.ledger"
    )
    assert conflicts == count
    assert tuple(ledger) == (3 * count, 2 * count, 0)
    assert await http.api.admin.fetchval("select count(*) from caudal.held_message") == 0


async def test_rejected_is_dead(http: Http) -> None:
    await http.api.admin.execute("update caudal.tenant set unknown_devices = 'hold' where name = 'acme'")
    await http.send("/api/ingest/devices/new", v1(1))
    number = await http.api.admin.fetchval("select id from caudal.device")
    answer = await http.api.client.post(f"/api/devices/{number}/reject", headers=http.headers)
    assert answer.json() == {"dead_letters": 1}
    ledger = "select sum(received) r, sum(stored) s, sum(held) h, sum(dead) d from caudal.ledger"
    assert tuple(await http.api.admin.fetchrow(ledger)) == (1, 0, 0, 1)
    # What it goes on sending is nobody's, until somebody changes their mind. Ingest hears of it soon.
    async with asyncio.timeout(30):
        while (came := await http.send("/api/ingest/devices/new", v1(2)))["outcomes"][0]["result"] == "held":
            await asyncio.sleep(0.1)
    assert came["outcomes"][0]["errors"][0]["reason"] == "unknown_device"
    await http.api.client.post(f"/api/devices/{number}/claim", headers=http.headers, json={})
    async with asyncio.timeout(15):
        while (came := await http.send("/api/ingest/devices/new", v1(3)))["outcomes"][0]["result"] == "dead":
            await asyncio.sleep(0.2)
    assert came["outcomes"][0]["result"] == "stored"
