"""A forgotten password, and invitations: what follows from a link that we mailed.

The secret stands in the link's fragment, which browsers send to nobody: the page's script moves it into the
form, and takes it out of the address.
"""

from __future__ import annotations

import re
from typing import Any

from litestar import Request, Response, get, post

from caudal.core.errors import CaudalError, InvalidInput
from caudal.registry.accounts import Accounts
from caudal.registry.mail import Post
from caudal.registry.settings import PeopleSettings
from caudal.web.api import auth
from caudal.web.console.entrance import STRANGERS, enter, own_page
from caudal.web.console.view import View
from caudal.web.inject import Given

NEEDS = frozenset({"post", "people_settings"})


@get("/forgotten", guards=STRANGERS)
async def forgotten_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Ask for an address."""
    return View(request).page("reset.html", sent=False)


@post("/forgotten", guards=STRANGERS, status_code=200)
async def forgotten(
    request: Request[Any, Any, Any],
    accounts: Given[Accounts],
    post: Given[Post],
    people_settings: Given[PeopleSettings],
) -> Response[str]:
    """Mail a link, if anybody has that address; the answer is the same for all."""
    own_page(request)
    email = str((await request.form()).get("email", "")).strip()
    if re.fullmatch(auth.EMAIL, email) and len(email) <= 254:
        await auth.begin_reset.fn(auth.ResetRequest(email), accounts, post, people_settings)
    return View(request).page("reset.html", sent=True)


def _page(
    request: Request[Any, Any, Any], kind: str, secret: str = "", error: CaudalError | None = None
) -> Response[str]:
    return View(request).page(
        "secret.html", status=error.status if error else 200, kind=kind, secret=secret,
        problem=error.sentence if error else None,
    )  # fmt: skip


async def _given(request: Request[Any, Any, Any]) -> dict[str, str]:
    own_page(request)
    form = await request.form()
    return {name: str(form.get(name, "")) for name in ("secret", "username", "password")}


def _check(password: str) -> None:
    if not 6 <= len(password) <= 1024:
        raise InvalidInput("The password must have six characters or more.")


@get("/reset", guards=STRANGERS)
async def reset_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Choose a new password."""
    return _page(request, "reset")


@post("/reset", guards=STRANGERS, status_code=200)
async def reset(request: Request[Any, Any, Any], accounts: Given[Accounts]) -> Response[str]:
    """Set it."""
    given = await _given(request)
    try:
        _check(given["password"])
        await accounts.finish_reset(given["secret"], given["password"])
    except CaudalError as error:
        return _page(request, "reset", given["secret"], error)
    return View(request).go("/console/sign-in", done="reset")


@get("/invitation", guards=STRANGERS)
async def invitation_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Join."""
    return _page(request, "invitation")


@post("/invitation", guards=STRANGERS, status_code=200)
async def invitation(request: Request[Any, Any, Any], accounts: Given[Accounts]) -> Response[str]:
    """Join, and be signed in."""
    given = await _given(request)
    username = given["username"].strip() or None
    try:
        _check(given["password"])
        if username and not re.fullmatch(r"[A-Za-z0-9_]{3,50}", username):
            raise InvalidInput("The user name has 3 to 50 letters, digits and underscores.")
        signed_in = await accounts.accept_invitation(given["secret"], username, given["password"])
    except CaudalError as error:
        return _page(request, "invitation", given["secret"], error)
    return await enter(request, accounts, signed_in, "/console/")


ROUTES = [forgotten_page, forgotten]
# The links in mail are short, and outside of /console.
OUTSIDE = [reset_page, reset, invitation_page, invitation]
