"""The console without a browser: who gets in, what the answers carry, and how it reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import pytest

from caudal.registry.permissions import Role
from caudal.web.console.locale import Locale, chosen
from caudal.web.console.view import local
from caudal.web.door import Door

FORM = {"login": "ana", "password": "secret"}


async def sign_in(api: Any, role: Role = Role.OWNER, tenant: str = "acme") -> None:
    """The client of `api` becomes the browser of somebody with this role."""
    await api.person(tenant, role, username="ana", email="ana@example.com")
    answer = await api.client.post("/console/sign-in", data=FORM)
    assert answer.status_code == 303, answer.text


async def test_a_stranger_is_led_to_the_sign_in_page_and_back(running_api: Any) -> None:
    answer = await running_api.client.get("/")
    assert answer.headers["location"] == "/console/"
    answer = await running_api.client.get("/console/?span=30d")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=%2Fconsole%3Fspan%3D30d"
    page = await running_api.client.get(answer.headers["location"])
    assert 'value="/console?span=30d"' in page.text
    await running_api.person("acme", Role.VIEWER, username="ana")
    answer = await running_api.client.post("/console/sign-in", data={**FORM, "next": "/console/?span=30d"})
    assert answer.headers["location"] == "/console/?span=30d"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert (await running_api.client.get("/console/")).status_code == 200


@pytest.mark.parametrize(
    "bad", ["https://evil.example/", "//evil.example", "/console/\\evil", "/api/me", "", None]
)
def test_no_open_redirect(bad: str | None) -> None:
    assert local(bad) == "/console/"


async def test_sign_in_says_what_is_wrong_and_locks(running_api: Any) -> None:
    await running_api.person("acme", Role.VIEWER, username="ana")
    for form, status, words in (
        ({"login": "ana", "password": "wrong"}, 401, "The name or the password is wrong."),
        ({"login": "ana", "password": ""}, 400, "Give a name and a password."),
        (
            {"login": "ana", "password": "secret", "tenant": "elsewhere"},
            403,
            "You do not belong to that account.",
        ),
    ):
        answer = await running_api.client.post("/console/sign-in", data=form)
        assert answer.status_code == status
        assert words in answer.text
    for _ in range(6):
        answer = await running_api.client.post("/console/sign-in", data={"login": "ana", "password": "wrong"})
    assert answer.status_code == 429
    assert "five minutes" in answer.text
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert (await running_api.client.post("/console/sign-in", data=FORM, headers=foreign)).status_code == 403


async def test_every_page_has_a_strict_policy_and_writes_need_the_token(running_api: Any) -> None:
    await sign_in(running_api)
    page = await running_api.client.get("/console/")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert " style=" not in page.text
    assert " onclick" not in page.text
    answer = await running_api.client.post("/console/sign-out")
    assert answer.status_code == 403
    token = (await running_api.client.get("/api/me")).json()["csrf"]
    headers = {"X-CSRF-Token": token, "HX-Request": "true"}
    answer = await running_api.client.post("/console/sign-out", headers=headers)
    assert answer.headers["hx-redirect"] == "/console/sign-in"
    assert (await running_api.client.get("/console/")).status_code == 303


async def test_errors_are_pages(running_api: Any) -> None:
    await sign_in(running_api)
    for address, status in (
        ("/console/nowhere", 404),
        ("/console/?span=century", 400),
        ("/console/?site=x", 400),
    ):
        page = await running_api.client.get(address, headers={"Accept-Language": "pt"})
        assert page.status_code == status, address
        assert page.headers["content-type"].startswith("text/html")
        assert 'lang="pt-BR"' in page.text
        assert page.headers["x-request-id"] in page.text


async def test_a_database_that_is_away_is_said(running_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with a way to try again, in one's language; a notice where a part of a page was asked for."""
    await sign_in(running_api)

    def away(_: Door) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(Door, "read", away)
    page = await running_api.client.get("/console/devices?search=x", headers={"Accept-Language": "pt"})
    assert page.status_code == 503
    assert "Banco de dados fora do ar" in page.text
    assert "Tente de novo em alguns segundos" in page.text
    assert 'href="/console/devices?search=x"' in page.text
    part = await running_api.client.get("/console/devices", headers={"HX-Request": "true"})
    assert part.status_code == 503
    assert part.headers["hx-retarget"] == "#notice"
    assert "<html" not in part.text
    monkeypatch.undo()
    assert (await running_api.client.get("/console/devices")).status_code == 200


