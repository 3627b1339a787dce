"""People, keys, the tenant itself, and the way in."""

from __future__ import annotations

from typing import Any

from caudal.registry.permissions import Role

CASES: dict[str, dict[str, Any]] = {
    "POST /auth/register": {
        "body": {"username": "a_new_one", "password": "secret", "email": "new@example.com"},
        "own": (201, 409),
    },
    "POST /auth/token": {"body": {"username": "owner_zebra", "password": "secret"}},
    "POST /auth/session": {"body": {"username": "owner_zebra", "password": "secret"}},
    "DELETE /auth/session": {},
    "POST /auth/reset": {"body": {"email": "somebody@example.com"}},
    "POST /auth/reset/finish": {"body": {"secret": "x" * 43, "password": "another"}, "own": (400,)},
    "POST /auth/invitation": {
        "body": {"secret": "x" * 43, "password": "another", "username": "x_y"},
        "own": (400,),
    },
    "GET /.well-known/jwks.json": {},
    "GET /api/me": {},
    "POST /api/me/token": {"body": {"tenant": "{tenant}"}},
    "POST /api/me/session": {"body": {"tenant": "{tenant}"}},
    "PUT /api/me/password": {"body": {"old": "not-this", "new": "another-one"}, "own": (403,)},
    "GET /api/people": {},
    "GET /api/people/{user_id}": {},
    "PATCH /api/people/{user_id}": {"body": {"role": "viewer"}},
    "DELETE /api/people/{user_id}": {},
    "GET /api/invitations": {},
    "POST /api/invitations": {"body": {"email": "someone@example.com", "role": "viewer"}},
    "DELETE /api/invitations/{invitation_id}": {},
    "GET /api/keys": {},
    "POST /api/keys": {"body": {"name": "one", "scopes": ["tenant:read"]}},
    "DELETE /api/keys/{key_id}": {},
    "GET /api/audit": {"query": {"action": "key.made", "actor": "user:{owner_id}"}},
    "GET /api/tenant": {},
    # For the tenant that runs the installation; neither of these two does.
    "GET /api/installation/tenants": {"own": (404,)},
    "GET /api/installation/tenants/{tenant_id}": {"own": (404,)},
    "POST /api/installation/tenants/{tenant_id}/suspend": {"body": {"reason": "x"}, "own": (404,)},
    "POST /api/installation/tenants/{tenant_id}/resume": {"own": (404,)},
    "PATCH /api/tenant": {"body": {"display_name": "A name", "time_zone": "Europe/Lisbon"}},
    "GET /api/quotas": {},
}  # fmt: skip


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """A member, an invitation and a key."""
    headers = world.headers[tenant]
    member, world.member_headers[tenant] = await world.api.person(
        tenant, Role.TECHNICIAN, username=f"tech_{tenant}"
    )
    invited = await world.api.client.post(
        "/api/invitations", json={"email": f"guest@{tenant}.example", "role": "viewer"}, headers=headers
    )
    key = await world.api.client.post(
        "/api/keys", json={"name": f"{tenant} reader", "scopes": ["tenant:read"]}, headers=headers
    )
    await world.api.client.patch("/api/tenant", json={"display_name": f"{tenant} inc."}, headers=headers)
    return {
        "tenant": tenant,
        "owner_id": str(world.people[tenant]),
        "user_id": str(member),
        "invitation_id": invited.json()["id"],
        "key_id": key.json()["about"]["id"],
    }
