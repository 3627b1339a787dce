"""Messages, conversations, groups, identities, deliveries, channel accounts."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

CASES: dict[str, dict[str, Any]] = {
    "POST /v1/messages": {
        "body": {"conversation_id": "{conversation_id}", "content": "hello", "recipient_id": "{user_id}"}},
    "POST /v1/messages/{message_id}/read": {"own": (200, 409)},
    "GET /v1/messages/{message_id}/deliveries": {},
    "GET /v1/conversations": {},
    "GET /v1/conversations/{conversation_id}/messages": {"query": {"offset": "0"}},
    "GET /api/conversations/unclaimed": {},
    "POST /api/conversations/{conversation_id}/join": {},
    "GET /api/deliveries": {"query": {"state": "failed", "channel": "whatsapp"}},
    "POST /api/deliveries/{delivery_id}/resend": {},
    "POST /v1/groups": {"body": {"name": "g", "initial_members": ["{user_id}"]}},
    "GET /v1/groups/{group_id}": {},
    "POST /v1/groups/{group_id}/members": {"body": {"user_id": "{owner_id}"}, "own": (200, 409)},
    "DELETE /v1/groups/{group_id}/members/{user_id}": {"own": (200, 404)},
    "PUT /v1/groups/{group_id}/admins/{user_id}": {},
    "POST /v1/users/identities": {"body": {"platform": "instagram", "value": "@somebody"}},
    "GET /v1/users/identities": {},
    "DELETE /v1/users/identities/{platform}/{value}": {},
    "GET /api/connectors": {},
    "POST /api/connectors": {
        "body": {"channel": "whatsapp", "provider_account": "{tenant}-2", "name": "n", "token": "t",
                 "app_secret": "s", "verify_token": "v"}},
    "PATCH /api/connectors/{account_id}": {"body": {"name": "renamed", "token": "other"}},
    "DELETE /api/connectors/{account_id}": {},
}  # fmt: skip


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """A conversation with a message and a delivery, a group, an identity, an account."""

    async def make(path: str, body: dict[str, Any], headers: Any = None) -> dict[str, Any]:
        answer = await world.api.client.post(path, json=body, headers=headers or world.headers[tenant])
        assert answer.status_code in (200, 201, 202), answer.text
        made: dict[str, Any] = answer.json()
        return made

    member = world.planted[tenant]["user_id"]
    conversation = f"talk-{tenant}"
    message = await make(
        "/v1/messages",
        {"conversation_id": conversation, "content": f"{tenant} secret",
         "recipient_id": str(world.people[tenant])},
        world.member_headers[tenant],
    )  # fmt: skip
    group = await make("/v1/groups", {"name": f"{tenant} group", "initial_members": [member]})
    number = "+5511999990001" if tenant == "ours" else "+5511999990002"
    await make("/v1/users/identities", {"platform": "whatsapp", "value": number})
    account = await make(
        "/api/connectors",
        {"channel": "whatsapp", "provider_account": f"{tenant}-1", "name": f"{tenant} number", "token": "t",
         "app_secret": "s", "verify_token": "v"},
    )  # fmt: skip
    delivery = await world.api.admin.fetchval(
        "insert into caudal.delivery(tenant_id, message_id, conversation_id, channel, address, state, reason,"
        " attempt) select m.tenant_id, m.id, m.conversation_id, 'whatsapp', $2, 'failed', 'x', 1"
        " from caudal.message m where m.id = $1 returning id",
        message["message_id"], f"{tenant}-address",
    )  # fmt: skip
    return {
        "conversation_id": conversation, "message_id": message["message_id"], "group_id": group["group_id"],
        "platform": "whatsapp", "value": number, "account_id": account["id"], "delivery_id": delivery,
        "unknown_id": str(uuid4()),
    }  # fmt: skip
