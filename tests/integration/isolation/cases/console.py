"""Pages of the console."""

from __future__ import annotations

from typing import Any

MOVED = (200, 201, 204, 302, 303)
CASES: dict[str, dict[str, Any]] = {
    "GET /": {"own": (200, 302, 303, 307)},
    "GET /console/sign-in": {},
    "POST /console/sign-in": {"body": {"$form": {"login": "x", "password": "y", "next": "/"}}, "own": (401,)},
    "POST /console/sign-out": {"own": (200, 302, 303)},
    "GET /console/tenants": {},
    "POST /console/tenants": {"body": {"$form": {"tenant": "{tenant}"}}, "own": (200, 302, 303)},
    "POST /console/preferences": {"body": {"$form": {"theme": "dark", "next": "/"}}, "own": (200, 302, 303)},
    "GET /console/devices": {"query": {"q": "d", "site": "{site_id}"}},
    "GET /console/devices/{device_id}": {},
    "POST /console/devices/{device_id}": {"body": {"$form": {"display_name": "n"}}, "own": MOVED},
    "GET /console/devices/{device_id}/commands": {"empty": True},
    "POST /console/devices/{device_id}/commands": {
        "body": {"$form": {"name": "reset", "key": "k-{tenant}"}}, "own": MOVED},
    "POST /console/devices/{device_id}/issue": {"own": MOVED},
    "POST /console/devices/{device_id}/revoke": {"own": MOVED},
    "GET /console/gateways": {"query": {"q": "g", "site": "{site_id}"}},
    "POST /console/gateways": {
        "body": {"$form": {"code": "CONSOLE", "mac": "02:00:00:00:00:77"}}, "own": (*MOVED, 409)},
    "GET /console/gateways/{gateway_id}": {},
    "POST /console/gateways/{gateway_id}": {"body": {"$form": {"name": "n"}}, "own": MOVED},
    "POST /console/gateways/{gateway_id}/issue": {"own": MOVED},
    "POST /console/gateways/{gateway_id}/revoke": {"own": MOVED},
    "GET /console/points": {"query": {"q": "p"}},
    "GET /console/points/{point_id}": {},
    "POST /console/points/{point_id}": {"body": {"$form": {"display_name": "n"}}, "own": MOVED},
    "GET /console/history.json": {"query": {"points": "{point_id}"}},
    "GET /console/quarantine": {},
    # The planted device is not in quarantine.
    "POST /console/quarantine/{device_id}/claim": {
        "body": {"$form": {"display_name": "n"}}, "own": (*MOVED, 409)},
    "POST /console/quarantine/{device_id}/reject": {"own": (*MOVED, 409)},
    "GET /console": {"query": {"span": "24h", "site": "{site_id}", "device": "{device_id}"}},
}  # fmt: skip


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """Nothing: the pages show what the other cases planted."""
    return {}
