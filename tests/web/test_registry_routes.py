"""The registry over HTTP: what a person sees, pages, CSV, passwords, commands, quarantine."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.registry.access import AccessSettings
from caudal.registry.permissions import Role

MAC = "AA:BB:CC:DD:EE:01"


class Releases:
    """Stands for the pipeline."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def release(self, tenant: str, device: str) -> int:
        self.asked.append((tenant, device))
        return 3


class Caller:
    """Calls the API as a person of a tenant."""

    def __init__(self, api: Any, headers: dict[str, str]) -> None:
        self._api = api
        self._headers = headers

    async def __call__(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        answer = await self._api.client.request(method, path, headers=self._headers, **kwargs)
        assert answer.status_code == status, answer.text
        if status == 204:
            return None
        json = answer.headers["content-type"].startswith(("application/json", "application/problem"))
        return answer.json() if json else answer.text


@pytest.fixture
async def api(unstarted_api: Any) -> Any:
    return await unstarted_api.start(access_settings=AccessSettings(), release=Releases())


@pytest.fixture
async def call(api: Any) -> Caller:
    return Caller(api, await api.headers("acme", Role.ADMIN))


async def test_a_gateway_and_its_meter(api: Any, call: Caller) -> None:
    site = await call("POST", "/api/sites", 201, json={"name": "plant", "time_zone": "America/Sao_Paulo"})
    gateway = await call(
        "POST", "/api/gateways", 201,
        json={"code": "gw1", "mac": MAC, "site_id": site["id"], "capacity": 1, "latitude": -23.5505},
    )  # fmt: skip
    assert (gateway["code"], gateway["mac"], gateway["status"]) == ("GW1", MAC.lower(), "never_connected")
    meter = {"gateway_id": gateway["id"], "code": "D01", "kind": "meter", "modbus_register": 1}
    assert "needs both" in (await call("POST", "/api/devices", 400, json=meter))["error"]
    meter["modbus_slave"] = 1
    device = await call("POST", "/api/devices", 201, json={**meter, "alarm_day": 12.5})
    assert (device["name"], device["alarm_day"]) == (f"{MAC.lower()}/D01", 12.5)
    full = await call("POST", "/api/devices", 409, json={**meter, "code": "D02"})
    assert "capacity" in full["error"]
    assert "still has devices" in (await call("DELETE", f"/api/gateways/{gateway['id']}", 409))["error"]
    found = await call("GET", "/api/devices", params={"gateway_id": gateway["id"], "kind": "meter"})
    assert [item["id"] for item in found["items"]] == [device["id"]]
    await call("PATCH", f"/api/devices/{device['id']}", json={"status": "maintenance", "alarm_day": None})
    span = await call("GET", f"/api/devices/{device['id']}/availability")
    assert span["online_seconds"] == 0
    await call("DELETE", f"/api/devices/{device['id']}", 204)
    await call("DELETE", f"/api/gateways/{gateway['id']}", 204)
    rival = Caller(api, await api.headers("rival"))
    for path in (f"/api/sites/{site['id']}",):
        await rival("GET", path, 404)
        await rival("PATCH", path, 404, json={"name": "x"})
        await rival("DELETE", path, 404)
    deeds = await call("GET", "/api/audit")
    assert {"site.created", "gateway.deleted", "device.changed"} <= {
        entry["action"] for entry in deeds["items"]
    }


async def test_roles(api: Any) -> None:
    viewer = Caller(api, await api.headers("acme", Role.VIEWER))
    await viewer("GET", "/api/devices")
    await viewer("POST", "/api/devices", 403, json={"name": "x"})
    member = Caller(api, await api.headers("acme", Role.MEMBER))
    await member("GET", "/api/devices", 403)


@pytest.mark.parametrize("number", [0, -1, 2**63, 10**30])
async def test_odd_ids(call: Caller, number: int) -> None:
    answer = await call._api.client.get(f"/api/devices/{number}", headers=call._headers)
    assert answer.status_code in (400, 404)


async def test_pages(call: Caller) -> None:
    for n in range(5):
        await call("POST", "/api/devices", 201, json={"name": f"d{n}"})
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await call(
            "GET", "/api/devices", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        )
        seen += [item["name"] for item in answer["items"]]
        cursor = answer["next_cursor"]
    assert seen == [f"d{n}" for n in range(5)]


async def test_profile_over_http(call: Caller) -> None:
    given = {
        "name": "chiller",
        "points": [{"name": "kwh", "kind": "counter", "unit": "kWh"}],
        "commands": [{"name": "setpoint", "params": [{"name": "value", "type": "number", "maximum": 20}]}],
    }
    profile = await call("POST", "/api/profiles", 201, json=given)
    device = await call("POST", "/api/devices", 201, json={"name": "c", "profile_id": profile["id"]})
    found = await call("GET", "/api/points", params={"device_id": device["id"]})
    assert [(p["name"], p["kind"]) for p in found["items"]] == [("kwh", "counter")]
    point = await call("PATCH", f"/api/points/{found['items'][0]['id']}", json={"limit_high": 5})
    assert point["limit_high"] == 5
    given["heartbeat_seconds"] = 60
    put = await call("PUT", f"/api/profiles/{profile['id']}?expected=1", json=given)
    assert put["version"] == 2
    await call("PUT", f"/api/profiles/{profile['id']}?expected=1", 409, json=given)
    assert len((await call("GET", f"/api/profiles/{profile['id']}/versions"))["items"]) == 2
    await call("DELETE", f"/api/profiles/{profile['id']}", 409)


async def test_passwords_and_commands(call: Caller) -> None:
    spec = {"name": "p", "commands": [{"name": "reset"}]}
    profile = await call("POST", "/api/profiles", 201, json=spec)
    device = await call("POST", "/api/devices", 201, json={"name": "pump", "profile_id": profile["id"]})
    path = f"/api/devices/{device['id']}"
    issued = await call("POST", f"{path}/credentials", 201)
    assert issued["username"] == "t:acme:d:pump"
    kept = await call("GET", f"{path}/credentials")
    assert [item["state"] for item in kept["items"]] == ["valid"]
    assert issued["password"] not in str(kept)
    assert (await call("DELETE", f"{path}/credentials")) == {"revoked": 1}
    assert (await call("GET", "/api/credentials/due")) == {"items": []}
    sent = await call("POST", f"{path}/commands", 202, json={"name": "reset", "idempotency_key": "a"})
    again = await call("POST", f"{path}/commands", 200, json={"name": "reset", "idempotency_key": "a"})
    assert again["id"] == sent["id"]
    assert "no such command" in (await call("POST", f"{path}/commands", 400, json={"name": "x"}))["error"]
    listed = await call("GET", "/api/commands", params={"device_id": device["id"], "status": "pending"})
    assert [item["cmd_id"] for item in listed["items"]] == [sent["cmd_id"]]
    found = await call("GET", f"/api/commands/{sent['id']}")
    assert [step["status"] for step in found["history"]] == ["pending"]


async def test_quarantine_over_http(api: Any, call: Caller) -> None:
    await api.admin.execute(
        "insert into caudal.device(tenant_id, name, status)"
        " select id, n, 'quarantined' from caudal.tenant t, unnest(array['a', 'b']) n where t.name = 'acme'"
    )
    held = (await call("GET", "/api/quarantine"))["items"]
    first, second = (item["device"]["id"] for item in held)
    claimed = await call("POST", f"/api/devices/{first}/claim", json={"display_name": "A"})
    assert (claimed["released"], claimed["device"]["status"]) == (3, "active")
    assert api.parts.services["release"].asked == [("acme", "a")]
    assert await call("POST", f"/api/devices/{second}/reject") == {"dead_letters": 0}
    await call("POST", f"/api/devices/{first}/reject", 409)
    assert (await call("GET", "/api/quarantine"))["items"] == []


GATEWAYS = f"code,mac,site,capacity\ngw1,{MAC},plant,4\n"
DEVICES = """\
name;gateway;code;kind;modbus_register;modbus_slave;alarm_day
;gw1;D01;meter;1;1;10.5
pump;;;sensor;;;
"""


async def test_csv(call: Caller) -> None:
    async def load(what: str, text: str, dry: bool, status: int = 200) -> Any:
        return await call(
            "POST", f"/api/{what}/import?dry_run={str(dry).lower()}", status,
            content=text.encode(),
        )  # fmt: skip

    await call("POST", "/api/sites", 201, json={"name": "plant"})
    bad = GATEWAYS + "gw1,aa:bb:cc:dd:ee:02,,8\nGW9,not a mac,,8\ngw2,aa:bb:cc:dd:ee:03,nowhere,\ngw3,x\n"
    report = await load("gateways", bad, False)
    assert (report["stored"], report["good"], report["bad"]) == (False, 1, 4)
    errors = {line["line"]: line["error"] for line in report["lines"] if not line["ok"]}
    assert list(errors) == [3, 4, 5, 6]
    for line, word in {3: "code", 4: "mac", 5: "nowhere", 6: "cells"}.items():
        assert word in errors[line]
    assert (await load("gateways", GATEWAYS, True))["good"] == 1
    assert (await call("GET", "/api/gateways"))["items"] == []
    assert (await load("gateways", GATEWAYS, False))["stored"]
    assert (await load("devices", DEVICES, False))["stored"]
    text = await call("GET", "/api/devices/export")
    assert text.splitlines()[1].startswith(f"{MAC.lower()}/D01,,,GW1,D01,meter,1,1,auto,active,10.5000")
    # What was exported comes back, once what it names is gone.
    for item in (await call("GET", "/api/devices"))["items"]:
        await call("DELETE", f"/api/devices/{item['id']}", 204)
    assert (await load("devices", text, False))["stored"]
    for wrong in ("", "nonsense\n1\n", "code,code\n", 'code,mac\n"x'):
        await load("gateways", wrong, True, 400 if not wrong.startswith("code,mac") else 200)
