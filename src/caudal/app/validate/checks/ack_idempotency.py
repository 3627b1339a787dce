"""A command's outcome is one row however often it comes, and nothing late turns it back; events alike."""

from __future__ import annotations

from typing import Any, Final

from caudal.app.validate.context import Context, now
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 6
TITLE = "Acks, once each"
TIMES = 5


async def run(context: Context, finding: Finding) -> None:
    device = context.device("acking")
    ack: dict[str, Any] = {
        "schema": "v1",
        "cmd_id": f"c-{context.ground.run}",
        "ok": True,
        "ts_exec": now().isoformat(),
    }
    topic = context.topic(device, "ack")
    await context.send(topic, ack, times=TIMES)
    await context.send(topic, {**ack, "ok": False, "err": "late"})
    rows = await context.ground.reader.fetch("select cmd_id, ok from cmd_ack where device_id = $1", device)
    finding.equal(
        "Rows of one command", [(row["cmd_id"], row["ok"]) for row in rows], [(ack["cmd_id"], True)]
    )
    event = {
        "schema": "v1", "event_id": f"e-{context.ground.run}", "event_type": "door", "ts": now().isoformat(),
        "data": {"open": True},
    }  # fmt: skip
    await context.send(context.topic(device, "event"), event, times=TIMES)
    events = await context.ground.admin.fetchval(
        "select count(*) from caudal.event where tenant_id = $1 and event_id = $2",
        context.ground.tenant_id, event["event_id"],
    )  # fmt: skip
    finding.equal("Rows of one event", events, 1)
    finding.measured["sent"] = 2 * TIMES + 1
    finding.sentence = (
        f"{TIMES} acks and a late contradiction: one outcome; {TIMES} times one event: one row."
    )
