"""Whatever cannot be stored is kept, with its bytes and the reason, and the stream goes on."""

from __future__ import annotations

from typing import Any, Final

from caudal.app.validate.context import Context, now, v1
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 5
TITLE = "Dead letters"


async def run(context: Context, finding: Finding) -> None:
    ts = now().isoformat()
    cases: dict[str, Any] = {
        "json": b"{invalid json syntax",
        "encoding": b'{"schema":"v1","ts":"\xff\xfe"}',
        "unknown_format": {"ts": ts, "temp": 7},
        "schema": {"schema": "v1", "ts": ts, "points": "not-a-list"},
        "timestamp": {"schema": "v1", "ts": "not-a-timestamp", "points": [{"name": "a", "v": 1}]},
        "value": {"schema": "v1", "ts": ts, "points": [{"name": "a", "t": "num", "v": None}]},
    }
    for reason, payload in cases.items():
        device = context.device(f"dead-{reason}")
        topic = context.topic(device)
        await context.send(topic, payload)
        letters = await context.letters(topic)
        found = [row["reason"].partition(":")[0] for row in letters]
        if finding.equal(f"Reasons of a message that is {reason}", found, [reason]):
            finding.expect(
                len(letters[0]["reason"]) > len(reason) + 2, f"A dead letter ({reason}) has no sentence."
            )
        if reason == "json" and letters:
            finding.equal("Bytes of a dead letter", letters[0]["payload"], payload.decode())
        finding.equal(f"Rows of a message that is {reason}", len(await context.rows(device)), 0)
        # The one after it, from the same device.
        await context.send(topic, v1(now(), {"n": 1}))
        finding.equal(f"Rows of the message after one that is {reason}", len(await context.rows(device)), 1)
    finding.measured["reasons"] = len(cases)
    finding.sentence = f"{', '.join(cases)}: each kept with its reason, and the next message stored."
