"""Who is calling: access token, API key, browser session or device password to `Principal`.

What was verified is remembered for `fresh` seconds in a bounded LRU, so that a busy client costs neither a
signature nor a query for each request, and a change of role or a withdrawn key is in force within that time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import asyncpg

from caudal.core import db
from caudal.core.errors import Unauthenticated
from caudal.registry.permissions import NOT_FOR_KEYS, Action, Role
from caudal.registry.principal import Principal, person
from caudal.registry.tokens import Claims, KeyRing

KEY_PREFIX = "caudal_"
REFUSED = "Sign in first: send a bearer token or an API key."


class DeviceAuthenticator(Protocol):
    """Checks a device's own credentials, as sent by HTTP Basic."""

    async def authenticate_device(self, username: str, password: str) -> Principal | None:
        """The device's principal, or None when the credentials are wrong."""
        ...


class Known(NamedTuple):
    """A verified caller: believed until (monotonic), ends at (Unix), its tenant's own request rate."""

    principal: Principal
    until: float
    expires: float
    rate: float | None


class Authenticator:
    """Turns credentials into principals; `size` bounds how many it remembers."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        keys: KeyRing,
        *,
        fresh: float = 5.0,
        size: int = 20_000,
        session_hours: int = 12,
        devices: DeviceAuthenticator | None = None,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._fresh = fresh
        self._size = size
        self._session = timedelta(hours=session_hours)
        self.devices = devices
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._claims: OrderedDict[str, Claims] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Known]] = {}
        self._rates: OrderedDict[int, tuple[float | None, float]] = OrderedDict()

    async def bearer(self, token: str) -> Known:
        """The caller with this access token or API key. Raises Unauthenticated."""
        return self.remembered(token) or await self._once(
            token, self._api_key if token.startswith(KEY_PREFIX) else self._token
        )

    async def session(self, secret: str) -> Known:
        """The person of this browser session. Raises Unauthenticated."""
        key = f"session {secret}"
        return self.remembered(key) or await self._once(key, self._browser)

    async def basic(self, encoded: str) -> Known:
        """The device with these HTTP Basic credentials. Raises Unauthenticated."""
        key = f"basic {encoded}"
        return self.remembered(key) or await self._once(key, self._device)

    def forget(self, credential: str) -> None:
        """Ask again about this credential at its next use."""
        for key in (credential, f"session {credential}"):
            self._known.pop(key, None)

    def remembered(self, key: str) -> Known | None:
        """What was verified a moment ago; costs a look in a dictionary."""
        known = self._known.get(key)
        if known is None or known.until < time.monotonic() or known.expires < time.time():
            return None
        return known

    async def _once(self, key: str, ask: Callable[[str], Awaitable[Known]]) -> Known:
        """Many requests with one credential ask once."""
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, ask), name="authenticate")
            self._asking[key] = task
            task.add_done_callback(lambda done: (self._asking.pop(key, None), done.exception()))
        # A caller who hangs up must not take the answer away from the others.
        return await asyncio.shield(task)

    async def _ask(self, key: str, ask: Callable[[str], Awaitable[Known]]) -> Known:
        known = await ask(key)
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return known

    async def _token(self, token: str) -> Known:
        claims = self._claims.get(token)
        if claims is None:
            claims = await self._keys.verify(token)
            self._claims[token] = claims
            while len(self._claims) > self._size:
                self._claims.popitem(last=False)
        if claims.exp + 10 < time.time():
            self._claims.pop(token, None)
            raise Unauthenticated("The access token has expired. Sign in again.")
        return await self._person(claims.sub, claims.tenant, claims.iat, claims.exp)

    async def _person(
        self, user_id: UUID, tenant: str, since: float, expires: float, csrf: str | None = None
    ) -> Known:
        row = await self._pool.fetchrow("select * from caudal.principal_of($1, $2)", user_id, tenant)
        # Tokens carry whole seconds: one of the same second as the change of password passes.
        if row is None or int(row["tokens_from"].timestamp()) > since:
            raise Unauthenticated("This sign-in is no longer valid. Sign in again.")
        principal = person(
            tenant_id=row["tenant_id"],
            tenant=tenant,
            user_id=user_id,
            username=row["username"],
            email=row["email"],
            role=Role(row["role"]),
            csrf=csrf,
        )
        return Known(principal, time.monotonic() + self._fresh, expires, row["requests_per_second"])

    async def _api_key(self, key: str) -> Known:
        prefix, _, secret = key.removeprefix(KEY_PREFIX).partition("_")
        row = await self._pool.fetchrow("select * from caudal.api_key_find($1)", prefix) if secret else None
        if row is None or not hmac.compare_digest(row["digest"], hashlib.sha256(key.encode()).digest()):
            raise Unauthenticated("The API key is unknown, expired or withdrawn. Make another.")
        principal = Principal(
            tenant_id=row["tenant_id"],
            tenant=row["tenant"],
            allowed=frozenset(Action(scope) for scope in row["scopes"] if scope in _ACTIONS) - NOT_FOR_KEYS
            | {Action.SELF_READ},
            api_key_id=row["id"],
            name=row["name"],
        )
        expires = row["expires_at"].timestamp() if row["expires_at"] else float("inf")
        return Known(principal, time.monotonic() + self._fresh, expires, row["requests_per_second"])

    async def _browser(self, key: str) -> Known:
        secret = key.removeprefix("session ")
        digest = hashlib.sha256(secret.encode()).digest()
        row = await self._pool.fetchrow("select * from caudal.session_find($1)", digest)
        if row is None:
            raise Unauthenticated("You were signed out. Sign in again.")
        now = datetime.now(UTC)
        expires = row["expires_at"]
        if expires - now < self._session * 0.9:
            # In use: it ends so many hours after its last use, written at most every tenth of that time.
            expires = now + self._session
            await self._pool.execute("select caudal.session_extend($1, $2)", digest, expires)
        return await self._person(
            row["person_id"],
            row["tenant"],
            row["created_at"].timestamp(),
            expires.timestamp(),
            csrf_of(secret),
        )

    async def _device(self, key: str) -> Known:
        try:
            # From the right: a device's name has colons (t:acme:d:pump), its password, made by us, has none.
            user, _, password = b64decode(key.removeprefix("basic "), validate=True).decode().rpartition(":")
        except ValueError as error:
            raise Unauthenticated("The Basic credentials cannot be read.") from error
        found = await self.devices.authenticate_device(user, password) if self.devices else None
        if found is None:
            raise Unauthenticated("The device's name or password is wrong.")
        rate = await self._rate(found)
        return Known(found, time.monotonic() + self._fresh, float("inf"), rate)

    async def _rate(self, found: Principal) -> float | None:
        """The request rate of a device's tenant, asked once for all of its devices that come together."""
        now = time.monotonic()
        rate, until = self._rates.get(found.tenant_id, (None, 0.0))
        if until < now:
            async with db.tenant_transaction(self._pool, found.tenant, readonly=True) as connection:
                rate = await connection.fetchval(
                    "select requests_per_second from caudal.quota where tenant_id = $1", found.tenant_id
                )
            self._rates[found.tenant_id] = (rate, now + self._fresh)
            while len(self._rates) > self._size:
                self._rates.popitem(last=False)
        return rate


_ACTIONS = frozenset(str(action) for action in Action)


def csrf_of(secret: str) -> str:
    """The CSRF token of a session: only who knows the session's secret can compute it."""
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()
