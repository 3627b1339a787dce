"""People: members and roles, invitations, API keys, the audit log, the account's own settings."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import InvalidInput
from caudal.registry import audit, people
from caudal.registry.mail import Mail, Post
from caudal.registry.permissions import NOT_FOR_KEYS, Action, Role
from caudal.registry.principal import Principal
from caudal.registry.settings import PeopleSettings
from caudal.web import pages
from caudal.web.api import tenant as tenant_api
from caudal.web.api.auth import EMAIL
from caudal.web.api.people import Moment
from caudal.web.console import forms
from caudal.web.console.filters import number
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"post", "people_settings"})
READ = [requires(Action.PEOPLE_READ)]
WRITE = [requires(Action.PEOPLE_WRITE)]
PAGE = 100
EXPIRIES = (30, 90, 365)
POLICIES = ("register", "hold", "refuse")


def _role(text: str | None) -> Role:
    try:
        return Role(text or "")
    except ValueError as error:
        raise InvalidInput(f"role: one of {', '.join(Role)}.") from error


def checked_email(text: str) -> str:
    """An e-mail address without blanks around it. Raises InvalidInput."""
    email = text.strip()
    if not re.fullmatch(EMAIL, email) or len(email) > 254:
        raise InvalidInput("email: that is no e-mail address.")
    return email


def mail_invitation(
    post: Post, settings: PeopleSettings, principal: Principal, email: str, role: Role, secret: str
) -> str | None:
    """Mail an invitation's link. Returns the link where no mail is configured: somebody must hand it over."""
    link = f"{settings.public_url.rstrip('/')}/invitation#{secret}"
    text = f"{principal.name} invites you to join {principal.tenant} as {role}. Good for seven days."
    post.put(Mail(email, f"Invitation to {principal.tenant}", text, link))
    return None if settings.mail_url else link


