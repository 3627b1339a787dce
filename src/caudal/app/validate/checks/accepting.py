"""Messages accepted at a steady rate: each is there when its 202 comes, and what is wrong is refused."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

import httpx

from caudal.app.validate.context import Context, percentiles
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "messaging"
NUMBER = 13
TITLE = "Accepting messages"
PART = 10
"""Of the rate of telemetry: people write less than meters do."""
CONVERSATIONS = 4
ENOUGH = 0.95
STORED = "select count(*) from caudal.message where tenant_id = $1 and id::text = any($2)"


async def run(context: Context, finding: Finding) -> None:
    tenant = context.ground.tenant_id
    other, _ = await context.signed_in("two")
    accepted: list[str] = []
    unseen = 0
    waits: list[float] = []
    refused: list[int] = []

    async def one(number: int) -> None:
        nonlocal unseen
        body = {
            "conversation_id": context.conversation(f"load-{number % CONVERSATIONS}"),
            "content": f"message {number}", "recipient_id": other,
        }  # fmt: skip
        began = perf_counter()
        answer = await context.call("POST", "/v1/messages", body)
        waits.append(perf_counter() - began)
        if answer.status_code != 202:
            refused.append(answer.status_code)
            return
        found = str(answer.json()["message_id"])
        accepted.append(found)
        # The answer is a promise: it is there now, not soon.
        unseen += 1 - await context.ground.admin.fetchval(STORED, tenant, [found])

    await context.signed_in()
    rate = max(1.0, context.load.rate / PART)
    began = perf_counter()
    sent = 0
    async with asyncio.TaskGroup() as group:
        while (elapsed := perf_counter() - began) < context.load.seconds:
            while sent < elapsed * rate:
                group.create_task(one(sent), name="accept")
                sent += 1
            await asyncio.sleep(0.01)
    took = perf_counter() - began
    stored = await context.ground.admin.fetchval(STORED, tenant, accepted)
    finding.measured |= {
        "asked_per_second": rate, "sent": sent, "accepted": len(accepted), "seconds": round(took, 2),
        "per_second": round(len(accepted) / took, 1), "lost": len(accepted) - stored,
        "not_there_at_202": unseen,
    }  # fmt: skip
    finding.measured |= percentiles(waits, "accept")
    finding.equal("Messages that were not accepted, by status", refused, [])
    finding.equal("Accepted messages that are not there", len(accepted) - stored, 0)
    finding.expect(
        not unseen,
        f"{unseen} of {len(accepted)} messages were not stored when their 202 came: before the commit.",
    )
    finding.expect(
        len(accepted) / took >= ENOUGH * rate,
        f"{len(accepted) / took:.1f} a second, of {rate:.1f} asked for.",
    )
    slow = finding.measured.get("accept_p95_ms", 0.0)
    finding.expect(float(slow) <= context.load.latency_ms, f"95 of 100 answers within {slow} ms.")
    await _refusals(context, finding)
    finding.sentence = (
        f"{len(accepted) / took:.0f} messages a second over {took:.1f} s, all stored at their 202, none lost;"
        f" p95 {slow} ms, p99 {finding.measured.get('accept_p99_ms')} ms."
    )


async def _refusals(context: Context, finding: Finding) -> None:
    body = {"conversation_id": context.conversation("refused"), "content": "x"}
    blank = await context.call("POST", "/v1/messages", {**body, "content": " "})
    finding.equal("Answer to a blank message", blank.status_code, 400)
    large = await context.call("POST", "/v1/messages", {**body, "content": "x" * 10_241})
    finding.expect(large.status_code in (400, 413), f"A message too large was answered {large.status_code}.")
    stranger: httpx.Response = await context.http.post(f"{context.target.http}/v1/messages", json=body)
    finding.equal("Answer to who is not signed in", stranger.status_code, 401)
