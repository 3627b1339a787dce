"""EMQX in front: its webhook, and the questions it asks before it lets somebody in."""

from __future__ import annotations

import json
from typing import Any

from caudal.registry import credentials
from tests.integration.ingest.conftest import TELEM, Http, v1


async def test_emqx_webhook(http: Http) -> None:
    body = {"client_id": "c", "topic": TELEM, "payload": json.dumps(v1(1)), "ts": 1772323200000}
    http.headers = {}
    await http.send("/api/ingest/emqx", body, 401)
    await http.send("/api/ingest/emqx", body, 401, authorization="Bearer wrong")
    came = await http.send("/api/ingest/emqx", body, authorization="Bearer broker")
    assert came["outcomes"][0]["result"] == "stored"


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
    assert found["expire_at"] > 1_700_000_000
    # Rules that came with it would be in force for as long as it is connected, revoked or not.
    assert found.keys() == {"result", "expire_at"}
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
