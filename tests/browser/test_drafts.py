"""What somebody typed is there again after their session ended, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .axe import findings
from .conftest import PASSWORD, Site, Window
from .test_states import _end_session, _fresh

DRAFTS = "Object.keys(sessionStorage).filter((key) => key.startsWith('draft:')).length"


def _enter(page: Any, name: str) -> None:
    page.wait_for_url("**/console/sign-in?next=**")
    page.fill("[name=login]", name)
    page.fill("[name=password]", PASSWORD)
    page.click("button.primary")
    page.wait_for_url(lambda address: "sign-in" not in address)


def test_a_reply_survives_the_session(window: Callable[..., Window], site: Site) -> None:
    page = _fresh(window, "ana")
    page.goto("/console/conversations")
    page.fill("[name=name]", "rascunho & cia")
    page.fill("[name=recipient]", "tito")
    page.fill("[name=content]", "Bom dia")
    page.click("main button.primary")
    page.wait_for_url("**/thread?name=rascunho**")
    page.fill("[name=content]", "O medidor 3\nvoltou <b>hoje</b>")
    site.run(_end_session(site, "ana"))
    # The thread refreshes itself, and is led to the sign-in page while somebody is typing.
    _enter(page, "ana")
    page.wait_for_url("**/thread?name=rascunho**")
    reply = page.locator("textarea[name=content]")
    assert reply.input_value() == "O medidor 3\nvoltou <b>hoje</b>"
    assert "not sent or saved yet" in page.locator("form [role=status]").first.inner_text()
    assert findings(page) == []
    page.click("main button.primary")
    page.wait_for_function("() => document.querySelectorAll('#talk .said').length === 2")
    assert page.locator("#talk .said").nth(1).inner_text() == "O medidor 3\nvoltou <b>hoje</b>"
    page.reload()
    assert reply.input_value() == ""
    assert page.evaluate(DRAFTS) == 0


def test_a_correction_survives_the_session(window: Callable[..., Window], site: Site) -> None:
    letter = site.run(
        site.admin.fetchval("select min(id) from caudal.dead_letter where status = 'open' and pointer <> ''")
    )
    page = _fresh(window, "ana", locale="pt-BR")
    page.goto(f"/console/dead-letters/{letter}")
    before = page.locator("textarea[name=payload]").input_value()
    page.fill("textarea[name=payload]", '{"points": []}')
    # What was tried is not kept yet.
    page.get_by_role("button", name="Testar", exact=True).click()
    page.wait_for_selector("#tried > *")
    assert page.evaluate(DRAFTS) == 1
    site.run(_end_session(site, "ana"))
    page.locator("form[hx-post$=fix] button[type=submit]").click()
    _enter(page, "ana")
    page.wait_for_url(f"**/dead-letters/{letter}")
    field = page.locator("textarea[name=payload]")
    assert field.input_value() == '{"points": []}'
    # Typed back to what it was, there is nothing to keep; and what is not wanted is discarded.
    page.fill("textarea[name=payload]", before)
    assert page.evaluate(DRAFTS) == 0
    page.fill("textarea[name=payload]", "nada")
    page.reload()
    assert field.input_value() == "nada"
    page.get_by_role("button", name="Apagar o que digitei").click()
    assert field.input_value() == before
    assert page.evaluate(DRAFTS) == 0
    page.reload()
    assert field.input_value() == before


def test_what_one_typed_is_not_shown_to_another(window: Callable[..., Window], site: Site) -> None:
    page = _fresh(window, "ana")
    device = site.run(site.admin.fetchval("select id from caudal.device where name = 'sensor-4'"))
    page.goto(f"/console/devices/{device}")
    page.get_by_text("Rename and edit").click()
    page.fill("[name=display_name]", "Nome secreto")
    page.goto(f"/console/devices/{device}")
    # The fold is open where something was typed.
    assert page.locator("[name=display_name]").is_visible()
    assert page.locator("[name=display_name]").input_value() == "Nome secreto"
    site.run(_end_session(site, "ana"))
    page.reload()
    _enter(page, "tito")
    page.wait_for_url(f"**/devices/{device}")
    assert page.locator("[name=display_name]").input_value() != "Nome secreto"
    assert page.evaluate("JSON.stringify({...sessionStorage})").find("secreto") == -1
    # Who signs out leaves nothing behind.
    page.get_by_text("Rename and edit").click()
    page.fill("[name=display_name]", "Outro nome")
    assert page.evaluate(DRAFTS) == 1
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/console/sign-in")
    assert page.evaluate(DRAFTS) == 0
