"""The format `v1`: every type in its column, exactly as sent; a bad point costs its message nothing else."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Final

from caudal.app.validate.context import Context, now
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 3
TITLE = "Format v1"

# name: (declared type, value, unit, the row's v_num, v_bool, v_text)
POINTS: Final = {
    "num": ("num", 123.4567, "kW", 123.4567, None, None),
    "float": ("float", 12345678901.2345, None, 12345678901.2345, None, None),
    "negative": (None, -7, None, -7.0, None, None),
    "bool": ("bool", True, None, None, True, None),
    "enum": ("enum", "RUN", None, None, None, "RUN"),
    "text": ("text", "São Paulo; 'drop'", None, None, None, "São Paulo; 'drop'"),
}


async def run(context: Context, finding: Finding) -> None:
    device = context.device("v1")
    at = now()
    points = [
        {"name": name, **({"t": kind} if kind else {}), "v": value, **({"u": unit} if unit else {})}
        for name, (kind, value, unit, *_) in POINTS.items()
    ]
    bad = {"name": "bad", "t": "num", "v": "warm"}
    ts = at.astimezone(timezone(timedelta(hours=-3))).isoformat()
    payload = {"schema": "v1", "ts": ts, "points": [*points, bad], "meta": {"fw": "1"}}
    await context.send(context.topic(device), payload)
    found = {row["point_id"]: row for row in await context.rows(device)}
    finding.equal("Points stored", sorted(found), sorted(POINTS))
    for name, (_, _, unit, *values) in POINTS.items():
        if row := found.get(name):
            finding.equal(name, [row["v_num"], row["v_bool"], row["v_text"]], values)
            finding.equal(
                f"Unit, time and quality of {name}", (row["unit"], row["ts"], row["qual"]), (unit, at, 0)
            )
    reasons = [row["reason"].partition(":")[0] for row in await context.letters(context.topic(device))]
    finding.equal("Dead letters of the bad point", reasons, ["value"])
    naive = context.device("v1-naive")
    await context.send(
        context.topic(naive), {**payload, "ts": at.replace(tzinfo=None).isoformat(), "points": points}
    )
    finding.equal("Quality of a naive time", {row["qual"] for row in await context.rows(naive)}, {1})
    finding.measured["points"] = len(found)
    finding.sentence = f"{len(POINTS)} types came back exactly; a bad point was set aside alone."
