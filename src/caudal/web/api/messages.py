"""Messages and conversations, as the messaging contract has them; and what became of each delivery."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from caudal.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from caudal.messaging import conversations, topics
from caudal.messaging.accept import Acceptor, Submission, check_name
from caudal.messaging.addresses import USERNAME, address_of
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.lattice import State
from caudal.messaging.records import milliseconds
from caudal.messaging.views import Conversation, DeliveryView, Message
from caudal.registry.permissions import Action
from caudal.registry.principal import Principal
from caudal.web import pages
from caudal.web.door import Door
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"acceptor", "deliveries"})
LIMIT_MAX = 100


class NewMessage(msgspec.Struct, frozen=True):
    """A message to send. `sender_id`, where given, is the caller's own user id or username."""

    conversation_id: str
    content: str
    recipient_id: str | None = None
    sender_id: str | None = None
    file_id: UUID | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The message is stored."""

    message_id: str
    status: Literal["ACCEPTED"]
    conversation_id: str


class Conversations(msgspec.Struct, frozen=True):
    """The caller's conversations."""

    conversations: list[Conversation]


class Pagination(msgspec.Struct, frozen=True):
    """Which messages a page holds."""

    limit: int
    offset: int
    returned: int


class History(msgspec.Struct, frozen=True):
    """A page of a conversation."""

    conversation_id: str
    messages: list[Message]
    pagination: Pagination


class ReadAnswer(msgspec.Struct, frozen=True):
    """The message is read; `read_at` in Unix milliseconds."""

    message_id: str
    status: Literal["READ"]
    read_at: int


class DeliveryList(msgspec.Struct, frozen=True):
    """The deliveries of a message."""

    deliveries: list[DeliveryView]


def party(principal: Principal) -> str:
    """How conversations call this caller: a user's id, or `key:` and an API key's id."""
    if principal.user_id is not None:
        return str(principal.user_id)
    return f"key:{principal.api_key_id}"


def _check_sender(principal: Principal, sender_id: str | None) -> None:
    if sender_id is None:
        return
    own = {party(principal).lower()}
    if principal.username:
        own.add(principal.username.lower())
    if sender_id.lower() not in own:
        raise Forbidden("sender_id must be your own user id or username, or be left out.")


async def _recipient(door: Door, recipient_id: str | None) -> str | None:
    if recipient_id is None:
        return None
    found = address_of(recipient_id)
    if not USERNAME.fullmatch(found) or found.startswith("group_"):
        return found
    async with door.read() as connection:
        user = await connection.fetchval(
            "select p.id::text from caudal.person p join caudal.membership m on m.person_id = p.id"
            " where lower(p.username) = lower($1)",
            found,
        )
    if user is None:
        raise InvalidInput("There is no such recipient here. Check recipient_id.")
    known: str = user
    return known


FILE = "select filename, size_bytes, checksum, content_type from caudal.file where id = $1"


async def _about(door: Door, file_id: UUID | None) -> dict[str, object] | None:
    """What the log's record says of a message's file; whether it may go along is decided on acceptance."""
    if file_id is None:
        return None
    async with door.read() as connection:
        row = await connection.fetchrow(FILE, file_id)
    return None if row is None else topics.file_metadata(row)


@post(
    "/v1/messages",
    status_code=202,
    guards=[requires(Action.MESSAGES_SEND)],
)
async def send(
    data: JSONBody[NewMessage],
    principal: Caller,
    door: Database,
    acceptor: Given[Acceptor],
    idempotency_key: Annotated[
        str | None, HeaderParameter(name="Idempotency-Key", min_length=1, max_length=255)
    ] = None,
) -> Accepted:
    """Accept a message: durable when the answer is sent. A repeated Idempotency-Key answers as before."""
    _check_sender(principal, data.sender_id)
    submission = Submission(
        conversation_id=data.conversation_id,
        sender=party(principal),
        content=data.content,
        recipient=await _recipient(door, data.recipient_id),
        file_id=data.file_id,
        file_metadata=await _about(door, data.file_id),
        idempotency_key=idempotency_key,
    )
    number = await acceptor.accept(principal.tenant, submission)
    return Accepted(str(number), "ACCEPTED", data.conversation_id)


