"""The same Idempotency-Key is the same message, however often and however many at once; never another one."""

from __future__ import annotations

import asyncio
from typing import Final

from caudal.app.validate.context import Context
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "messaging"
NUMBER = 14
TITLE = "Idempotency keys"
AT_ONCE = 8


async def run(context: Context, finding: Finding) -> None:
    other, _ = await context.signed_in("two")
    await context.signed_in()
    key = {"Idempotency-Key": f"validate-{context.ground.run}"}
    name = context.conversation("keys")
    body = {"conversation_id": name, "content": "once", "recipient_id": other}
    answers = await asyncio.gather(
        *(context.call("POST", "/v1/messages", body, headers=key) for _ in range(AT_ONCE))
    )
    answers.append(await context.call("POST", "/v1/messages", body, headers=key))
    finding.equal("Answers", {answer.status_code for answer in answers}, {202})
    ids = {answer.json().get("message_id") for answer in answers}
    finding.equal("Messages made by one key", len(ids), 1)
    reused = await context.call("POST", "/v1/messages", {**body, "content": "another"}, headers=key)
    finding.expect(
        400 <= reused.status_code < 500, f"Another message with it was answered {reused.status_code}."
    )
    finding.equal("Messages in the conversation", len(await context.history(name)), 1)
    finding.measured["sent"] = len(answers) + 1
    finding.sentence = (
        f"{len(answers)} times one key, {AT_ONCE} at once: one message; another under it refused."
    )
