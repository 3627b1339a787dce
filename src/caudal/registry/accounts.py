"""Registering, signing in, passwords and browser sessions: what happens before a tenant is known.

Works as `caudal_app` through the security definer functions of migration 0100; nothing here reads a table.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from caudal.core import logs
from caudal.core.errors import Conflict, Forbidden, InvalidInput, Unauthenticated
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role
from caudal.registry.settings import PeopleSettings
from caudal.registry.tokens import KeyRing

log = logs.get("accounts")
WRONG = "The name or the password is wrong."


class Locked(Unauthenticated):
    """Five failures: this login stays closed for a while, also to the right password."""

    code = "locked"


class Registered(msgspec.Struct, frozen=True):
    """A person who just registered."""

    user_id: UUID
    username: str
    email: str
    created_at: datetime


class Workplace(msgspec.Struct, frozen=True):
    """A tenant that a person belongs to, and what they are there."""

    tenant: str
    display_name: str | None
    role: Role


class SignedIn(msgspec.Struct, frozen=True):
    """A person who proved who they are, and the tenant they will work in."""

    user_id: UUID
    tenant: str


class _Turns:
    """One at a time for each key.

    The database counts attempts before they are looked at, over all processes; so somebody who signs in with
    one name many times at once must not look like somebody who guesses.
    """

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, waiting - 1)


def digest(secret: str) -> bytes:
    """How a random secret of ours is kept: SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


