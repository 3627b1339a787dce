"""What becomes of a message: routed to whom it is for, read by them, its status only ever forward."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

from caudal.app.validate.context import Context, percentiles
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "messaging"
NUMBER = 16
TITLE = "Delivery state"
COUNT = 10
ROUTED_SECONDS = 10.0
STATES = ("SENT", "DELIVERED", "READ")


async def run(context: Context, finding: Finding) -> None:
    other, _ = await context.signed_in("two")
    name = context.conversation("delivery")
    waits: list[float] = []
    for number in range(COUNT):
        body = {"conversation_id": name, "content": f"{number}", "recipient_id": other}
        answer = await context.call("POST", "/v1/messages", body)
        began = perf_counter()
        if not finding.equal("Answer", answer.status_code, 202):
            return
        message = answer.json()["message_id"]
        path = f"/v1/messages/{message}/read"
        # 409 until the router has made the delivery.
        read = await context.eventually(
            lambda path=path: context.call("POST", path, who="two"),  # type: ignore[misc]
            lambda found: found.status_code != 409, ROUTED_SECONDS,
        )  # fmt: skip
        waits.append(perf_counter() - began)
        if not finding.equal("Answer to who has read it", read.status_code, 200):
            return
        again = await context.call("POST", path, who="two")
        finding.equal("Time of reading, said again", again.json().get("read_at"), read.json()["read_at"])
    history = await context.history(name)
    finding.equal("Statuses as the sender sees them", {message["status"] for message in history}, {"READ"})
    finding.measured["messages"] = len(history)
    finding.measured |= percentiles(waits, "routed_and_read")
    await _forward(context, finding, other)
    finding.sentence = (
        f"{len(history)} messages routed and read, p95 {finding.measured['routed_and_read_p95_ms']} ms;"
        " status only forward."
    )


async def _forward(context: Context, finding: Finding, other: str) -> None:
    """Watch one message's status while it is routed and read."""
    name = context.conversation("forward")
    sent = await context.call(
        "POST", "/v1/messages", {"conversation_id": name, "content": "watched", "recipient_id": other}
    )
    seen: list[str] = []

    async def watch() -> None:
        while not seen or seen[-1] != "READ":
            status = (await context.history(name))[0]["status"]
            if not seen or seen[-1] != status:
                seen.append(status)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch(), name="status")
    path = f"/v1/messages/{sent.json()['message_id']}/read"
    await context.eventually(
        lambda: context.call("POST", path, who="two"), lambda found: found.status_code == 200, ROUTED_SECONDS
    )
    await asyncio.wait_for(watching, ROUTED_SECONDS)
    finding.expect(seen == [state for state in STATES if state in seen], f"Statuses went {' > '.join(seen)}.")
