"""Conversations: a person's threads, what became of each message, an answer; and who waits for somebody."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import CaudalError, Conflict, InvalidInput
from caudal.core.eventlog.port import EventLog
from caudal.messaging import conversations as service
from caudal.messaging import joining
from caudal.messaging.accept import Acceptor, check_name
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.views import DeliveryView, Message
from caudal.registry.permissions import Action
from caudal.web.api import joining as joining_api
from caudal.web.api import messages as messages_api
from caudal.web.api.messages import party
from caudal.web.console import forms
from caudal.web.console.filters import number
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"acceptor", "deliveries", "event_log"})
READ = [requires(Action.MESSAGES_READ)]
PAGE = 50

_NAMES = """
select p.id::text as who, coalesce(nullif(p.display_name, ''), p.username, p.email) as name
from caudal.person p where p.id::text = any($1)
"""


async def _thread(
    connection: Any, name: str, who: str, offset: int
) -> tuple[list[Message], dict[str, str], dict[str, list[DeliveryView]], list[str]]:
    """A page of messages (oldest first), names of people, deliveries by message, and who takes part."""
    conversation = await service.find(connection, name, who)
    messages, _ = await service.history(connection, name, who, PAGE, offset, newest_first=True)
    messages.reverse()
    parts = [
        row["who"]
        for row in await connection.fetch(
            "select who from caudal.participant where conversation_id = $1 order by joined_at", conversation
        )
    ]
    people = {message.sender_id for message in messages} | set(parts)
    names = {row["who"]: row["name"] for row in await connection.fetch(_NAMES, sorted(people))}
    deliveries: dict[str, list[DeliveryView]] = {}
    for row in await connection.fetch(
        f"{service.DELIVERIES} where d.message_id = any($1::uuid[]) order by d.id",
        [UUID(message.message_id) for message in messages],
    ):
        deliveries.setdefault(str(row["message_id"]), []).append(service.view(row))
    return messages, names, deliveries, parts


@get("/conversations", guards=READ)
async def conversation_list(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """The person's threads; for who may join them, those that somebody outside began, the latest first."""
    after = number(request.query_params, "after") or 0
    before = number(request.query_params, "before")
    waiting = []
    async with door.read() as connection:
        found = await service.list_for(connection, party(principal))
        if view.may(Action.CONVERSATIONS_JOIN):
            waiting = await joining.unclaimed(connection, before, PAGE + 1)
    return view.page(
        "conversations.html", section="conversations", found=found[after : after + PAGE],
        after=after + PAGE if len(found) > after + PAGE else None,
        unclaimed=[joining.view(row) for row in waiting[:PAGE]],
        before=waiting[PAGE - 1]["id"] if len(waiting) > PAGE else None,
    )  # fmt: skip


@post("/conversations/join", guards=[requires(Action.CONVERSATIONS_JOIN)], status_code=200)
async def join(
    request: Request[Any, Any, Any],
    view: Given[View],
    door: Database,
    principal: Caller,
    event_log: Given[EventLog],
) -> Response[str]:
    """Take up a conversation that somebody outside began; just as the API does it."""
    name = forms.texts(await request.form()).get("name", "")
    await joining_api.join.fn(name, principal, door, event_log)
    return view.go(thread_address(name))


@get("/conversations/thread", guards=READ)
async def thread(
    request: Request[Any, Any, Any],
    view: Given[View],
    door: Database,
    principal: Caller,
    deliveries: Given[Deliveries],
) -> Response[str]:
    """One thread; what it shows is read by that."""
    name = request.query_params.get("name", "")
    check_name(name)
    offset = number(request.query_params, "offset") or 0
    who = party(principal)
    async with door.read() as connection:
        messages, names, by_message, parts = await _thread(connection, name, who, offset)
    for message in messages:
        if message.sender_id == who or not any(
            one.channel == "app" and one.address == who and one.read_at is None
            for one in by_message.get(message.message_id, [])
        ):
            continue
        async with door.write() as connection:
            try:
                delivery, read_at = await service.unread(connection, UUID(message.message_id), who)
                done, _ = await deliveries.read_in(connection, delivery, read_at)
            except CaudalError:
                # Routed away or settled meanwhile: the page shows it all the same.
                continue
        done()
    return view.page(
        "thread.html", section="conversations", name=name, messages=messages, names=names, parts=parts,
        deliveries=by_message, who=who, offset=offset, older=offset + PAGE if len(messages) == PAGE else None,
    )  # fmt: skip


@post("/conversations", guards=[requires(Action.MESSAGES_SEND)], status_code=200)
async def write(
    request: Request[Any, Any, Any],
    view: Given[View],
    door: Database,
    principal: Caller,
    acceptor: Given[Acceptor],
) -> Response[str]:
    """Say something, in a thread or in a new one; just as the API takes it."""
    form = forms.texts(await request.form())
    message = messages_api.NewMessage(
        conversation_id=form.get("name", "").strip(),
        content=form.get("content", "").replace("\r\n", "\n").strip(),
        recipient_id=form.get("recipient", "").strip() or None,
        file_id=_file(form.get("file", "")),
    )
    await messages_api.send.fn(message, principal, door, acceptor, form.get("key") or None)
    return view.go(thread_address(message.conversation_id))


def _file(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError as error:
        raise InvalidInput("file: that is no file's id.") from error


def thread_address(name: str) -> str:
    """The page of a conversation; its name is the client's, and may hold anything."""
    return "/console/conversations/thread?" + urlencode({"name": name})


@post("/conversations/deliveries/{delivery_id:int}/resend", guards=[requires(Action.DELIVERIES_WRITE)],
      status_code=200)  # fmt: skip
async def resend(
    request: Request[Any, Any, Any],
    delivery_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    deliveries: Given[Deliveries],
) -> Response[str]:
    """Send a failed or unknown delivery again."""
    name = forms.texts(await request.form()).get("name", "")
    async with door.write() as connection:
        after = await deliveries.resend(connection, principal.tenant_id, delivery_id)
        if after is None:
            raise Conflict("Only a failed or unknown delivery can be sent again.")
    after()
    return view.go(thread_address(name))


ROUTES = [conversation_list, join, thread, write, resend]
