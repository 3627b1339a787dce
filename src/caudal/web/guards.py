"""What a route requires of its caller. Every route declares one of these, or a test fails.

@get("/api/devices", guards=[requires(Action.REGISTRY_READ)])
@post("/auth/token", guards=[public("whoever signs in is not signed in yet")])
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler

from caudal.core.errors import Forbidden, RateLimited, Unauthenticated
from caudal.registry.authenticate import REFUSED, Authenticator, Known
from caudal.registry.permissions import Action
from caudal.registry.quotas import Limiter
from caudal.web.turns import Turns

COOKIE = "caudal_session"
# A refusal waits a second, and a hundredth more for each of the same tenant that waits already: so at most a
# hundred go out a second, one by one, however many connections ask, and their next requests come as evenly.
HOLD_SECONDS, HOLD_STEP, HOLD_MOST = 1.0, 0.01, 10.0
# Refusals of one tenant that wait at a time; beyond, they go out at once and their connection is closed.
HELD_MAX = 5000
# What waits most of its time, for a commit that many share or for the bytes of its body.
WAITING = frozenset({Action.TELEMETRY_WRITE, Action.MESSAGES_SEND, Action.FILES_WRITE})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Finds out who calls, and whether they call too often. One for each application."""

    def __init__(self, authenticator: Authenticator, *, tenant_rate: float, address_rate: float) -> None:
        self.authenticator = authenticator
        self._tenants = Limiter(tenant_rate)
        self.turns = Turns()
        # Refusals that wait, by tenant.
        self._held: dict[int, int] = {}
        # Five seconds' worth at once: a browser that opens a page, an office behind one address.
        self._addresses = Limiter(address_rate, burst=address_rate * 5)

    def admit_stranger(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Count a request that shows no valid credential. Raises RateLimited."""
        wait = self._addresses.take(connection.scope["state"].get("address", ""))
        if wait:
            raise RateLimited("Too many requests from this address. Wait a moment.", retry_after=wait)

    async def identify(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Known:
        """The caller. Raises Unauthenticated, Forbidden (CSRF) or RateLimited."""
        try:
            known = await self._known(connection)
        except Unauthenticated:
            # Guessing is what the address limit is there for.
            self.admit_stranger(connection)
            raise
        wait = self._tenants.take(known.principal.tenant_id, rate=known.rate)
        if wait:
            await self.hold(known.principal.tenant_id)
            raise RateLimited("Your tenant's requests a second are used up. Wait a moment.", retry_after=wait)
        return known

    @property
    def waiting(self) -> int:
        """Refusals that wait, of all tenants."""
        return sum(self._held.values())

    async def hold(self, tenant_id: int) -> None:
        """Let a refusal wait, so that who comes again at once cannot keep us busy with refusing (ADR 0086).

        Until it has gone out nothing more is read from its connection. Raises RateLimited, to be closed with,
        when too many wait.
        """
        before = self._held.get(tenant_id, 0)
        if before >= HELD_MAX:
            raise RateLimited("Far too many requests at once. Wait a moment.", closing=True)
        self._held[tenant_id] = before + 1
        try:
            await asyncio.sleep(min(HOLD_MOST, HOLD_SECONDS + before * HOLD_STEP))
        finally:
            self._held[tenant_id] -= 1
            if not self._held[tenant_id]:
                del self._held[tenant_id]

    async def still(self, connection: ASGIConnection[Any, Any, Any, Any], action: Action) -> bool:
        """Whether whom we let in still would be, to the same tenant: for answers without an end."""
        try:
            principal = (await self._known(connection)).principal
        except (Unauthenticated, Forbidden):
            return False
        return principal.tenant_id == connection.user.tenant_id and action in principal.allowed

    async def _known(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Known:
        headers = connection.headers
        given = headers.get("authorization")
        if given is not None:
            scheme, _, rest = given.partition(" ")
            kind = scheme.lower()
            if kind == "bearer" and rest and " " not in rest:
                return await self.authenticator.bearer(rest)
            if kind == "basic" and rest:
                return await self.authenticator.basic(rest)
            raise Unauthenticated(REFUSED)
        key = headers.get("x-api-key")
        if key is not None:
            return await self.authenticator.bearer(key.replace(" ", ""))
        secret = connection.cookies.get(COOKIE)
        if not secret:
            raise Unauthenticated(REFUSED)
        known = await self.authenticator.session(secret)
        if connection.scope.get("method", "GET") not in SAFE:
            sent = headers.get("x-csrf-token", "")
            if not hmac.compare_digest(sent.encode(), (known.principal.csrf or "").encode()):
                raise Forbidden("The page is out of date: reload it and try again.", code="csrf")
        return known


class Requirement:
    """A guard: the caller is known and may do `action`."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        known = await connection.app.state.gate.identify(connection)
        principal = known.principal
        if self.action not in principal.allowed:
            raise Forbidden(f"Your role does not allow {self.action}. Ask an administrator of your tenant.")
        connection.scope["user"] = principal
        if connection.scope["type"] == ScopeType.HTTP:
            # The frame ends it when the answer begins.
            turn = await connection.app.state.gate.turns.begin(
                principal.tenant_id, together=self.action in WAITING
            )
            connection.scope["state"]["turn"] = turn


class Public:
    """A guard that lets everybody in, and says why."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        connection.app.state.gate.admit_stranger(connection)


class Machinery(Public):
    """Open, and asked every few seconds by those who watch us: no limit by address."""

    __slots__ = ()

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        return None


def requires(action: Action) -> Requirement:
    """The caller must be allowed `action`."""
    return Requirement(action)


def public(why: str) -> Public:
    """No credential is asked for, because `why`; limited by address."""
    return Public(why)


def machinery(why: str) -> Machinery:
    """No credential and no limit: health, metrics."""
    return Machinery(why)


def rule_of(handler: BaseRouteHandler) -> Requirement | Public | None:
    """The declaration nearest to the handler, or None."""
    for layer in reversed(list(handler.ownership_layers)):
        for guard in layer.guards or []:
            if isinstance(guard, (Requirement, Public)):
                return guard
    return None
