"""Signing in and out, a forgotten password, the language and the theme."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie

from caudal.core.errors import CaudalError, Forbidden, InvalidInput
from caudal.registry.accounts import Accounts, Locked, SignedIn
from caudal.registry.authenticate import Authenticator
from caudal.registry.permissions import Action
from caudal.web.console.locale import LANGUAGES
from caudal.web.console.view import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, View, local
from caudal.web.guards import COOKIE, public, requires
from caudal.web.inject import Caller, Given

STRANGERS = [public("who signs in is not signed in yet")]
YEAR = 365 * 86400


def own_page(request: Request[Any, Any, Any]) -> None:
    """Refuse a form that another site sent: it could sign its visitor in as somebody else."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("Use our own page for this.", code="csrf")


async def fields(request: Request[Any, Any, Any]) -> dict[str, str]:
    """A form's text fields, without the blanks around them; empty ones are left out."""
    form = await request.form()
    return {name: value.strip() for name, value in form.items() if isinstance(value, str) and value.strip()}


@get("/", guards=[public("leads to the console, which asks who you are")], include_in_schema=False,
     sync_to_thread=False)  # fmt: skip
def root() -> Response[str]:
    """The front door."""
    return Response("", status_code=303, headers={"location": "/console/"})


@get("/sign-in", guards=STRANGERS)
async def sign_in_page(request: Request[Any, Any, Any]) -> Response[str]:
    """The form."""
    view = View(request)
    return view.page("sign_in.html", next=local(request.query_params.get("next")), login="", problem=None)


@post("/sign-in", guards=STRANGERS, status_code=200)
async def sign_in(request: Request[Any, Any, Any], accounts: Given[Accounts]) -> Response[str]:
    """Sign in; who belongs to several tenants starts where they were first, and switches in the menu."""
    own_page(request)
    form = await request.form()
    login, password = str(form.get("login", "")).strip(), str(form.get("password", ""))
    next_page = local(str(form.get("next", "")))
    view = View(request)
    try:
        if not login or not password or len(password) > 1024 or len(login) > 254 or "\0" in login + password:
            raise InvalidInput("Give a name and a password.")
        signed_in = await accounts.sign_in(login, password, str(form.get("tenant", "")).strip() or None)
    except CaudalError as error:
        key = {"locked": "sign_in.locked", "unauthenticated": "sign_in.wrong",
               "not_a_member": "sign_in.not_a_member", "no_tenant": "sign_in.no_tenant",
               "invalid": "sign_in.incomplete"}.get(error.code)  # fmt: skip
        if key is None:
            raise
        status = 429 if isinstance(error, Locked) else error.status
        return view.page("sign_in.html", status=status, next=next_page, login=login[:254], problem=key)
    return await enter(request, accounts, signed_in, next_page)


async def enter(
    request: Request[Any, Any, Any], accounts: Accounts, signed_in: SignedIn, address: str
) -> Response[str]:
    """A new session for somebody who proved who they are."""
    secret = await accounts.open_session(signed_in)
    answer = View(request).go(address)
    answer.set_cookie(Cookie(COOKIE, value=secret, httponly=True, samesite="lax", path="/",
                             secure=request.app.state.web.cookie_secure))  # fmt: skip
    return answer


@post("/sign-out", guards=[requires(Action.SELF_WRITE)], status_code=200)
async def sign_out(
    request: Request[Any, Any, Any], accounts: Given[Accounts], authenticator: Given[Authenticator]
) -> Response[str]:
    """End the session."""
    await _leave(request, accounts, authenticator)
    answer = View(request).go("/console/sign-in")
    answer.set_cookie(Cookie(COOKIE, value="", max_age=0, path="/", httponly=True))
    return answer


async def _leave(request: Request[Any, Any, Any], accounts: Accounts, authenticator: Authenticator) -> None:
    if secret := request.cookies.get(COOKIE):
        await accounts.close_session(secret)
        authenticator.forget(secret)


@get("/tenants", guards=[requires(Action.SELF_READ)])
async def tenants(view: Given[View], principal: Caller, accounts: Given[Accounts]) -> Response[str]:
    """Where else this person may work."""
    places = await accounts.workplaces(principal.user_id) if principal.user_id else []
    return view.page("tenants.html", section="tenants", places=places)


@post("/tenants", guards=[requires(Action.SELF_WRITE)], status_code=200)
async def switch(
    request: Request[Any, Any, Any],
    principal: Caller,
    accounts: Given[Accounts],
    authenticator: Given[Authenticator],
) -> Response[str]:
    """Work in another tenant: a new session in place of the present one."""
    if principal.user_id is None:
        raise Forbidden("Only a person can do this.")
    tenant = (await fields(request)).get("tenant", "")
    # Refuses a tenant that the person does not belong to.
    await accounts.token(principal.user_id, tenant)
    await _leave(request, accounts, authenticator)
    return await enter(request, accounts, SignedIn(principal.user_id, tenant), "/console/")


@post(
    "/preferences", guards=[public("language and theme are chosen before signing in, too")], status_code=200
)
async def preferences(request: Request[Any, Any, Any]) -> Response[str]:
    """Remember the language or the theme in this browser."""
    own_page(request)
    form = await fields(request)
    answer = View(request).go(local(form.get("next")))
    for name, allowed, cookie in (("language", LANGUAGES, LANGUAGE_COOKIE), ("theme", THEMES, THEME_COOKIE)):
        if form.get(name) in allowed:
            answer.set_cookie(Cookie(cookie, value=form[name], max_age=YEAR, path="/", samesite="lax",
                                     httponly=True, secure=request.app.state.web.cookie_secure))  # fmt: skip
    return answer


ROUTES = [sign_in_page, sign_in, sign_out, tenants, switch, preferences]
