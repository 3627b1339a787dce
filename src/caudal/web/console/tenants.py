"""All tenants, for the people who run the installation: what each uses and may use, and new ones.

Who works in the default tenant runs the installation (ADR 0053, 0080); for everybody else these pages are
not there.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.registry import audit, installation, people
from caudal.registry.installation import Status
from caudal.registry.mail import Post
from caudal.registry.permissions import Action, Role
from caudal.registry.settings import PeopleSettings
from caudal.registry.tenants import NAME
from caudal.web.console import forms
from caudal.web.console.people import checked_email, mail_invitation
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given
from caudal.web.installation import runs_installation

NEEDS = frozenset({"post", "people_settings"})
READ = [requires(Action.OPERATIONS_READ)]
WRITE = [requires(Action.TENANT_WRITE)]
SUSPEND = [requires(Action.TENANTS_SUSPEND)]
MOST = installation.MOST
GIGABYTE = 10**9
# Bytes of a quota of storage: what a form's number of gigabytes says to the byte.
MOST_BYTES = 9 * 10**15


@get("/installation/tenants", guards=READ)
async def tenant_list(
    view: Given[View], door: Database, principal: Caller, people_settings: Given[PeopleSettings]
) -> Response[str]:
    """Every tenant, with what it uses."""
    runs_installation(principal, people_settings)
    async with door.read() as connection:
        found = await connection.fetch("select * from caudal.console_tenants()")
    return view.page("all_tenants.html", section="all_tenants", found=found)


@get("/installation/tenants/{tenant_id:int}", guards=READ)
async def tenant_page(
    tenant_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    people_settings: Given[PeopleSettings],
) -> Response[str]:
    """One tenant and its limits."""
    runs_installation(principal, people_settings)
    async with door.read() as connection:
        row = await installation.row_of(connection, tenant_id)
    return view.page(
        "one_tenant.html",
        section="all_tenants",
        tenant=row,
        usual_requests=people_settings.rate_limit_tenant,
        gigabytes=gigabytes_text(row["storage_bytes"]),
        people_default=people_settings.default_tenant,
    )


def gigabytes_text(count: int | None) -> str:
    """Bytes in gigabytes, exactly, as the form takes them back; empty for none."""
    if count is None:
        return ""
    whole, rest = divmod(count, GIGABYTE)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _storage(form: dict[str, str]) -> int | None:
    """The quota of storage in a form, in bytes. Raises InvalidInput."""
    given = forms.decimal(form, "storage_gigabytes")
    if given is None:
        return None
    count = round(given * GIGABYTE) if abs(given) <= MOST_BYTES / GIGABYTE else 0
    if not count >= 1:
        raise InvalidInput(
            f"storage_gigabytes: a number above 0, at most {MOST_BYTES // GIGABYTE}, or empty."
        )
    return count


@post("/installation/tenants", guards=[requires(Action.OWNERS_WRITE)], status_code=200)
async def make_tenant(
    request: Request[Any, Any, Any],
    view: Given[View],
    door: Database,
    principal: Caller,
    post: Given[Post],
    people_settings: Given[PeopleSettings],
) -> Response[str]:
    """A new tenant, and the invitation of its owner."""
    runs_installation(principal, people_settings)
    form = forms.texts(await request.form())
    name, title = form.get("name", "").strip(), form.get("display_name", "").strip()
    if not NAME.fullmatch(name):
        raise InvalidInput("name: 1 to 100 letters, digits, dots, dashes and underscores.")
    if len(title) > 200 or "\0" in title:
        raise InvalidInput("display_name: at most 200 characters.")
    email = checked_email(form.get("email", ""))
    async with door.write() as connection:
        try:
            made = await connection.fetchval("select caudal.console_make_tenant($1, $2)", name, title)
        except asyncpg.UniqueViolationError as error:
            raise Conflict(f"There is a tenant {name} already.") from error
        await audit.record(connection, principal, "tenant.created", f"tenant:{made}", name=name)
        # Its owner's invitation is the new tenant's own row, and comes to be with it or not at all.
        await connection.execute("select set_config('app.tenant_id', $1, true)", name)
        there = msgspec.structs.replace(principal, tenant=name, tenant_id=made)
        _, secret = await people.invite(connection, there, email, Role.OWNER)
    link = mail_invitation(post, people_settings, there, email, Role.OWNER, secret)
    return view.page("invited.html", email=email, link=link, back=f"/console/installation/tenants/{made}")


@post("/installation/tenants/{tenant_id:int}", guards=WRITE, status_code=200)
async def limit_tenant(
    request: Request[Any, Any, Any],
    tenant_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    people_settings: Given[PeopleSettings],
) -> Response[str]:
    """Change what a tenant may use."""
    runs_installation(principal, people_settings)
    form = forms.texts(await request.form())
    names = ("max_series", "requests_per_second", "messages_per_second", "points_per_second")
    limits: dict[str, int | None] = {name: forms.whole(form, name) for name in names}
    for name, value in limits.items():
        if value is not None and not 1 <= value <= MOST:
            raise InvalidInput(f"{name}: a whole number from 1 to {MOST}, or empty.")
    if limits["max_series"] is None:
        raise InvalidInput("max_series: give a number.")
    limits["storage_bytes"] = _storage(form)
    async with door.write() as connection:
        await installation.row_of(connection, tenant_id)
        await connection.execute(
            "select caudal.console_limit_tenant($1, $2, $3, $4, $5, $6)", tenant_id, *limits.values()
        )
        await audit.record(connection, principal, "tenant.limited", f"tenant:{tenant_id}", **limits)
    return view.go(f"/console/installation/tenants/{tenant_id}", done="saved")


DEEDS: dict[str, tuple[Status, str]] = {
    "suspend": ("suspended", "suspended"),
    "resume": ("active", "resumed"),
}


@post("/installation/tenants/{tenant_id:int}/{deed:str}", guards=SUSPEND, status_code=200)
async def set_status(
    request: Request[Any, Any, Any],
    tenant_id: FromPath[int],
    deed: FromPath[str],
    view: Given[View],
    door: Database,
    principal: Caller,
    people_settings: Given[PeopleSettings],
) -> Response[str]:
    """Shut a tenant out, what it has staying; or let it work again."""
    runs_installation(principal, people_settings)
    if deed not in DEEDS:
        raise NotFound("There is no page at this address.")
    status, done = DEEDS[deed]
    reason = forms.texts(await request.form()).get("reason", "").strip()
    if len(reason) > 500 or not reason.isprintable():
        raise InvalidInput("reason: one line of at most 500 characters.")
    async with door.write() as connection:
        await installation.set_status(connection, principal, tenant_id, status, reason=reason)
    return view.go(f"/console/installation/tenants/{tenant_id}", done=done)


ROUTES = [tenant_list, tenant_page, make_tenant, limit_tenant, set_status]
