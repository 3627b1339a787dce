"""The counters count what was sent, the histograms have buckets, the gauge is set."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from caudal.app.validate.context import Context, now, v1
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 11
TITLE = "Metrics"
MESSAGES, POINTS = 20, 3


async def run(context: Context, finding: Finding) -> None:
    device = context.device("metrics")
    before = await context.counters()
    base = now()
    for number in range(MESSAGES):
        # An instant of its own for each: two messages may well come in one millisecond.
        at = base + timedelta(milliseconds=number)
        points = {f"p{n}": number + n / 10 for n in range(POINTS)}
        await context.send(context.topic(device), v1(at, points))
    await context.send(context.topic(device), b"no json")
    # Counted after the commit, a moment after the acknowledgement at most. Others may be sending too.
    wanted = {
        "ingest_messages_total": MESSAGES + 1, "ingest_messages_total{v1}": MESSAGES,
        "ingest_points_total": MESSAGES * POINTS, "ingest_errors_total{json}": 1,
        "ingest_latency_seconds_count": MESSAGES, "ingest_batch_size_count": 1,
    }  # fmt: skip

    def grown(after: dict[str, float]) -> dict[str, float]:
        return {name: after.get(name, 0.0) - before.get(name, 0.0) for name in wanted}

    after = await context.eventually(
        context.counters, lambda c: all(grown(c)[name] >= count for name, count in wanted.items()), 5.0
    )
    for name, count in wanted.items():
        more = grown(after)[name]
        finding.measured[name] = more
        finding.expect(more >= count, f"{name} grew by {more:.0f}; {count} were sent.")
    for name in ("ingest_latency_seconds", "ingest_batch_size"):
        buckets = sum(key.startswith(f"{name}_bucket{{") for key in after)
        finding.expect(buckets >= 8, f"{name} has {buckets} buckets.")
    finding.expect("ingest_queue_size" in after, "No ingest_queue_size.")
    finding.sentence = (
        f"{len(wanted)} counters and histograms grew by what was sent; buckets and gauge are there."
    )
