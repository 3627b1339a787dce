"""Late, shuffled, repeated and contradicting samples: the first stays, none is doubled, answers are right."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final

from caudal.app.validate.context import Context, now, v1
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 9
TITLE = "Out of order"
COUNT = 24


async def run(context: Context, finding: Finding) -> None:
    device = context.device("shuffled")
    topic = context.topic(device)
    base = now().replace(microsecond=0) - timedelta(days=1)
    samples = {base + timedelta(minutes=7 * n): float(n) for n in range(COUNT)}
    samples[base - timedelta(days=364)] = 1000.0  # a year late
    shuffled = list(samples.items())
    random.Random(context.ground.run).shuffle(shuffled)  # noqa: S311 - guards nothing
    for at, value in shuffled:
        await context.send(topic, v1(at, {"n": value}))
    await context.send(topic, v1(base, {"n": 0.0}), times=3)
    await context.send(topic, v1(base, {"n": 99.0}))
    rows = {row["ts"]: row["v_num"] for row in await context.rows(device)}
    finding.equal("Samples", rows, samples)
    reasons = [row["reason"].partition(":")[0] for row in await context.letters(topic)]
    finding.equal("Dead letters of a contradiction", reasons, ["conflict"])
    # A later answer takes in what came late: the sum of the whole span, through the API.
    end = now() + timedelta(minutes=1)
    query = {
        "series": f"{device}/n", "from": (base - timedelta(days=365)).isoformat(), "to": end.isoformat(),
        "interval": "1h", "agg": "count",
    }  # fmt: skip
    _, headers = await context.signed_in()
    answer = await context.http.get(f"{context.target.http}/api/series/data", params=query, headers=headers)
    if finding.equal("Answer of the series API", answer.status_code, 200):
        counts = answer.json()["series"][0]["values"]["count"]
        finding.equal("Samples in the API's hours", sum(count or 0 for count in counts), len(samples))
    finding.measured["samples"] = len(rows)
    finding.sentence = (
        f"{len(samples)} samples in any order, one a year late: all there, the contradiction kept apart."
    )