@get("/people", guards=READ)
async def member_list(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Members and invitations."""
    after = pages.decode(request.query_params.get("after"), Moment)
    async with door.read() as connection:
        rows = await people.members(connection, limit=PAGE + 1, after=after)
        invited = await people.invitations(connection, limit=50, after=None)
    found = pages.page(rows, PAGE, of=people.to_member, key=lambda row: (row["created_at"], row["id"]))
    roles = [role for role in Role if role is not Role.OWNER or view.may(Action.OWNERS_WRITE)]
    return view.page(
        "people.html", section="people", found=found, roles=roles, all_roles=list(Role),
        now=datetime.now(UTC),
        invitations=[one for one in map(people.to_invitation, invited) if one.accepted_at is None],
    )  # fmt: skip


@post("/people/{user_id:uuid}/role", guards=WRITE, status_code=200)
async def change_role(
    request: Request[Any, Any, Any],
    user_id: FromPath[UUID],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Give a member another role."""
    role = _role(forms.texts(await request.form()).get("role"))
    async with door.write() as connection:
        await people.change_role(connection, principal, user_id, role)
    return view.go("/console/people", done="saved")


@post("/people/{user_id:uuid}/remove", guards=WRITE, status_code=200)
async def remove(
    user_id: FromPath[UUID], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Take a person out of the account."""
    async with door.write() as connection:
        await people.remove_member(connection, principal, user_id)
    return view.go("/console/people", done="removed")


@post("/people/invite", guards=WRITE, status_code=200)
async def invite(
    request: Request[Any, Any, Any],
    view: Given[View],
    door: Database,
    principal: Caller,
    post: Given[Post],
    people_settings: Given[PeopleSettings],
) -> Response[str]:
    """Invite an e-mail address."""
    form = forms.texts(await request.form())
    email, role = checked_email(form.get("email", "")), _role(form.get("role"))
    async with door.write() as connection:
        _, secret = await people.invite(connection, principal, email, role)
    link = mail_invitation(post, people_settings, principal, email, role, secret)
    if link:
        return view.page("invited.html", email=email, link=link, back="/console/people")
    return view.go("/console/people", done="invited")


@post("/people/invitations/{invitation_id:uuid}/withdraw", guards=WRITE, status_code=200)
async def withdraw(
    invitation_id: FromPath[UUID], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Make an open invitation useless."""
    async with door.write() as connection:
        await people.withdraw_invitation(connection, principal, invitation_id)
    return view.go("/console/people", done="withdrawn")


@get("/people/keys", guards=[requires(Action.KEYS_READ)])
async def key_list(view: Given[View], door: Database, principal: Caller) -> Response[str]:
    """API keys."""
    async with door.read() as connection:
        found = [people.to_key(row) for row in await people.keys(connection, limit=200, after=None)]
    scopes = [action for action in Action if action in principal.allowed and action not in NOT_FOR_KEYS]
    return view.page(
        "keys.html", section="people", found=found, scopes=scopes, expiries=EXPIRIES, now=datetime.now(UTC)
    )


@post("/people/keys", guards=[requires(Action.KEYS_WRITE)], status_code=200)
async def make_key(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """A new key, shown once."""
    form = await request.form()
    name = str(form.get("name", "")).strip()
    days = str(form.get("days", ""))
    scopes = [Action(scope) for scope in form.getall("scope", []) if scope in set(Action)]
    if not 1 <= len(name) <= 100 or "\0" in name:
        raise InvalidInput("name: 1 to 100 characters.")
    if not scopes:
        raise InvalidInput("scope: choose at least one.")
    expires = datetime.now(UTC) + timedelta(days=int(days)) if days in map(str, EXPIRIES) else None
    async with door.write() as connection:
        _, whole = await people.make_key(connection, principal, name, scopes, expires)
    return view.page("made_key.html", name=name, key=whole)


@post("/people/keys/{key_id:uuid}/revoke", guards=[requires(Action.KEYS_WRITE)], status_code=200)
async def revoke_key(
    key_id: FromPath[UUID], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Withdraw a key."""
    async with door.write() as connection:
        await people.revoke_key(connection, principal, key_id)
    return view.go("/console/people/keys", done="key_revoked")


@get("/people/audit", guards=[requires(Action.AUDIT_READ)])
async def audit_log(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Who did what."""
    given = request.query_params
    async with door.read() as connection:
        rows = await audit.entries(
            connection, limit=51, before=number(given, "before"), action=given.get("action") or None,
            actor=given.get("actor") or None,
        )  # fmt: skip
    return view.page(
        "audit.html", section="people", found=rows[:50], after=rows[49]["id"] if len(rows) > 50 else None,
        action=given.get("action", ""), actor=given.get("actor", ""),
    )  # fmt: skip


@get("/people/account", guards=[requires(Action.TENANT_READ)])
async def account_page(view: Given[View], door: Database) -> Response[str]:
    """The account's name, time zone and policies."""
    async with door.read() as connection:
        row = await connection.fetchrow(
            "select name, display_name, time_zone, unknown_devices, retention_days from caudal.tenant"
        )
    return view.page("account.html", section="people", account=row, policies=POLICIES)


@post("/people/account", guards=[requires(Action.TENANT_WRITE)], status_code=200)
async def change_account(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Change them."""
    form = forms.texts(await request.form())
    days = form.get("retention_days", "").strip()
    if days and (not days.isdecimal() or not 1 <= int(days) <= 100_000):
        raise InvalidInput("retention_days: a whole number of days, or empty for ever.")
    policy = form.get("unknown_devices")
    if policy not in POLICIES:
        raise InvalidInput(f"unknown_devices: one of {', '.join(POLICIES)}.")
    if len(form.get("display_name", "")) > 200:
        raise InvalidInput("display_name: at most 200 characters.")
    change = tenant_api.TenantChange(
        display_name=form.get("display_name", "").strip() or None,
        time_zone=form.get("time_zone", "").strip(),
        unknown_devices=policy, retention_days=int(days) if days else None,  # type: ignore[arg-type]
    )  # fmt: skip
    await tenant_api.change_tenant.fn(change, door, principal)
    return view.go("/console/people/account", done="saved")


ROUTES = [
    member_list, change_role, remove, invite, withdraw, key_list, make_key, revoke_key, audit_log,
    account_page, change_account,
]  # fmt: skip
