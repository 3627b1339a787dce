"""Telemetry over HTTP through the real pipeline: outcomes after the commit, bombs, quotas."""

from __future__ import annotations

import asyncio
import gzip
import json
import time

import pytest
import zstandard

from caudal.registry.permissions import Role
from caudal.web import guards
from tests.integration.ingest.conftest import MAC, TELEM, Http, v1


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
