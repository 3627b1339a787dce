"""Putting dead letters back through the whole path: one, or all that share a cause."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post
from litestar.params import FromPath

from caudal.core.errors import InvalidInput
from caudal.registry import audit
from caudal.telemetry import dead_letters as service
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.replays import replay as put_back
from caudal.web.console import forms
from caudal.web.console.dead_letters import BATCH, WRITE, attempt, corrected
from caudal.web.console.view import View
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"pipeline", "ingest_pool"})


@post("/dead-letters/{letter_id:int}/replay", guards=WRITE, status_code=200)
async def replay(
    request: Request[Any, Any, Any],
    letter_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    pipeline: Given[Pipeline],
    ingest_pool: Given[Any],
) -> Response[str]:
    """Put one letter back, as it stands in the form."""
    form = forms.texts(await request.form())
    async with door.write() as connection:
        payload, topic = corrected(form, await service.show(connection, letter_id))
        if payload is not None or topic is not None:
            await service.fix(connection, letter_id, payload=payload, topic=topic)
            await audit.record(connection, principal, "dead_letter.fixed", f"dead_letter:{letter_id}")
    results = await put_back(ingest_pool, pipeline, [letter_id], by=principal.actor, tenant=principal.tenant)
    async with door.write() as connection:
        await audit.record(connection, principal, "dead_letter.replayed", f"dead_letter:{letter_id}")
    return view.page("replayed.html", results=results, left=0)


@post("/dead-letters/replay", guards=WRITE, status_code=200)
async def replay_cause(
    request: Request[Any, Any, Any],
    view: Given[View],
    door: Database,
    principal: Caller,
    pipeline: Given[Pipeline],
    ingest_pool: Given[Any],
) -> Response[str]:
    """Put back all open letters of a cause, at most `BATCH` at once; says how many are left."""
    cause = forms.texts(await request.form()).get("cause")
    if not cause:
        raise InvalidInput("cause: name one.")
    chosen = service.Filter(cause=cause)
    async with door.read() as connection:
        numbers = await service.choose(connection, chosen, limit=BATCH)
    results = (
        await put_back(ingest_pool, pipeline, numbers, by=principal.actor, tenant=principal.tenant)
        if numbers
        else []
    )
    async with door.write() as connection:
        left = len(await service.choose(connection, chosen, limit=10_000))
        await audit.record(
            connection, principal, "dead_letter.replayed", f"cause:{cause}", count=len(results)
        )
    return view.page("replayed.html", results=results, left=left)


ROUTES = [attempt, replay, replay_cause]
