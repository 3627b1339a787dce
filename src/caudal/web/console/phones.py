"""The sandbox's phones beside the conversation: what a person saw and answers. For development alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
from litestar import Request, Response, get, post

from caudal.core.errors import InvalidInput, Unavailable
from caudal.registry.permissions import Action
from caudal.web.console import forms
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Given

NEEDS = frozenset({"sandbox"})
SHOWN = 20


async def _ask(sandbox: httpx.AsyncClient, method: str, address: str, body: object = None) -> Any:
    try:
        answer = await sandbox.request(method, f"/control{address}", json=body)
    except httpx.HTTPError as error:
        raise Unavailable("The sandbox does not answer. Is it running?") from error
    if answer.status_code >= 400:
        raise InvalidInput(f"The sandbox refuses: {answer.text[:200]}")
    return answer.json()


async def _phones(sandbox: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await _ask(sandbox, "GET", "/phones")
    accounts = await _ask(sandbox, "GET", "/accounts")
    for phone in found:
        address = quote(phone["address"], safe="")
        phone["shown"] = (await _ask(sandbox, "GET", f"/phones/{address}/messages"))[-SHOWN:]
        phone["accounts"] = [one for one in accounts if one["channel"] == phone["channel"]]
    return found


@get("/conversations/phones", guards=[requires(Action.MESSAGES_READ)])
async def phones(view: Given[View], sandbox: Given[httpx.AsyncClient]) -> Response[str]:
    """Every phone with what it shows; the page asks again every two seconds."""
    return view.page("phones.html", phones=await _phones(sandbox))


@post("/conversations/phones/write", guards=[requires(Action.MESSAGES_SEND)], status_code=200)
async def write(
    request: Request[Any, Any, Any], view: Given[View], sandbox: Given[httpx.AsyncClient]
) -> Response[str]:
    """The person with the phone writes."""
    form = forms.texts(await request.form())
    address, text = quote(form.get("address", ""), safe=""), form.get("text", "").strip()
    if not text:
        raise InvalidInput("text: write something.")
    await _ask(
        sandbox, "POST", f"/phones/{address}/messages", {"account": form.get("account", ""), "text": text}
    )
    return view.page("phones.html", phones=await _phones(sandbox))


@post("/conversations/phones/read", guards=[requires(Action.MESSAGES_SEND)], status_code=200)
async def read(
    request: Request[Any, Any, Any], view: Given[View], sandbox: Given[httpx.AsyncClient]
) -> Response[str]:
    """The person reads what there is."""
    form = forms.texts(await request.form())
    await _ask(sandbox, "POST", f"/phones/{quote(form.get('address', ''), safe='')}/read", {})
    return view.page("phones.html", phones=await _phones(sandbox))


ROUTES = [phones, write, read]
