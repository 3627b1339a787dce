"""What a tenant that floods the API costs another, in turns: alone, beside a flood, alone, …

Needs `wrk`. The generator works on the same cores, so its own CPU time is counted and shown: where it is a
few percent of one core, what is measured is the server's doing.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
from typing import Any

from bench import stack
from bench.api import PAGE, _api, _latencies, _p, _plant, _wrk
from bench.telemetry import Row
from caudal.core import db

# Connections, requests a second; without a quota it takes what there is.
FLOODS = ((50, 100), (1000, 100), (50, None))


async def _turns(
    url: str, quiet: str, flooder: str, connections: int, quota: int | None, seconds: float, rounds: int
) -> Row:
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    asked = refused = 0.0
    used = 0.0
    for _ in range(rounds):
        alone.append(await _latencies(url, quiet, seconds))
        before = _generator()
        flood = asyncio.create_task(_wrk(url, flooder, seconds + 2, connections=connections))
        await asyncio.sleep(1)
        beside.append(await _latencies(url, quiet, seconds))
        rate, turned_away = await flood
        used += (_generator() - before) / (seconds + 2)
        asked, refused = asked + rate, refused + turned_away / (seconds + 2)
    ratios = [round(_p(b, 0.99) / _p(a, 0.99), 2) for a, b in zip(alone, beside, strict=True)]
    return {
        "what": f"a tenant beside another's flood: {connections} connections, quota {quota or 'none'}",
        "alone_ms": _of(alone),
        "flooded_ms": _of(beside),
        "p99_ratio": statistics.median(ratios),
        "p99_ratios": ratios,
        "flood_per_second": round(asked / rounds),
        "flood_refused_per_second": round(refused / rounds),
        "generator_share_of_a_core": round(used / rounds, 3),
        "samples": sum(map(len, beside)),
    }


def _of(turns: list[list[float]]) -> dict[str, Any]:
    together = sorted(value for turn in turns for value in turn)
    return {"p50": _p(together, 0.5), "p99": _p(together, 0.99)}


def _generator() -> float:
    """CPU seconds of children that have ended: wrk's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def run(quick: bool) -> list[Row]:
    """The suite."""
    seconds, rounds = (2.0, 1) if quick else (5.0, 3)
    async with stack.database() as server:
        owner = await db.open_pool(server.url, minimum=1, maximum=1)
        quiet = await _plant(owner, "acme", 1_000, None)
        floods = [
            (await _plant(owner, f"flooder{number}", 100, quota), connections, quota)
            for number, (connections, quota) in enumerate(FLOODS)
        ]
        await owner.close()
        async with _api(server.url) as url:
            await _latencies(url + PAGE, quiet, 1)
            return [
                await _turns(url + PAGE, quiet, key, connections, quota, seconds, rounds)
                for key, connections, quota in floods
            ]
