"""Where providers tell us what became of messages and what people wrote."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath, QueryParameter

from caudal.messaging.webhooks import LARGEST, Webhooks
from caudal.web.guards import machinery
from caudal.web.inject import Given

NEEDS = frozenset({"webhooks"})
# A provider's few addresses send three receipts for each message of everybody's; a limit by address would
# have them come again for days.
SIGNED = [machinery("providers sign what they send")]


@get("/webhooks/{channel:str}/{hook:uuid}", guards=SIGNED, media_type=MediaType.TEXT,
     opt={"problems": (400, 403, 404)})  # fmt: skip
async def verify(
    webhooks: Given[Webhooks],
    channel: FromPath[str],
    hook: FromPath[UUID],
    mode: Annotated[str, QueryParameter(name="hub.mode")] = "",
    token: Annotated[str, QueryParameter(name="hub.verify_token")] = "",
    challenge: Annotated[str, QueryParameter(name="hub.challenge")] = "",
) -> str:
    """The provider's handshake: its challenge comes back when it knows the account's verify token."""
    return await webhooks.verify(channel, hook, mode, token, challenge)


@post("/webhooks/{channel:str}/{hook:uuid}", guards=SIGNED, status_code=200, request_max_body_size=LARGEST,
      opt={"problems": (400, 401, 404, 413, 503)})  # fmt: skip
async def receive(
    request: Request[Any, Any, Any], webhooks: Given[Webhooks], channel: FromPath[str], hook: FromPath[UUID]
) -> Response[dict[str, int]]:
    """What the provider says, kept for good when this answers 200; worked on afterwards."""
    body = await request.body()
    signature = request.headers.get("x-hub-signature-256", "")
    return Response({"events": await webhooks.receive(channel, hook, body, signature)})


ROUTES = [verify, receive]