async def test_who_is_signed_out_comes_back_to_the_page(running_api: Any) -> None:
    answer = await running_api.client.get("/console/devices?search=a&site=1")
    assert answer.headers["location"] == "/console/sign-in?next=%2Fconsole%2Fdevices%3Fsearch%3Da%26site%3D1"
    headers = {"HX-Request": "true", "HX-Current-URL": "https://host/console/points?kind=state"}
    answer = await running_api.client.get("/console/points", headers=headers)
    assert answer.headers["hx-redirect"] == "/console/sign-in?next=%2Fconsole%2Fpoints%3Fkind%3Dstate"
    # Whatever the address says, sign-in leads to our own pages alone (`local`).
    headers["HX-Current-URL"] = "https://host//evil.example/"
    answer = await running_api.client.get("/console/points", headers=headers)
    assert local(unquote(answer.headers["hx-redirect"].split("next=")[1])) == "/console/"


async def test_a_member_sees_no_telemetry_and_is_told(running_api: Any) -> None:
    await sign_in(running_api, Role.MEMBER)
    page = await running_api.client.get("/console/", follow_redirects=True)
    assert page.status_code == 200
    assert "card.consumption" not in page.text


async def test_language_and_theme_are_remembered(running_api: Any) -> None:
    page = await running_api.client.get(
        "/console/sign-in", headers={"Accept-Language": "fr, pt-BR;q=0.8, en;q=0.5"}
    )
    assert "Usuário ou e-mail" in page.text
    form = {"language": "en", "theme": "dark", "next": "/console/sign-in"}
    answer = await running_api.client.post("/console/preferences", data=form)
    assert answer.headers["location"] == "/console/sign-in"
    page = await running_api.client.get("/console/sign-in", headers={"Accept-Language": "pt"})
    assert 'data-theme="dark"' in page.text
    assert "User name or e-mail" in page.text


async def test_assets_are_compressed_and_kept(running_api: Any) -> None:
    page = await running_api.client.get("/console/sign-in")
    address = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = await running_api.client.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    plain = await running_api.client.get(address, headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content
    for name in ("../view.py", "%2e%2e/view.py", "nothing.js"):
        assert (await running_api.client.get(f"/console/static/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("accept", "cookie", "language"),
    [("", None, "en"), ("pt-PT", None, "pt"), ("en;q=0.1, pt;q=0.2", None, "pt"), ("de, fr", None, "en"),
     ("pt", "en", "en"), ("pt;q=x", None, "en"), ("pt;q=0", "xx", "en"), (",;q=", None, "en")],
)  # fmt: skip
def test_language_is_chosen(accept: str, cookie: str | None, language: str) -> None:
    assert chosen(cookie, accept) == language


def test_numbers_and_dates_read_as_people_write_them() -> None:
    english, portuguese = (Locale(name, ZoneInfo("America/Sao_Paulo")) for name in ("en", "pt"))
    assert english.number(1234567.891) == "1,234,568"
    assert portuguese.number(1234.5) == "1.234,5"
    assert [english.number(value) for value in (0.0, 12.30, 0.000012, 1e15, 21, None)] == [
        "0", "12.3", "1.2e-05", "1e+15", "21", "–",
    ]  # fmt: skip
    at = datetime(2026, 3, 1, 1, 30, tzinfo=UTC)
    assert english.time(at) == "28 Feb 2026, 22:30:00"
    assert portuguese.time(at) == "28 fev. 2026, 22:30:00"
    now = at + timedelta(minutes=90)
    assert english.ago(at, now) == "1 h ago"
    assert portuguese.ago(at, now) == "há 1 h"
    assert english.ago(now, at) == "1 h ahead of our clock"
    assert english.size(1_540_000) == "1.5 MB"
    assert portuguese.value(True) == "ligado"
