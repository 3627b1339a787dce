"""The providers' own HTTP surface, as far as a business that sends and receives messages needs it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.enums import MediaType, RequestEncodingType
from litestar.exceptions import ClientException
from litestar.params import Body, FromPath
from litestar.types import Receive, Scope, Send

from caudal.sandbox.engine import BareFault, Engine, Silence
from caudal.sandbox.errors import GraphError

# A provider that never answers lets go in the end; clients give up long before.
NEVER = 600.0
Sandboxed = NamedDependency[Engine]


def graph_error(_: Request[Any, Any, Any], error: GraphError) -> Response[dict[str, Any]]:
    """A Graph error as an answer."""
    return Response(error.body(), status_code=error.kind.status, media_type=MediaType.JSON)


def bare_fault(_: Request[Any, Any, Any], error: BareFault) -> Response[str]:
    """What a gateway in between answers."""
    page = f"<html><body><h1>{error.status}</h1></body></html>"
    return Response(page, status_code=error.status, media_type=MediaType.HTML)


async def _delay(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _until_gone(request: Request[Any, Any, Any]) -> None:
    try:
        async with asyncio.timeout(NEVER):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass


async def _hang_up(scope: Scope, receive: Receive, send: Send) -> None:
    # Less than was announced: the server has to close, and no client can take it for an answer.
    headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})


class HangUp(Response[dict[str, Any]]):
    """No answer, and an end to the connection."""

    def __init__(self) -> None:
        super().__init__({})

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """In place of a response."""
        return _hang_up


@post("/{version:str}/{node:str}/messages", status_code=200)
async def send(
    request: Request[Any, Any, Any],
    engine: Sandboxed,
    version: FromPath[str],
    node: FromPath[str],
) -> Response[dict[str, Any]]:
    """Send a message, as either channel takes it."""
    account = engine.account(node, request.headers.get("authorization"))
    try:
        body = msgspec.json.decode(await request.body())
    except msgspec.DecodeError:
        raise GraphError(account.channel, 100, "The body is not JSON.") from None
    if isinstance(body, dict) and body.get("status") == "read":
        return Response({"success": True})
    asked, phone = engine.read_send(account, body)
    await _delay(engine.world.behaviour(account, phone).latency_ms / 1000)
    try:
        return Response(engine.send(account, asked, phone))
    except Silence as silence:
        if not silence.hangup:
            await _until_gone(request)
        return HangUp()


@post("/{version:str}/{node:str}/media", status_code=200)
async def upload(
    request: Request[Any, Any, Any],
    engine: Sandboxed,
    version: FromPath[str],
    node: FromPath[str],
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    """Keep media; answers its id."""
    account = engine.account(node, request.headers.get("authorization"))
    file = data.get("file")
    if file is None or not hasattr(file, "read"):
        raise GraphError(account.channel, 100, "The parameter file is required.")
    kind = file.content_type or str(data.get("type", ""))
    made = engine.upload(account, await file.read(), kind, file.filename)
    return {"id": made.id}


@get("/{version:str}/{node:str}")
async def look_up(
    request: Request[Any, Any, Any],
    engine: Sandboxed,
    version: FromPath[str],
    node: FromPath[str],
) -> dict[str, Any]:
    """A medium's address and digest, or a person's name."""
    media = engine.world.media.get(node)
    if media is not None:
        engine.account(media.account, request.headers.get("authorization"))
        return {
            "messaging_product": "whatsapp",
            "url": f"{engine.base_url}/media/{media.id}/{media.key}",
            "mime_type": media.mime_type,
            "sha256": media.sha256,
            "file_size": len(media.data),
            "id": media.id,
        }
    token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    owner = next((a for a in engine.world.accounts.values() if a.token == token), None)
    if owner is None:
        raise GraphError("instagram", 190)
    phone = engine.world.by_provider_id("instagram", node)
    if phone is not None and owner.channel == "instagram":
        return {"id": phone.provider_id, "username": phone.address.lstrip("@"), "name": phone.name}
    if node in (owner.id, "me"):
        return {"id": owner.id, "display_phone_number": owner.address}
    raise GraphError(owner.channel, 100, f"Object with ID '{node}' does not exist.")


@get("/media/{media_id:str}/{key:str}", media_type="application/octet-stream")
async def download(
    request: Request[Any, Any, Any],
    engine: Sandboxed,
    media_id: FromPath[str],
    key: FromPath[str],
) -> Response[bytes]:
    """The bytes of a medium. WhatsApp wants the token as well, Instagram's addresses are enough."""
    media = engine.world.media.get(media_id)
    if media is None or media.key != key:
        raise ClientException(status_code=404, detail="no such media")
    if media.channel == "whatsapp":
        engine.account(media.account, request.headers.get("authorization"))
    return Response(media.data, media_type=media.mime_type)


ROUTES = [send, upload, look_up, download]