class Accounts:
    """People's way in."""

    def __init__(
        self, pool: asyncpg.Pool[Any], passwords: Passwords, keys: KeyRing, settings: PeopleSettings
    ) -> None:
        self._pool = pool
        self._passwords = passwords
        self._keys = keys
        self._settings = settings
        self._turns = _Turns()

    @property
    def token_seconds(self) -> int:
        """Life of an access token in seconds."""
        return self._keys.token_seconds

    async def register(self, username: str, password: str, email: str) -> Registered:
        """A new person, `member` of the default tenant. Raises Forbidden, Conflict."""
        if not self._settings.registration:
            raise Forbidden("Nobody can register here alone. Ask an administrator to invite you.")
        hashed = await self._passwords.hash(password)
        try:
            row = await self._pool.fetchrow(
                "select * from caudal.register_person($1, $2, $3, $4)",
                username, email, hashed, self._settings.default_tenant,
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            raise Conflict(_taken(error)) from error
        if row is None:
            raise Forbidden(f"There is no tenant {self._settings.default_tenant} to register in.")
        log.info("registered", user_id=str(row["id"]))
        return Registered(row["id"], username, email, row["created_at"])

    async def sign_in(self, login: str, password: str, tenant: str | None = None) -> SignedIn:
        """Who `login` (user name or e-mail) is, and where they will work: `tenant`, or where they were first.

        Raises Unauthenticated for a wrong name or password alike, Locked after five of them.
        """
        async with self._turns.turn(login.lower()):
            row = await self._begin(login)
            if row["locked_until"] is not None:
                raise _locked(row["locked_until"])
            if not await self._passwords.verify(row["password_hash"], password):
                until = await self._pool.fetchval("select caudal.sign_in_failed($1)", login)
                log.info("sign-in failed", known=row["person_id"] is not None, locked=until is not None)
                if until is not None:
                    raise _locked(until)
                raise Unauthenticated(WRONG)
            await self._pool.execute("select caudal.sign_in_succeeded($1)", login)
        places = await self.workplaces(row["person_id"])
        return SignedIn(row["person_id"], _choose(places, tenant))

    async def _begin(self, login: str) -> Any:
        """Count an attempt. Always one row, empty for a login that nobody has."""
        return await self._pool.fetchrow("select * from caudal.sign_in_begin($1)", login)

    async def workplaces(self, user_id: UUID) -> list[Workplace]:
        """The tenants that a person belongs to, the first joined first."""
        rows = await self._pool.fetch("select * from caudal.memberships_of($1)", user_id)
        return [Workplace(row["tenant"], row["display_name"], Role(row["role"])) for row in rows]

    async def token(self, user_id: UUID, tenant: str) -> str:
        """An access token for work in `tenant`. Raises Forbidden when the person does not belong there."""
        return await self._keys.issue(user_id, _choose(await self.workplaces(user_id), tenant))

    async def token_of(self, signed_in: SignedIn) -> str:
        """An access token for somebody who just signed in."""
        return await self._keys.issue(signed_in.user_id, signed_in.tenant)

    async def open_session(self, signed_in: SignedIn) -> str:
        """A browser session; returns the secret that its cookie carries."""
        secret = secrets.token_urlsafe(32)
        expires = datetime.now(UTC) + timedelta(hours=self._settings.session_hours)
        await self._pool.execute(
            "select caudal.session_open($1, $2, $3, $4)",
            digest(secret), signed_in.user_id, signed_in.tenant, expires,
        )  # fmt: skip
        return secret

    async def close_session(self, secret: str) -> None:
        """End a browser session."""
        await self._pool.execute("select caudal.session_close($1)", digest(secret))

    async def change_password(self, user_id: UUID, old: str, new: str) -> None:
        """Replace a password; every token and session of that person ends. Raises Unauthenticated."""
        async with self._turns.turn(str(user_id)):
            login = f"password of {user_id}"
            found = await self._begin(login)
            if found["locked_until"] is not None:
                raise _locked(found["locked_until"])
            hashed = await self._pool.fetchval("select caudal.password_of($1)", user_id)
            if not await self._passwords.verify(hashed, old):
                until = await self._pool.fetchval("select caudal.sign_in_failed($1)", login)
                raise _locked(until) if until else Forbidden("The present password is wrong.")
            await self._pool.execute("select caudal.sign_in_succeeded($1)", login)
        await self._pool.execute(
            "select caudal.set_password($1, $2)", user_id, await self._passwords.hash(new)
        )

    async def begin_reset(self, email: str, secret: str, expires: datetime) -> str | None:
        """Let `secret` set a new password until `expires`; the address to mail it to, None for nobody."""
        address: str | None = await self._pool.fetchval(
            "select caudal.reset_begin($1, $2, $3)", email, digest(secret), expires
        )
        return address

    async def finish_reset(self, secret: str, password: str) -> UUID:
        """Set a new password by a mailed secret, once. Raises InvalidInput."""
        hashed = await self._passwords.hash(password)
        found: UUID | None = await self._pool.fetchval(
            "select caudal.reset_finish($1, $2)", digest(secret), hashed
        )
        if found is None:
            raise InvalidInput("This link has been used or is too old. Ask for another.")
        return found

    async def accept_invitation(self, secret: str, username: str | None, password: str | None) -> SignedIn:
        """Join a tenant by a mailed secret; who is new says name and password, who is known their password.

        Raises InvalidInput, Conflict, Unauthenticated.
        """
        row = await self._pool.fetchrow("select * from caudal.invitation_find($1)", digest(secret))
        if row is None:
            raise InvalidInput("This invitation has been used or is too old. Ask for another.")
        hashed = None
        if row["person_id"] is not None:
            # The mail box alone must not be enough to join as somebody who already has a password.
            if password is None:
                raise InvalidInput("Give the password of your account to join.")
            await self.sign_in(row["email"], password)
        elif password is None:
            raise InvalidInput("Choose a password to join.")
        else:
            hashed = await self._passwords.hash(password)
        try:
            done = await self._pool.fetchrow(
                "select * from caudal.invitation_accept($1, $2, $3)", digest(secret), username, hashed
            )
        except asyncpg.UniqueViolationError as error:
            raise Conflict(_taken(error)) from error
        if done is None:
            raise InvalidInput("This invitation has been used or is too old. Ask for another.")
        return SignedIn(done["person_id"], done["tenant"])


def _choose(places: list[Workplace], tenant: str | None) -> str:
    if not places:
        raise Forbidden("You belong to no tenant. Ask to be invited.", code="no_tenant")
    if tenant is None:
        return places[0].tenant
    if all(place.tenant != tenant for place in places):
        raise Forbidden("You do not belong to that tenant.", code="not_a_member")
    return tenant


def _taken(error: asyncpg.UniqueViolationError) -> str:
    what = "e-mail address" if error.constraint_name == "person_email" else "user name"
    return f"That {what} is taken. Choose another."


def _locked(until: datetime) -> Locked:
    minutes = max(1, round((until - datetime.now(UTC)).total_seconds() / 60))
    return Locked(f"Too many failed attempts. Try again in {minutes} min.")
