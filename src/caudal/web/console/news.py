"""News of conversations, by server-sent events: that there is something new. The page then asks for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

from litestar import get
from litestar.response import Stream

from caudal.core.errors import Forbidden, Unavailable
from caudal.messaging.realtime import Closed, Hub
from caudal.registry.permissions import Action
from caudal.web.guards import requires
from caudal.web.inject import Caller, Given

NEEDS = frozenset({"hub"})
# Seconds. A comment keeps the line open; several at once are one; in the end the browser comes back, and its
# session is looked at again.
STILL, TOGETHER, LIFE = 15.0, 0.2, 300.0


@get("/conversations/news", guards=[requires(Action.MESSAGES_READ)], media_type="text/event-stream")
async def conversation_news(principal: Caller, hub: Given[Hub]) -> Stream:
    """An event at once, and one each time something is new for the person."""
    if principal.user_id is None:
        raise Forbidden("Only people have notifications: sign in as one.")
    news = hub.news((principal.tenant_id, str(principal.user_id)))
    try:
        # Raised here, a refusal is an answer with a status.
        await anext(news)
    except Closed as closed:
        raise Unavailable(closed.sentence) from closed
    return Stream(_events(news), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _events(news: AsyncGenerator[None, None]) -> AsyncIterator[bytes]:
    following: asyncio.Task[None] | None = None
    until = time.monotonic() + LIFE
    try:
        yield b"data: news\n\n"
        while time.monotonic() < until:
            following = following or asyncio.create_task(_next(news), name="news of conversations")
            done, _ = await asyncio.wait([following], timeout=STILL)
            if not done:
                yield b": still here\n\n"
                continue
            try:
                following.result()
            except (Closed, StopAsyncIteration):
                # The database is away: the browser comes back by itself.
                return
            finally:
                following = None
            await asyncio.sleep(TOGETHER)
            yield b"data: news\n\n"
    finally:
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        await news.aclose()


async def _next(news: AsyncGenerator[None, None]) -> None:
    await anext(news)


ROUTES = [conversation_news]
