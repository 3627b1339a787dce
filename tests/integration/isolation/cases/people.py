"""People, keys, the tenant itself, and the way in."""

from __future__ import annotations

from typing import Any, NamedTuple

from caudal.registry.permissions import Role


class Case(NamedTuple):
    """How to call a route: `body` and `query` may hold "{name}" of what was planted.

    `own` is what its own tenant is answered; `why` says why that is no success, where it is none.
    """

    body: Any = None
    query: dict[str, str] = {}  # noqa: RUF012
    own: tuple[int, ...] = (200, 201, 202, 204)


CASES = {
    "POST /auth/register": Case({"username": "a_new_one", "password": "secret", "email": "new@example.com"}),
    "POST /auth/token": Case({"username": "owner_zebra", "password": "secret"}),
    "POST /auth/session": Case({"username": "owner_zebra", "password": "secret"}),
    "DELETE /auth/session": Case(),
    "POST /auth/reset": Case({"email": "somebody@example.com"}),
    "POST /auth/reset/finish": Case({"secret": "x" * 43, "password": "another"}, own=(400,)),
    "POST /auth/invitation": Case({"secret": "x" * 43, "password": "another", "username": "x_y"}, own=(400,)),
    "GET /.well-known/jwks.json": Case(),
    "GET /api/me": Case(),
    "POST /api/me/token": Case({"tenant": "{tenant}"}),
    "POST /api/me/session": Case({"tenant": "{tenant}"}),
    "PUT /api/me/password": Case({"old": "not-this", "new": "another-one"}, own=(403,)),
    "GET /api/people": Case(),
    "GET /api/people/{user_id}": Case(),
    "PATCH /api/people/{user_id}": Case({"role": "viewer"}),
    "DELETE /api/people/{user_id}": Case(),
    "GET /api/invitations": Case(),
    "POST /api/invitations": Case({"email": "someone@example.com", "role": "viewer"}),
    "DELETE /api/invitations/{invitation_id}": Case(),
    "GET /api/keys": Case(),
    "POST /api/keys": Case({"name": "one", "scopes": ["tenant:read"]}),
    "DELETE /api/keys/{key_id}": Case(),
    "GET /api/audit": Case(query={"action": "key.made", "actor": "user:{owner_id}"}),
    "GET /api/tenant": Case(),
    "PATCH /api/tenant": Case({"display_name": "A name", "time_zone": "Europe/Lisbon"}),
    "GET /api/quotas": Case(),
}


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """A member, an invitation and a key."""
    headers = world.headers[tenant]
    member, _ = await world.api.person(tenant, Role.TECHNICIAN, username=f"tech_{tenant}")
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
