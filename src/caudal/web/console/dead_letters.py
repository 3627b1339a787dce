"""Dead letters: why, the bytes with the offending place marked; corrected, tried, discarded here.

Putting them back is in `replays`: it needs a pipeline, which not every process has.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import InvalidInput
from caudal.registry import audit
from caudal.registry.permissions import Action
from caudal.telemetry import dead_letters as service
from caudal.telemetry.decode import decode
from caudal.telemetry.model import Decoded, Reject
from caudal.telemetry.pipeline import Pipeline
from caudal.web.console import forms
from caudal.web.console.filters import number
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

READ = [requires(Action.DEAD_LETTERS_READ)]
WRITE = [requires(Action.DEAD_LETTERS_WRITE)]
STATUSES: tuple[service.Status, ...] = ("open", "replayed", "discarded")
# How many letters of one cause a press of a button settles; what remains is said, and asks for another.
BATCH = 1000
# A payload longer than this is shown in part: nobody reads a megabyte.
SHOWN = 20_000


class Excerpt(msgspec.Struct, frozen=True):
    """A payload for the screen: what stands before the offending place, the place, and what follows."""

    before: str
    marked: str
    after: str
    cut: bool


def excerpt(payload: bytes, start: int | None, end: int | None) -> Excerpt:
    """The payload as text, bytes that are none as escapes, with [start, end) marked; long ones around it."""
    if start is None or end is None:
        return Excerpt(_text(payload[:SHOWN]), "", "", len(payload) > SHOWN)
    low, high = max(0, start - SHOWN // 2), end + SHOWN // 2
    marked = payload[start : min(end, start + SHOWN)]
    return Excerpt(
        _text(payload[low:start]), _text(marked), _text(payload[end:high]), low > 0 or high < len(payload)
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def wanted(given: Any) -> service.Filter:
    """The letters that an address names."""
    named = given.get("status") or "open"
    if named not in (*STATUSES, "all"):
        raise InvalidInput(f"status: one of {', '.join(STATUSES)}, all.")
    status: service.Status | None = next((one for one in STATUSES if one == named), None)
    topic = given.get("topic") or None
    if topic and "\0" in topic:
        raise InvalidInput("topic: NUL characters are not allowed.")
    return service.Filter(
        cause=given.get("cause") or None,
        reason=given.get("reason") or None,
        topic=topic if not topic or "*" in topic else f"*{topic}*",
        status=status,
    )


@get("/dead-letters", guards=READ)
async def letter_list(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Causes, and the letters themselves."""
    given = request.query_params
    chosen = wanted(given)
    async with door.read() as connection:
        causes = await service.causes(connection, msgspec.structs.replace(chosen, cause=None), limit=20)
        found = await service.find(connection, chosen, before=number(given, "before"), limit=50)
    return view.page(
        "dead_letters.html", section="dead_letters", causes=causes, found=found, chosen=chosen,
        statuses=(*STATUSES, "all"), state=given.get("status") or "open", topic=given.get("topic") or "",
        batch=BATCH,
    )  # fmt: skip


@get("/dead-letters/{letter_id:int}", guards=READ)
async def letter_page(letter_id: FromPath[int], view: Given[View], door: Database) -> Response[str]:
    """One letter."""
    async with door.read() as connection:
        shown = await service.show(connection, letter_id)
    present = shown.fixed_payload if shown.fixed_payload is not None else shown.payload
    try:
        editable: str | None = present.decode()
    except UnicodeDecodeError:
        editable = None
    return view.page(
        "dead_letter.html", section="dead_letters", shown=shown, letter=shown.letter, editable=editable,
        place=excerpt(shown.payload, shown.start, shown.end),
        outcome=msgspec.json.decode(shown.letter.outcome) if shown.letter.outcome else None,
    )  # fmt: skip


