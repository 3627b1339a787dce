"""Pages of the console."""

from __future__ import annotations

from typing import Any

# A form that is understood and refused comes back with its problem.
SAID = (200, 201, 204, 302, 303, 400, 403, 409, 422)
# The API's own route has ended it a moment before.
ENDED = (*SAID, 404)
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
    "POST /console/devices": {"body": {"$form": {"name": "console-{tenant}"}}, "own": MOVED},
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
    "POST /console/certificates/{certificate_id}/revoke": {
        "body": {"$form": {"reason": "superseded"}}, "own": MOVED},
    "GET /console/devices/{device_id}/raw": {},
    "GET /console/history": {"query": {"points": "{point_id}"}},
    "GET /console/history/states": {"query": {"point": "{point_id}"}},
    "GET /console/sites": {"query": {"search": "s"}},
    "POST /console/sites": {"body": {"$form": {"name": "console-{tenant}"}}, "own": MOVED},
    "GET /console/sites/{site_id}": {},
    "POST /console/sites/{site_id}": {"body": {"$form": {"display_name": "n"}}, "own": MOVED},
    # Things stand there.
    "POST /console/sites/{site_id}/delete": {"own": (*MOVED, 404, 409)},
    "GET /console/profiles": {"query": {"search": "p"}},
    "POST /console/profiles": {"body": {"$form": {"name": "console {tenant}"}}, "own": MOVED},
    "GET /console/profiles/{profile_id}": {},
    "POST /console/profiles/{profile_id}": {
        "body": {"$form": {"name": "n", "p1.name": "q", "c1.name": "reset"}}, "own": MOVED},
    "POST /console/profiles/{profile_id}/delete": {"own": (*MOVED, 404, 409)},
    "GET /console/certificates": {"query": {"search": "x"}},
    "POST /console/certificates/bootstrap": {"body": {"$form": {"label": "batch of {tenant}"}}, "own": SAID},
    "POST /console/certificates/bootstrap/{bootstrap_id}/revoke": {
        "body": {"$form": {"reason": "superseded"}}, "own": SAID},
    "POST /console/certificates/registrations/{registration_id}/approve": {
        "body": {"$form": {"code": "CONSOLE2"}}, "own": (*SAID, 404)},
    "POST /console/certificates/registrations/{registration_id}/reject": {
        "body": {"$form": {"reason": "no"}}, "own": (*SAID, 404)},
    "POST /console/gateways/{gateway_id}/certificate": {"own": SAID},
    # For the tenant that runs the installation; neither of these two does.
    "GET /console/installation/tenants": {"own": (404,)},
    "POST /console/installation/tenants": {
        "body": {"$form": {"name": "new", "email": "x@example.com"}}, "own": (404,)},
    "GET /console/installation/tenants/{tenant_id}": {"own": (404,)},
    "POST /console/installation/tenants/{tenant_id}/{deed}": {
        "body": {"$form": {"reason": "x"}}, "own": (404,)},
    "POST /console/installation/tenants/{tenant_id}": {"body": {"$form": {"max_series": "1"}}, "own": (404,)},
    "GET /console/points": {"query": {"q": "p"}},
    "GET /console/points/{point_id}": {},
    "POST /console/points/{point_id}": {"body": {"$form": {"display_name": "n"}}, "own": MOVED},
    "POST /console/points/{point_id}/replacements": {
        "body": {"$form": {"at": "2026-01-03T00:00"}}, "own": SAID},
    "POST /console/points/{point_id}/replacements/{replacement_id}/withdraw": {"own": ENDED},
    "GET /console/history.json": {"query": {"points": "{point_id}"}},
    "GET /console/conversations": {"query": {"q": "x"}},
    "GET /console/conversations/news": {"stream": True},
    "GET /console/conversations/thread": {
        "query": {"name": "{conversation_id}"}},
    "POST /console/conversations/join": {"body": {"$form": {"name": "{conversation_id}"}}, "own": ENDED},
    "POST /console/conversations": {
        "body": {"$form": {"name": "{conversation_id}", "content": "hello"}}, "own": SAID},
    "POST /console/conversations/deliveries/{delivery_id}/resend": {"own": SAID},
    "GET /console/dead-letters": {"query": {"q": "x", "device": "{device_id}"}},
    "GET /console/dead-letters/{letter_id}": {},
    "POST /console/dead-letters/discard": {"body": {"$form": {"reason": "r"}}, "own": SAID},
    "POST /console/dead-letters/replay": {"body": {"$form": {"reason": "r"}}, "own": SAID},
    "POST /console/dead-letters/{letter_id}/discard": {"own": SAID},
    "POST /console/dead-letters/{letter_id}/fix": {"body": {"$form": {"payload": "{}"}}, "own": SAID},
    "POST /console/dead-letters/{letter_id}/replay": {"own": SAID},
    "POST /console/dead-letters/{letter_id}/try": {"body": {"$form": {"payload": "{}"}}, "own": SAID},
    "GET /console/forgotten": {},
    "POST /console/forgotten": {"body": {"$form": {"email": "somebody@example.com"}}, "own": SAID},
    "GET /console/operations": {},
    "GET /console/people": {},
    "GET /console/people/account": {},
    "POST /console/people/account": {"body": {"$form": {"old": "not-it", "new": "another-one"}}, "own": SAID},
    "GET /console/people/audit": {"query": {"actor": "user:{owner_id}"}},
    "GET /console/people/keys": {},
    "POST /console/people/keys": {"body": {"$form": {"name": "n", "scopes": "tenant:read"}}, "own": SAID},
    "POST /console/people/keys/{key_id}/revoke": {"own": ENDED},
    "POST /console/people/invite": {
        "body": {"$form": {"email": "x@example.com", "role": "viewer"}}, "own": SAID},
    "POST /console/people/invitations/{invitation_id}/withdraw": {"own": ENDED},
    "POST /console/people/{user_id}/role": {"body": {"$form": {"role": "viewer"}}, "own": SAID},
    "POST /console/people/{user_id}/remove": {"own": ENDED},
    "GET /invitation": {},
    "GET /reset": {},
    "POST /invitation": {"body": {"$form": {"secret": "x", "password": "another"}}, "own": SAID},
    "POST /reset": {"body": {"$form": {"secret": "x", "password": "another"}}, "own": SAID},
    "GET /console/quarantine": {},
    # The planted device is not in quarantine.
    "POST /console/quarantine/{device_id}/claim": {
        "body": {"$form": {"display_name": "n"}}, "own": (*MOVED, 409)},
    "POST /console/quarantine/{device_id}/reject": {"own": (*MOVED, 409)},
    "GET /console": {"query": {"span": "24h", "site": "{site_id}", "device": "{device_id}"}},
}  # fmt: skip


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """A dead letter; the other pages show what the other cases planted."""
    letter = await world.api.admin.fetchval(
        "insert into caudal.dead_letter(tenant_id, tenant_name, topic, payload, reason, sentence, received,"
        " digest) select id, name, name || '/topic', 'x', 'r', 's', now(), '' from caudal.tenant"
        " where name = $1 returning id",
        tenant,
    )
    number = await world.api.admin.fetchval("select id from caudal.tenant where name = $1", tenant)
    return {"letter_id": letter, "tenant_id": number, "deed": "suspend"}
