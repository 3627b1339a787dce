"""Sites, gateways, devices, points, profiles, credentials, quarantine, commands."""

from __future__ import annotations

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "GET /api/sites": {"query": {"q": "site"}},
    "POST /api/sites": {"body": {"name": "another", "time_zone": "UTC"}},
    "GET /api/sites/{site_id}": {},
    "PATCH /api/sites/{site_id}": {"body": {"display_name": "Elsewhere"}},
    "DELETE /api/sites/{site_id}": {"own": (204, 409)},
    "GET /api/gateways": {"query": {"q": "gw", "site_id": "{site_id}", "site": "{site_id}"}},
    "POST /api/gateways": {
        "body": {"code": "NEW", "mac": "02:00:00:00:00:99", "site_id": "{site_id:int}", "name": "n"},
        "own": (201, 409),
    },
    "GET /api/gateways/{gateway_id}": {},
    "PATCH /api/gateways/{gateway_id}": {"body": {"name": "n", "site_id": "{site_id:int}"}},
    "DELETE /api/gateways/{gateway_id}": {"own": (204, 409)},
    "GET /api/devices": {"query": {"q": "d", "site_id": "{site_id}", "gateway_id": "{gateway_id}"}},
    "POST /api/devices": {
        "body": {"code": "D9", "gateway_id": "{gateway_id:int}", "profile_id": "{profile_id:int}"}
    },
    "GET /api/devices/{device_id}": {},
    "PATCH /api/devices/{device_id}": {"body": {"display_name": "n", "profile_id": "{profile_id:int}"}},
    "DELETE /api/devices/{device_id}": {"own": (204, 409)},
    "GET /api/points": {"query": {"q": "p", "device_id": "{device_id}"}},
    "POST /api/points": {"body": {"device_id": "{device_id:int}", "name": "power", "unit": "W"}},
    "GET /api/points/{point_id}": {},
    "PATCH /api/points/{point_id}": {"body": {"display_name": "n"}},
    "GET /api/points/{point_id}/replacements": {},
    "POST /api/points/{point_id}/replacements": {"body": {"at": "2026-01-02T00:00:00Z"}},
    "DELETE /api/points/{point_id}/replacements/{replacement_id}": {},
    "DELETE /api/points/{point_id}": {"own": (204, 409)},
    "GET /api/profiles": {"query": {"q": "p"}},
    "POST /api/profiles": {"body": {"name": "other", "commands": [{"name": "reset"}]}},
    "GET /api/profiles/{profile_id}": {},
    "GET /api/profiles/{profile_id}/versions": {},
    "PUT /api/profiles/{profile_id}": {"body": {"name": "renamed", "commands": [{"name": "reset"}]}},
    "DELETE /api/profiles/{profile_id}": {"own": (204, 409)},
    "GET /api/devices/{device_id}/availability": {"query": {"start": "2026-01-01T00:00:00Z"}},
    "GET /api/gateways/{gateway_id}/availability": {"query": {"start": "2026-01-01T00:00:00Z"}},
    "POST /api/gateways/import": {"body": {"$content": "code,mac\nAB,02:00:00:00:01:01\n"}},
    "POST /api/devices/import": {"body": {"$content": "name\nimported\n"}},
    "GET /api/gateways/export": {},
    "GET /api/devices/export": {},
    "GET /api/quarantine": {"query": {"q": "x"}},
    "POST /api/devices/{device_id}/claim": {
        "body": {"display_name": "mine", "site_id": "{site_id:int}"}, "own": (200, 409)},
    "POST /api/devices/{device_id}/reject": {"own": (200, 409)},
    "GET /api/devices/{device_id}/credentials": {},
    "POST /api/devices/{device_id}/credentials": {},
    "DELETE /api/devices/{device_id}/credentials": {},
    "GET /api/gateways/{gateway_id}/credentials": {},
    "POST /api/gateways/{gateway_id}/credentials": {},
    "DELETE /api/gateways/{gateway_id}/credentials": {},
    "GET /api/credentials/due": {},
    "POST /api/devices/{device_id}/commands": {"body": {"name": "reset", "idempotency_key": "{tenant}-2"}},
    "GET /api/commands": {"query": {"device_id": "{device_id}", "state": "pending"}},
    "GET /api/commands/{command_id}": {},
    "GET /api/series/data": {
        "query": {"series": "{point_id}", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}},
    "GET /api/series/consumption": {
        "query": {"series": "{point_id}", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}},
    "GET /api/series/states": {
        "query": {"series": "{point_id}", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}},
    "GET /api/series/live": {"query": {"series": "{point_id}"}, "stream": True},
    "GET /api/series/latest": {"query": {"site": "{site_name}"}},
}  # fmt: skip


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """One of each."""

    async def make(path: str, **body: Any) -> int:
        answer = await world.api.client.post(path, json=body, headers=world.headers[tenant])
        assert answer.status_code in (200, 201, 202), answer.text
        made: int = answer.json()["id"]
        return made

    last = "01" if tenant == "ours" else "02"
    site = await make("/api/sites", name=f"{tenant} site")
    commands = [{"name": "reset"}]
    profile = await make("/api/profiles", name=f"{tenant} profile", commands=commands)
    gateway = await make("/api/gateways", code=f"{tenant}-GW", mac=f"02:00:00:00:00:{last}", site_id=site)
    device = await make("/api/devices", name=f"{tenant}-device", site_id=site, profile_id=profile)
    point = await make("/api/points", device_id=device, name=f"{tenant}-point", kind="counter")
    replacement = await make(f"/api/points/{point}/replacements", at="2026-01-01T00:00:00Z", note=tenant)
    command = await make(f"/api/devices/{device}/commands", name="reset", idempotency_key=f"{tenant}-1")
    return {
        "site_id": site, "site_name": f"{tenant} site", "profile_id": profile, "gateway_id": gateway,
        "device_id": device, "point_id": point, "command_id": command, "replacement_id": replacement,
    }  # fmt: skip
