"""Errors as pages: what happened, whose turn it is, and the request's id for who must look for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
from litestar import Request, Response, get
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from caudal.core.errors import CaudalError, NotFound
from caudal.registry.principal import Principal
from caudal.web import problems
from caudal.web.console.view import HEADERS, View
from caudal.web.guards import public

# Errors with words of their own, by code, then by status; the service's own sentence stands below them.
TITLES = {"csrf": "error.csrf", "rate_limited": "error.rate_limited"}
BY_STATUS = {400: "error.invalid", 403: "error.forbidden", 404: "error.not_found", 405: "error.not_found",
             409: "error.conflict", 413: "error.too_large", 429: "error.rate_limited",
             503: "error.unavailable"}  # fmt: skip


def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """A page, or a notice where a part of one was asked for; the sign-in page for who is not signed in."""
    told = _told(request, error)
    path = request.url.path
    if told.status_code == 401 and not path.startswith("/console/sign-in"):
        part = request.headers.get("hx-request") == "true"
        # Who was at work on a page comes back to it, whatever it had asked for.
        back = _present_page(request) if part else path if request.method == "GET" else ""
        if not part and request.url.query:
            back += f"?{request.url.query}" if back else ""
        address = "/console/sign-in" + (f"?next={quote(back, safe='')}" if back else "")
        if part:
            return Response("", headers={**HEADERS, "hx-redirect": address})
        return Response("", status_code=303, headers={**HEADERS, "location": address})
    problem = told.content
    principal = request.scope.get("user")
    view = View(request, principal=principal if isinstance(principal, Principal) else None)
    title = TITLES.get(problem.code) or BY_STATUS.get(problem.status, "error.internal")
    headers = {name: value for name, value in told.headers.items() if name.lower() == "retry-after"}
    context: dict[str, Any] = {"title_key": title, "problem": problem}
    if view.htmx:
        headers |= {"hx-retarget": "#notice", "hx-reswap": "innerHTML"}
        return view.page("error_part.html", status=problem.status, headers=headers, **context)
    return view.page("error.html", status=problem.status, headers=headers, **context)


def _present_page(request: Request[Any, Any, Any]) -> str:
    """The page that a part was asked for, without its host; the sign-in page takes only our own (`local`)."""
    address = urlsplit(request.headers.get("hx-current-url", ""))
    return address.path + (f"?{address.query}" if address.query else "")


def _told(request: Request[Any, Any, Any], error: Exception) -> Response[problems.Problem]:
    if isinstance(error, CaudalError):
        return problems.on_caudal_error(request, error)
    if isinstance(error, HTTPException):
        return problems.on_http_exception(request, error)
    if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)):
        return problems.on_database_error(request, error)
    return problems.on_exception(request, error)


HANDLERS: dict[int | type[Exception], Any] = dict.fromkeys(problems.HANDLERS, on_error)


@get("/{rest:path}", guards=[public("says that nothing is here")], sync_to_thread=False)
def nothing_here(rest: FromPath[str]) -> None:
    """Every other address."""
    raise NotFound("There is no page at this address.")
