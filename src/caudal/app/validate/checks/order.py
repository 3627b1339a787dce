"""A conversation has one order, that of its acceptance, whoever looks; and nobody else looks at all."""

from __future__ import annotations

from typing import Final

from caudal.app.validate.context import Context
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "messaging"
NUMBER = 15
TITLE = "Order of messages"
COUNT = 30


async def run(context: Context, finding: Finding) -> None:
    other, _ = await context.signed_in("two")
    name = context.conversation("order")
    said = []
    for number in range(COUNT):
        # Both speak; what was said is in the order of the answers.
        who = "one" if number % 3 else "two" if number else "one"
        body: dict[str, object] = {"conversation_id": name, "content": f"{number}"}
        if number == 0:
            body["recipient_id"] = other
        answer = await context.call("POST", "/v1/messages", body, who=who)
        if finding.equal(f"Answer to message {number}", answer.status_code, 202):
            said.append(f"{number}")
    for who in ("one", "two"):
        seen = [message["content"] for message in await context.history(name, who=who)]
        finding.equal(f"What {who} of the two sees", seen, said)
    outside = await context.call("GET", f"/v1/conversations/{name}/messages", who="three")
    finding.equal("Answer to somebody outside the conversation", outside.status_code, 403)
    finding.measured["messages"] = len(said)
    finding.sentence = f"{len(said)} messages of two people: one order for both, and 403 for a third."
