"""The socket on which people hear what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import WebSocket, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import BaseRouteHandler

from caudal.core import logs
from caudal.core.errors import RateLimited, Unauthenticated
from caudal.core.eventlog.worker import PASSING
from caudal.messaging.realtime import FAULT, LATER, REFUSED, Closed, Hub
from caudal.registry.authenticate import Authenticator
from caudal.registry.permissions import Action
from caudal.registry.principal import Principal
from caudal.web.guards import Public
from caudal.web.inject import Given

log = logs.get("realtime")

NEEDS = frozenset({"hub"})
# For the last word to somebody who may not be reading.
FAREWELL_SECONDS = 1.0


class Socket(Public):
    """A guard that leaves the token to the handler: a refusal is a close code, so after the handshake."""

    __slots__ = ()

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        return None


Socket_ = WebSocket[Any, Any, Any]


class _Sink:
    def __init__(self, socket: Socket_) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        await self._socket.send_text(text)


def _token(socket: Socket_) -> str:
    """From the query, as browsers must; or from the header, which stays out of proxies' logs."""
    scheme, _, rest = socket.headers.get("authorization", "").partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else socket.query_params.get("token", "")


async def _person(authenticator: Authenticator, token: str) -> Principal:
    """Whom the token lets in. Raises Closed."""
    try:
        principal = (await authenticator.bearer(token)).principal
    except Unauthenticated as error:
        raise Closed(REFUSED, error.sentence, code="token") from error
    if principal.user_id is None:
        raise Closed(REFUSED, "Only people have notifications: sign in as one.", code="token")
    if Action.MESSAGES_READ not in principal.allowed:
        raise Closed(REFUSED, "Your role does not allow reading messages.", code="token")
    return principal


async def _incoming(socket: Socket_) -> AsyncIterator[str]:
    try:
        async for text in socket.iter_data(mode="text"):
            yield text if isinstance(text, str) else ""
    except WebSocketDisconnect:
        return


async def _farewell(socket: Socket_, closed: Closed) -> None:
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            # A close frame carries at most 123 bytes of reason.
            await socket.close(closed.number, closed.sentence[:120])
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        # Nobody reads; the server drops the connection when this handler ends.
        pass


@websocket("/notifications", guards=[Socket("the token is the handler's to check")])
async def notifications(socket: Socket_, hub: Given[Hub], authenticator: Given[Authenticator]) -> None:
    """New messages and statuses as they come; after `last_id`, what was missed first."""
    await socket.accept()
    token = _token(socket)
    try:
        try:
            principal = await _person(authenticator, token)
        except Closed:
            # Guessing is what the address limit is there for.
            socket.app.state.gate.admit_stranger(socket)
            raise

        async def check() -> None:
            try:
                now = await _person(authenticator, token)
            except PASSING:
                # The next look decides.
                return
            if now.user_id != principal.user_id:
                raise Closed(REFUSED, "This is another person's token now.", code="token")

        person = (principal.tenant_id, str(principal.user_id))
        last_id = socket.query_params.get("last_id") or None
        await hub.serve(person, last_id, _Sink(socket), _incoming(socket), check)
    except Closed as closed:
        await _farewell(socket, closed)
    except RateLimited as error:
        await _farewell(socket, Closed(LATER, error.sentence))
    except WebSocketDisconnect:
        pass
    except Exception as error:
        log.error("a socket failed", exc_info=error)
        await _farewell(socket, Closed(FAULT, "Something went wrong on our side. Come back."))


ROUTES = [notifications]