def corrected(form: dict[str, str], shown: service.Shown) -> tuple[bytes | None, str | None]:
    """What the form changed of payload and topic. A browser writes lines with CR LF; the device did not."""
    payload, topic = form.get("payload"), form.get("topic", "").strip()
    raw = None if payload is None else payload.replace("\r\n", "\n").encode()
    before = shown.fixed_payload if shown.fixed_payload is not None else shown.payload
    return (
        None if raw == before else raw,
        topic if topic and topic != (shown.fixed_topic or shown.letter.topic) else None,
    )


@post("/dead-letters/{letter_id:int}/fix", guards=WRITE, status_code=200)
async def fix(
    request: Request[Any, Any, Any],
    letter_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Keep a corrected payload or topic beside what came."""
    form = forms.texts(await request.form())
    async with door.write() as connection:
        shown = await service.show(connection, letter_id)
        payload, topic = corrected(form, shown)
        if payload is None and topic is None:
            return view.go(f"/console/dead-letters/{letter_id}", done="unchanged")
        await service.fix(connection, letter_id, payload=payload, topic=topic)
        await audit.record(connection, principal, "dead_letter.fixed", f"dead_letter:{letter_id}")
    return view.go(f"/console/dead-letters/{letter_id}", done="fixed")


@post("/dead-letters/{letter_id:int}/try", guards=[requires(Action.TELEMETRY_TEST)], status_code=200)
async def attempt(
    request: Request[Any, Any, Any],
    letter_id: FromPath[int],
    view: Given[View],
    door: Database,
    pipeline: Given[Pipeline],
) -> Response[str]:
    """What the payload in the form would become; stores nothing. Among the routes of `replays`."""
    topics = pipeline.topics
    form = forms.texts(await request.form())
    async with door.read() as connection:
        shown = await service.show(connection, letter_id)
        payload, topic = corrected(form, shown)
        raw = payload if payload is not None else shown.fixed_payload or shown.payload
        name = topic or shown.fixed_topic or shown.letter.topic
        route = topics.match(name)
        row = None
        if route is not None and route.device:
            row = await connection.fetchrow(
                "select d.format, coalesce(s.time_zone, t.time_zone) as zone from caudal.device d"
                " join caudal.tenant t on t.id = d.tenant_id left join caudal.site s on s.id = d.site_id"
                " where d.name = $1",
                route.device,
            )
    result: Decoded | Reject
    if route is None:
        result = Reject("topic", topics.explain(name))
    else:
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        zone = ZoneInfo(row["zone"]) if row else None
        result = decode(
            route, raw, bound_format=row["format"] if row else None, zone=zone, now=now,
            max_skew_us=300_000_000,
        )  # fmt: skip
    samples = [
        (sample[0], sample[1], datetime.fromtimestamp(sample[2] / 1e6, UTC), _value(sample))
        for sample in (result.samples[:100] if isinstance(result, Decoded) else [])
    ]
    return view.page(
        "tried.html", result=result, refused=isinstance(result, Reject), samples=samples,
        device=route.device if route else None, known=row is not None,
    )  # fmt: skip


def _value(sample: Any) -> float | bool | str | None:
    return next((part for part in sample[3:6] if part is not None), None)


@post("/dead-letters/{letter_id:int}/discard", guards=WRITE, status_code=200)
async def discard(
    letter_id: FromPath[int], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Settle a letter that nobody will put back."""
    async with door.write() as connection:
        await service.show(connection, letter_id)
        await service.discard(connection, [letter_id], by=principal.actor)
        await audit.record(connection, principal, "dead_letter.discarded", f"dead_letter:{letter_id}")
    return view.go("/console/dead-letters", done="discarded")


@post("/dead-letters/discard", guards=WRITE, status_code=200)
async def discard_cause(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """The same for all that share a cause."""
    cause = forms.texts(await request.form()).get("cause")
    if not cause:
        raise InvalidInput("cause: name one.")
    async with door.write() as connection:
        numbers = await service.choose(connection, service.Filter(cause=cause), limit=BATCH)
        count = await service.discard(connection, numbers, by=principal.actor)
        await audit.record(connection, principal, "dead_letter.discarded", f"cause:{cause}", count=count)
    return view.go("/console/dead-letters", done="discarded")


ROUTES = [letter_list, letter_page, fix, discard, discard_cause]
