"""Signing in and out, registering, and the caller's own matters. Names as in the messaging contract."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.datastructures import Cookie
from litestar.params import JSONBody

from caudal.core.errors import Forbidden, InvalidInput
from caudal.registry.accounts import Accounts, Registered, SignedIn, Workplace
from caudal.registry.authenticate import Authenticator, csrf_of
from caudal.registry.mail import Mail, Post
from caudal.registry.people import RESET
from caudal.registry.permissions import Action, Role
from caudal.registry.principal import Principal
from caudal.registry.settings import PeopleSettings
from caudal.registry.tokens import KeyRing
from caudal.web.guards import COOKIE, public, requires
from caudal.web.inject import Caller, Given

NEEDS = frozenset({"accounts", "keys", "post", "people_settings"})
NOT_YET = [public("who signs in or registers is not signed in yet")]

# No spaces, one @, something with a dot after it; whether it exists, a mail tells.
EMAIL = r"^[^@\s\x00]{1,64}@[^@\s\x00]+\.[^@\s\x00.]+$"
Username = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]{3,50}\Z", min_length=3, max_length=50)]
Email = Annotated[str, msgspec.Meta(pattern=EMAIL, max_length=254)]
# The upper bound keeps a hash from being made to cost more.
Password = Annotated[str, msgspec.Meta(min_length=6, max_length=1024)]
Typed = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Secret = Annotated[str, msgspec.Meta(min_length=20, max_length=100)]
TenantName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Registration(msgspec.Struct, frozen=True):
    """A person who registers alone."""

    username: Username
    password: Password
    email: Email


class Credentials(msgspec.Struct, frozen=True):
    """Who signs in: `username` or `email`, the password, and where to work when there is a choice."""

    password: Typed
    username: Typed | None = None
    email: Typed | None = None
    tenant: TenantName | None = None


class Token(msgspec.Struct, frozen=True):
    """An access token and how many seconds it is good for."""

    access_token: str
    token_type: str
    expires_in: int
    user_id: UUID
    tenant: str


class TenantChoice(msgspec.Struct, frozen=True):
    """A tenant that the caller belongs to."""

    tenant: TenantName


class PasswordChange(msgspec.Struct, frozen=True):
    """The present password and the next."""

    old: Typed
    new: Password


class ResetRequest(msgspec.Struct, frozen=True):
    """The address that the caller says is theirs."""

    email: Email


class ResetFinish(msgspec.Struct, frozen=True):
    """The secret from the mail, and the password to have."""

    secret: Secret
    password: Password


class Acceptance(msgspec.Struct, frozen=True):
    """The secret from the mail; a password (one's own, or the one to have), a name if one wants one."""

    secret: Secret
    password: Password | None = None
    username: Username | None = None


class Session(msgspec.Struct, frozen=True):
    """A browser's session: its secret is in the cookie, `csrf` goes into X-CSRF-Token."""

    user_id: UUID
    tenant: str
    csrf: str


class Me(msgspec.Struct, frozen=True):
    """The caller: who, where, what they may do, and where else they could work."""

    tenant: str
    name: str
    allowed: list[Action]
    user_id: UUID | None
    username: str | None
    email: str | None
    role: Role | None
    csrf: str | None
    tenants: list[Workplace]


@post("/auth/register", guards=NOT_YET, status_code=201, opt={"problems": (403,)})
async def register(data: JSONBody[Registration], accounts: Given[Accounts]) -> Registered:
    """Register as a member of the default tenant."""
    return await accounts.register(data.username, data.password, data.email)


def _login(data: Credentials) -> str:
    login = data.username or data.email
    if login is None:
        raise InvalidInput("Give a username or an e-mail.")
    return login


@post("/auth/token", guards=NOT_YET, status_code=200, opt={"problems": (401, 403)})
async def token(data: JSONBody[Credentials], accounts: Given[Accounts]) -> Token:
    """Sign in as a program: an access token for one tenant."""
    signed_in = await accounts.sign_in(_login(data), data.password, data.tenant)
    return await _token(accounts, signed_in)


async def _token(accounts: Accounts, signed_in: SignedIn) -> Token:
    made = await accounts.token_of(signed_in)
    return Token(made, "Bearer", accounts.token_seconds, signed_in.user_id, signed_in.tenant)


@post("/auth/session", guards=NOT_YET, status_code=200, opt={"problems": (401, 403)})
async def open_session(
    request: Request[Any, Any, Any], data: JSONBody[Credentials], accounts: Given[Accounts]
) -> Response[Session]:
    """Sign in as a browser: a cookie that scripts cannot read."""
    # SameSite does not stop a foreign page from signing its visitor in as somebody else.
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("Sign in from our own page.", code="csrf")
    signed_in = await accounts.sign_in(_login(data), data.password, data.tenant)
    return await _session(request, accounts, signed_in)


async def _session(
    request: Request[Any, Any, Any], accounts: Accounts, signed_in: SignedIn
) -> Response[Session]:
    secret = await accounts.open_session(signed_in)
    cookie = Cookie(
        COOKIE,
        value=secret,
        httponly=True,
        samesite="lax",
        path="/",
        secure=request.app.state.web.cookie_secure,
    )
    return Response(Session(signed_in.user_id, signed_in.tenant, csrf_of(secret)), cookies=[cookie])


@delete("/auth/session", guards=[requires(Action.SELF_WRITE)], status_code=204)
async def close_session(
    request: Request[Any, Any, Any], accounts: Given[Accounts], authenticator: Given[Authenticator]
) -> Response[None]:
    """Sign the browser out."""
    secret = request.cookies.get(COOKIE)
    if secret:
        await accounts.close_session(secret)
        authenticator.forget(secret)
    return Response(
        None, status_code=204, cookies=[Cookie(COOKIE, value="", max_age=0, path="/", httponly=True)]
    )


@post("/api/me/session", guards=[requires(Action.SELF_WRITE)], status_code=200)
async def switch_session(
    request: Request[Any, Any, Any],
    data: JSONBody[TenantChoice],
    principal: Caller,
    accounts: Given[Accounts],
    authenticator: Given[Authenticator],
) -> Response[Session]:
    """Work in another of one's tenants: a new browser session in place of the present one."""
    user_id = _person(principal)
    await accounts.token(user_id, data.tenant)
    secret = request.cookies.get(COOKIE)
    if secret:
        await accounts.close_session(secret)
        authenticator.forget(secret)
    return await _session(request, accounts, SignedIn(user_id, data.tenant))


@post("/api/me/token", guards=[requires(Action.SELF_WRITE)], status_code=200)
async def switch_token(data: JSONBody[TenantChoice], principal: Caller, accounts: Given[Accounts]) -> Token:
    """An access token for work in another of one's tenants."""
    user_id = _person(principal)
    made = await accounts.token(user_id, data.tenant)
    return Token(made, "Bearer", accounts.token_seconds, user_id, data.tenant)


@get("/api/me", guards=[requires(Action.SELF_READ)])
async def me(principal: Caller, accounts: Given[Accounts]) -> Me:
    """Who the caller is and what they may do."""
    places = await accounts.workplaces(principal.user_id) if principal.user_id else []
    return Me(
        tenant=principal.tenant,
        name=principal.name,
        allowed=sorted(principal.allowed),
        user_id=principal.user_id,
        username=principal.username,
        email=principal.email,
        role=principal.role,
        csrf=principal.csrf,
        tenants=places,
    )


@put("/api/me/password", guards=[requires(Action.SELF_WRITE)], status_code=204)
async def change_password(
    data: JSONBody[PasswordChange], principal: Caller, accounts: Given[Accounts]
) -> None:
    """Replace one's password. Every token and session of the caller ends, this one too."""
    await accounts.change_password(_person(principal), data.old, data.new)


@post("/auth/reset", guards=NOT_YET, status_code=202)
async def begin_reset(
    data: JSONBody[ResetRequest],
    accounts: Given[Accounts],
    post: Given[Post],
    people_settings: Given[PeopleSettings],
) -> Response[None]:
    """Ask for a mail that lets one set a new password within an hour. Says nothing about who exists."""
    secret = secrets.token_urlsafe(32)
    address = await accounts.begin_reset(data.email, secret, datetime.now(UTC) + RESET)
    if address is not None:
        link = f"{people_settings.public_url.rstrip('/')}/reset#{secret}"
        text = "Somebody, probably you, asked to set a new password. Good for one hour."
        post.put(Mail(address, "A new password", text, link))
    return Response(None, status_code=202)


@post("/auth/reset/finish", guards=NOT_YET, status_code=204)
async def finish_reset(data: JSONBody[ResetFinish], accounts: Given[Accounts]) -> None:
    """Set a new password with the secret from the mail. Every token and session of that person ends."""
    await accounts.finish_reset(data.secret, data.password)


@post("/auth/invitation", guards=NOT_YET, status_code=200, opt={"problems": (401, 403)})
async def accept_invitation(data: JSONBody[Acceptance], accounts: Given[Accounts]) -> Token:
    """Join a tenant with the secret from the mail; who has a password already gives that one."""
    return await _token(accounts, await accounts.accept_invitation(data.secret, data.username, data.password))


@get("/.well-known/jwks.json", guards=[public("public keys are public")], sync_to_thread=False)
def jwks(keys: Given[KeyRing]) -> dict[str, Any]:
    """The public keys that verify our access tokens (RFC 7517)."""
    return keys.jwks()


def _person(principal: Principal) -> UUID:
    if principal.user_id is None:
        raise Forbidden("Only a person can do this.")
    return principal.user_id


ROUTES = [
    register, token, open_session, close_session, switch_session, switch_token, me, change_password,
    begin_reset, finish_reset, accept_invitation, jwks,
]  # fmt: skip