@post("/v1/messages/{message_id:uuid}/read", status_code=200, guards=[requires(Action.MESSAGES_READ)])
async def mark_read(
    message_id: FromPath[UUID], principal: Caller, door: Database, deliveries: Given[Deliveries]
) -> ReadAnswer:
    """Say that the caller has read a message; the first time counts."""
    async with door.write() as connection:
        delivery, read_at = await conversations.unread(connection, message_id, party(principal))
        after, at = await deliveries.read_in(connection, delivery, read_at)
    after()
    return ReadAnswer(str(message_id), "READ", milliseconds(at))


@get("/v1/messages/{message_id:uuid}/deliveries", guards=[requires(Action.MESSAGES_READ)])
async def message_deliveries(message_id: FromPath[UUID], principal: Caller, door: Database) -> DeliveryList:
    """What became of a message on each channel of each person."""
    async with door.read() as connection:
        return DeliveryList(await conversations.deliveries_of(connection, message_id, party(principal)))


@get("/v1/conversations", guards=[requires(Action.MESSAGES_READ)])
async def list_conversations(principal: Caller, door: Database) -> Conversations:
    """The caller's conversations, the latest first."""
    async with door.read() as connection:
        return Conversations(await conversations.list_for(connection, party(principal)))


@get("/v1/conversations/{conversation_id:str}/messages", guards=[requires(Action.MESSAGES_READ)])
async def history(
    conversation_id: FromPath[str],
    principal: Caller,
    door: Database,
    deliveries: Given[Deliveries],
    limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX, description="How many at most")] = 50,
    offset: Annotated[int, QueryParameter(ge=0, le=2**53, description="How many to pass over")] = 0,
    order: FromQuery[Literal["asc", "desc"]] = "asc",
) -> History:
    """Messages of a conversation, in the order they were accepted; with `order=desc` the latest first."""
    check_name(conversation_id)
    async with door.read() as connection:
        messages, fresh = await conversations.history(
            connection, conversation_id, party(principal), limit, offset, newest_first=order == "desc"
        )
    if fresh:
        # Who reads the history has got what is in it.
        async with door.write() as connection:
            after = await deliveries.arrived_in(connection, principal.tenant_id, party(principal), fresh)
        after()
    return History(conversation_id, messages, Pagination(limit, offset, len(messages)))


@get("/api/deliveries", guards=[requires(Action.DELIVERIES_READ)])
async def list_deliveries(
    door: Database,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    in_state: Annotated[State | None, QueryParameter(name="state", description="Those there alone")] = None,
) -> pages.Page[DeliveryView]:
    """The tenant's deliveries to channels outside, the latest first."""
    before = pages.decode(cursor, int)
    async with door.read() as connection:
        rows = await conversations.deliveries_page(connection, in_state, before, limit + 1)
    return pages.page(rows, limit, of=lambda row: row, key=lambda row: row.delivery_id)


@post("/api/deliveries/{delivery_id:int}/resend", status_code=202, guards=[requires(Action.DELIVERIES_WRITE)])
async def resend(
    delivery_id: FromPath[int], principal: Caller, door: Database, deliveries: Given[Deliveries]
) -> DeliveryView:
    """Send a failed or unknown delivery again, as a new attempt. An unknown one may then arrive twice."""
    if not 0 < delivery_id < 2**63:
        raise NotFound("There is no such delivery.")
    async with door.write() as connection:
        after = await deliveries.resend(connection, principal.tenant_id, delivery_id)
        rows = await conversations.deliveries_page(connection, None, delivery_id + 1, 1)
        if not rows or rows[0].delivery_id != delivery_id:
            raise NotFound("There is no such delivery.")
        if after is None:
            raise Conflict("Only a failed or unknown delivery can be sent again.")
    after()
    return rows[0]


ROUTES = [
    send,
    mark_read,
    message_deliveries,
    list_conversations,
    history,
    list_deliveries,
    resend,
]
