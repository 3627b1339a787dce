"""A provider's webhook: the handshake, signatures refused, an event taken once however often it comes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from time import time
from typing import Final

import httpx
import msgspec

from caudal.app.validate.context import Context
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "messaging"
NUMBER = 18
TITLE = "Webhook signatures"
TIMES = 3
CAME = "select count(*) from caudal.message where tenant_id = $1 and content = $2"


async def run(context: Context, finding: Finding) -> None:
    run = context.ground.run
    # No provider knows this number, and nothing is ever sent from it.
    secret, verify, number = secrets.token_hex(16), secrets.token_hex(8), f"validate-{run}"
    new = {
        "channel": "whatsapp", "provider_account": number, "token": "none", "app_secret": secret,
        "verify_token": verify,
    }  # fmt: skip
    made = await context.call("POST", "/api/connectors", new)
    if not finding.equal("Answer to a new account", made.status_code, 201):
        return
    try:
        url = context.target.http + made.json()["webhook_path"]
        await _handshake(context, finding, url, verify)
        await _events(context, finding, url, secret, number)
    finally:
        gone = await context.call("DELETE", f"/api/connectors/{made.json()['id']}")
        finding.equal("Answer to the account's removal", gone.status_code, 204)


async def _handshake(context: Context, finding: Finding, url: str, verify: str) -> None:
    for token, status in ((verify, 200), ("wrong", 403)):
        query = {"hub.mode": "subscribe", "hub.verify_token": token, "hub.challenge": "42"}
        answer = await context.http.get(url, params=query)
        finding.equal(f"Answer to the handshake ({status})", answer.status_code, status)


async def _events(context: Context, finding: Finding, url: str, secret: str, number: str) -> None:
    text = f"hello from {context.ground.run}"
    message = {
        "from": "5511900000000", "id": f"wamid.{context.ground.run}", "timestamp": str(int(time())),
        "type": "text", "text": {"body": text},
    }  # fmt: skip
    value = {
        "messaging_product": "whatsapp", "metadata": {"phone_number_id": number},
        "contacts": [{"wa_id": "5511900000000", "profile": {"name": "Validate"}}], "messages": [message],
    }  # fmt: skip
    body = msgspec.json.encode(
        {
            "object": "whatsapp_business_account",
            "entry": [{"id": "0", "changes": [{"field": "messages", "value": value}]}],
        }
    )

    async def post(signature: str | None) -> httpx.Response:
        headers = {"content-type": "application/json"}
        if signature is not None:
            headers["x-hub-signature-256"] = signature
        return await context.http.post(url, content=body, headers=headers)

    def signed(key: str) -> str:
        return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()

    refused = [await post(None), await post("sha256=00"), await post(signed("wrong"))]
    finding.equal("Answers without the right signature", [one.status_code for one in refused], [401] * 3)
    taken = [await post(signed(secret)) for _ in range(TIMES)]
    finding.equal("Answers with it", [one.status_code for one in taken], [200] * TIMES)
    tenant = context.ground.tenant_id
    came = await context.eventually(
        lambda: context.ground.admin.fetchval(CAME, tenant, text), lambda count: count > 0
    )
    finding.equal("Messages made of one event", came, 1)
    finding.measured["events"] = TIMES
    finding.measured["refused"] = len(refused)
    finding.sentence = (
        f"{len(refused)} without the right signature refused; {TIMES} times one event: one message."
    )
