"""Telemetry over HTTP through the real pipeline: outcomes after the commit, who may send what, bombs."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zstandard

from caudal.app import devices
from caudal.app.ingest import build
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.registry import credentials
from caudal.registry.access import AccessSettings
from caudal.registry.mosquitto import MosquittoSettings
from caudal.registry.permissions import Role
from caudal.registry.pki.settings import PkiSettings
from caudal.telemetry.settings import IngestSettings
from caudal.web import guards

MAC = "aa:bb:cc:dd:ee:01"
TELEM = "traksense/acme/plant/pump/telem"


def v1(second: int, value: Any = 1.5, point: str = "temp") -> dict[str, Any]:
    return {
        "schema": "v1", "ts": f"2026-03-01T00:00:{second:02}Z",
        "points": [{"name": point, "t": "num", "v": value, "u": "celsius"}],
    }  # fmt: skip


class Http:
    """The API with its own pipeline, called as somebody."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.headers: dict[str, str] = {}

    async def send(self, path: str, body: Any, status: int = 202, **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self.api.client.post(path, content=content, headers={**self.headers, **headers})
        assert answer.status_code == status, answer.text
        return answer.json()

    async def rows(self) -> list[tuple[str, str, str, Any]]:
        found = await self.api.admin.fetch("select * from public.ts_measure order by ts, device_id, point_id")
        return [(row["tenant_id"], row["device_id"], row["point_id"], row["v_num"]) for row in found]


@pytest.fixture
async def http(unstarted_api: Any, database_url: str) -> AsyncIterator[Http]:
    life = Lifecycle()
    settings = IngestSettings(unknown_tenants="refuse")
    ingest = await build(life, database_url, settings, Metrics(), worker="http")
    await devices.compose(
        life, unstarted_api.parts, ingest, settings, AccessSettings(mqtt_http_secret="broker"), PkiSettings(),
        MosquittoSettings(),
    )  # fmt: skip
    made = Http(await unstarted_api.start())
    made.headers = await made.api.headers("acme", Role.OPERATOR)
    await made.api.tenant("rival")
    yield made
    await made.api.client.aclose()
    await life.stop()
    assert life.failure is None


async def test_one_message_and_its_duplicate(http: Http) -> None:
    came = await http.send("/api/ingest/devices/pump?site=plant", v1(1))
    assert came == {
        "messages": 1, "refused": 0,
        "outcomes": [{"index": 0, "result": "stored", "stored": 1, "duplicates": 0, "held": 0, "dead": 0,
                      "errors": []}],
    }  # fmt: skip
    # 202 came after the commit.
    assert await http.rows() == [("acme", "pump", "temp", 1.5)]
    again = await http.send("/api/ingest/devices/pump?site=plant", v1(1))
    assert again["outcomes"][0]["result"] == "duplicate"
    other = await http.send("/api/ingest/devices/pump?site=plant", v1(1, 2.5))
    assert other["outcomes"][0]["errors"][0]["reason"] == "conflict"


async def test_many_with_an_outcome_each(http: Http) -> None:
    bad = v1(3)
    bad["points"].append({"name": "x", "t": "num", "v": "warm"})
    lines = [json.dumps(v1(1)).encode(), b"not json", b"", json.dumps(bad).encode(), b'{"ts": 1}']
    came = await http.send(
        "/api/ingest/devices/pump", b"\n".join(lines), **{"content-type": "application/x-ndjson"}
    )
    assert [(o["result"], [e["reason"] for e in o["errors"]]) for o in came["outcomes"]] == [
        ("stored", []), ("dead", ["json"]), ("partly", ["value"]), ("dead", ["unknown_format"]),
    ]  # fmt: skip
    assert await http.api.admin.fetchval("select count(*) from public.ingest_errors") == 3
    ledger = await http.api.admin.fetchrow(
        "select sum(received) r, sum(stored + duplicates + dead + held + empty) s from caudal.ledger"
    )
    assert ledger["r"] == ledger["s"] == 5


async def test_envelopes(http: Http) -> None:
    body = [
        {"client_id": "c", "topic": TELEM, "payload": v1(1), "ts": 1772323200000},
        {"topic": TELEM, "payload": json.dumps(v1(2, point="é")), "ts": None},
        {"topic": "traksense/rival/plant/pump/telem", "payload": v1(3)},
        {"topic": "nonsense", "payload": v1(3)},
        {"topic": f"tds_new/devices/{MAC}/telemetry", "payload": {}},
        {"payload": v1(3)},
    ]
    came = await http.send("/api/ingest", body)
    assert [(o["result"], [e["reason"] for e in o["errors"]]) for o in came["outcomes"]] == [
        ("stored", []), ("stored", []), ("refused", ["unknown_tenant"]), ("refused", ["topic"]),
        ("refused", ["unknown_device"]), ("refused", ["schema"]),
    ]  # fmt: skip
    assert came["refused"] == 4
    assert [row[0] for row in await http.rows()] == ["acme", "acme"]
    single = await http.send("/api/ingest", {"topic": TELEM, "payload": v1(4)})
    assert single["outcomes"][0]["stored"] == 1


async def test_a_gateway_of_ones_own(http: Http) -> None:
    readings = {
        "gateway_mac": MAC, "timestamp": "2026-02-18T12:46:36Z",
        "leituras": [{"dispositivo_codigo": "D01", "valor": 123.4567, "unidade": "kWh"}],
    }  # fmt: skip
    await http.send(f"/api/ingest/gateways/{MAC}", readings, 403)
    made = await http.api.client.post("/api/gateways", headers=http.headers, json={"code": "g", "mac": MAC})
    assert made.status_code == 201
    assert (await http.send(f"/api/ingest/gateways/{MAC.upper()}", readings))["outcomes"][0]["stored"] == 1
    assert await http.rows() == [("acme", f"{MAC}/D01", "valor", 123.4567)]
    rival = Http(http.api)
    rival.headers = await http.api.headers("rival", Role.OWNER)
    await rival.send(f"/api/ingest/gateways/{MAC}", readings, 403)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_packed(http: Http, encoding: str) -> None:
    body = b"\n".join(json.dumps(v1(n % 60, n, f"p{n // 60}")).encode() for n in range(600))
    packed = gzip.compress(body[:5000]) + gzip.compress(body[5000:])
    if encoding == "zstd":
        packed = zstandard.ZstdCompressor().compress(body)
    came = await http.send(
        "/api/ingest/devices/pump", packed,
        **{"content-encoding": encoding, "content-type": "application/x-ndjson"},
    )  # fmt: skip
    assert sum(outcome["stored"] for outcome in came["outcomes"]) == 600


def bomb(encoding: str) -> bytes:
    zeros = b"\0" * (1 << 20)
    if encoding == "gzip":
        return b"".join(gzip.compress(zeros) for _ in range(200))
    made = zstandard.ZstdCompressor().compressobj()
    return b"".join(made.compress(zeros) for _ in range(200)) + made.flush()


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [("gzip", bomb("gzip"), 413), ("zstd", bomb("zstd"), 413), ("gzip", b"nonsense", 400),
     ("zstd", b"nonsense", 400), ("br", b"x", 400), ("gzip", gzip.compress(b"x" * 100)[:-12], 400),
     ("identity", b"x" * (9 << 20), 413)],
    ids=["gzip bomb", "zstd bomb", "no gzip", "no zstd", "unknown", "cut off", "large"],
)  # fmt: skip
async def test_bodies_that_are_refused(http: Http, encoding: str, body: bytes, status: int) -> None:
    answer = await http.api.client.post(
        "/api/ingest/devices/pump", content=body, headers={**http.headers, "content-encoding": encoding}
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert await http.rows() == []


async def test_quotas_of_messages_and_points_hold_over_http_too(http: Http) -> None:
    await http.api.tenant("free")
    free = await http.api.headers("free", Role.OPERATOR)
    await http.api.admin.execute(
        "insert into caudal.quota(tenant_id, messages_per_second, points_per_second)"
        " select id, 40, 40 from caudal.tenant where name = 'acme'"
    )
    body = b"\n".join(json.dumps(v1(n % 60, n, f"p{n // 60}")).encode() for n in range(80))
    kind = {"content-type": "application/x-ndjson"}
    # A second's worth at once, and what is beyond it is a debt: nothing of the body is lost.
    assert (await http.send("/api/ingest/devices/pump", body, **kind))["messages"] == 80
    began = time.monotonic()
    answer, _ = await asyncio.gather(
        http.api.client.post("/api/ingest/devices/pump", content=body, headers=http.headers),
        http.send("/api/ingest", {"topic": TELEM, "payload": v1(1)}, 429),
    )
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["retry-after"] == "1"
    # The refusal waits, so that who sends on at once cannot keep us busy with refusing.
    assert time.monotonic() - began >= guards.HOLD_SECONDS
    # Another tenant notices nothing.
    other = await http.api.client.post(
        "/api/ingest/devices/pump", content=json.dumps(v1(1)).encode(), headers=free
    )
    assert other.status_code == 202
    async with asyncio.timeout(5):
        while (
            await http.api.client.post("/api/ingest/devices/pump", content=body, headers=http.headers)
        ).status_code == 429:
            await asyncio.sleep(0.2)
    assert len(await http.rows()) == 81


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


async def test_what_a_payload_would_become(http: Http) -> None:
    await http.send("/api/ingest/devices/pump?site=plant", v1(1))
    before = await http.api.admin.fetchval("select sum(received) from caudal.ledger")
    payload = v1(2)
    payload["points"] += [
        {"name": "on", "t": "bool", "v": True}, {"name": "bad", "t": "num", "v": "warm"},
    ]  # fmt: skip
    found = await http.send("/api/ingest/test", {"topic": TELEM, "payload": payload}, 200)
    assert (found["format"], found["kind"]) == ("v1", "telem")
    shown = [(s["device"], s["point"], s["value"], s["new_point"], s["new_device"]) for s in found["samples"]]
    assert shown == [("pump", "temp", 1.5, False, False), ("pump", "on", True, True, False)]
    assert [(e["reason"], e["pointer"]) for e in found["errors"]] == [("value", "/points/2/v")]
    for body, reason in (
        ({"topic": "x/y", "payload": {}}, "topic"), ({"topic": TELEM, "payload": {"a": 1}}, "unknown_format"),
        ({"topic": TELEM, "payload": "nonsense"}, "json"), ({"topic": TELEM}, "schema"),
    ):  # fmt: skip
        wrong = await http.send("/api/ingest/test", body, 200)
        assert [e["reason"] for e in wrong["errors"]] == [reason]
    await http.send("/api/ingest/test", {"topic": "traksense/rival/s/d/telem", "payload": {}}, 403)
    assert await http.api.admin.fetchval("select sum(received) from caudal.ledger") == before
    assert len(await http.rows()) == 1


# -- EMQX


async def test_emqx_webhook(http: Http) -> None:
    body = {"client_id": "c", "topic": TELEM, "payload": json.dumps(v1(1)), "ts": 1772323200000}
    http.headers = {}
    await http.send("/api/ingest/emqx", body, 401)
    await http.send("/api/ingest/emqx", body, 401, authorization="Bearer wrong")
    came = await http.send("/api/ingest/emqx", body, authorization="Bearer broker")
    assert came["outcomes"][0]["result"] == "stored"


async def test_a_name_that_emqx_would_fill_in_opens_nothing_there(http: Http, pool: Any) -> None:
    """EMQX replaces placeholders in the rules it is given: with the client id, which a client chooses."""
    made = await http.api.client.post("/api/devices", headers=http.headers, json={"name": "x${clientid}"})
    path = f"/api/devices/{made.json()['id']}/credentials"
    issued = (await http.api.client.post(path, headers=http.headers)).json()
    body = {"username": issued["username"], "password": issued["password"], "clientid": "victim"}
    http.headers = {"authorization": "Bearer broker"}
    found = await http.send("/mqtt/auth", body, 200)
    assert found["acl"] == [{"permission": "deny", "action": "all", "topic": "#"}]


async def test_emqx_asks(http: Http, pool: Any) -> None:
    made = await http.api.client.post("/api/devices", headers=http.headers, json={"name": "pump"})
    path = f"/api/devices/{made.json()['id']}/credentials"
    issued = (await http.api.client.post(path, headers=http.headers)).json()
    async with pool.acquire() as c:
        dashboard = await credentials.add_user(c, "panel", "dashboard")
    user = issued["username"]
    http.headers = {"authorization": "Bearer broker"}

    async def ask(username: str, password: str, **more: str) -> Any:
        body = {"username": username, "password": password, "clientid": "c", "peerhost": "1.2.3.4", **more}
        return await http.send("/mqtt/auth", body, 200)

    found = await ask(user, issued["password"], cert_common_name="undefined")
    assert found["result"] == "allow"
    assert not found.get("is_superuser")
    assert found["expire_at"] > 1_700_000_000
    assert {"permission": "allow", "action": "subscribe", "topic": "traksense/acme/+/pump/cmd"} in found[
        "acl"
    ]
    assert found["acl"][-1] == {"permission": "deny", "action": "all", "topic": "#"}
    assert (await ask("panel", dashboard))["result"] == "allow"
    for wrong in ((user, "x"), ("t:rival:d:pump", issued["password"]), ("", ""), ("\0", "x"), ("admin", "")):
        assert (await ask(*wrong)) == {"result": "deny"}

    async def may(action: str, topic: str, username: str = user) -> str:
        body = {"username": username, "clientid": "c", "action": action, "topic": topic}
        return (await http.send("/mqtt/acl", body, 200))["result"]

    assert await may("publish", TELEM) == "allow"
    assert await may("publish", "traksense/acme/plant/other/telem") == "deny"
    assert await may("subscribe", "traksense/acme/plant/pump/cmd") == "allow"
    assert await may("subscribe", "#") == "deny"
    assert await may("subscribe", "traksense/+/+/+/telem", "panel") == "allow"
    assert await may("publish", "traksense/a/b/c/cmd", "panel") == "deny"
    assert await may("explode", TELEM) == "deny"
    await pool.execute("update caudal.credential set revoked_at = now()")
    assert await may("publish", TELEM) == "deny"
    http.headers = {}
    await http.send("/mqtt/acl", {"username": user, "action": "publish", "topic": TELEM}, 401)
