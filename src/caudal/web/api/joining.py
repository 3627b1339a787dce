"""Conversations that somebody outside began: who may, takes them up."""

from __future__ import annotations

from litestar import get, post
from litestar.params import FromPath

from caudal.core.eventlog.port import EventLog
from caudal.messaging import joining, topics
from caudal.messaging.accept import check_name
from caudal.messaging.views import Conversation
from caudal.registry.permissions import Action
from caudal.web import pages
from caudal.web.api.messages import party
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"event_log"})


@get("/api/conversations/unclaimed", guards=[requires(Action.CONVERSATIONS_JOIN)])
async def list_unclaimed(
    door: Database, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[Conversation]:
    """Conversations begun by somebody outside, which nobody has joined; the latest begun first."""
    before = pages.decode(cursor, int)
    async with door.read() as connection:
        rows = await joining.unclaimed(connection, before, limit + 1)
    return pages.page(rows, limit, of=joining.view, key=lambda row: row["id"])


@post(
    "/api/conversations/{conversation_id:str}/join",
    status_code=200,
    guards=[requires(Action.CONVERSATIONS_JOIN)],
)
async def join(
    conversation_id: FromPath[str], principal: Caller, door: Database, event_log: Given[EventLog]
) -> Conversation:
    """Take part in one of them; what waits there is delivered. Who has joined already may ask again."""
    check_name(conversation_id)
    async with door.write() as connection:
        found, waiting = await joining.join(connection, conversation_id, party(principal))
        await event_log.publish(waiting, connection)
    if waiting:
        event_log.announce(topics.MESSAGES)
    return found


ROUTES = [list_unclaimed, join]
